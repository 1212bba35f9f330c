package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/apiutil"
	"github.com/osrg/gobgp/v3/pkg/log"
	wire "github.com/osrg/gobgp/v3/pkg/packet/bgp"
	"github.com/osrg/gobgp/v3/pkg/server"

	"rhumb/placement"
)

// NoListener as a port makes the speaker dial only.
const NoListener = -1

// ownASLimit is how often our AS may stand in a learned path. Sites share one
// AS, and the routes of another site, which are our witness, carry it once for
// eBGP and once more for each prepend.
const ownASLimit = 10

// gshutPreference is the local preference of a route at gshut: below every
// other. RFC 8326 section 4.2 suggests 0, which the library takes for "not set".
const gshutPreference = 1

// GoBGPConfig is what our own speaker needs.
type GoBGPConfig struct {
	ASN      uint32
	RouterID netip.Addr
	// Port to listen on; 0 is 179, NoListener opens none.
	Port   int
	Listen []netip.Addr // empty means all addresses
	Peers  []Peer
	Logger *slog.Logger
	// Transit makes a router of it: everything learned is accepted, the best
	// routes are passed on and reported by WatchBest. An announcer accepts
	// nothing and passes on nothing but what it originates itself. A Transit
	// sends no peer a route with that peer's AS in it (the library's own loop
	// check), so sites of one AS see no witness through it; those with an AS
	// each do (RFC 6382).
	Transit bool
}

// GoBGP is the engine of our own BGP speaker. The library keeps global state
// and one management channel, so a process starts one, once, and never again.
type GoBGP struct {
	server *server.BgpServer
	log    *slog.Logger
	peers  []Peer
	asn    uint32
	// toward holds which peers, by number, hear less than the others; the
	// speaker's loop owns it.
	toward map[int]placement.Step

	watches sync.WaitGroup
	stop    context.CancelFunc // ends every watch
	stopped context.Context
}

var (
	_ Engine   = (*GoBGP)(nil)
	_ Resetter = (*GoBGP)(nil)
	_ Toward   = (*GoBGP)(nil)
)

// StartGoBGP opens the listener and begins to dial the peers.
//
// It refuses to run where the Go runtime would open multipath TCP listeners:
// TCP-MD5 and GTSM fail on those with no more than a log line, and a peer
// without the password reaches Established.
func StartGoBGP(ctx context.Context, c GoBGPConfig) (*GoBGP, error) {
	if new(net.ListenConfig).MultipathTCP() {
		return nil, errors.New("bgp: multipath TCP is on, which lets peers in without their password; run without GODEBUG=multipathtcp")
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	g := &GoBGP{log: c.Logger, peers: c.Peers, asn: c.ASN, toward: make(map[int]placement.Step)}
	g.stopped, g.stop = context.WithCancel(context.Background())
	g.server = server.NewBgpServer(server.LoggerOption(&logAdapter{c.Logger}))
	go g.server.Serve() // the library has no way to end it; it lives as long as the process
	if err := g.start(ctx, c); err != nil {
		return nil, errors.Join(err, g.Close(ctx))
	}
	return g, nil
}

// check refuses settings under which the speaker would not do what it promises.
func (c *GoBGPConfig) check() error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ASN == 0 || !c.RouterID.Is4() {
		return fmt.Errorf("bgp: AS %d and router id %s: want an AS and an IPv4 address", c.ASN, c.RouterID)
	}
	for i := range c.Peers {
		if err := c.Peers[i].Check(c.ASN); err != nil {
			return err
		}
	}
	return nil
}

// start brings the server up: global settings, policies, and only then peers.
func (g *GoBGP) start(ctx context.Context, c GoBGPConfig) error {
	err := g.server.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: c.ASN, RouterId: c.RouterID.String(), ListenPort: int32(c.Port),
		ListenAddresses:  addressStrings(c.Listen),
		UseMultiplePaths: c.Transit,
	}})
	if err != nil {
		return fmt.Errorf("bgp: start: %w", err)
	}
	policies := g.announcerPolicies
	if c.Transit {
		policies = g.transitPolicies
	}
	if err := policies(ctx); err != nil { // before the first peer, lest one route slip through
		return fmt.Errorf("bgp: policies: %w", err)
	}
	for i := range c.Peers {
		if err := g.server.AddPeer(ctx, &api.AddPeerRequest{Peer: peerConfig(&c.Peers[i])}); err != nil {
			return fmt.Errorf("bgp: peer %s: %w", c.Peers[i].Address, err)
		}
	}
	return nil
}

// announcerPolicies make the default deny in both directions. Nothing learned
// enters the table (markers are read before it), and only what was originated
// here leaves; RFC 8212 in its strictest reading.
func (g *GoBGP) announcerPolicies(ctx context.Context) error {
	local := &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}
	own := &api.Policy{Name: "own", Statements: []*api.Statement{{Name: "own", Conditions: local,
		Actions: &api.Actions{RouteAction: api.RouteAction_ACCEPT}}}}
	out := &api.Policy{Name: "out", Statements: []*api.Statement{{Name: "out", Conditions: local,
		Actions: &api.Actions{RouteAction: api.RouteAction_ACCEPT, LargeCommunity: &api.CommunityAction{
			Type: api.CommunityAction_REMOVE, Communities: []string{fmt.Sprintf("^%d:%d:[0-9]+$", g.asn, uint32(towardFunction))}}}}}}
	for _, p := range []*api.Policy{own, out} {
		if err := g.server.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p}); err != nil {
			return err
		}
	}
	var export []*api.Policy
	for i := range g.peers {
		p, err := towardPolicy(ctx, g.server, g.asn, i, g.peers[i].Address)
		if err != nil {
			return err
		}
		export = append(export, p)
	}
	return errors.Join(
		assign(ctx, g.server, api.PolicyDirection_IMPORT, api.RouteAction_REJECT, own), // judges what AddPath brings too
		assign(ctx, g.server, api.PolicyDirection_EXPORT, api.RouteAction_REJECT, append(export, out)...))
}

// transitPolicies accept and pass on everything; what asks for graceful
// shutdown is preferred last (RFC 8326 section 4.2).
func (g *GoBGP) transitPolicies(ctx context.Context) error {
	s := g.server
	set := &api.DefinedSet{DefinedType: api.DefinedType_COMMUNITY, Name: "gshut", List: []string{"65535:0"}}
	if err := s.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
		return err
	}
	gshut := &api.Policy{Name: "gshut", Statements: []*api.Statement{{
		Name:       "gshut",
		Conditions: &api.Conditions{CommunitySet: &api.MatchSet{Type: api.MatchSet_ANY, Name: "gshut"}},
		Actions:    &api.Actions{RouteAction: api.RouteAction_ACCEPT, LocalPref: &api.LocalPrefAction{Value: gshutPreference}},
	}}}
	if err := s.AddPolicy(ctx, &api.AddPolicyRequest{Policy: gshut}); err != nil {
		return err
	}
	return errors.Join(
		assign(ctx, s, api.PolicyDirection_IMPORT, api.RouteAction_ACCEPT, gshut),
		assign(ctx, s, api.PolicyDirection_EXPORT, api.RouteAction_ACCEPT))
}

// towardPrepend is how many copies of our AS a peer with a bad path hears more:
// enough to lose against any other way that is not absurdly long.
const towardPrepend = 3

// towardFunction is the middle field of the large community which marks our
// routes, inside this process alone, for those peers that hear less of us:
// ASN:towardFunction:2*PEER+1 where nothing is announced, 2*PEER where prepended.
// The library withdraws a route from a peer when its newer version is refused and
// its older one was not; so what changes must be the route. A soft reset after a
// change of policy withdraws nothing.
const towardFunction = 1<<32 - 1

// towardMark returns the mark of a peer, by its number, at a step.
func towardMark(asn uint32, peer int, step placement.Step) LargeCommunity {
	c := LargeCommunity{asn, towardFunction, uint32(2 * peer)}
	if step == placement.Withdrawn {
		c[2]++
	}
	return c
}

// Toward marks our routes for one peer and gives them to the library again. The
// other peers are told what they know already.
func (g *GoBGP) Toward(ctx context.Context, peer netip.Addr, step placement.Step) error {
	number := slices.IndexFunc(g.peers, func(p Peer) bool { return p.Address == peer })
	if number < 0 {
		return fmt.Errorf("bgp: toward %s: no such peer", peer)
	}
	st, err := g.PeerState(ctx)
	if err != nil {
		return err
	}
	delete(g.toward, number)
	if step > placement.Announce {
		g.toward[number] = step
	}
	for _, r := range st.Routes {
		if err := g.Announce(ctx, r); err != nil {
			return fmt.Errorf("bgp: toward %s: %w", peer, err)
		}
	}
	return nil
}

// towardMarks returns the marks in force.
func (g *GoBGP) towardMarks() (out []LargeCommunity) {
	for _, number := range slices.Sorted(maps.Keys(g.toward)) {
		out = append(out, towardMark(g.asn, number, g.toward[number]))
	}
	return out
}

// towardPolicy makes what keeps marked routes from the peer they are marked for.
func towardPolicy(ctx context.Context, s *server.BgpServer, asn uint32, number int, peer netip.Addr) (*api.Policy, error) {
	name := "toward " + peer.String()
	neighbor := &api.DefinedSet{DefinedType: api.DefinedType_NEIGHBOR, Name: name, List: []string{netip.PrefixFrom(peer, peer.BitLen()).String()}}
	if err := s.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: neighbor}); err != nil {
		return nil, err
	}
	p := &api.Policy{Name: name}
	for _, step := range []placement.Step{placement.Withdrawn, placement.Prepend} {
		c := towardMark(asn, number, step)
		set := &api.DefinedSet{DefinedType: api.DefinedType_LARGE_COMMUNITY, Name: step.String() + " " + name, List: []string{fmt.Sprintf("^%d:%d:%d$", c[0], c[1], c[2])}}
		if err := s.AddDefinedSet(ctx, &api.AddDefinedSetRequest{DefinedSet: set}); err != nil {
			return nil, err
		}
		act := &api.Actions{RouteAction: api.RouteAction_REJECT}
		if step == placement.Prepend {
			act = &api.Actions{RouteAction: api.RouteAction_NONE, AsPrepend: &api.AsPrependAction{Asn: asn, Repeat: towardPrepend}}
		}
		p.Statements = append(p.Statements, &api.Statement{Name: set.Name, Actions: act, Conditions: &api.Conditions{
			NeighborSet:       &api.MatchSet{Type: api.MatchSet_ANY, Name: name},
			LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_ANY, Name: set.Name}}})
	}
	return p, s.AddPolicy(ctx, &api.AddPolicyRequest{Policy: p})
}

// assign makes the policies those of the global table, which all our peers share
// (no peer is a route server client), with what happens when none matches.
func assign(ctx context.Context, s *server.BgpServer, d api.PolicyDirection, def api.RouteAction, p ...*api.Policy) error {
	return s.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{
		Assignment: &api.PolicyAssignment{Name: "global", Direction: d, Policies: p, DefaultAction: def}})
}

// peerConfig puts a peer in the library's words. What is not set there has a
// default of the library, so everything that matters is set.
func peerConfig(p *Peer) *api.Peer {
	hold, keepalive := p.timers()
	out := &api.Peer{
		Conf: &api.PeerConf{NeighborAddress: p.Address.String(), PeerAsn: p.ASN, AuthPassword: p.Password,
			AllowOwnAsn: ownASLimit},
		// The library's own defaults are 120 s and 30 s: too slow to come back.
		Timers: &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, IdleHoldTimeAfterReset: 1,
			HoldTime: uint64(hold / time.Second), KeepaliveInterval: uint64(keepalive / time.Second)}},
		Transport:       &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(cmp.Or(p.Port, 179))},
		GracefulRestart: &api.GracefulRestart{Enabled: false},
	}
	if p.Local.IsValid() {
		out.Transport.LocalAddress = p.Local.String()
	}
	if p.GTSM {
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 255}
	}
	if p.Multihop > 0 {
		out.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(p.Multihop)}
	}
	for _, f := range families() {
		if p.OwnFamily && p.Address.Is4() != (f.Afi == api.Family_AFI_IP) {
			continue
		}
		af := &api.AfiSafi{Config: &api.AfiSafiConfig{Family: f, Enabled: true}}
		if p.AllPaths {
			af.AddPaths = &api.AddPaths{Config: &api.AddPathsConfig{Receive: true}}
		}
		if p.MaxPrefixes > 0 {
			af.PrefixLimits = &api.PrefixLimit{Family: f, MaxPrefixes: p.MaxPrefixes}
		}
		out.AfiSafis = append(out.AfiSafis, af)
	}
	return out
}

// families returns the two we speak; one session carries both (RFC 4760).
func families() []*api.Family {
	return []*api.Family{
		{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST},
		{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST},
	}
}

// Announce originates a route, or replaces the one of the same prefix.
func (g *GoBGP) Announce(ctx context.Context, r Route) error {
	r.Attrs.LargeCommunities = slices.Concat(r.Attrs.LargeCommunities, g.towardMarks())
	path, err := toPath(r, g.asn, false)
	if err == nil {
		_, err = g.server.AddPath(ctx, &api.AddPathRequest{TableType: api.TableType_GLOBAL, Path: path})
	}
	if err != nil {
		return fmt.Errorf("bgp: announce %s: %w", r.Prefix, err)
	}
	return nil
}

// SetAttrs replaces the attributes of a route; on the wire it is one UPDATE.
func (g *GoBGP) SetAttrs(ctx context.Context, r Route) error { return g.Announce(ctx, r) }

// Withdraw takes a route back.
func (g *GoBGP) Withdraw(ctx context.Context, prefix netip.Prefix) error {
	path, err := toPath(Route{Prefix: prefix}, g.asn, true)
	if err == nil {
		err = g.server.DeletePath(ctx, &api.DeletePathRequest{TableType: api.TableType_GLOBAL, Path: path})
	}
	if err != nil {
		return fmt.Errorf("bgp: withdraw %s: %w", prefix, err)
	}
	return nil
}

// ResetPeer ends an established session with a Cease which says why (RFC 9003);
// the peer is dialled again after a second. A session which is not established
// is left alone: what would be sent could only end the next one.
func (g *GoBGP) ResetPeer(ctx context.Context, peer netip.Addr, why string) error {
	up := false
	err := g.server.ListPeer(ctx, &api.ListPeerRequest{Address: peer.String()}, func(p *api.Peer) { up = peerState(p).Established })
	if err == nil && up {
		err = g.server.ResetPeer(ctx, &api.ResetPeerRequest{Address: peer.String(), Communication: why})
	}
	if err != nil {
		return fmt.Errorf("bgp: reset %s: %w", peer, err)
	}
	return nil
}

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

// closeWait bounds the library's shutdown, which has been seen to hang while a
// watch was running (osrg/gobgp issue 3366). The process is about to end, and
// the kernel closes what is left.
const closeWait = 500 * time.Millisecond

// Close ends the watches, then the sessions with a Cease, then the listener.
// Routes should be withdrawn before.
func (g *GoBGP) Close(ctx context.Context) error {
	g.stop()
	g.watches.Wait()
	done := make(chan error, 1)
	go func() { done <- g.server.StopBgp(ctx, &api.StopBgpRequest{}) }()
	select {
	case err := <-done:
		return err
	case <-time.After(closeWait):
		return errors.New("bgp: close: sessions did not end in time")
	}
}

// toPath builds what the library takes. The next hop of an IPv6 route travels
// in MP_REACH_NLRI (RFC 4760 section 3).
func toPath(r Route, asn uint32, withdraw bool) (*api.Path, error) {
	hop := r.Attrs.NextHop
	nlri, attrs := nlriOf(r.Prefix), []wire.PathAttributeInterface{wire.NewPathAttributeOrigin(0)}
	if r.Prefix.Addr().Is4() && !hop.Is6() {
		if !hop.IsValid() {
			hop = netip.IPv4Unspecified()
		}
		attrs = append(attrs, wire.NewPathAttributeNextHop(hop.String()))
	} else {
		if !hop.IsValid() {
			hop = netip.IPv6Unspecified()
		}
		attrs = append(attrs, wire.NewPathAttributeMpReachNLRI(hop.String(), []wire.AddrPrefixInterface{nlri}))
	}
	return apiutil.NewPath(nlri, withdraw, append(attrs, optional(r.Attrs, asn)...), time.Now())
}

// nlriOf returns the prefix as the wire carries it (RFC 4271 section 4.3).
func nlriOf(p netip.Prefix) wire.AddrPrefixInterface {
	if p.Addr().Is4() {
		return wire.NewIPAddrPrefix(uint8(p.Bits()), p.Addr().String())
	}
	return wire.NewIPv6AddrPrefix(uint8(p.Bits()), p.Addr().String())
}

// optional returns the attributes which are there only when set. An AS path is
// given for prepending alone: eBGP adds our AS once more on its own.
func optional(a Attrs, asn uint32) []wire.PathAttributeInterface {
	var out []wire.PathAttributeInterface
	if a.Prepend > 0 {
		path := slices.Repeat([]uint32{asn}, a.Prepend)
		out = append(out, wire.NewPathAttributeAsPath([]wire.AsPathParamInterface{
			wire.NewAs4PathParam(wire.BGP_ASPATH_ATTR_TYPE_SEQ, path)}))
	}
	if a.MED > 0 {
		out = append(out, wire.NewPathAttributeMultiExitDisc(a.MED))
	}
	communities := slices.Clone(a.Communities)
	if a.NoExport {
		communities = append(communities, noExport)
	}
	if len(communities) > 0 {
		out = append(out, wire.NewPathAttributeCommunities(communities))
	}
	if len(a.LargeCommunities) > 0 {
		var large []*wire.LargeCommunity
		for _, c := range a.LargeCommunities {
			large = append(large, wire.NewLargeCommunity(c[0], c[1], c[2]))
		}
		out = append(out, wire.NewPathAttributeLargeCommunities(large))
	}
	return out
}

// fromPath reads what the library gives. Peer is invalid for our own routes.
func fromPath(p *api.Path) (Learned, error) {
	nlri, err := apiutil.GetNativeNlri(p)
	if err != nil {
		return Learned{}, err
	}
	prefix, err := netip.ParsePrefix(nlri.String())
	if err != nil {
		return Learned{}, err
	}
	attrs, err := apiutil.GetNativePathAttributes(p)
	if err != nil {
		return Learned{}, err
	}
	out := Learned{Route: Route{Prefix: prefix, Attrs: readAttrs(attrs)}, Withdrawn: p.IsWithdraw, ID: p.Identifier}
	if a, err := netip.ParseAddr(p.NeighborIp); err == nil && !a.IsUnspecified() {
		out.Peer = a.Unmap()
	}
	return out, nil
}

// readAttrs reads path attributes. Of a learned route, Prepend is the length of
// the AS path; of our own it is the number of copies we put there.
func readAttrs(attrs []wire.PathAttributeInterface) Attrs {
	var a Attrs
	for _, attr := range attrs {
		switch v := attr.(type) {
		case *wire.PathAttributeAsPath:
			for _, s := range v.Value {
				a.Prepend += len(s.GetAS())
			}
		case *wire.PathAttributeMultiExitDisc:
			a.MED = v.Value
		case *wire.PathAttributeNextHop:
			a.NextHop = addrOf(v.Value)
		case *wire.PathAttributeMpReachNLRI:
			a.NextHop = addrOf(v.Nexthop)
		case *wire.PathAttributeCommunities:
			a.readCommunities(v.Value)
		case *wire.PathAttributeLargeCommunities:
			for _, c := range v.Values {
				a.LargeCommunities = append(a.LargeCommunities, LargeCommunity{c.ASN, c.LocalData1, c.LocalData2})
			}
		}
	}
	a.NextHop = specified(a.NextHop)
	slices.Sort(a.Communities)
	slices.SortFunc(a.LargeCommunities, func(x, y LargeCommunity) int { return slices.Compare(x[:], y[:]) })
	return a
}

// readCommunities keeps NO_EXPORT apart, as Attrs does.
func (a *Attrs) readCommunities(list []uint32) {
	for _, c := range list {
		if c == noExport {
			a.NoExport = true
			continue
		}
		a.Communities = append(a.Communities, c)
	}
}

// addrOf converts; an address of neither length gives the zero Addr.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// peerState names the state in lower case, as in the metric's label.
func peerState(p *api.Peer) PeerState {
	a, _ := netip.ParseAddr(p.GetConf().GetNeighborAddress())
	state := p.GetState().GetSessionState()
	return PeerState{Address: a.Unmap(), ASN: p.GetConf().GetPeerAsn(), State: strings.ToLower(state.String()),
		Established: state == api.PeerState_ESTABLISHED}
}

// addressStrings is for the library, which takes addresses as text.
func addressStrings(list []netip.Addr) []string {
	out := make([]string, 0, len(list))
	for _, a := range list {
		out = append(out, a.String())
	}
	return out
}

// comparePrefix orders by address, then the shorter prefix first.
func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// logAdapter writes the library's log into ours. What it calls info is detail
// to us: peers and routes are reported by the speaker.
type logAdapter struct{ to *slog.Logger }

var _ log.Logger = (*logAdapter)(nil)

// Panic logs; a library does not end our process.
func (l *logAdapter) Panic(msg string, f log.Fields) { l.write(slog.LevelError, msg, f) }

// Fatal logs; a library does not end our process.
func (l *logAdapter) Fatal(msg string, f log.Fields) { l.write(slog.LevelError, msg, f) }

// Error logs an error.
func (l *logAdapter) Error(msg string, f log.Fields) { l.write(slog.LevelError, msg, f) }

// Warn logs a warning.
func (l *logAdapter) Warn(msg string, f log.Fields) { l.write(slog.LevelWarn, msg, f) }

// Info logs detail.
func (l *logAdapter) Info(msg string, f log.Fields) { l.write(slog.LevelDebug, msg, f) }

// Debug is per packet, and dropped.
func (l *logAdapter) Debug(string, log.Fields) {}

// SetLevel does nothing: the level is our handler's.
func (l *logAdapter) SetLevel(log.LogLevel) {}

// GetLevel keeps the library from formatting what would be dropped.
func (l *logAdapter) GetLevel() log.LogLevel { return log.InfoLevel }

// write sorts the fields: the library hands them over as a map.
func (l *logAdapter) write(level slog.Level, msg string, f log.Fields) {
	if !l.to.Enabled(context.Background(), level) {
		return
	}
	attrs := make([]slog.Attr, 0, len(f))
	for k, v := range f {
		switch k {
		case "Topic":
			continue
		case "Key":
			k = "peer"
		case "Error", "Err":
			k = "err"
		}
		attrs = append(attrs, slog.String(strings.ToLower(k), text(v)))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	l.to.LogAttrs(context.Background(), level, "bgp: "+msg, attrs...)
}

// text prints a field; errors and states of the library know how to print.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int:
		return strconv.Itoa(v)
	}
	return fmt.Sprint(v)
}
