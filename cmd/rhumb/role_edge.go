package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/edge"
	"rhumb/edge/forward"
	"rhumb/edge/frame"
	"rhumb/edge/token"
	"rhumb/placement"
)

// addEdge adds the role edge: a forwarder for the strays of every service on a
// VIP, and our own server for those of kind content.
func addEdge(u *unit) {
	snaps := newSnapshotBox()
	u.appliers = append(u.appliers, snaps)
	e := &edgeRole{unit: u, ready: make(chan struct{}), encounters: newEncounters(u.socket("evidence.sock"), u.clustersHere)}
	u.add("encounters", e.encounters.run)
	addLeases(u, e.ready)
	u.reports = append(u.reports, e.report)
	u.add("edge", func(ctx context.Context) error {
		snap, site, err := u.awaitSnapshot(ctx)
		if err != nil {
			return err
		}
		if u.leasesAlone(site) {
			<-ctx.Done()
			return nil
		}
		if e.self, err = u.member(site); err != nil {
			return err
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
	// encounters tells the role health how requests end.
	encounters *encounters
	away       awayMeter
	tokens     []token.Secret // when it was built; then followTokens has them
	// leaving tells that the agent was told to let its sessions go, and down which
	// sites it was told are lost; owned by run.
	leaving leaving
	down    []string
	doubted []string // down, and kept in service by the removal cap
	silent  []string // other nodes of this site; as down, owned by run
	shown   atomic.Pointer[[]string]
	self    placement.Member
	nodes   *neighbours
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
	g.Go(func() error { return e.followTokens(ctx) })
	g.Go(func() error { return e.hear(ctx) })
	g.Go(func() error { return e.nodes.run(ctx) })
	if !e.unit.alone() {
		g.Go(func() error { return e.tellLoad(ctx) })
	}
	g.Go(func() error {
		tick := time.NewTicker(announceEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case s := <-snaps:
				e.apply(s)
			case silent := <-e.nodes.tell:
				e.silences(silent)
			case <-tick.C:
				e.announce(e.unit.current.Load())
			}
		}
	})
	return g.Wait()
}

// build makes forwarder and agent from the first snapshot. The agent puts the VIPs
// on lo itself only where no role bgp of this node does, and none has an owner by lease.
func (e *edgeRole) build(snap *placement.Snapshot, site *placement.Site) error {
	u := e.unit
	var err error
	if e.nodes, err = newNeighbours(u, e.self); err != nil {
		return err
	}
	e.nodes.apply(snap)
	fwd, err := forward.New(forward.Config{Site: e.self.Name, Local: e.self.Edge, Peers: e.tunnels(snap.Inventory),
		OnForeign: e.foreign, OnHeld: e.held, Shadowed: e.shadowed, KeptFor: e.keptFor, First: e.first, At: site.At, RelayRate: relayRate(site, u.cfg.Mode),
		OnRelay: e.relayed, Logger: u.log, Registerer: u.metrics})
	if err != nil {
		return err
	}
	if err := errors.Join(fwd.SetVIPs(vipModes(snap.Inventory, u.cfg.Mode)), fwd.SetQUIC(quicVIPs(snap.Inventory, u.cfg.Mode))); err != nil {
		return err
	}
	if e.tokens, err = readTokens(u.cfg.Edge.Tokens); err != nil {
		return err
	}
	agent, err := edge.New(edge.Config{Site: e.self.Name, Of: e.self.Site, Reserve: ownReserve(e.self, site), Control: e.self.Edge, TLS: u.identity.TLS(""), Peers: edgePeers(snap, e.self),
		Services: movingServices(snap.Inventory, u), Handoff: edge.Handoff{Socket: u.socket("handoff.sock"), Group: u.cfg.Edge.Handoff.Group}, Ledger: u.socket("edge.taken"), Flows: establishedFlows,
		Moves: edge.Moves{PullAfter: pullAfter, Deadline: pushAfter, Backups: true}, Addresses: !u.cfg.Has("bgp") && u.cfg.VIP == nil,
		Strays: strays{fwd}, Store: socketStore(u), Met: e.encounters.met, OnPrepare: e.prepared, Tokens: e.tokens, Log: u.log, Registerer: u.metrics})
	if err != nil {
		return err
	}
	e.forwarder, e.agent = fwd, agent
	close(e.ready)
	e.revive(snap)
	return nil
}

// pullAfter is how long a session's packets must have strayed here before it is
// moved: a route that flips back sooner moves nothing.
const pullAfter = time.Second

// pushAfter is how long after gshut a draining site hands over by itself what
// nobody has pulled: sessions that rest send nothing which could stray.
const pushAfter = 8 * time.Second

// apply aims peers, services and the drain at a snapshot. Each keeps its last
// good state when the new one is wrong.
func (e *edgeRole) apply(s *placement.Snapshot) {
	u, inv := e.unit, s.Inventory
	err := errors.Join(e.forwarder.SetPeers(e.tunnels(inv)), e.forwarder.SetVIPs(vipModes(inv, u.cfg.Mode)), e.forwarder.SetQUIC(quicVIPs(inv, u.cfg.Mode)),
		e.agent.SetPeers(edgePeers(s, e.self)), e.agent.SetServices(movingServices(inv, u)))
	if err != nil {
		u.log.Error("edge: the last good state goes on", "snapshot", s.Name.String(), "err", err)
	}
	e.reserve(s)
	e.nodes.apply(s)
	e.revive(s)
	e.drain(s)
}

func leavingPhases() []placement.Phase {
	return []placement.Phase{placement.PhaseGShut, placement.PhaseSessions, placement.PhaseWithdraw, placement.PhaseDrained}
}

// phase is that of this site's drain, or "".
func (e *edgeRole) phase(s *placement.Snapshot) placement.Phase {
	if d := s.Plan.Drain(e.unit.cfg.Node.Site); d != nil {
		return d.Phase
	}
	return ""
}

// announceEvery is how often a draining site tells the others its flows.
const announceEvery = 2 * time.Second

// announce tells the others which flows are ours, long before the routes change:
// the first stray may be there before any word that was sent at the same moment,
// and new connections come until then.
func (e *edgeRole) announce(s *placement.Snapshot) {
	if e.leaving.node() {
		e.announceNear()
	}
	if phase := e.phase(s); phase != placement.PhaseTTL && !slices.Contains(leavingPhases(), phase) {
		return
	}
	if _, err := e.forwarder.Announce(); err != nil {
		e.unit.log.Warn("edge: announcing the flows failed; they are asked for instead", "err", err)
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
	st := &placement.EdgeStats{}
	for _, s := range e.agent.Sessions() {
		if s.Local {
			continue
		}
		st.Sessions++
		if s.State == edge.Moving || s.State == edge.Dumped {
			st.Moving++
		}
	}
	for _, f := range e.forwarder.Flows() {
		if !f.Observed {
			st.Forwarded++
		}
	}
	e.away.fill(st, time.Now(), e.forwarder.Arrivals())
	st.Foreign = e.unit.sessionsOf(func(s *placement.Service) bool { return s.Edge.Kind != placement.Content })
	// What the kernel still delivers of responses that our server has done with
	// goes on as other servers' sessions do.
	content := e.unit.sessionsOf(func(s *placement.Service) bool { return s.Edge.Kind == placement.Content })
	st.Foreign += max(0, content-st.Sessions)
	t := e.agent.Totals()
	st.MovedIn, st.MovedOut, st.Failed = t.In, t.Out, t.Failed
	st.Listeners = e.listeners()
	n.Alarms = slices.Concat(n.Alarms, certificateAlarms(st.Listeners), e.nodeAlarms())
	e.handoffs(n, st)
	e.relays(n, st)
	e.prepares(st)
	e.reserves(n, st)
	n.Edge = st
}

// movesTold is how often hand-offs are summed up for the log: a drain moves
// thousands a second.
const movesTold = 2 * time.Second

// tellMoves tells the log of the hand-offs begun here.
func (e *edgeRole) tellMoves(ctx context.Context) error {
	tick := time.NewTicker(movesTold)
	defer tick.Stop()
	since, revived := time.Now(), int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		events, until := moveEvents(e.agent.Moves(), since)
		events = append(events, revivedEvents(&revived, e.agent.Totals().Revived, time.Now())...)
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

// sessionsOf counts the clients on the VIPs of the services that are wanted.
func (u *unit) sessionsOf(want func(*placement.Service) bool) int {
	sum := 0
	counts, err := forward.Sessions(u.vips(want))
	if err != nil {
		u.log.Warn("edge: sessions are not counted", "err", err)
	}
	for _, n := range counts {
		sum += n
	}
	return sum
}

// vips are the addresses and ports of the services that are wanted.
func (u *unit) vips(want func(*placement.Service) bool) []netip.AddrPort {
	var out []netip.AddrPort
	snap := u.current.Load()
	if snap == nil {
		return nil
	}
	for i := range snap.Inventory.Services {
		if s := &snap.Inventory.Services[i]; s.Edge != nil && want(s) {
			out = append(out, s.Edge.VIPs...)
		}
	}
	return out
}

// tunnels are the other edges as the forwarder reaches them. One whose certificate
// our group did not sign is left out: no key, no packet.
func (e *edgeRole) tunnels(inv *placement.Inventory) []forward.Peer {
	u := e.unit
	var out []forward.Peer
	for _, m := range edges(inv, e.self.Name) {
		s := inv.Site(m.Site)
		key, err := u.identity.PairKey(s.Name, s.Identity, "tunnel")
		if err != nil {
			u.log.Error("tunnel: an edge is left out", "peer", m.Name, "err", err)
			continue
		}
		out = append(out, forward.Peer{Site: m.Name, Near: m.Site == e.self.Site, Addr: m.Edge, Key: key, At: s.At})
	}
	return out
}

// edgePeers are the other edges to which sessions may be handed. One of a site that drains,
// from the beginning of that on, is no Backup of sessions of other sites, and a node that
// drains is nobody's.
func edgePeers(s *placement.Snapshot, self placement.Member) []edge.Peer {
	var out []edge.Peer
	for _, m := range edges(s.Inventory, self.Name) {
		p := edge.Peer{Name: m.Name, Of: m.Site, Control: m.Edge, Weight: m.Capacity(), Domains: s.Inventory.Site(m.Site).Domains}
		if m.Site != self.Site && s.Plan.Drain(m.Site) != nil || s.Inventory.Drained(m.Name) != nil {
			p.Weight = 0
		}
		out = append(out, p)
	}
	return out
}

// movingServices are those whose sessions move: of our own server, and of others that
// give them away. Kind forward belongs to the forwarder.
func movingServices(inv *placement.Inventory, u *unit) []edge.Service {
	return append(contentServices(inv, u), handoffServices(inv, u)...)
}

// contentServices are those of our own server.
func contentServices(inv *placement.Inventory, u *unit) []edge.Service {
	var out []edge.Service
	for _, s := range inv.Services {
		if s.Edge == nil || s.Edge.Kind != placement.Content {
			continue
		}
		out = append(out, edge.Service{Name: s.Name, Kind: edge.KindContent, Mode: string(edgeMode(inv, &s, u.cfg.Mode)), VIPs: s.Edge.VIPs,
			Root: s.Edge.Root, Origin: s.Edge.Origin, Spool: filepath.Join(u.cfg.Node.DataDir, "spool", s.Name),
			Cert: s.Edge.Cert, Key: s.Edge.Key, Export: string(s.Edge.ExportSecrets), Revival: string(s.Edge.Revival), Freshness: string(s.Edge.Freshness),
			Events:  edge.Events{Path: s.Edge.Events, Strict: s.Edge.EventsStrict},
			Uploads: edge.Uploads{Dir: s.Edge.Uploads, Max: int64(s.Edge.UploadMB) << 20}})
	}
	return out
}

// edgeMode is what the edge does with a service's sessions: the most particular
// word counts, but a node that observes never acts.
func edgeMode(inv *placement.Inventory, s *placement.Service, own placement.Mode) placement.Mode {
	if own == placement.Observe {
		return own
	}
	return s.Edge.Mode.Or(s.Mode.Or(inv.RoleMode("edge")))
}

// vipModes are all VIPs: strays of content sessions are forwarded too, until
// they are pulled.
func vipModes(inv *placement.Inventory, own placement.Mode) map[netip.AddrPort]forward.Mode {
	out := make(map[netip.AddrPort]forward.Mode)
	for _, s := range inv.Services {
		if s.Edge == nil {
			continue
		}
		mode := forward.Observe
		if edgeMode(inv, &s, own) == placement.Act {
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

// Claim keeps them for a session that is revived here, and says so.
func (s strays) Claim(k frame.Key) { s.f.Claim(forward.Flow{Client: k.Client, VIP: k.VIP}) }

// Release gives them back.
func (s strays) Release(k frame.Key) { s.f.Release(forward.Flow{Client: k.Client, VIP: k.VIP}) }

// Moved sends later packets after the session.
func (s strays) Moved(k frame.Key, to string) {
	s.f.Moved(forward.Flow{Client: k.Client, VIP: k.VIP}, to)
}

// Stayed sends them where the session is, unless it is not.
func (s strays) Stayed(k frame.Key, at string) {
	s.f.Stayed(forward.Flow{Client: k.Client, VIP: k.VIP}, at)
}
