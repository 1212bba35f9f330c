package main

import (
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement"
)

// TestClusterAddressesHere: of a site's clusters, those addresses count which stand on
// this machine, and none of another site.
func TestClusterAddressesHere(t *testing.T) {
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	inv := &placement.Inventory{Fleet: placement.Fleet{Sites: []placement.Site{
		{Name: "ams1", Clusters: []placement.Cluster{{Name: "web", Addresses: []netip.AddrPort{at("198.51.100.9:80"), at("198.51.100.10:80")}},
			{Name: "dns", Addresses: []netip.AddrPort{at("198.51.100.10:53")}}}},
		{Name: "nyc1", Clusters: []placement.Cluster{{Name: "web", Addresses: []netip.AddrPort{at("198.51.100.10:81")}}}}}}}
	here := map[netip.Addr]bool{netip.MustParseAddr("198.51.100.10"): true}
	want := []netip.AddrPort{at("198.51.100.10:80"), at("198.51.100.10:53")}
	if got := clusterAddresses(inv, "ams1", here); !slices.Equal(got, want) {
		t.Errorf("have %v, want %v", got, want)
	}
	if got := clusterAddresses(nil, "ams1", here); got != nil {
		t.Errorf("before the first snapshot: %v", got)
	}
	if !interfaceAddrs()[netip.MustParseAddr("127.0.0.1")] {
		t.Error("127.0.0.1 is not found on this machine")
	}
}

// TestPulseRole: one unit of a machine beats for it.
func TestPulseRole(t *testing.T) {
	for want, roles := range map[string][]string{"authdns": {"edge", "authdns", "bgp"}, "edge": {"bgp", "edge"}, "bgp": {"placement", "bgp"}, "": {"console"}} {
		if got := pulseRole(roles); got != want {
			t.Errorf("%v: %q, want %q", roles, got, want)
		}
	}
}
