package edge

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/seal"
)

// pinned keeps a session at its site.
const pinned = frame.Pinned

// Reasons why an offered session over TLS is refused.
var (
	errSealed = errors.New("service does not take sessions over TLS, or takes no others")
	errBound  = errors.New("response would not be the same here")
)

// cover is the TLS of a session whose record layer is ours. It belongs to the
// session's goroutine like the session, except for what mu guards.
type cover struct {
	moves   bool // its secrets may go to other sites
	buffers *seal.Buffers
	sealer  *seal.Sealer
	opener  *seal.Opener
	next    uint64 // number of the first record behind the current turn
	opened  int    // wire bytes of the records whose text is not answered
	last    int    // those of the last of them

	mu          sync.Mutex
	write, read seal.Secret // wiped: the session has ended here
	updates     int         // generation of read
	// taking: an upload is under way. Its record stays that of its beginning, and so does
	// the secret in it: began is that of its beginning, once read is another one.
	taking bool
	began  seal.Secret
}

// seat is where a turn stands in the connection's records. Immutable.
type seat struct {
	client  uint32 // number of the client's record that comes at the turn's rcv
	updates int    // generation of the secret it is counted under
	known   bool   // false: a request was in the same record as this turn's
}

// newCover makes the record layer from both secrets, which it copies.
func newCover(t *terminator, suite seal.Suite, write, read []byte) (*cover, error) {
	c := &cover{moves: t.export == ExportGroup, buffers: t.buffers}
	var err error
	if c.write, err = seal.NewSecret(suite, write); err == nil {
		c.read, err = seal.NewSecret(suite, read)
	}
	if err == nil {
		c.sealer, err = seal.NewSealer(&c.write)
	}
	if err == nil {
		c.opener, err = seal.NewOpener(&c.read, 0)
	}
	return c, err
}

// wipe overwrites the secrets and ends the record layer. Calling it twice, or
// on a session in clear, is harmless.
func (c *cover) wipe() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write.Wipe()
	c.read.Wipe()
	c.began.Wipe()
	if c.sealer != nil {
		c.sealer.Wipe()
	}
	if c.opener != nil {
		c.opener.Wipe()
	}
}

// wrap puts a turn under cover: from here on its wire bytes are records. The
// turn's number range is spent with that; it is never sealed for another text.
func (c *cover) wrap(t *turn) error {
	if c == nil {
		return nil
	}
	bare := t.wire
	st, err := seal.NewStream(c.sealer, c.next, bare.size(), bare.at, t.rec.Flags&(frame.Close|frame.Upload) == frame.Close, c.buffers)
	if err != nil {
		return err
	}
	t.wire.sealed, c.next = st, st.Next()
	return nil
}

// worn tells that the secret has sealed much (RFC 8446 section 5.5): the next
// response is the connection's last, and the client makes a new one.
func (c *cover) worn() bool {
	return c != nil && c.next > c.write.Suite().Limit()/2
}

// consume accounts for a request of which left bytes of text stay behind, and
// returns its wire bytes. Text that stays is that of the last record: no record
// is opened while a whole request is there.
func (c *cover) consume(left int) (wire int, at seat) {
	wire, c.opened = c.opened, 0
	if left > 0 {
		wire, c.opened = wire-c.last, c.last
	}
	return wire, seat{client: uint32(c.opener.Number()), updates: c.updates, known: left == 0}
}

// ahead counts the wire bytes which were read of the connection and belong to
// no answered request.
func (s *session) ahead() int {
	if s.cover == nil {
		return len(s.input)
	}
	return s.cover.opened + len(s.cover.opener.Raw())
}

// unread is all that was read and not answered, as it travels: text, then
// records not opened.
func (s *session) unread() []byte {
	b := append([]byte(nil), s.input...)
	if s.cover != nil {
		b = append(b, s.cover.opener.Raw()...)
	}
	return b
}

// read takes what the client sent into input and returns the bytes that came
// of the connection.
func (s *session) read(buf []byte) (int, error) {
	c := s.cover
	if c == nil {
		n, err := s.conn.Read(buf)
		s.input = append(s.input, buf[:n]...)
		return n, err
	}
	for {
		wire, err := c.open(&s.input)
		switch {
		case err != nil:
			return 0, s.part(err)
		case wire > 0:
			return wire, nil
		}
		n, err := s.conn.Read(buf)
		c.opener.Feed(buf[:n])
		if err != nil {
			return n, err
		}
	}
}

// open opens the next record that is whole and adds its text to input.
func (c *cover) open(input *[]byte) (int, error) {
	c.mu.Lock() // a KeyUpdate changes read
	defer c.mu.Unlock()
	before := c.read
	text, wire, err := c.opener.Next(*input)
	if c.read != before {
		c.updates++
		if c.taking && !c.began.Suite().Valid() {
			c.began = before
		}
	}
	before.Wipe()
	*input = text
	c.opened += wire
	if wire > 0 {
		c.last = wire
	}
	return wire, err
}

// part ends the connection because of what the client sent: its close, an
// alert, or what it may not send. An answer takes the record number behind the
// current turn. Only bytes of the client's can lead here, so a Backup, which has
// not heard of them, refuses the session rather than using that number too.
func (s *session) part(why error) error {
	if err := s.pin(); err != nil {
		return err
	}
	s.unhold() // nothing that comes is taken any more
	var say seal.Alert
	var heard seal.Heard
	switch {
	case errors.As(why, &heard) && heard.Alert == seal.CloseNotify, errors.Is(why, seal.ErrUpdateRequested):
		say, why = seal.CloseNotify, io.EOF
	case errors.As(why, &heard), !errors.As(why, &say):
		return why
	}
	b, err := s.cover.sealer.Alert(nil, s.cover.next, say)
	if err != nil {
		return errors.Join(why, err)
	}
	s.cover.next++
	s.conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := s.conn.Write(b); err != nil {
		return err
	}
	if err := s.bye(); err != nil {
		return err
	}
	return why
}

// describe writes the secrets into a record of a turn. One which the numbers
// are not known for cannot be gone on with elsewhere, and says so.
func (c *cover) describe(rec *frame.Record, t *turn) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	began := c.taking && t.rec.Flags&frame.Upload != 0 && c.began.Suite().Valid()
	if !c.write.Suite().Valid() || !t.seat.known || t.seat.updates != c.updates && !began {
		rec.Flags |= pinned
		return
	}
	c.fill(rec, t, t.seat.client)
	if began {
		copy(rec.Cover.Read[:], c.began.Bytes())
	}
}

// beginTaking accounts for the request of an upload and for what was opened with it, of which
// left bytes of text belong to neither.
func (c *cover) beginTaking(left int) seat {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taking = true
	c.settle(left)
	return seat{client: uint32(c.opener.Number()), updates: c.updates, known: true}
}

// settle accounts for records that were opened and answered, but for left bytes of text of
// the last one.
func (c *cover) settle(left int) {
	if c.opened = 0; left > 0 {
		c.opened = c.last
	}
}

// endTaking forgets with which secret the upload began.
func (c *cover) endTaking() {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taking = false
	c.began.Wipe()
}

// fill is describe for a client record number that is known. The caller holds mu.
func (c *cover) fill(rec *frame.Record, t *turn, client uint32) {
	text := boundTo(t)
	rec.Cover = frame.Cover{Suite: uint8(c.write.Suite()), Client: client, Server: uint32(t.wire.sealed.First()), Text: [8]byte(text[:])}
	copy(rec.Cover.Write[:], c.write.Bytes())
	copy(rec.Cover.Read[:], c.read.Bytes())
}

// offer adds to an offer what TLS needs. The session's goroutine is at the gate.
func (c *cover) offer(o *frame.Offer, t *turn, plain int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fill(&o.Record, t, uint32(c.opener.Number()))
	o.Bound = frame.Bound{Plain: uint32(plain), Text: boundTo(t)}
}

// boundTo digests all that the records of a turn depend on but the secrets: the
// size of a record, each byte of the head, and which bytes of which object.
func boundTo(t *turn) (out [16]byte) {
	h := sha256.New()
	w, be := t.wire, binary.BigEndian
	b := be.AppendUint64([]byte("rhumb response under TLS 1.3\x00"), seal.Size)
	for _, v := range []uint64{w.sealed.First(), uint64(w.sealed.Len()), uint64(w.start), uint64(w.length), t.rec.Size, uint64(len(w.head))} {
		b = be.AppendUint64(b, v)
	}
	h.Write(append(b, t.rec.Object[:]...))
	h.Write(w.head)
	copy(out[:], h.Sum(nil))
	return out
}

// coverOf is the record layer of an offered session, nil for one in clear. A
// service which seals takes no session in clear, and the other way round.
func coverOf(svc *service, o *frame.Offer) (*cover, error) {
	in := &o.Record.Cover
	takes := svc.tls != nil && svc.tls.export == ExportGroup
	switch {
	case in.Suite == 0 && svc.tls == nil:
		return nil, nil
	case in.Suite == 0 || !takes:
		return nil, errSealed
	}
	suite := seal.Suite(in.Suite)
	n := suite.SecretLen()
	c, err := newCover(svc.tls, suite, in.Write[:n], in.Read[:n])
	if err != nil {
		return nil, err
	}
	if c.opener, err = seal.NewOpener(&c.read, uint64(in.Client)); err != nil {
		return nil, err
	}
	raw := o.Input[o.Bound.Plain:]
	c.opener.Feed(raw)
	c.next = uint64(in.Server)
	c.opened = int(o.RcvNxt-o.Record.RcvNxt) - len(raw)
	c.last = c.opened
	if c.opened < 0 {
		return nil, fmt.Errorf("edge: %d bytes of records and %d unopened", o.RcvNxt-o.Record.RcvNxt, len(raw))
	}
	o.Input = o.Input[:o.Bound.Plain]
	return c, nil
}

// match refuses a turn whose records would not be those of the giver. The whole
// digest is known of a living one; a record begins with it.
func (c *cover) match(t *turn, o *frame.Offer) error {
	if c == nil {
		return nil
	}
	t.seat = seat{client: o.Record.Cover.Client, known: c.opened == 0}
	text := boundTo(t)
	if [8]byte(text[:]) != o.Record.Cover.Text || o.Bound.Text != ([16]byte{}) && o.Bound.Text != text {
		return errBound
	}
	return nil
}
