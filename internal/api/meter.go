package api

import (
	"sync"
	"time"

	"rhumb/placement"
)

// meter turns the counters of answers which units report into rates by site.
// A counter that fell belongs to a unit which began anew. Safe for concurrent use.
type meter struct {
	mu    sync.Mutex
	units map[string]*reading // by node and unit
}

// reading is the last two reports of one unit.
type reading struct {
	at    time.Time
	count map[string]int64
	rate  map[string]float64
}

// observe takes the newest reports and returns answers per second by site.
func (m *meter) observe(nodes []placement.Node) map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units == nil {
		m.units = make(map[string]*reading)
	}
	sum, seen := make(map[string]float64), make(map[string]bool)
	for i := range nodes {
		n := &nodes[i]
		if n.DNS == nil {
			continue
		}
		key := n.Name + "/" + n.Unit
		seen[key] = true
		for site, rate := range m.unit(key).read(n.At, n.DNS.Answers) {
			sum[site] += rate
		}
	}
	for key := range m.units {
		if !seen[key] {
			delete(m.units, key)
		}
	}
	return sum
}

func (m *meter) unit(key string) *reading {
	r := m.units[key]
	if r == nil {
		r = &reading{}
		m.units[key] = r
	}
	return r
}

func (r *reading) read(at time.Time, count map[string]int64) map[string]float64 {
	took := at.Sub(r.at).Seconds()
	if took <= 0 {
		return r.rate
	}
	rate := make(map[string]float64, len(count))
	for site, n := range count {
		// A site which was not counted before began at 0.
		if before := r.count[site]; r.count != nil && n >= before {
			rate[site] = float64(n-before) / took
		}
	}
	r.at, r.count, r.rate = at, count, rate
	return rate
}
