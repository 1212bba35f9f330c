package edge

import (
	"testing"
	"time"

	"rhumb/edge/frame"
)

// TestDoubt: a client is asked while its session waits in silence, and until it
// has acknowledged something sent from here and the kernel has measured how long that
// takes.
func TestDoubt(t *testing.T) {
	const soon, late = 200 * time.Millisecond, 900 * time.Millisecond
	for _, tc := range []struct {
		name      string
		last, now standing
		want      remedy
	}{
		{"silence, and bytes wait", standing{heard: 3}, standing{heard: 3, waiting: true}, remedyAsk},
		{"silence, and nothing to send", standing{heard: 3}, standing{heard: 3}, remedyNone},
		{"a segment came that acknowledges what the old owner sent", standing{heard: 3}, standing{heard: 4, acked: 1000, waiting: true}, remedyNone},
		{"silence after a packet that was kept", standing{heard: 1, acked: 1000}, standing{heard: 1, acked: 1000, waiting: true}, remedyAsk},
		{"what was sent here is acknowledged", standing{heard: 3}, standing{heard: 4, acked: 1001, waiting: true, rto: soon}, remedyOver},
		{"the same, and the client was silent since", standing{heard: 4}, standing{heard: 4, acked: 1001, waiting: true, rto: soon}, remedyOver},
		{"the same, and the kernel would wait for long", standing{heard: 4}, standing{heard: 4, acked: 1001, waiting: true, rto: late}, remedyAsk},
		{"the same, and the client speaks", standing{heard: 3}, standing{heard: 4, acked: 1001, waiting: true, rto: late}, remedyNone},
	} {
		d := doubt{inFlight: 1000, calm: soon, last: tc.last}
		if got := d.look(tc.now); got != tc.want {
			t.Errorf("%s: remedy %d, want %d", tc.name, got, tc.want)
		}
		if d.last != tc.now || d.asked != (tc.want == remedyAsk) {
			t.Errorf("%s: remembers %+v", tc.name, d)
		}
	}
}

// TestDoubtOfLostBytes: two answers in a row which acknowledge nothing of what is in
// flight mean that it is lost; not silence, not an acknowledgement, and not the first.
func TestDoubtOfLostBytes(t *testing.T) {
	for _, tc := range []struct {
		name  string
		looks []standing
		want  []remedy
	}{
		{"lost", []standing{{heard: 1, flying: true}, {heard: 2, flying: true}}, []remedy{remedyAsk, remedyAgain}},
		{"an answer that is late", []standing{{flying: true}, {heard: 1, flying: true}, {heard: 2, flying: true}}, []remedy{remedyAsk, remedyAsk, remedyAgain}},
		{"acknowledged at last", []standing{{heard: 1, flying: true}, {heard: 2, acked: 5, flying: true}, {heard: 3, acked: 5, flying: true}},
			[]remedy{remedyAsk, remedyNone, remedyNone}},
		{"a closed window", []standing{{heard: 1}, {heard: 2}}, []remedy{remedyNone, remedyNone}},
		{"sent between the looks", []standing{{heard: 1}, {heard: 2, flying: true}, {heard: 2, flying: true}, {heard: 3, flying: true}},
			[]remedy{remedyNone, remedyNone, remedyAsk, remedyAsk}},
	} {
		d := doubt{inFlight: 1000, asked: true, last: standing{flying: true}}
		for i, now := range tc.looks {
			now.waiting = true
			if got := d.look(now); got != tc.want[i] {
				t.Errorf("%s, look %d: remedy %d, want %d", tc.name, i+1, got, tc.want[i])
			}
		}
	}
}

func TestLookPause(t *testing.T) {
	for rtt, want := range map[time.Duration]time.Duration{
		0: lookLeast, 20 * time.Millisecond: lookLeast, 80 * time.Millisecond: 120 * time.Millisecond, time.Second: lookMost,
	} {
		if got := lookPause(rtt); got != want {
			t.Errorf("round trip %v: pause %v, want %v", rtt, got, want)
		}
	}
}

// TestRests: a session that has written all of its response is not looked at, until there is
// another.
func TestRests(t *testing.T) {
	s := &session{}
	whole := &turn{wire: wire{head: make([]byte, 10)}}
	s.turn.Store(whole)
	for _, tc := range []struct {
		off   int64
		flags frame.Flags
		want  *turn
	}{{0, 0, nil}, {9, 0, nil}, {10, 0, whole}, {10, frame.Upload, nil}} {
		whole.off.Store(tc.off)
		whole.rec.Flags = tc.flags
		if got := s.rests(); got != tc.want {
			t.Errorf("%d octets written, flags %d: rests %t", tc.off, tc.flags, got != nil)
		}
	}
}
