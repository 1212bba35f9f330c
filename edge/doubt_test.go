package edge

import (
	"testing"
	"time"
)

// TestDoubt: a client is asked while its session waits in silence, and until it
// has acknowledged something sent from here.
func TestDoubt(t *testing.T) {
	for _, tc := range []struct {
		name      string
		last, now standing
		ask, over bool
	}{
		{"silence, and bytes wait", standing{heard: 3}, standing{heard: 3, waiting: true}, true, false},
		{"silence, and nothing to send", standing{heard: 3}, standing{heard: 3}, false, false},
		{"a segment came that acknowledges what the old owner sent", standing{heard: 3}, standing{heard: 4, acked: 1000, waiting: true}, false, false},
		{"silence after a packet that was kept", standing{heard: 1, acked: 1000}, standing{heard: 1, acked: 1000, waiting: true}, true, false},
		{"what was sent here is acknowledged", standing{heard: 3}, standing{heard: 4, acked: 1001, waiting: true}, false, true},
		{"the same, and the client was silent since", standing{heard: 4}, standing{heard: 4, acked: 1001, waiting: true}, false, true},
	} {
		d := doubt{inFlight: 1000, last: tc.last}
		if ask, over := d.look(tc.now); ask != tc.ask || over != tc.over {
			t.Errorf("%s: ask %t, over %t, want %t and %t", tc.name, ask, over, tc.ask, tc.over)
		}
		if d.last != tc.now || d.asked != tc.ask {
			t.Errorf("%s: remembers %+v", tc.name, d)
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
