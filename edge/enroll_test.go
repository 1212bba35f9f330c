package edge

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// TestKnown: a record tells where the present response began, and where the next request
// will, however much was written and read when the connection is enrolled.
func TestKnown(t *testing.T) {
	s := &session{key: testKey(1), epoch: 7, input: make([]byte, 30)}
	s.unknown.Store(true)
	tn := idleTurn(1)
	tn.off.Store(1000)
	s.turn.Store(tn)
	s.known(tcprepair.Registration{Write: 400, RcvNxt: 20, TSVal: 5000})
	rec := s.record(tn)
	if rec.Offset != 1000 || rec.Base+uint32(rec.Offset) != 400 {
		t.Errorf("base %d, offset %d: the next byte is %d, want 400", rec.Base, rec.Offset, rec.Base+uint32(rec.Offset))
	}
	if want := uint32(20); rec.RcvNxt+30 != want {
		t.Errorf("the next request begins at %d, want 30 before %d", rec.RcvNxt, want)
	}
	if s.unknown.Load() || rec.TSVal != 5000 || rec.Wall != s.regAt.UnixMilli() || time.Since(s.regAt) > time.Minute {
		t.Errorf("clock %d at %d, unknown %t", rec.TSVal, rec.Wall, s.unknown.Load())
	}
}

// TestUnknownIsNotTold: nobody is told of a connection before it is enrolled.
func TestUnknownIsNotTold(t *testing.T) {
	a, l := testAgent(t), testLink("c")
	a.SetDown([]string{"a"})
	a.links.byOf["c"] = []*link{l}
	s := &session{key: testKey(1), svc: a.view.Load().services[0]}
	s.changed = a.replica.changed
	s.unknown.Store(true)
	s.turn.Store(idleTurn(1))
	a.tab.add(s, 1)
	s.changed(s)
	a.replica.sweep(t.Context(), time.Now())
	a.replica.out.flush()
	if len(a.replica.dirty) != 0 || len(l.out) != 0 {
		t.Errorf("%d words, %d buffers of a connection that is unknown", len(a.replica.dirty), len(l.out))
	}
	s.known(tcprepair.Registration{})
	a.replica.sweep(t.Context(), time.Now())
	a.replica.out.flush()
	if got := l.sent(t); len(got) != 1 || got[0].Type != frame.RecordSet {
		t.Errorf("told %+v, want the record", got)
	}
}

// TestEnrolment: a session that waits for a request is enrolled when it has lived for a
// while, and if that fails at ever longer intervals, never later than it would be woken
// anyway.
func TestEnrolment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &session{started: time.Now(), conn: new(net.TCPConn)} // which cannot be enrolled
		s.unknown.Store(true)
		until := time.Now().Add(time.Minute)
		e := enrolment{s: s}
		at := s.started.Add(gatherFor)
		for i, pause := range []time.Duration{4 * gatherFor, 16 * gatherFor, 64 * gatherFor, enrollMost, enrollMost} {
			if got := e.next(until); got != at {
				t.Fatalf("attempt %d at %v, want %v", i, got.Sub(s.started), at.Sub(s.started))
			}
			if got := e.next(at.Add(-time.Millisecond)); got != at.Add(-time.Millisecond) {
				t.Errorf("attempt %d: waits beyond its time", i)
			}
			time.Sleep(time.Until(at))
			at = time.Now().Add(pause)
		}
		s.unknown.Store(false)
		if got := e.next(until); got != until {
			t.Errorf("a session that is known wakes up %v early", until.Sub(got))
		}
	})
}
