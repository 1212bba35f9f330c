package forward

import (
	"maps"
	"slices"
	"time"
)

const (
	// neighbourRate is how many times as many questions the other edges of this site are
	// asked as other sites: when the router in front spreads its flows anew, thousands
	// stray at once, and who is asked answers from the kernel, next door.
	neighbourRate = 10
	// silentGrace is how long the word of a neighbour that fell silent is still waited for.
	// In that time whoever keeps the record of one of its sessions claims it, and a process
	// that was only restarted is back.
	silentGrace = leastWait
)

// nextDoor is what is known of the other edges of this site.
type nextDoor struct {
	// budget is that of questions to them alone.
	nearBudget bucket
	silent     map[string]time.Time // since when nothing is heard of them
}

func newNextDoor(askRate float64) nextDoor {
	rate := neighbourRate * askRate
	return nextDoor{nearBudget: bucket{rate: rate, left: rate}, silent: make(map[string]time.Time)}
}

// SetSilent tells which other edges of this site are dead, by their missing beats. What
// was believed of the flows there is forgotten at once, and they are not asked any more.
func (f *Forwarder) SetSilent(neighbours []string) {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, table := range []*owners{f.owners, f.udp} {
		for _, site := range table.setSilent(now, neighbours) {
			f.unlearn(site)
		}
	}
}

// setSilent returns those that were not silent before.
func (o *owners) setSilent(now time.Time, list []string) (fell []string) {
	maps.DeleteFunc(o.silent, func(site string, _ time.Time) bool { return !slices.Contains(list, site) })
	for _, site := range list {
		if _, known := o.silent[site]; known {
			continue
		}
		o.silent[site] = now
		o.lost(site)
		o.mourn(now.Add(reviveLife))
		fell = append(fell, site)
	}
	return fell
}

// gone tells whether nobody waits for a neighbour's word any more.
func (o *owners) gone(now time.Time, site string) bool {
	since, silent := o.silent[site]
	return silent && now.Sub(since) >= silentGrace
}

// adjacent lists the other edges of this site, in order.
func (o *owners) adjacent() []string {
	if o.neighbours == nil {
		return nil
	}
	return o.neighbours()
}

// present lists the peers whose word may come.
func (o *owners) present(now time.Time) []string {
	peers := o.peers()
	if len(o.silent) == 0 {
		return peers
	}
	return slices.DeleteFunc(slices.Clone(peers), func(site string) bool { return o.gone(now, site) })
}

// foundBy says how an owner was found.
func (o *owners) foundBy(site string, how result) result {
	if slices.Contains(o.adjacent(), site) {
		return byNeighbour
	}
	return how
}

// afford takes a question from the budgets. Where there are neighbours, it goes to them
// first, and to other sites only as far as the budget for those goes: else later.
func (o *owners) afford(now time.Time, q *question) bool {
	adjacent := o.adjacent()
	near := slices.ContainsFunc(q.open, func(site string) bool { return slices.Contains(adjacent, site) })
	if !near {
		q.paid = o.budget.take(now)
		return q.paid
	}
	if !o.nearBudget.take(now) {
		return false
	}
	if slices.ContainsFunc(q.open, func(site string) bool { return !slices.Contains(adjacent, site) }) {
		if q.paid = o.budget.take(now); !q.paid {
			q.toNeighbours(adjacent)
		}
	}
	return true
}

// toNeighbours leaves the others for later.
func (q *question) toNeighbours(adjacent []string) {
	open := q.open
	q.open = nil
	for _, site := range open {
		if slices.Contains(adjacent, site) {
			q.open = append(q.open, site)
		} else {
			q.later = append(q.later, site)
		}
	}
}

// affordMore takes what is left for later from the budget of questions to other sites.
func (o *owners) affordMore(now time.Time, f Flow, r *record) bool {
	if !r.waiting.paid {
		r.waiting.paid = o.shadowed(f) || o.budget.take(now)
	}
	return r.waiting.paid
}

// beyond ends a question which no neighbour could answer, and for which the budget of
// questions to other sites does not suffice.
func (o *owners) beyond(now time.Time, f Flow, r *record, steps []step) []step {
	o.asking = without(o.asking, f)
	for _, p := range o.drain(r) {
		o.countOne(r, overBudget)
		if !now.Before(o.mourning) {
			steps = o.refuse(r, f, p, steps)
		}
	}
	delete(o.flows, f)
	return steps
}

// hopeless tells whether a question has an end before its time: who has not answered is
// dead, and nobody keeps a record of the session.
func (o *owners) hopeless(now time.Time, f Flow, r *record) bool {
	if len(o.silent) == 0 || r.waiting.keeper.owner != "" || o.shadowed(f) {
		return false
	}
	still := func(site string) bool { return !o.gone(now, site) }
	return !slices.ContainsFunc(r.waiting.open, still) && !slices.ContainsFunc(r.waiting.later, still)
}
