package feed

import (
	"context"
	"io"
	"net"
	"strings"
	"time"

	"rhumb/edge/token"
)

// Times of a stream.
const (
	// A comment each beat tells a client, and all between, that nobody has died.
	beatEvery = 15 * time.Second
	// After so long the client is given a new token, whether there is an event or not.
	renewAfter = token.Life / 3
	pieceSize  = 16 << 10
	// headerLimit is how long the origin has to answer.
	headerLimit = 10 * time.Second
)

// stream is one connection of a session. It is read by one goroutine, for which
// another reads the origin.
type stream struct {
	f      *Server
	claims token.Claims // of its tokens, but for position and expiry
	result string
	claim  token.Question // by which it was resumed; zero: it is new
	// lease is when a majority last knew of no later epoch. Tokens live from there.
	lease time.Time

	socket  bool  // a WebSocket
	origin  *pump // nil: the stream has not begun
	carrier carrier
	out     []byte // not read yet
	over    error
	tick    *time.Ticker
	renewal renewal
}

// renewal is the question whether a stream's epoch is still the newest.
type renewal struct {
	asked  time.Time          // zero: no answer is awaited
	answer chan token.Verdict // has room
	due    bool               // a new token is to be given
}

// carrier is how a stream's events travel.
type carrier interface {
	// Append appends what becomes of a piece of what the origin sends.
	Append(out, in []byte) []byte
	// Between tells whether a block of our own may follow.
	Between() bool
	// Last is where the client stands.
	Last() string
	// Err tells why the origin is not to be read any more.
	Err() error
}

// pump reads an origin for who must not wait for it.
type pump struct {
	origin io.ReadCloser
	pieces chan []byte
	ended  chan struct{} // closed when the origin was read to its end, or to why
	why    error
	done   chan struct{} // closed by Close
}

func newPump(origin io.ReadCloser) *pump {
	p := &pump{origin: origin, pieces: make(chan []byte), ended: make(chan struct{}), done: make(chan struct{})}
	go p.run()
	return p
}

func (p *pump) run() {
	defer close(p.ended)
	for {
		b := make([]byte, pieceSize)
		n, err := p.origin.Read(b)
		if n > 0 {
			select {
			case p.pieces <- b[:n]:
			case <-p.done:
				p.why = net.ErrClosed
				return
			}
		}
		if err != nil {
			p.why = err
			return
		}
	}
}

// Close ends the reading, and waits until it has ended.
func (p *pump) Close() error {
	close(p.done)
	err := p.origin.Close()
	<-p.ended
	return err
}

func (f *Server) newStream(c token.Claims, socket bool, result string, now time.Time) *stream {
	return &stream{f: f, claims: c, socket: socket, result: result, lease: now}
}

// giveBack makes the token good again with which a stream was asked for that did
// not begin.
func (s *stream) giveBack() {
	if s.claim.Epoch != 0 {
		s.f.cfg.Keepers.release(s.claim)
		s.claim = token.Question{}
	}
}

// open begins the stream. The first thing that a client gets is its token.
func (s *stream) open(origin io.ReadCloser) io.ReadCloser {
	if s.socket {
		s.carrier = token.NewMarks(s.claims.Position, s.seal)
	} else {
		s.carrier = token.NewRewriter(s.claims.Position, s.seal)
	}
	s.origin, s.tick, s.renewal.answer = newPump(origin), time.NewTicker(beatEvery), make(chan token.Verdict, 1)
	s.f.cfg.Metrics.open.WithLabelValues(s.f.cfg.Service).Inc()
	s.give()
	return s
}

// Read waits for what the client is to get next. After an error the client comes
// again, here or elsewhere.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.over != nil {
			return 0, s.over
		}
		select {
		case b := <-s.origin.pieces:
			s.take(b)
		case <-s.origin.ended:
			s.over = s.origin.why
		case now := <-s.tick.C:
			s.beat(now)
		case v := <-s.renewal.answer:
			s.confirm(v, time.Now())
		}
		if s.renewal.due && s.over == nil && s.carrier.Between() {
			s.give()
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// Close ends the stream. For a WebSocket it may be called while Read waits.
func (s *stream) Close() error {
	s.tick.Stop()
	err := s.origin.Close()
	s.f.cfg.Metrics.open.WithLabelValues(s.f.cfg.Service).Dec()
	return err
}

// stop gives a stream back that never began.
func (s *stream) stop() {
	if s.origin == nil {
		s.giveBack()
	}
}

// take takes a piece of the origin's.
func (s *stream) take(b []byte) {
	s.out = s.carrier.Append(s.out[:0], b)
	if err := s.carrier.Err(); err != nil {
		s.f.cfg.Met(false)
		s.f.cfg.Log.Warn("origin", "err", err)
		s.over = err
		s.out = token.AppendClose(s.out, token.CloseFailed) // it passed whole frames alone
	}
}

// beat keeps the connection warm and the epoch known, and sends clients elsewhere
// when this site gives its sessions away: each at its own time within one beat.
func (s *stream) beat(now time.Time) {
	if !s.carrier.Between() {
		return // there is an event on its way
	}
	if s.f.cfg.Leaving() {
		s.end(io.EOF, token.CloseAway)
		return
	}
	if s.socket {
		s.out = token.AppendBeat(s.out)
	} else {
		s.out = append(s.out, ":\n\n"...)
	}
	if now.Sub(s.lease) >= renewAfter && s.renewal.asked.IsZero() {
		s.renewal.asked = now
		q := touchOf(s.claims)
		go func() { s.renewal.answer <- s.f.cfg.Keepers.ask(context.Background(), q) }() // for a second at most
	}
}

// confirm takes the keepers' answer.
func (s *stream) confirm(v token.Verdict, now time.Time) {
	asked := s.renewal.asked
	s.renewal.asked = time.Time{}
	switch {
	case v == token.Over:
		s.f.cfg.Metrics.superseded.WithLabelValues(s.f.cfg.Service).Inc()
		s.end(errOver, token.CloseStale)
	case v == token.Primary, !s.f.cfg.Strict:
		s.lease, s.renewal.due = asked, true
	case now.Sub(s.lease) >= token.Life:
		s.end(errOver, token.CloseStale) // perhaps; nobody says no
	}
}

// end ends the stream, and says why where it can be said.
func (s *stream) end(why error, code uint16) {
	if s.over = why; s.socket && s.carrier.Between() {
		s.out = token.AppendClose(s.out, code)
	}
}

// give puts a token of the present position between two events.
func (s *stream) give() {
	s.renewal.due = false
	text, ok := s.seal(s.carrier.Last())
	switch {
	case !ok:
	case s.socket:
		s.out = token.AppendToken(s.out, text)
	default:
		s.out = append(append(append(s.out, "id: "...), text...), "\n\n"...)
	}
}

// seal makes the token behind an event. Without one the client goes on from the
// event before.
func (s *stream) seal(position string) (string, bool) {
	keys := s.f.cfg.Keepers.keys.Load()
	if keys == nil || !fieldValue(position) {
		return "", false
	}
	c := s.claims
	c.Position, c.Expires = position, s.lease.Add(token.Life)
	text, err := keys.Seal(c, time.Now())
	return text, err == nil // err: too long
}

// fieldValue tells whether a position can go back to the origin in a field as it
// is (RFC 9110, section 5.5).
func fieldValue(s string) bool {
	return strings.Trim(s, " \t") == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
