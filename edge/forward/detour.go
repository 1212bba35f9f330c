package forward

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"rhumb/placement"
)

// waysEvery is the grain of what waits for time on the ways round broken paths.
const waysEvery = 50 * time.Millisecond

// Relay is a peer whose direct path is broken, and the site that passes on what is for it.
type Relay struct {
	To, Via string
	// Since is when the direct path was left.
	Since time.Time
	// Packets and Bytes went by it, the tunnel's own octets not counted.
	Packets, Bytes uint64
}

// RelayChange tells that what is for a site goes another way.
type RelayChange struct {
	To string
	// Via is the relay now, Was the one before; "" is the direct path.
	Via, Was string
	// Broken tells that the direct path is broken still: with Via "", that there is no relay
	// left.
	Broken bool
	// At is when it was known to work.
	At time.Time
}

// news is what the tunnel reader has for the goroutine that decides about ways.
type news struct {
	kind  kind
	site  string // who said it
	about string // of kindRefused, kindNarrow
	hello hello
	room  int
}

// roundabout is what the decisions about ways share with the rest of the forwarder.
type roundabout struct {
	at      placement.Position
	rate    float64 // octets a second that are passed on for others; 0: none
	onRelay func(RelayChange)
	heard   atomic.Pointer[[]placement.Hearing]
	woken   chan struct{} // heard is new
	news    chan news
}

// SetHearing tells what the site's detector hears of the other sites now: the whole list,
// nil when nobody knows. Without it no path is known to be broken, but by a peer's word.
func (f *Forwarder) SetHearing(list []placement.Hearing) {
	list = slices.Clone(list)
	f.heard.Store(&list)
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// Relays lists the peers reached by a relay now, sorted.
func (f *Forwarder) Relays() []Relay {
	set := f.peers.Load()
	var list []Relay
	for _, site := range set.sites {
		if r, via := f.relayTo(set.bySite[site]); via != nil {
			list = append(list, Relay{To: site, Via: r.via, Since: r.since, Packets: r.packets.Load(), Bytes: r.octets.Load()})
		}
	}
	return list
}

// findWays owns the decisions about relays until ctx ends: it alone uses m.
func (f *Forwarder) findWays(ctx context.Context) error {
	m := newWays(f.roundabout.at, f.rate > 0)
	ticker := time.NewTicker(waysEvery)
	defer ticker.Stop()
	var known *peerSet
	var steps []wayStep
	for {
		if set := f.peers.Load(); set != known {
			known = set
			m.set(set.places())
		}
		steps = steps[:0]
		select {
		case <-ctx.Done():
			return nil
		case <-f.woken:
			steps = m.hearing(f.now(), *f.heard.Load(), steps)
		case n := <-f.news:
			steps = m.news(f.now(), n, steps)
		case <-ticker.C:
			steps = m.tick(f.now(), steps)
		}
		for i := range steps {
			f.follow(&steps[i])
		}
		f.metrics.relay.show(f.Relays())
		known.mark(m)
	}
}

// news takes what the tunnel brought.
func (m *ways) news(now time.Time, n news, steps []wayStep) []wayStep {
	switch n.kind {
	case kindHello:
		return m.hello(now, n.site, n.hello, steps)
	case kindRefused:
		return m.refused(now, n.site, n.about, steps)
	case kindNarrow:
		return m.narrow(n.site, n.about, n.room, steps)
	}
	return steps
}

// places are where the peers stand.
func (s *peerSet) places() map[string]placement.Position {
	out := make(map[string]placement.Position, len(s.sites))
	for _, site := range s.sites {
		out[site] = s.bySite[site].At
	}
	return out
}

// mark tells the tunnel reader which peers this site can't reach itself.
func (s *peerSet) mark(m *ways) {
	for _, site := range s.sites {
		if w := m.to[site]; w != nil {
			s.bySite[site].unreached.Store(w.by.via != "" || w.heard.State == placement.Path || w.heard.State == placement.Down)
		}
	}
}

// follow does one thing that was decided.
func (f *Forwarder) follow(s *wayStep) {
	set := f.peers.Load()
	p := set.find(s.site)
	if p == nil {
		return // it left the group since
	}
	switch s.do {
	case sayHello:
		if err := f.sendBy(p, set.find(s.via), kindHello, s.hello.appendTo(make([]byte, 0, helloSize))); err != nil {
			f.complain(fmt.Errorf("forward: hello to %s: %w", s.site, err))
		}
	case setRoute:
		f.setRoute(p, s)
	case tellRelay:
		f.log.Info("the way to a site changes", "site", f.site, "to", s.site, "via", s.via, "was", s.was, "broken", s.broken)
		if f.onRelay != nil {
			f.onRelay(RelayChange{To: s.site, Via: s.via, Was: s.was, Broken: s.broken, At: s.since})
		}
	}
}

// setRoute publishes a route. What went by a relay is counted on while the direct path is
// left.
func (f *Forwarder) setRoute(p *peer, s *wayStep) {
	if s.via == "" {
		p.route.Store(nil)
		return
	}
	r := &route{via: s.via, room: s.room, since: s.since, detoured: &detoured{}}
	if before := p.route.Load(); before != nil {
		r.detoured = before.detoured
	}
	p.route.Store(r)
}
