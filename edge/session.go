package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"rhumb/edge/content"
	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// State is where a session stands at this site.
type State int32

// The states. A session is claimed by the change from active to dumped; only
// the claimant changes it from there.
const (
	Active    State = iota // served here, may be moved
	Dumped                 // silent, its state read, not yet given away
	Moving                 // given away, the other side has not confirmed
	Forwarded              // owned elsewhere, its packets pass through here
	Pinned                 // served here, cannot be moved now
)

func (s State) String() string {
	return [...]string{"active", "dumped", "moving", "forwarded", "pinned"}[s]
}

// errGone ends the goroutine of a session that was handed off.
var errGone = errors.New("session was handed off")

// stopLimit is how long a session may take to come to its gate. Only a block
// being read from a slow disk or origin takes longer than microseconds.
const stopLimit = 100 * time.Millisecond

// session is one client's connection. All fields without a remark belong to
// its goroutine, or to whoever holds that at the gate.
type session struct {
	key     frame.Key     // immutable
	conn    *net.TCPConn  // immutable
	started time.Time     // immutable
	epoch   uint64        // immutable
	svc     *service      // immutable
	local   bool          // immutable: the client is this host, as a health check is
	state   atomic.Int32  // State
	gen     atomic.Uint32 // generation, rises with each dump
	gate    gate
	turn    atomic.Pointer[turn]
	input   []byte       // received, not answered
	buf     *buffer      // for reading
	vec     [2][]byte    // for writing
	stuck   int          // bytes in flight when it came, if thaw shall wait for their ACK
	lastMv  atomic.Int64 // ns the last move took, 0 if none
	cover   *cover       // TLS of our own record layer; nil without
	protection
	receiving
	leash
}

// protection is what lets a session outlive its process and its site.
type protection struct {
	reg   tcprepair.Registration // what a record says of the connection; zero if not shadowed
	regAt time.Time              // when that was read
	// backup are who shadow it, by tier.
	backup  [tierCount]atomic.Pointer[string]
	deposit atomic.Pointer[string] // who keeps its record for the next process alone
	bare    [tierCount]atomic.Bool // nobody has room for it, by tier
	heirOf  string                 // whose session it was, if it was revived here
	changed func(*session)         // called after each new turn; nil if not shadowed
	quiet   *hush                  // where its silence is asked for; nil: nowhere
	came    bool                   // from another site or process, which may have silenced it here
	spoken  sync.Once              // unquiet
	queued  atomic.Bool            // its record is about to be told
	closing atomic.Bool            // no silence from here on
	haste   haste
	done    chan struct{} // closed when it has ended here
}

// turn is the response in progress, or the last one. Only off changes.
type turn struct {
	rec  frame.Record
	name string
	wire wire
	base uint32       // sequence number of wire offset 0, if the session is shadowed
	rcv  uint32       // next sequence number after the request, if shadowed
	seat seat         // among the records of the connection, if it is under cover
	off  atomic.Int64 // bytes of wire the kernel has taken
	// fresh is kept when the Backup has this turn's record; nil with L0.
	fresh *pledge
	piece []byte // what came of the next request, as far as the Backup is told; immutable
}

// with is the turn with more of the next request.
func (t *turn) with(piece []byte) *turn {
	next := &turn{rec: t.rec, name: t.name, wire: t.wire, base: t.base, rcv: t.rcv, seat: t.seat, fresh: newPledge(), piece: piece}
	next.off.Store(t.off.Load())
	return next
}

// waive lets the response begin without a Backup.
func (t *turn) waive() { t.fresh.waive() }

func (s *session) claim() bool {
	return s.state.CompareAndSwap(int32(Active), int32(Dumped))
}

// stop brings the claimed session's goroutine to the gate.
func (s *session) stop() bool { return s.stopWithin(stopLimit) }

func (s *session) stopWithin(limit time.Duration) bool {
	past := time.Unix(1, 0)
	return s.gate.stop(limit,
		func() { s.conn.SetDeadline(past) }, func() { s.conn.SetDeadline(time.Time{}) })
}

// release lets a stopped session go on here. The claim ends last: the next
// claimant must find the gate as if nobody had been there.
func (s *session) release() {
	s.conn.SetDeadline(time.Time{})
	s.gate.resume(true)
	s.state.Store(int32(s.resting()))
}

// resting is the state of a session that nobody has claimed.
func (s *session) resting() State {
	if s.local || s.turn.Load().rec.Flags&(frame.Pinned|frame.Upload) != 0 || s.cover != nil && !s.cover.moves {
		return Pinned
	}
	return Active
}

// serve answers requests until the connection ends or is handed off. A
// session that came from elsewhere begins in the middle of its turn.
func (s *session) serve(ctx context.Context) error {
	if err := thaw(ctx, s.conn, s.stuck); err != nil {
		return err
	}
	for {
		if err := s.respond(); err != nil {
			return err
		}
		s.sent()
		if s.up != nil {
			if err := s.receive(ctx); err != nil {
				return err
			}
			continue
		}
		if s.turn.Load().rec.Flags&(frame.Close|frame.Last) != 0 {
			return s.bye()
		}
		req, n, err := s.request(ctx)
		if err != nil {
			return err
		}
		s.passes(pointHead)
		if err := s.begin(ctx, req, n); err != nil {
			return err
		}
		// Only now: between here and the read there is no gate, so whoever
		// moves the session finds a request either in input or in the turn.
		s.input = s.input[:copy(s.input, s.input[n:])]
		s.secure(ctx, s.turn.Load())
		s.passes(pointSecured)
	}
}

// respond writes what is left of the response.
func (s *session) respond() error {
	t := s.turn.Load()
	if t.off.Load() < t.wire.size() {
		s.loosen(t)
	}
	for {
		if !s.gate.pass() {
			return errGone
		}
		b, err := t.wire.at(t.off.Load())
		if err == io.EOF {
			s.tighten(t)
			return nil
		}
		if err != nil {
			// Part of the promised length is missing: only a cut tells.
			s.conn.SetLinger(0)
			return fmt.Errorf("edge: %s %q at %d: %w", s.svc.Name, t.name, t.off.Load(), err)
		}
		until := time.Now().Add(s.svc.limits.Write)
		s.gate.deadline(func() { s.conn.SetWriteDeadline(until) })
		n, err := s.write(t, b)
		t.off.Add(n)
		// A client that takes some bytes in each period is slow, not gone;
		// a deadline before its time was a stop's.
		if err != nil && !(errors.Is(err, os.ErrDeadlineExceeded) && (n > 0 || time.Now().Before(until))) {
			return err
		}
	}
}

// write sends b, which begins at the offset of t. Behind a head it takes the first bytes
// of the body along: one call for most responses.
func (s *session) write(t *turn, b []byte) (int64, error) {
	if head := int64(len(t.wire.head)); t.wire.sealed == nil && t.wire.length > 0 && t.off.Load() < head {
		if first, err := t.wire.at(head); err == nil {
			s.vec = [2][]byte{b, first}
			both := net.Buffers(s.vec[:])
			return both.WriteTo(s.conn)
		}
	}
	n, err := s.conn.Write(b)
	return int64(n), err
}

// request reads until a whole request of length n stands at the front of
// input. The wait for a first byte is the idle time, the rest has the
// header's limit.
func (s *session) request(ctx context.Context) (req request, n int, err error) {
	s.takeBuffer()
	until := time.Now().Add(s.svc.limits.Idle)
	pieces := pieces{told: len(s.turn.Load().piece)}
	for begun := false; ; {
		if req, n = parseRequest(s.input); n > 0 {
			return req, n, nil
		}
		if !begun && len(s.input) > 0 {
			begun, until = true, time.Now().Add(s.svc.limits.Header)
		}
		wake := until
		if begun {
			s.passes(pointPiece)
		}
		if begun && s.inPieces() {
			if wake = pieces.next(len(s.input), time.Now(), until); wake.IsZero() {
				s.tellPiece(ctx)
				wake = until
			}
		}
		s.allowBegun()
		if !s.gate.pass() {
			return req, 0, errGone
		}
		if err := ctx.Err(); err != nil {
			return req, 0, err
		}
		s.gate.deadline(func() { s.conn.SetReadDeadline(wake) })
		if s.awaitsBackup() {
			_ = tcprepair.DelayAck(s.conn) // without it the record comes behind the ACK more often
		}
		_, err := s.read(s.buf[:])
		switch late := errors.Is(err, os.ErrDeadlineExceeded); {
		case err == nil, late && time.Now().Before(until): // a stop's deadline, or a piece's
		case late && begun:
			return request{status: http.StatusRequestTimeout, close: true}, len(s.input), nil
		default:
			return req, 0, err
		}
	}
}

// begin turns a request of n bytes into the next turn.
func (s *session) begin(ctx context.Context, req request, n int) error {
	if s.startUpload(ctx, &req, n) {
		return nil
	}
	e := content.Entry{}
	req.puts = s.svc.store != nil
	if req.status == 0 {
		e = s.svc.lookup(ctx, req)
	}
	rec := answer(req, e, time.Now())
	rec.Service = s.svc.id
	if s.cover.worn() {
		rec.Flags |= frame.Close
	}
	next, err := newTurn(rec, req.name, e.Body)
	if err == nil {
		err = s.cover.wrap(next)
	}
	if err != nil {
		return err
	}
	last := s.turn.Load()
	if s.cover != nil {
		n, next.seat = s.cover.consume(len(s.input) - n)
	}
	next.base, next.rcv = last.base+uint32(last.wire.size()), last.rcv+uint32(n)
	if s.awaitsBackup() {
		next.fresh = newPledge()
	}
	if s.inPieces() {
		next.piece = bytes.Clone(s.input[n:])
	}
	s.setTurn(next)
	return nil
}

// awaitsBackup reports whether responses wait for the Backup. Nothing is won by it
// where nobody would go on from there.
func (s *session) awaitsBackup() bool {
	return s.changed != nil && s.svc.waits() && s.svc.revives()
}

// freshLimit is how long a response waits for its Backup: clients come before
// their protection.
const freshLimit = 500 * time.Millisecond

// secure waits until the Backup has the record of a turn, with freshness L1.
func (s *session) secure(ctx context.Context, t *turn) {
	if t.fresh == nil {
		return
	}
	defer s.allow(t)
	timer := time.NewTimer(freshLimit)
	defer timer.Stop()
	select {
	case <-t.fresh.done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func newTurn(rec frame.Record, name string, b content.Body) (*turn, error) {
	w, err := newWire(rec, b)
	return &turn{rec: rec, name: name, wire: w}, err
}

// idleTurn is that of a connection without a request yet.
func idleTurn(service uint32) *turn {
	return &turn{rec: frame.Record{Flags: frame.Idle, Template: template, Status: http.StatusOK, Service: service}}
}

func (s *session) setTurn(t *turn) {
	s.turn.Store(t)
	for _, from := range [...]State{Active, Pinned} { // a claim stays a claim
		s.state.CompareAndSwap(int32(from), int32(s.resting()))
	}
	if s.changed != nil {
		s.changed(s)
	}
}

// bye ends the connection: FIN, then the client's FIN is awaited for a
// moment, since a close over unread bytes would be a reset and could cost
// the client the end of the response.
func (s *session) bye() error {
	if err := s.pin(); err != nil {
		return err
	}
	if s.cover != nil {
		s.unhold() // nothing that comes is taken any more
	}
	s.unquiet()
	if err := s.conn.CloseWrite(); err != nil {
		return err
	}
	s.conn.SetReadDeadline(time.Now().Add(lingerLimit))
	_, err := io.CopyN(io.Discard, s.conn, lingerBytes+s.discard)
	if err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// pin keeps the session here from now on.
func (s *session) pin() error {
	for s.state.Load() != int32(Pinned) && !s.state.CompareAndSwap(int32(Active), int32(Pinned)) {
		if !s.gate.pass() { // claimed at the last moment
			return errGone
		}
		runtime.Gosched()
	}
	return nil
}

// Limits of bye.
const (
	lingerLimit = 5 * time.Second
	lingerBytes = 256 << 10
)
