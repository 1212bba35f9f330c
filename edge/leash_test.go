package edge

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// TestPieces: what comes of a request is told after a moment in which the rest may come, at
// ever longer intervals, never twice, and never later than the request's time.
func TestPieces(t *testing.T) {
	now := time.Now()
	until := now.Add(10 * time.Second)
	p := pieces{told: 3}
	if got := p.next(3, now, until); got != until {
		t.Errorf("nothing new: looks again after %v, want at the end", got.Sub(now))
	}
	told, octets := []time.Duration{}, 3
	for at := now; at.Before(until); {
		octets++ // one comes before each look
		next := p.next(octets, at, until)
		switch {
		case next.IsZero():
			told = append(told, at.Sub(now))
			if got := p.next(octets, at, until); got != until {
				t.Fatalf("%v after the beginning the same is told again", at.Sub(now))
			}
		case !next.After(at) || next.After(until):
			t.Fatalf("after %v looks again after %v", at.Sub(now), next.Sub(now))
		default:
			at = next
		}
	}
	if n := len(told); n < 7 || n > 10 || told[0] != pieceFirst {
		t.Errorf("told after %v, want a first time after %v and some times more", told, pieceFirst)
	}
	if !slices.IsSorted(told) {
		t.Errorf("told after %v", told)
	}
}

// piecewise tells a record with what has come of the next request.
func piecewise(t *testing.T, a *Agent, l *link, seq uint64, rec frame.Record, piece string) {
	t.Helper()
	a.replica.handle(l, frame.Frame{Type: frame.RecordSet, Seq: seq, Key: rec.Key, Epoch: rec.Epoch,
		Generation: rec.Generation, Payload: append(frame.AppendRecord(nil, rec), piece...)})
	l.sent(t)
}

// TestPieceIsKept: a Backup has what it was told last of a request, gives it back to a
// site's new process, and to who revives the session, who expects the client behind it.
func TestPieceIsKept(t *testing.T) {
	a, l := testAgent(t), testLink("a")
	rec := frame.Record{Key: testKey(1), Epoch: 7, RcvNxt: 100, Service: a.view.Load().services[0].id}
	piecewise(t, a, l, 1, rec, "GET")
	piecewise(t, a, l, 2, rec, "GET /film")
	if got := a.replica.recall("a"); len(got) != 1 || string(got[0].piece) != "GET /film" {
		t.Fatalf("recalled %+v", got)
	}
	if a.replica.held != len("GET /film") {
		t.Errorf("%d octets held", a.replica.held)
	}
	l.pieces.Store(true)
	a.recalledBy(t.Context(), l)
	old := testLink("a")
	a.recalledBy(t.Context(), old)
	for link, want := range map[*link]string{l: "GET /film", old: ""} {
		sent := link.sent(t)
		if len(sent) != 1 {
			t.Fatalf("sent %+v", sent)
		}
		if _, piece, err := frame.DecodePiece(sent[0].Payload); err != nil || string(piece) != want {
			t.Errorf("gives back %q, %v, want %q", piece, err, want)
		}
	}
	taken := a.replica.take("a", func(frame.Record) bool { return true })
	if len(taken) != 1 || string(taken[0].piece) != "GET /film" || a.replica.held != 0 {
		t.Fatalf("taken %+v, %d octets held", taken, a.replica.held)
	}
	rd := a.revival.begin(taken[0], 8, time.Now(), time.Minute)
	if rd.rec.RcvNxt != 100+9 {
		t.Errorf("the client is expected at %d, want 109", rd.rec.RcvNxt)
	}
	a.replica.putBack(taken[0])
	if a.replica.held != 9 {
		t.Errorf("%d octets held after it was put back", a.replica.held)
	}
	piecewise(t, a, l, 3, taken[0].rec, "")
	if got := a.replica.recall("a"); len(got) != 1 || len(got[0].piece) > 0 || a.replica.held != 0 {
		t.Errorf("after the request: %+v, %d octets held", got, a.replica.held)
	}
}

// TestPiecesAreBounded: beyond the bound records are kept without.
func TestPiecesAreBounded(t *testing.T) {
	a, l := testAgent(t), testLink("a")
	piece := string(make([]byte, frame.MaxInput))
	n := piecesMost/len(piece) + 5
	for i := range n {
		piecewise(t, a, l, uint64(i+1), frame.Record{Key: testKey(i), Epoch: 7}, piece)
	}
	if len(a.replica.store) != n || a.replica.held > piecesMost || a.replica.held < piecesMost-len(piece) {
		t.Errorf("%d records, %d octets", len(a.replica.store), a.replica.held)
	}
	for i := range n {
		a.replica.mu.Lock()
		a.replica.drop(testKey(i))
		a.replica.mu.Unlock()
	}
	if a.replica.held != 0 {
		t.Errorf("%d octets of no record", a.replica.held)
	}
}

// TestSightOfAPiece: a client that sends again from within what is here of its request has
// heard of nothing beyond; one whose segment is older tells nothing.
func TestSightOfAPiece(t *testing.T) {
	data := func(n int) func(*tcprepair.Segment) { return func(s *tcprepair.Segment) { s.Data = n } }
	for _, c := range []struct {
		name string
		seg  tcprepair.Segment
		want string
	}{
		{"behind the piece", says(1000, 84, nil), answerExact},
		{"the piece again", says(990, 84, data(10)), answerExact},
		{"a part of it", says(995, 84, data(20)), answerExact},
		{"before it", says(989, 84, data(1)), answerOld},
		{"without octets", says(990, 84, nil), answerOld},
		{"further", says(1001, 84, nil), answerAhead},
	} {
		if s, what := (sight{piece: 10}).fold(lostRecord(), c.seg); what != c.want || s.ready != (c.want == answerExact) {
			t.Errorf("%s: %s, ready %v, want %s", c.name, what, s.ready, c.want)
		}
	}
}

// TestPieceIsTold: what has come of a request leaves with the record for a Backup that reads
// it; for another one the record leaves alone.
func TestPieceIsTold(t *testing.T) {
	for _, reads := range []bool{true, false} {
		a, l := testAgent(t), testLink("c")
		a.SetDown([]string{"a"})
		l.pieces.Store(reads)
		a.links.byOf["c"] = []*link{l}
		s := &session{key: testKey(1), svc: a.view.Load().services[0], input: []byte("GET /")}
		s.turn.Store(idleTurn(s.svc.id))
		s.changed = a.replica.changed
		a.tab.add(s, 10)
		s.setTurn(s.turn.Load().with(bytes.Clone(s.input)))
		a.replica.hurry(t.Context(), <-a.replica.dirty)
		a.replica.out.flush()
		want := ""
		if reads {
			want = "GET /"
		}
		sent := l.sent(t)
		if len(sent) != 1 {
			t.Fatalf("sent %+v", sent)
		}
		if _, piece, err := frame.DecodePiece(sent[0].Payload); err != nil || string(piece) != want {
			t.Errorf("told %q, %v, want %q", piece, err, want)
		}
	}
}
