package main

import (
	"testing"
	"time"

	"rhumb/edge/forward"
	"rhumb/placement"
)

// TestAwayMeter takes rates over a second or more, and none before the second
// report.
func TestAwayMeter(t *testing.T) {
	at := time.Unix(1000, 0)
	var m awayMeter
	for i, e := range []struct {
		after time.Duration
		bytes uint64
		flows int
		rate  int64
	}{{0, 5000, 2, 0}, {500 * time.Millisecond, 6000, 2, 0}, {2 * time.Second, 9000, 2, 2000}, {2100 * time.Millisecond, 9100, 1, 2000}, {4 * time.Second, 9100, 0, 0}} {
		var st placement.EdgeStats
		m.fill(&st, at.Add(e.after), forward.Arrivals{Flows: e.flows, Oldest: at, Bytes: e.bytes})
		if st.Away != e.flows || st.AwayRate != e.rate || !st.AwaySince.Equal(at) {
			t.Errorf("report %d: %+v, want %d flows at %d octets a second", i, st, e.flows, e.rate)
		}
	}
}
