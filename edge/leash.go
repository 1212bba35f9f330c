package edge

import (
	"bytes"
	"context"
	"syscall"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/hold"
	"rhumb/edge/tcprepair"
)

// The acknowledgement of a request waits until a Backup has it: what a client has seen
// acknowledged it never sends again. Between two responses the connection is marked, and its
// segments are judged on their way out (package hold): a request that comes whole is
// acknowledged by its response, so that few wait. While a response is under way the
// connection is loose, and costs nothing; what a client sends meanwhile is acknowledged
// as without us.
//
// A request in pieces would wait for ever: a client whose first piece is not acknowledged
// for longer than it waits to repeat it sends no second one (RFC 5681 section 3.1, a window
// of one segment). So the Backup is told the pieces.

// leash is a session's, like receiving.
type leash struct {
	raw   syscall.RawConn // of conn; nil until it is needed
	loose bool            // the connection is not marked
}

// Points of a session between its requests.
const (
	pointAccepted  = "accepted"   // nobody has heard of it
	pointPiece     = "piece"      // a request has begun and is not whole
	pointPieceTold = "piece told" // the Backup has what came of it
	pointHead      = "head"       // a request is whole, nobody has heard of it
	pointKept      = "kept"       // at the Backup: has the record of a response, the owner has not heard
	pointSecured   = "secured"    // the Backup has it, with L1, nothing of the response was sent
)

// passes tells that a point was reached.
func (s *session) passes(point string) {
	if u := s.svc.uploads; u != nil {
		u.at(point)
	}
}

// shortAnswer is what a connection of a service with uploads sends without being loosened:
// until its end no next upload can begin unseen, and it fits any buffer, so that
// whoever asks for the next object before it has the last holds nothing up.
const shortAnswer = 16 << 10

// loosen lets a connection speak freely while a response is under way.
func (s *session) loosen(t *turn) {
	switch {
	case s.hold == nil || s.loose || t.rec.Flags&frame.Upload != 0:
		return
	case s.svc.Freshness == FreshL2 && t.wire.size()-t.off.Load() <= shortAnswer:
		return
	}
	s.loose = s.mark(hold.Exempt)
}

// tighten is called when a response is with the kernel.
func (s *session) tighten(t *turn) {
	if s.hold == nil || !s.loose || t.rec.Flags&(frame.Close|frame.Last) != 0 {
		return // no further request is read
	}
	s.loose = !s.mark(hold.Apply)
}

func (s *session) mark(by func(syscall.RawConn) error) bool {
	if s.raw == nil {
		raw, err := s.conn.SyscallConn()
		if err != nil {
			return false
		}
		s.raw = raw
	}
	return by(s.raw) == nil // else the connection is gone
}

// readmit begins the hold of a session that came from elsewhere, before its connection
// speaks.
func (u *uploads) readmit(s *session, r *tcprepair.Restored) {
	h := u.hold.Load()
	if s.cover != nil && s.turn.Load().rec.Flags&frame.Last != 0 {
		return // it takes nothing more
	}
	if s.hold != nil || h == nil || !s.svc.held() || s.changed == nil || r.SetMark(hold.Mark) != nil {
		return
	}
	s.hold = h
	h.Enter(heldFlow(s.key), s.turn.Load().rcv)
}

// approach begins the hold of a connection over TLS, whose handshake is to come: what is read
// of that may be acknowledged at once, and nothing behind it. It returns who is to be told
// how many octets were read.
func (u *uploads) approach(s *session) (read func(octets int)) {
	h := u.hold.Load()
	if h == nil || !s.svc.held() {
		return func(int) {}
	}
	reg, err := tcprepair.RegisterAccepted(s.conn)
	if err != nil || s.local || !u.a.moves.Backups {
		u.exempt(s.conn, s.key)
		return func(int) {}
	}
	s.hold = h
	upto := reg.RcvNxt
	h.Enter(heldFlow(s.key), upto)
	return func(octets int) {
		upto += uint32(octets)
		h.Allow(heldFlow(s.key), upto)
	}
}

// allowBegun lets a client over TLS hear of a request that is not whole: it would not be
// answered elsewhere, and whoever may have one segment under way sends no second one. An upload
// begins behind the record that its request ends in, so nothing of one is among it that
// is not told with its beginning.
func (s *session) allowBegun() {
	if s.cover != nil && s.hold != nil {
		s.hold.Allow(heldFlow(s.key), s.turn.Load().rcv+uint32(s.ahead()))
	}
}

// dismiss ends the hold of a session whose connection did not come to be.
func (u *uploads) dismiss(s *session) {
	if s.hold != nil {
		s.hold.Leave(heldFlow(s.key))
		s.hold = nil
	}
}

// inPieces reports whether the Backup is told what comes of a request. Over TLS it would be
// of no use: a revived session ends with its response.
func (s *session) inPieces() bool { return s.cover == nil && s.awaitsBackup() }

// tellPiece gives the Backup what came of a request that is not whole, and then lets the
// client hear that it has come.
func (s *session) tellPiece(ctx context.Context) {
	next := s.turn.Load().with(bytes.Clone(s.input))
	s.setTurn(next)
	s.secure(ctx, next)
	s.passes(pointPieceTold)
}

// Pace of the pieces. The first is earlier than the kernel would acknowledge it by itself,
// after 40 ms. Each record holds all that came so far, and so they are told at ever longer
// intervals: nine in the time that a header may take.
const (
	pieceFirst = 20 * time.Millisecond
	pieceSteps = 7
)

// pieces decides when the Backup is told what came of a request.
type pieces struct {
	told  int       // octets
	due   time.Time // of those beyond; zero: there are none
	times int
}

// next is when to look again, until at the latest; zero means that it is to be told now.
func (p *pieces) next(have int, now, until time.Time) time.Time {
	if have <= p.told {
		return until
	}
	if p.due.IsZero() {
		p.due = now.Add(pieceFirst << min(p.times, pieceSteps))
	}
	if now.Before(p.due) {
		if p.due.Before(until) {
			return p.due
		}
		return until
	}
	p.told, p.due, p.times = have, time.Time{}, p.times+1
	return time.Time{}
}
