package edge

import (
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/reserve"
)

// Reserve says what an edge can take over from others.
type Reserve struct {
	// Capacity is how many sessions of our own server this edge serves; 0 means
	// Limits.Sessions. What is kept for others is bounded by 95 % of it.
	Capacity int
	// Weight is what the peers have as this edge's; 0 means 1.
	Weight int
	// Domains are the failure domains of its site; without any it is one of its own.
	Domains []string
}

// SetReserve replaces what this edge can take over. It does not block.
func (a *Agent) SetReserve(own Reserve) {
	a.mu.Lock()
	defer a.mu.Unlock()
	next := *a.view.Load()
	next.own = own
	a.publish(&next)
}

// capacity is how many sessions there may be here.
func (a *Agent) capacity() int { return or(a.view.Load().own.Capacity, a.limits.Sessions) }

// load counts the sessions that are here, and those that are about to be.
func (a *Agent) load() int { return a.tab.len() + a.revival.len() }

// len counts the rounds.
func (v *revival) len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.rounds)
}

// growth counts what was pulled here lately.
type growth struct {
	mu    sync.Mutex
	since time.Time
	asked int
}

// mayPull reports whether one session more may be asked for, and notes that it is. After the
// loss of a site all of its clients may arrive at one other: what its Backups have revived
// stays there, as far as there is no room here.
func (a *Agent) mayPull(now time.Time) bool {
	room := reserve.Limit(a.capacity()) - a.load() - a.taking.len()
	g := &a.growth
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.since) >= pullAgain {
		g.since, g.asked = now, 0
	}
	if g.asked >= room {
		a.m.reserve.declined.Inc()
		return false
	}
	g.asked++
	return true
}

// pulledTooMany reports whether an offered session was asked for, and there is no room for
// it by now. Who gives sessions away by himself, since his site leaves, is not refused.
func (a *Agent) pulledTooMany(k frame.Key, now time.Time) bool {
	if !a.pulls.waits(k, now) || a.load()+a.taking.len() <= reserve.Limit(a.capacity()) {
		return false
	}
	a.m.reserve.declined.Inc()
	return true
}

// len counts the offers that are being answered.
func (m *mailbox) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.boxes)
}

// waits reports whether a session was asked for a moment ago.
func (p *pulls) waits(k frame.Key, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Before(p.next[k].not)
}

// First names the sites that most likely have the record of a session whose owner is lost,
// the best first, without this one.
func (a *Agent) First(k frame.Key) []string {
	v := a.view.Load()
	all := append(a.sure(), Peer{Name: a.cfg.Site, Of: a.cfg.Of, Weight: or(v.own.Weight, 1), Domains: v.own.Domains})
	var out []string
	for i, p := range rendezvous(k, all) {
		if i < pullRank && p.Name != a.cfg.Site {
			out = append(out, p.Name)
		}
	}
	return out
}

// Reserved tells how much of this edge's capacity is spoken for.
type Reserved struct {
	Capacity int
	Limit    int    // sessions, own and taken over
	Own      int    // sessions
	Most     int    // that one loss would bring
	Loss     string // which that is; "": nothing is reserved
	Bare     int    // sessions of this edge without a Backup, since nobody has room
	Recall   int    // of these, whose record is kept for this edge's next process alone
}

// Reserved tells how much of this edge's capacity is spoken for.
func (a *Agent) Reserved() Reserved {
	out := Reserved{Capacity: a.capacity(), Own: a.load(), Bare: int(a.replica.bare.Load()), Recall: int(a.replica.recalled.Load())}
	a.replica.mu.Lock()
	defer a.replica.mu.Unlock()
	out.Limit = a.replica.book.ledger.Limit()
	out.Loss, out.Most = a.replica.book.ledger.Worst()
	return out
}
