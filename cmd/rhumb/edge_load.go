package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"rhumb/edge/forward"
	"rhumb/placement"
)

// loadEvery is how often an edge looks at what its clusters carry: after this time and a
// random part of as much again, so that no two keep step.
const loadEvery = 10 * time.Second

// loadShift is by which part of it a figure changes before it is told again.
const loadShift = 20 // one in 20

// loadKeeper tells the fleet what the clusters of this site carry by way of this edge. The reports
// of a site's edges add up. It belongs to one goroutine.
type loadKeeper struct {
	tell func(placement.Load)
	drop func(placement.ClusterID)
	told map[string]placement.Load // by cluster
	seen map[string]int64          // requests by service, at
	at   time.Time
}

// burden is what an edge carries at one moment.
type burden struct {
	requests map[string]int64 // since the start, by service of our own server
	sessions map[netip.AddrPort]int
	at       time.Time
}

// tellLoad looks until ctx ends. A report stands in the store until the next one, or until
// the unit's lease ends.
func (e *edgeRole) tellLoad(ctx context.Context) error {
	s := e.unit.session
	k := &loadKeeper{tell: s.SetLoad, drop: s.DropLoad, told: map[string]placement.Load{}, seen: e.encounters.requests(), at: time.Now()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(loadEvery + rand.N(loadEvery)):
		}
		snap := e.unit.current.Load()
		if snap == nil {
			continue
		}
		sessions, err := forward.Sessions(e.unit.vips(func(*placement.Service) bool { return true }))
		if err != nil {
			e.unit.log.Warn("edge: sessions are not counted", "err", err)
		}
		k.look(snap.Inventory, e.unit.cfg.Node.Site, burden{e.encounters.requests(), sessions, time.Now()})
	}
}

// look tells what differs enough from what was told last.
func (k *loadKeeper) look(inv *placement.Inventory, site string, b burden) {
	now := loadsOf(inv, site, b, func(service string) int64 {
		return perSecond(b.requests[service]-k.seen[service], b.at.Sub(k.at))
	})
	k.seen, k.at = b.requests, b.at
	for name, l := range now {
		if old, ok := k.told[name]; !ok || old.Counted != l.Counted || shifted(old.QPS, l.QPS) || shifted(old.Sessions, l.Sessions) {
			k.told[name] = l
			k.tell(l)
		}
	}
	for name, l := range k.told {
		if _, ok := now[name]; !ok {
			delete(k.told, name)
			k.drop(l.Cluster)
		}
	}
}

// perSecond is a rate, rounded; whatever is not nothing is one at least.
func perSecond(n int64, took time.Duration) int64 {
	if n <= 0 || took <= 0 {
		return 0
	}
	return max(int64(float64(n)/took.Seconds()+0.5), 1)
}

// shifted tells whether a figure differs from another by more than chance would have it.
func shifted(old, now int64) bool {
	return (old == 0) != (now == 0) || max(old-now, now-old)*loadShift > old
}

// loadsOf spreads what an edge carries over the clusters of its site: a service's sessions
// and requests are those of the cluster with its VIPs, or else of its first.
func loadsOf(inv *placement.Inventory, site string, b burden, rate func(service string) int64) map[string]placement.Load {
	out := map[string]placement.Load{}
	for i := range inv.Services {
		s := &inv.Services[i]
		name := clusterOf(inv.Site(site), s)
		if s.Edge == nil || name == "" {
			continue
		}
		l := out[name]
		l.Cluster, l.At = placement.ClusterID{Site: site, Name: name}, b.at.UTC()
		for _, vip := range s.Edge.VIPs {
			l.Sessions += int64(b.sessions[vip])
		}
		if s.Edge.Kind == placement.Content {
			l.Counted, l.QPS = true, l.QPS+rate(s.Name)
		}
		out[name] = l
	}
	return out
}

// clusterOf is the cluster of a site that a service's VIPs are of, "" if it is none of ours.
func clusterOf(site *placement.Site, s *placement.Service) string {
	if site == nil || s.Edge == nil {
		return ""
	}
	first := ""
	for i := range site.Clusters {
		c := &site.Clusters[i]
		switch {
		case c.CNAME != "" || !slices.Contains(s.Clusters, c.Name):
		case slices.ContainsFunc(c.Addresses, func(a netip.AddrPort) bool { return slices.Contains(s.Edge.VIPs, a) }):
			return c.Name
		case first == "":
			first = c.Name
		}
	}
	return first
}
