package main

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rhumb/health"
	"rhumb/internal/config"
	"rhumb/placement"
)

// nodesInventory is a fleet of a site with two edge nodes, one with one edge, and one
// without any.
func nodesInventory() *placement.Inventory {
	at := netip.MustParseAddrPort
	return &placement.Inventory{Fleet: placement.Fleet{Sites: []placement.Site{
		{Name: "ams1", Nodes: []placement.EdgeNode{{Name: "n1", Edge: at("192.0.2.1:1"), Beats: []netip.AddrPort{at("192.0.2.1:2")}}, {Name: "n2", Edge: at("192.0.2.2:1"), Weight: 3, Beats: []netip.AddrPort{at("192.0.2.2:2")}}}},
		{Name: "bare"}, {Name: "nyc1", Edge: at("192.0.2.9:1")}}}}
}

// TestEdges: a node is an edge by its own name, a site with one edge by its site's; each is
// reached at its own address, with its weight.
func TestEdges(t *testing.T) {
	inv := nodesInventory()
	var names []string
	self := placement.Member{EdgeNode: placement.EdgeNode{Name: "ams1/n1"}, Site: "ams1"}
	for _, p := range edgePeers(&placement.Snapshot{Inventory: inv, Plan: &placement.Plan{}}, self) {
		names = append(names, p.Name+" of "+p.Of+" at "+p.Control.String())
		if want := map[string]int{"ams1/n2": 3 * placement.DefaultSessions, "nyc1": placement.DefaultSessions}[p.Name]; p.Weight != want {
			t.Errorf("%s has weight %d, want %d", p.Name, p.Weight, want)
		}
	}
	if want := []string{"ams1/n2 of ams1 at 192.0.2.2:1", "nyc1 of nyc1 at 192.0.2.9:1"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
	if got := edgesOf(inv, []string{"ams1", "bare", "nobody"}); !slices.Equal(got, []string{"ams1/n1", "ams1/n2"}) {
		t.Errorf("the edges lost with ams1 are %v", got)
	}
	heard := hearingOfEdges(inv, []placement.Hearing{{Site: "ams1", State: placement.Path, By: []string{"nyc1"}}, {Site: "nyc1", By: []string{"ams1"}}})
	want := []placement.Hearing{{Site: "ams1/n1", State: placement.Path, By: []string{"nyc1"}}, {Site: "ams1/n2", State: placement.Path, By: []string{"nyc1"}}, {Site: "nyc1", By: []string{"ams1/n1", "ams1/n2"}}}
	if !reflect.DeepEqual(heard, want) || hearingOfEdges(inv, nil) != nil {
		t.Errorf("%+v, want %+v", heard, want)
	}
	n := &neighbours{self: placement.Member{EdgeNode: placement.EdgeNode{Name: "ams1/n1"}, Site: "ams1"}}
	if got := n.listeners(inv); !slices.Equal(got, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:2")}) {
		t.Errorf("n1 beats to %v", got)
	}
}

// TestNoBackupWhereSitesDrain: a site that drains keeps no records for other sites from the
// beginning of that on; its own nodes keep each other's.
func TestNoBackupWhereSitesDrain(t *testing.T) {
	snap := &placement.Snapshot{Inventory: nodesInventory(), Plan: &placement.Plan{Drains: []placement.DrainState{{Site: "nyc1", Phase: placement.PhaseTTL}, {Site: "ams1", Phase: placement.PhaseGShut}}}}
	for _, p := range edgePeers(snap, placement.Member{EdgeNode: placement.EdgeNode{Name: "ams1/n1"}, Site: "ams1"}) {
		if (p.Weight > 0) != (p.Name == "ams1/n2") {
			t.Errorf("for ams1/n1 %s has weight %d", p.Name, p.Weight)
		}
	}
	for _, p := range edgePeers(snap, placement.Member{EdgeNode: placement.EdgeNode{Name: "nyc1"}, Site: "nyc1"}) {
		if p.Weight > 0 {
			t.Errorf("for nyc1 %s has weight %d", p.Name, p.Weight)
		}
	}
}

// TestLeaving: a node that drains lets its sessions go to those next door that stay; with its
// site it lets them go anywhere else. A node that drains is nobody's Backup.
func TestLeaving(t *testing.T) {
	self := placement.Member{EdgeNode: placement.EdgeNode{Name: "ams1/n1"}, Site: "ams1"}
	drained := func(names ...string) *placement.Snapshot {
		inv := nodesInventory()
		for _, n := range names {
			inv.Drains = append(inv.Drains, placement.Drain{Site: n})
		}
		return &placement.Snapshot{Inventory: inv, Plan: &placement.Plan{}}
	}
	whole := drained("ams1/n1")
	whole.Plan.Drains = []placement.DrainState{{Site: "ams1", Phase: placement.PhaseSessions}}
	early := drained()
	early.Plan.Drains = []placement.DrainState{{Site: "ams1", Phase: placement.PhaseTTL}}
	for name, tc := range map[string]struct {
		s    *placement.Snapshot
		want leaving
		to   []string
	}{"nothing": {drained(), "", nil}, "itself": {drained("ams1/n1"), "ams1/n2", []string{"ams1/n2"}}, "its neighbour": {drained("ams1/n2"), "", nil},
		"another site": {drained("nyc1"), "", nil}, "its site": {whole, "*", nil}, "its site, and packets still come": {early, "", nil}} {
		got := leavingOf(tc.s, self)
		if got != tc.want || !slices.Equal(got.to(), tc.to) || got.node() != (len(tc.to) > 0) {
			t.Errorf("%s: %q to %v", name, got, got.to())
		}
	}
	for _, p := range edgePeers(drained("ams1/n2"), self) {
		if (p.Weight > 0) != (p.Name == "nyc1") {
			t.Errorf("%s has weight %d", p.Name, p.Weight)
		}
	}
}

// TestMember: what is no edge of its site says why.
func TestMember(t *testing.T) {
	inv := nodesInventory()
	for _, tc := range []struct {
		node, site string
		vip        bool
		want       string
	}{{"n1", "ams1", false, ""}, {"n9", "ams1", false, "n9 is none of sites.ams1.nodes"}, {"n1", "ams1", true, "one owner"}, {"any", "nyc1", false, ""}, {"any", "nyc1", true, ""}, {"any", "bare", false, "needs the site's edge address"}} {
		u := &unit{cfg: &config.Node{Node: config.Self{Name: tc.node, Site: tc.site}}, identity: &config.Identity{}}
		if tc.vip {
			u.cfg.VIP = &config.VIP{}
		}
		_, err := u.member(inv.Site(tc.site))
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

// TestSilentNodes: who stopped by its own will is not taken for dead.
func TestSilentNodes(t *testing.T) {
	got := silentNodes(map[string]health.UnitState{"ams1/n3": health.UnitStalled, "ams1/n2": health.UnitLeft, "ams1/n1": health.UnitHere, "ams1/n0": health.UnitStalled})
	if !slices.Equal(got, []string{"ams1/n0", "ams1/n3"}) {
		t.Errorf("%v", got)
	}
}
