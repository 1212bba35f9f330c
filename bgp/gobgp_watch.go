package bgp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	api "github.com/osrg/gobgp/v3/api"
)

// PeerState lists the peers and our own routes. An announcer's table holds
// nothing but its own routes, so the listing stays short.
func (g *GoBGP) PeerState(ctx context.Context) (State, error) {
	var s State
	err := g.server.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		ps := peerState(p)
		if t := p.Timers.GetState(); t != nil && ps.Established && t.Uptime != nil {
			ps.Since = t.Uptime.AsTime()
		}
		s.Peers = append(s.Peers, ps)
	})
	if err != nil {
		return State{}, fmt.Errorf("bgp: list peers: %w", err)
	}
	for _, f := range families() {
		err := g.server.ListPath(ctx, &api.ListPathRequest{TableType: api.TableType_GLOBAL, Family: f}, func(d *api.Destination) {
			for _, p := range d.Paths {
				if l, err := fromPath(p); err == nil && !l.Peer.IsValid() {
					l.Route.Attrs.LargeCommunities = slices.DeleteFunc(l.Route.Attrs.LargeCommunities, func(c LargeCommunity) bool {
						return c[0] == g.asn && c[1] == towardFunction
					})
					s.Routes = append(s.Routes, l.Route)
				}
			}
		})
		if err != nil {
			return State{}, fmt.Errorf("bgp: list routes: %w", err)
		}
	}
	slices.SortFunc(s.Peers, func(a, b PeerState) int { return a.Address.Compare(b.Address) })
	slices.SortFunc(s.Routes, func(a, b Route) int { return comparePrefix(a.Prefix, b.Prefix) })
	return s, nil
}

// Watch reports peers and the routes they send, before any policy.
func (g *GoBGP) Watch(ctx context.Context, fn func(Change)) error {
	return g.watch(ctx, &api.WatchEventRequest{
		Peer:  &api.WatchEventRequest_Peer{},
		Table: &api.WatchEventRequest_Table{Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_ADJIN, Init: true}}},
	}, func(e *api.WatchEventResponse) {
		if p := e.GetPeer(); p != nil && p.Peer.GetConf().GetNeighborAddress() != "" {
			if s := peerState(p.Peer); s.Address.IsValid() {
				fn(Change{Peer: &s})
			}
		}
		for _, p := range e.GetTable().GetPaths() {
			if l, err := fromPath(p); err == nil && l.Peer.IsValid() {
				fn(Change{Learned: &l})
			}
		}
	})
}

// Best is the outcome of route selection for one prefix; no next hop means that
// the prefix is gone.
type Best struct {
	Prefix   netip.Prefix
	NextHops []netip.Addr // sorted; several share the load
}

// WatchBest reports each change of the best routes of a Transit, beginning with
// those in force.
func (g *GoBGP) WatchBest(ctx context.Context, fn func(Best)) error {
	return g.watch(ctx, &api.WatchEventRequest{
		Table: &api.WatchEventRequest_Table{Filters: []*api.WatchEventRequest_Table_Filter{{Type: api.WatchEventRequest_Table_Filter_BEST, Init: true}}},
	}, func(e *api.WatchEventResponse) {
		for _, b := range bestOf(e.GetTable().GetPaths()) {
			fn(b)
		}
	})
}

// bestOf groups the paths of one event by prefix, in order of prefix.
func bestOf(paths []*api.Path) []Best {
	hops := make(map[netip.Prefix][]netip.Addr)
	for _, p := range paths {
		l, err := fromPath(p)
		if err != nil {
			continue
		}
		list := hops[l.Route.Prefix]
		if !l.Withdrawn && l.Peer.IsValid() && !slices.Contains(list, l.Route.Attrs.NextHop) {
			list = append(list, l.Route.Attrs.NextHop)
		}
		hops[l.Route.Prefix] = list
	}
	out := make([]Best, 0, len(hops))
	for prefix, list := range hops {
		slices.SortFunc(list, netip.Addr.Compare)
		out = append(out, Best{prefix, list})
	}
	slices.SortFunc(out, func(a, b Best) int { return comparePrefix(a.Prefix, b.Prefix) })
	return out
}

// watch runs one watch of the library until the context or the engine ends.
// The library's goroutine may call back once more after its context ended, so
// the callback goes through a gate which is shut before watch returns.
func (g *GoBGP) watch(ctx context.Context, r *api.WatchEventRequest, fn func(*api.WatchEventResponse)) error {
	g.watches.Add(1)
	defer g.watches.Done()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.stopped, cancel)()
	var gate sync.Mutex
	open := true
	err := g.server.WatchEvent(ctx, r, func(e *api.WatchEventResponse) {
		gate.Lock()
		defer gate.Unlock()
		if open {
			fn(e)
		}
	})
	if err != nil {
		return fmt.Errorf("bgp: watch: %w", err)
	}
	<-ctx.Done()
	gate.Lock()
	open = false
	gate.Unlock()
	return nil
}

// peerState names the state in lower case, as in the metric's label.
func peerState(p *api.Peer) PeerState {
	a, _ := netip.ParseAddr(p.GetConf().GetNeighborAddress())
	state := p.GetState().GetSessionState()
	return PeerState{Address: a.Unmap(), ASN: p.GetConf().GetPeerAsn(), State: strings.ToLower(state.String()),
		Established: state == api.PeerState_ESTABLISHED}
}
