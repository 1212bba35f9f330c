package main

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/store"
)

// TestSecondMachine: each of a site's two machines beats from an address and under a number
// of its own, others watch both, and each reads in the store whom the other one misses.
func TestSecondMachine(t *testing.T) {
	one, two := netip.MustParseAddrPort("198.51.100.9:7946"), netip.MustParseAddrPort("198.51.100.10:7946")
	site := placement.Site{Name: "ams1", Number: 7, Beat: one}
	u := &unit{cfg: &config.Node{Node: config.Self{Name: "ams1-b", Site: "ams1"}}, log: slog.New(slog.DiscardHandler), views: &hub{}}
	second := &config.Machines{Second: true}
	for name, c := range map[string]struct {
		machines *config.Machines
		beat     netip.AddrPort
		want     placement.BeatNode
	}{
		"alone":            {nil, netip.AddrPort{}, placement.BeatNode{Number: 7, Addr: one}},
		"the first of two": {&config.Machines{}, two, placement.BeatNode{Number: 7, Addr: one}},
		"the second":       {second, two, placement.BeatNode{Number: 7 | 1<<15, Addr: two}},
		"the second, of a fleet that does not know it": {second, netip.AddrPort{}, placement.BeatNode{Number: 7}},
	} {
		u.cfg.Machines, site.SecondBeat = c.machines, c.beat
		if got := u.beatsAs(&site); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}

	site.SecondBeat = two
	inv := &placement.Inventory{Revision: 1, Fleet: placement.Fleet{Sites: []placement.Site{site,
		{Name: "nyc1", Number: 8, Beat: one}, {Name: "tyo1", Number: 9, SecondBeat: two}}}}
	var w watching
	w.follow(inv)
	if got := w.of("nyc1"); !slices.Equal(got, []uint16{7, 7 | 1<<15}) {
		t.Errorf("nyc1 watches %v, want both machines of ams1, and none of tyo1, which has no beat", got)
	}

	u.views.publish(&store.View{Votes: []placement.Vote{
		{Object: placement.SiteID("ams1"), Vantage: "ams1-a", Site: "ams1", Without: "ams1-b"},
		{Object: placement.SiteID("nyc1"), Vantage: "ams1-c", Site: "ams1", Without: "ams1-b"}}})
	for vantage, want := range map[string]string{"ams1-a": "ams1-b", "ams1-c": "", "ams1-d": ""} {
		if got := u.misses(vantage); got != want {
			t.Errorf("%s misses %q, want %q", vantage, got, want)
		}
	}
}
