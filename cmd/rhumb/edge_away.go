package main

import (
	"sync"
	"time"

	"rhumb/edge/forward"
	"rhumb/placement"
)

// awayMeter makes a rate of what the forwarder counts.
type awayMeter struct {
	mu    sync.Mutex
	at    time.Time
	bytes uint64
	rate  int64
}

// awayGap is the least time over which a rate is taken.
const awayGap = time.Second

// fill says in a report what other sites send here of this site's sessions.
func (m *awayMeter) fill(st *placement.EdgeStats, now time.Time, a forward.Arrivals) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if took := now.Sub(m.at); m.at.IsZero() || took >= awayGap {
		if !m.at.IsZero() {
			m.rate = int64(float64(a.Bytes-m.bytes) / took.Seconds())
		}
		m.at, m.bytes = now, a.Bytes
	}
	st.Away, st.AwaySince = a.Flows, a.Oldest
	if a.Flows > 0 {
		st.AwayRate = m.rate
	}
}
