package authdns

import (
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"rhumb/placement"
)

// tally is what one worker counts; its lock is contended by readers alone.
type tally struct {
	mu      sync.Mutex
	queries int64
	answers map[string]int64 // by site, since start
	demand  map[demandKey]int64
}

type demandKey struct {
	service string
	class   uint16
}

// count takes in one query. Demand is counted in observe mode too: it is what
// the clients ask, whoever answers them.
func (t *tally) count(o *outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queries++
	d := o.decision
	if d == nil {
		return
	}
	t.demand[demandKey{d.service, d.class}]++
	if d.site != "" && !d.observed {
		t.answers[d.site]++
	}
}

// add changes the counts under the lock.
func (t *tally) add(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
}

// tallies sums up the workers.
type tallies struct {
	mu   sync.Mutex
	list []*tally
	// fresh brings the counts of the fast path up to date.
	fresh func()
	rate  rate
	// demandAt is when Demand was last read.
	demandAt time.Time
}

// rate is a count at a time, and the slope since the one before.
type rate struct {
	at    time.Time
	count int64
	qps   float64
}

// newTallies starts all counts at now.
func newTallies(now time.Time, fresh func()) *tallies {
	return &tallies{rate: rate{at: now}, demandAt: now, fresh: fresh}
}

// worker makes the tally of one more worker.
func (t *tallies) worker() *tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &tally{answers: make(map[string]int64), demand: make(map[demandKey]int64)}
	t.list = append(t.list, n)
	return n
}

// status returns the rate of queries since it was last asked, over a second at
// least, and the answers by site since start.
func (t *tallies) status(now time.Time) (qps float64, answers map[string]int64) {
	t.fresh()
	t.mu.Lock()
	defer t.mu.Unlock()
	answers = make(map[string]int64)
	total := int64(0)
	for _, w := range t.list {
		w.mu.Lock()
		total += w.queries
		for site, n := range w.answers {
			answers[site] += n
		}
		w.mu.Unlock()
	}
	if d := now.Sub(t.rate.at); d >= time.Second {
		t.rate = rate{at: now, count: total, qps: float64(total-t.rate.count) / d.Seconds()}
	}
	return t.rate.qps, answers
}

// Demand returns the queries per second by service and class since it was last
// called, in that order, for load reports. What was counted is forgotten.
func (s *Server) Demand() []placement.Demand { return s.tallies.demand(s.now()) }

// demand sums up and forgets; now ends the span that the rates are of.
func (t *tallies) demand(now time.Time) []placement.Demand {
	t.fresh()
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := make(map[demandKey]int64)
	for _, w := range t.list {
		w.mu.Lock()
		for k, n := range w.demand {
			sum[k] += n
		}
		clear(w.demand)
		w.mu.Unlock()
	}
	took := max(now.Sub(t.demandAt).Seconds(), 0.001)
	t.demandAt = now
	keys := slices.SortedFunc(maps.Keys(sum), func(a, b demandKey) int {
		if a.service != b.service {
			return strings.Compare(a.service, b.service)
		}
		return int(a.class) - int(b.class)
	})
	out := make([]placement.Demand, 0, len(keys))
	for _, k := range keys {
		// Rounded up: a class which asks at all is not forgotten.
		out = append(out, placement.Demand{Service: k.service, Class: k.class, QPS: int64(math.Ceil(float64(sum[k]) / took))})
	}
	return out
}
