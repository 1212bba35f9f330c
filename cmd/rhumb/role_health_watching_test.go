package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement"
)

// TestWatchingFollows: sites without a beat address are watched by nobody, and the graph
// follows the inventory.
func TestWatchingFollows(t *testing.T) {
	inv := &placement.Inventory{Revision: 1}
	for i := range 3 {
		inv.Sites = append(inv.Sites, placement.Site{Name: fmt.Sprintf("s%d", i), Number: uint16(i + 1), Beat: netip.MustParseAddrPort("198.51.100.9:7000")})
	}
	inv.Sites[2].Beat = netip.AddrPort{}
	var w watching
	w.follow(inv)
	if got := w.of("s0"); !slices.Equal(got, []uint16{2}) {
		t.Errorf("s0 watches %v, want the one with a beat address", got)
	}
	next := *inv
	next.Sites = slices.Clone(inv.Sites)
	next.Sites[2].Beat = next.Sites[0].Beat
	w.follow(&next) // the same revision, and so the same fleet
	if got := w.of("s0"); len(got) != 1 {
		t.Errorf("by the same revision s0 watches %v", got)
	}
	next.Revision = 2
	w.follow(&next)
	if got := w.of("s0"); !slices.Equal(got, []uint16{2, 3}) {
		t.Errorf("s0 watches %v, want both others", got)
	}
}
