package edge

import (
	"context"
	"io"
	"time"

	"rhumb/edge/token"
)

// Times of a stream.
const (
	// A comment each beat tells a client, and all between, that nobody has died.
	feedBeat = 15 * time.Second
	// After so long the client is given a new token, whether there is an event or not.
	feedRenew = token.Life / 3
	feedPiece = 16 << 10
)

// feed is one connection of a stream. It is read by one goroutine, that of the
// request, for which another reads the origin.
type feed struct {
	f      *feeds
	claims token.Claims // of its tokens, but for position and expiry
	result string
	claim  token.Question // by which it was resumed; zero: it is new
	// lease is when a majority last knew of no later epoch. Tokens live from there.
	lease time.Time

	origin   io.ReadCloser
	ids      *token.Rewriter
	pieces   chan []byte   // the origin's
	ended    chan struct{} // the origin was read to its end, or to why
	why      error
	done     chan struct{} // closed by Close
	out      []byte        // not read yet
	over     error
	tick     *time.Ticker
	asked    time.Time          // the question whose answer is awaited
	touched  chan token.Verdict // has room
	renewing bool               // a new token is due
}

func (f *feeds) newFeed(c token.Claims, result string, now time.Time) *feed {
	return &feed{f: f, claims: c, result: result, lease: now}
}

// giveBack makes the token good again with which a stream was asked for that did
// not begin.
func (s *feed) giveBack() {
	if s.claim.Epoch != 0 {
		s.f.keepers.release(s.claim)
		s.claim = token.Question{}
	}
}

// open begins the stream. The first thing that a client gets is its token.
func (s *feed) open(origin io.ReadCloser) io.ReadCloser {
	s.origin, s.ids = origin, token.NewRewriter(s.claims.Position, s.seal)
	s.pieces, s.ended, s.done = make(chan []byte), make(chan struct{}), make(chan struct{})
	s.touched, s.tick = make(chan token.Verdict, 1), time.NewTicker(feedBeat)
	s.f.m.open.WithLabelValues(s.f.name).Inc()
	go s.pump()
	s.give()
	return s
}

// pump reads the origin until its body is closed. Close waits for it.
func (s *feed) pump() {
	defer close(s.ended)
	for {
		b := make([]byte, feedPiece)
		n, err := s.origin.Read(b)
		if n > 0 {
			select {
			case s.pieces <- b[:n]:
			case <-s.done:
				return
			}
		}
		if err != nil {
			s.why = err
			return
		}
	}
}

// Read waits for what the client is to get next. After an error the client comes
// again, here or elsewhere.
func (s *feed) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if s.over != nil {
			return 0, s.over
		}
		select {
		case b := <-s.pieces:
			s.out = s.ids.Append(s.out[:0], b)
		case <-s.ended:
			s.over = s.why
		case now := <-s.tick.C:
			s.beat(now)
		case v := <-s.touched:
			s.confirm(v, time.Now())
		}
		if s.renewing && s.ids.Between() {
			s.give()
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// Close ends the stream.
func (s *feed) Close() error {
	close(s.done)
	s.tick.Stop()
	err := s.origin.Close()
	<-s.ended
	s.f.m.open.WithLabelValues(s.f.name).Dec()
	return err
}

// stop gives a stream back that never began.
func (s *feed) stop() {
	if s.origin == nil {
		s.giveBack()
	}
}

// beat keeps the connection warm and the epoch known, and sends clients elsewhere
// when this site gives its sessions away: each at its own time within one beat.
func (s *feed) beat(now time.Time) {
	if !s.ids.Between() {
		return // there is an event on its way
	}
	if s.f.leaving() {
		s.over = io.EOF
		return
	}
	s.out = append(s.out, ":\n\n"...)
	if now.Sub(s.lease) >= feedRenew && s.asked.IsZero() {
		s.asked = now
		q := touchOf(s.claims)
		go func() { s.touched <- s.f.keepers.ask(context.Background(), q) }() // for a second at most
	}
}

// confirm takes the keepers' answer.
func (s *feed) confirm(v token.Verdict, now time.Time) {
	asked := s.asked
	s.asked = time.Time{}
	switch {
	case v == token.Over:
		s.f.m.superseded.WithLabelValues(s.f.name).Inc()
		s.over = errOver
	case v == token.Primary, !s.f.Strict:
		s.lease, s.renewing = asked, true
	case now.Sub(s.lease) >= token.Life:
		s.over = errOver // perhaps; nobody says no
	}
}

// give puts a token of the present position between two events.
func (s *feed) give() {
	s.renewing = false
	if text, ok := s.seal(s.ids.Last()); ok {
		s.out = append(append(append(s.out, "id: "...), text...), "\n\n"...)
	}
}

// seal makes the token behind an event.
func (s *feed) seal(position string) (string, bool) {
	keys := s.f.keepers.keys.Load()
	if keys == nil {
		return "", false
	}
	c := s.claims
	c.Position, c.Expires = position, s.lease.Add(token.Life)
	text, err := keys.Seal(c, time.Now())
	return text, err == nil // too long an id: the client goes on from the one before
}
