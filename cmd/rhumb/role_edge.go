package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/edge"
	"rhumb/edge/forward"
	"rhumb/edge/frame"
	"rhumb/placement"
)

// addEdge adds the role edge: a forwarder for the strays of every service on a
// VIP, and our own server for those of kind content.
func addEdge(u *unit) {
	snaps := newSnapshotBox()
	u.appliers = append(u.appliers, snaps)
	e := &edgeRole{unit: u, ready: make(chan struct{})}
	u.reports = append(u.reports, e.report)
	u.add("edge", func(ctx context.Context) error {
		snap, site, err := u.awaitSnapshot(ctx)
		if err != nil {
			return err
		}
		if !site.Edge.IsValid() || u.identity == nil {
			return errors.New("role edge needs the site's edge address in the fleet and an identity in the node file")
		}
		return e.run(ctx, snap, site, snaps.box)
	})
}

// edgeRole joins the forwarder and the content agent of one site.
type edgeRole struct {
	unit      *unit
	forwarder *forward.Forwarder
	agent     *edge.Agent
	ready     chan struct{}
	// draining is the drain that the agent was told of; owned by run.
	draining placement.Phase
}

// run owns both and the loop that aims them, and ends when one of them does.
func (e *edgeRole) run(ctx context.Context, snap *placement.Snapshot, site *placement.Site, snaps <-chan *placement.Snapshot) error {
	if err := e.build(snap, site); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.forwarder.Run(ctx) })
	g.Go(func() error { return e.agent.Run(ctx) })
	g.Go(func() error { return e.tellMoves(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case s := <-snaps:
				e.apply(s)
			}
		}
	})
	return g.Wait()
}

// build makes forwarder and agent from the first snapshot. The agent puts the VIPs
// on lo itself only where no role bgp of this node does.
func (e *edgeRole) build(snap *placement.Snapshot, site *placement.Site) error {
	u := e.unit
	fwd, err := forward.New(forward.Config{Site: site.Name, Local: site.Edge, Peers: e.tunnels(snap.Inventory),
		OnForeign: e.foreign, Logger: u.log, Registerer: u.metrics})
	if err != nil {
		return err
	}
	if err := fwd.SetVIPs(vipModes(snap.Inventory)); err != nil {
		return err
	}
	agent, err := edge.New(edge.Config{Site: site.Name, Control: site.Edge, TLS: u.identity.TLS(""), Peers: edgePeers(snap.Inventory, site.Name),
		Services: contentServices(snap.Inventory), Moves: edge.Moves{PullAfter: pullAfter, Backups: true}, Addresses: !u.cfg.Has("bgp"),
		Strays: strays{fwd}, Log: u.log, Registerer: u.metrics})
	if err != nil {
		return err
	}
	e.forwarder, e.agent = fwd, agent
	close(e.ready)
	return nil
}

// pullAfter is how long a session's packets must have strayed here before it is
// moved: a route that flips back sooner moves nothing.
const pullAfter = time.Second

// apply aims peers, services and the drain at a snapshot. Each keeps its last
// good state when the new one is wrong.
func (e *edgeRole) apply(s *placement.Snapshot) {
	u, inv := e.unit, s.Inventory
	err := errors.Join(e.forwarder.SetPeers(e.tunnels(inv)), e.forwarder.SetVIPs(vipModes(inv)),
		e.agent.SetPeers(edgePeers(inv, u.cfg.Node.Site)), e.agent.SetServices(contentServices(inv)))
	if err != nil {
		u.log.Error("edge: the last good state goes on", "snapshot", s.Name.String(), "err", err)
	}
	e.drain(s)
}

// drain follows the phases of this site's drain: from gshut on, packets arrive
// elsewhere, so the others are told which flows are ours and may pull them.
func (e *edgeRole) drain(s *placement.Snapshot) {
	phase := placement.Phase("")
	if d := s.Plan.Drain(e.unit.cfg.Node.Site); d != nil {
		phase = d.Phase
	}
	leaving := slices.Contains([]placement.Phase{placement.PhaseGShut, placement.PhaseSessions, placement.PhaseWithdraw, placement.PhaseDrained}, phase)
	was := e.draining != ""
	switch {
	case leaving && !was:
		e.draining = phase
		if _, err := e.forwarder.Announce(); err != nil {
			e.unit.log.Warn("edge: announcing the flows failed; they are asked for instead", "err", err)
		}
		if err := e.agent.Drain(nil); err != nil {
			e.unit.log.Error("edge: drain", "err", err)
		}
	case !leaving && was:
		e.draining = ""
		e.agent.Undrain()
	}
}

// foreign is told of strays of a flow owned elsewhere.
func (e *edgeRole) foreign(f forward.Flow, owner string, since time.Time) {
	select {
	case <-e.ready:
		e.agent.Foreign(frame.Key{Client: f.Client, VIP: f.VIP}, owner, since)
	default:
	}
}

// report fills in what the edge does. It says nothing until the role is up.
func (e *edgeRole) report(n *placement.Node) {
	select {
	case <-e.ready:
	default:
		return
	}
	st := countMoves(e.agent.Moves())
	for _, s := range e.agent.Sessions() {
		st.Sessions++
		if s.State == edge.Moving || s.State == edge.Dumped {
			st.Moving++
		}
	}
	st.Forwarded = len(e.forwarder.Flows())
	if owned, err := e.forwarder.Owned(); err == nil {
		st.Foreign = foreignSessions(owned, e.unit.current.Load().Inventory)
	}
	n.Edge = &st
}

// foreignSessions counts the connections which other servers have on VIPs of kind
// forward: those of our own server are counted by itself. A health check that
// happens to be connected is among them, the kernel cannot tell it from a client.
func foreignSessions(owned map[netip.AddrPort]int, inv *placement.Inventory) (n int) {
	for _, s := range inv.Services {
		if s.Edge == nil || s.Edge.Kind == placement.Content {
			continue
		}
		for _, vip := range s.Edge.VIPs {
			n += owned[vip]
		}
	}
	return n
}

// countMoves sums up the hand-offs begun here, as far back as the agent remembers.
// One that was only observed moved nothing, one that was refused failed nothing:
// the session lives on where it was. Sessions taken in are counted where they
// came from: the agent keeps no list of them.
func countMoves(moves []edge.Move) (st placement.EdgeStats) {
	for _, m := range moves {
		switch m.Result {
		case "ok":
			st.MovedOut++
		case "observe", "refused":
		default: // timeout, failed, lost
			st.Failed++
		}
	}
	return st
}

// movesTold is how often hand-offs are summed up for the log: a drain moves
// thousands a second.
const movesTold = 2 * time.Second

// tellMoves tells the log of the hand-offs begun here.
func (e *edgeRole) tellMoves(ctx context.Context) error {
	tick := time.NewTicker(movesTold)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		events, until := moveEvents(e.agent.Moves(), since)
		for _, ev := range events {
			e.unit.event(ev)
		}
		since = until
	}
}

// moveEvents sums up the hand-offs that ended after a moment, by the other site
// and the result, and returns the moment up to which they are told.
func moveEvents(moves []edge.Move, since time.Time) ([]placement.Event, time.Time) {
	type sum struct{ to, result string }
	counts := make(map[sum]int)
	until := since
	for _, m := range moves {
		if end := m.At.Add(m.Took); end.After(since) {
			counts[sum{m.To, m.Result}]++
			if end.After(until) {
				until = end
			}
		}
	}
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b sum) int {
		return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.result, b.result))
	})
	var out []placement.Event
	for _, k := range keys {
		out = append(out, placement.Event{At: until, Kind: "session", Text: fmt.Sprintf("%d sessions → %s: %s", counts[k], k.to, k.result)})
	}
	return out, until
}

// tunnels are the other sites as the forwarder reaches them. One whose certificate
// our group did not sign is left out: no key, no packet.
func (e *edgeRole) tunnels(inv *placement.Inventory) []forward.Peer {
	u := e.unit
	var out []forward.Peer
	for _, s := range inv.Sites {
		if s.Name == u.cfg.Node.Site || !s.Edge.IsValid() {
			continue
		}
		key, err := u.identity.PairKey(s.Name, s.Identity, "tunnel")
		if err != nil {
			u.log.Error("tunnel: a site is left out", "peer", s.Name, "err", err)
			continue
		}
		out = append(out, forward.Peer{Site: s.Name, Addr: s.Edge, Key: key})
	}
	return out
}

// edgePeers are the other sites to which sessions may be handed.
func edgePeers(inv *placement.Inventory, own string) []edge.Peer {
	var out []edge.Peer
	for _, s := range inv.Sites {
		if s.Name != own && s.Edge.IsValid() {
			out = append(out, edge.Peer{Name: s.Name, Control: s.Edge, Weight: 1})
		}
	}
	return out
}

// contentServices are those of our own server; kind forward belongs to the forwarder.
func contentServices(inv *placement.Inventory) []edge.Service {
	var out []edge.Service
	for _, s := range inv.Services {
		if s.Edge == nil || s.Edge.Kind != placement.Content {
			continue
		}
		out = append(out, edge.Service{Name: s.Name, Kind: edge.KindContent, Mode: string(s.Edge.Mode), VIPs: s.Edge.VIPs,
			Root: s.Edge.Root, Origin: s.Edge.Origin})
	}
	return out
}

// vipModes are all VIPs: strays of content sessions are forwarded too, until
// they are pulled.
func vipModes(inv *placement.Inventory) map[netip.AddrPort]forward.Mode {
	out := make(map[netip.AddrPort]forward.Mode)
	for _, s := range inv.Services {
		if s.Edge == nil {
			continue
		}
		mode := forward.Observe
		if s.Edge.Mode == placement.Act {
			mode = forward.Act
		}
		for _, v := range s.Edge.VIPs {
			out[v] = mode
		}
	}
	return out
}

// strays lets the content agent hold and release packets.
type strays struct{ f *forward.Forwarder }

// Hold keeps the packets of a flow.
func (s strays) Hold(k frame.Key) { s.f.Hold(forward.Flow{Client: k.Client, VIP: k.VIP}) }

// Release gives them back.
func (s strays) Release(k frame.Key) { s.f.Release(forward.Flow{Client: k.Client, VIP: k.VIP}) }

// Moved sends later packets after the session.
func (s strays) Moved(k frame.Key, to string) {
	s.f.Moved(forward.Flow{Client: k.Client, VIP: k.VIP}, to)
}
