package authdns

import (
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
	// asked is smoothed from the demands of all workers.
	asked demand
}

// rate is a count at a time, and the slope since the one before.
type rate struct {
	at    time.Time
	count int64
	qps   float64
}

// newTallies starts all counts at now.
func newTallies(now time.Time, fresh func()) *tallies {
	return &tallies{rate: rate{at: now}, asked: demand{at: now}, fresh: fresh}
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

// demand takes in what was asked since it was last called, in the classes of a table.
func (t *tallies) demand(node, table string, now time.Time) placement.DemandReport {
	t.fresh()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked.add(t.takeLocked(), table, now)
	return t.asked.report(node)
}

// takeLocked sums up what the workers have counted, and forgets it.
func (t *tallies) takeLocked() map[demandKey]int64 {
	sum := make(map[demandKey]int64)
	for _, w := range t.list {
		w.mu.Lock()
		for k, n := range w.demand {
			sum[k] += n
		}
		clear(w.demand)
		w.mu.Unlock()
	}
	return sum
}
