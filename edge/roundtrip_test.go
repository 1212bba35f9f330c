package edge

import (
	"testing"
	"time"

	"rhumb/edge/tcprepair"
)

// TestTripBits: a round trip comes back from a record not shorter, and less than a third
// longer, beside the options that stood there before it.
func TestTripBits(t *testing.T) {
	if got := tripOf(tripBits(0)); got != 0 {
		t.Errorf("an unknown one comes back as %v", got)
	}
	for rtt := time.Millisecond; rtt < time.Second; rtt += rtt/7 + 1 {
		if got := tripOf(tripBits(rtt)); got < rtt-time.Microsecond || got > rtt*4/3 {
			t.Errorf("%v comes back as %v", rtt, got)
		}
	}
	for rtt, want := range map[time.Duration]time.Duration{time.Microsecond: time.Millisecond, time.Minute: 1024 * time.Millisecond} {
		if got := tripOf(tripBits(rtt)); got != want {
			t.Errorf("%v comes back as %v, want %v", rtt, got, want)
		}
	}
	rec := lostRecord()
	describe(&rec, tcprepair.Registration{Options: tcprepair.Options{Timestamps: true, Scaling: true}, RTT: 40 * time.Millisecond}, time.Now())
	if rec.Options&^(1<<recTripShift-1) != tripBits(40*time.Millisecond) || rec.Options&(recTimestamps|recSACK|recScaling) != recTimestamps|recScaling {
		t.Errorf("options are %08b", rec.Options)
	}
	if o := stateOf(sight{best: says(1000, 84, nil)}.offer(rec, time.Now())).Options; !o.Timestamps || o.SACK || !o.Scaling {
		t.Errorf("options come back as %+v", o)
	}
}

// TestTripFrom: what stood in a queue is not taken for the path.
func TestTripFrom(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct{ known, took, want time.Duration }{
		{0, 0, 0}, {0, 300 * ms, 300 * ms}, {40 * ms, 0, 40 * ms},
		{40 * ms, 30 * ms, 30 * ms}, {40 * ms, 60 * ms, 60 * ms}, {40 * ms, 300 * ms, 70 * ms}, {1 * ms, 12 * ms, 11500 * time.Microsecond},
	} {
		if got := tripFrom(tc.known, tc.took); got != tc.want {
			t.Errorf("known %v, took %v: %v, want %v", tc.known, tc.took, got, tc.want)
		}
	}
}
