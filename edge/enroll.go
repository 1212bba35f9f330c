package edge

import (
	"errors"
	"time"

	"rhumb/edge/tcprepair"
)

// enrollBytes is what a connection sends at once (RFC 6928: 10 segments). A response
// that is longer takes its time, so the connection is enrolled before its first byte.
const enrollBytes = 14 << 10

// enrollMost is the longest pause between two attempts to enroll.
const enrollMost = time.Second

// enroll reads what a record says of the connection, if that is still unknown, and has
// the record sent. It costs a dozen system calls, a tenth of a short request; so a
// connection that is over within gatherFor goes without, as its record would. It is called
// by the session's goroutine between two responses.
func (s *session) enroll() error {
	if !s.unknown.Load() {
		return nil
	}
	g, err := tcprepair.Register(s.conn)
	if err != nil {
		return err // something is not sent yet, say; there are other chances
	}
	s.known(g)
	s.changed(s)
	return nil
}

// Of the wait for what a long response stands behind anyway.
const (
	unsentPause = 2 * time.Millisecond
	unsentTries = 100
)

// enrollFor enrolls the session before a response that takes its time, during which there
// is no other chance. errGone: the session was handed off meanwhile.
func (s *session) enrollFor(w wire) error {
	if w.size() <= enrollBytes {
		return nil
	}
	for range unsentTries {
		if !errors.Is(s.enroll(), tcprepair.ErrUnsent) {
			return nil
		}
		time.Sleep(unsentPause)
		if !s.gate.pass() {
			return errGone
		}
	}
	return nil
}

// known enters what was read of the connection, from where the present turn stands.
func (s *session) known(g tcprepair.Registration) {
	t := s.turn.Load()
	s.reg, s.regAt = g, time.Now()
	t.base, t.rcv = g.Write-uint32(t.off.Load()), g.RcvNxt-uint32(s.ahead())
	s.unknown.Store(false)
}

// enrolment is the attempts to enroll a session that waits for a request.
type enrolment struct {
	s     *session
	at    time.Time // of the next; zero before the first look
	pause time.Duration
}

// next is until when the session may wait at most: until, or for the next attempt. It
// makes the one whose time has come.
func (e *enrolment) next(until time.Time) time.Time {
	if !e.s.unknown.Load() {
		return until
	}
	if e.at.IsZero() {
		e.at, e.pause = e.s.started.Add(gatherFor), gatherFor
	}
	if now := time.Now(); !now.Before(e.at) {
		if e.s.enroll() == nil {
			return until
		}
		e.pause = min(4*e.pause, enrollMost)
		e.at = now.Add(e.pause)
	}
	if e.at.Before(until) {
		return e.at
	}
	return until
}
