package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/seal"
	"rhumb/edge/upload"
)

// Over TLS an upload comes in records of any length, so that no position in the object
// follows from one among the client's octets. The Backup is told text, as it is in clear, and
// by places which record of the client's comes behind it and what is here of that record, as it
// came: acknowledgements go as far as the last octet that came, since a client whose window
// is smaller than a record would wait for ever behind one that is not whole.
//
// What the server says is bound as well: one record number must never seal two texts, and
// somebody else may have gone on with the upload. So its answer is decided when it begins,
// and is in its record: whoever has the whole object gives this answer. Any other word is
// said only when everybody who was ever asked to keep the upload has let it go; else the
// connection is cut.

// errSaid: a client cannot be told what its upload has come to.
var errSaid = errors.New("another site may give another answer")

// place is how far an upload over TLS has come among its client's records.
type place struct {
	plain   int64  // octets of the object that came of whole records
	wire    int64  // octets of these records
	number  uint64 // of the record behind them
	updates int    // of the client's key since the turn's record
	tail    []byte // what is here of that record; it is never opened before it is whole
}

// end counts the octets of the client's that are here.
func (p *place) end() int64 { return p.wire + int64(len(p.tail)) }

// places are what an upload over TLS has beyond one in clear. What is told by links' readers
// stands below the mutex of sending.
type places struct {
	sealed  bool
	verdict int   // status of the answer, decided at the beginning; 0: any may be given
	at      place // the session's

	shown   int64           // octets of the client's that the Backup was told of
	kept    int64           // that it has
	anew    bool            // it is to be told all of the place
	holders map[string]bool // who may keep the upload
}

// received counts the octets of the object that are here.
func (s *sending) received() int64 {
	if s.sealed {
		return s.at.plain
	}
	return s.file.Length()
}

// placed takes how far a Backup is. The caller holds mu.
func (s *sending) placed(seq uint64, m upload.Message) {
	plain, wire := int64(m.Offset), int64(m.Wire)
	if seq != 0 {
		if seq == s.nonce {
			s.progress(seq, plain)
			s.shown, s.kept, s.anew = wire, wire, true
		}
		return
	}
	if s.opened {
		s.progress(0, plain)
		s.kept = max(s.kept, min(wire, s.shown))
	}
}

// reached counts the client's octets that are here, of the object and around it.
func (s *sending) reached() int64 {
	if s.sealed {
		return s.at.end()
	}
	return s.file.Length()
}

// owed reports whether the Backup has been told what it has not confirmed. The caller
// holds mu.
func (s *sending) owed() bool { return s.sent != s.safe || s.sealed && s.shown != s.kept }

// pushPlace tells the place, once the text before it is told.
func (s *sending) pushPlace() {
	s.mu.Lock()
	l, p := s.link, &s.at
	due := l != nil && s.opened && s.sent >= p.plain && (s.anew || p.end() > s.shown)
	from := int64(0)
	if !s.anew {
		from = max(0, s.shown-p.wire) // the rest of that record is there
	}
	s.mu.Unlock()
	if !due {
		return
	}
	m := upload.Message{Kind: upload.Place, ID: s.id, Offset: uint64(p.plain), Wire: uint64(p.wire),
		Number: uint32(p.number), Updates: uint8(p.updates), Tail: uint16(from), Data: p.tail[from:]}
	if s.send(l, 0, m) != nil {
		return // the link is down: another one is asked
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l {
		s.shown, s.anew = max(s.shown, p.end()), false
	}
}

// mayKeep notes who is asked to keep the upload.
func (s *sending) mayKeep(peer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holders == nil {
		s.holders = map[string]bool{}
	}
	s.holders[peer] = true
}

// keepers are those who were asked and have not let it go.
func (s *sending) keepers() (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for peer := range s.holders {
		out = append(out, peer)
	}
	return out
}

// release has everybody who may keep the upload let it go. If it reports true nobody but
// this site speaks to the client any more.
func (s *sending) release(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, openLimit)
	defer cancel()
	for _, peer := range s.keepers() {
		l, err := s.u.a.links.to(ctx, peer)
		if err != nil {
			return false
		}
		if err := s.send(l, 0, upload.Message{Kind: upload.Drop, ID: s.id}); err != nil {
			return false
		}
	}
	for len(s.keepers()) > 0 {
		select {
		case <-s.word:
		case <-ctx.Done():
			return false
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.lost
}

// judged is the status that a client is told, of what its upload has come to: that an
// object is there is told as it was decided at the beginning.
func (s *sending) judged(status int) int {
	if s.verdict != 0 && (status == http.StatusCreated || status == http.StatusNoContent) {
		return s.verdict
	}
	return status
}

// maySay reports whether a status can be told: it is the one that everybody would tell, or
// nobody else tells any.
func (s *session) maySay(ctx context.Context, status int) bool {
	switch {
	case s.up.verdict == 0 || status == s.up.verdict:
		return true
	case s.turn.Load().rec.Flags&frame.Last != 0:
		return false // its old owner may live and go on
	}
	return s.up.release(ctx)
}

// quit ends an upload because of what its client did. A word about it under TLS has the
// number of the answer.
func (s *session) quit(ctx context.Context, why error) error {
	var alert seal.Alert
	switch {
	case s.cover == nil || !errors.As(why, &alert) && !errors.Is(why, seal.ErrUpdateRequested):
		return why
	case !s.maySay(ctx, 0):
		s.conn.SetLinger(0)
		return why
	}
	s.endUpload()
	return s.part(why)
}

// stageText stages what of the object stands in input.
func (s *session) stageText(from int) error {
	up := s.up
	n := int(min(int64(len(s.input)-from), up.file.Request().Size-up.at.plain))
	if n == 0 {
		return nil
	}
	// Of one that was taken over more may be there than its place says: it is the same.
	if _, err := up.file.Append(up.at.plain, s.input[from:from+n]); err != nil {
		return err
	}
	up.at.plain += int64(n)
	s.input = s.input[:from+copy(s.input[from:], s.input[from+n:])]
	return nil
}

// presend stages what of the object came with the request of length n, and tells it to
// the Backup before that has the record.
func (s *session) presend(n int) error {
	if !s.up.sealed {
		return nil
	}
	if s.space == nil {
		s.space = make([]byte, upload.MaxData)
	}
	if err := s.stageText(n); err != nil {
		return err
	}
	return s.up.push(s.space)
}

// takeSealed stages the text of the records that came, or that come within a moment, and
// returns how many octets of the client's that were.
func (s *session) takeSealed(until time.Time) (int, error) {
	before := s.up.at.end()
	if err := s.openAll(); err != nil || s.up.at.end() > before || s.up.at.plain == s.up.file.Request().Size {
		return int(s.up.at.end() - before), err
	}
	s.gate.deadline(func() { s.conn.SetReadDeadline(until) })
	n, err := s.conn.Read(s.space)
	s.cover.opener.Feed(s.space[:n])
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return n, errors.Join(s.openAll(), &clientError{err})
	}
	return n, s.openAll()
}

// openAll opens the records that are whole, up to the object's end.
func (s *session) openAll() error {
	up, c := s.up, s.cover
	size := up.file.Request().Size
	if err := s.stageText(0); err != nil {
		return err
	}
	for up.at.plain < size {
		wire, err := c.open(&s.input)
		if err != nil {
			return &clientError{fmt.Errorf("edge: upload: %w", err)}
		}
		if wire == 0 {
			break
		}
		if err := s.stageText(0); err != nil {
			return err
		}
		up.at.wire += int64(wire)
		up.at.number, up.at.updates = c.opener.Number(), c.updates-s.turn.Load().seat.updates
	}
	c.settle(len(s.input))
	if up.at.tail = c.opener.Raw(); up.at.plain == size {
		up.at.tail = nil // what follows is no octet of it
	}
	return nil
}

// sealedEnd is where the client's octets behind the object begin.
func (s *session) sealedEnd() (rcv uint32, at seat) {
	c := s.cover
	c.endTaking()
	rcv = s.up.first + uint32(s.up.at.wire) - uint32(c.opened)
	return rcv, seat{client: uint32(c.opener.Number()), updates: c.updates, known: c.opened == 0}
}
