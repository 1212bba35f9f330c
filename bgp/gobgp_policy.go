package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"

	"rhumb/placement"
)

// gshutPreference is the local preference of a route at gshut: below every
// other. RFC 8326 section 4.2 suggests 0, which the library takes for "not set".
const gshutPreference = 1

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
