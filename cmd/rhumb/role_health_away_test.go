package main

import (
	"net/netip"
	"testing"

	"rhumb/internal/config"
	"rhumb/placement"
)

// TestAway: an address is away where the speaker of this process binds it, and it is not
// on this host.
func TestAway(t *testing.T) {
	prefix := func(s string, mode placement.Mode, sites ...string) placement.Prefix {
		return placement.Prefix{Prefix: netip.MustParsePrefix(s), Mode: mode, Sites: sites}
	}
	u := &unit{cfg: &config.Node{}, current: new(placement.Current), bound: make(chan struct{})}
	u.cfg.Node.Site = "ams1"
	away := u.away()
	if away(netip.MustParseAddr("192.0.2.1")) {
		t.Error("away before there is a snapshot")
	}
	inv := &placement.Inventory{Fleet: placement.Fleet{Mode: placement.Act, Sites: []placement.Site{{Name: "ams1"}, {Name: "nyc1"}, {Name: "tyo1"}}, Prefixes: []placement.Prefix{
		prefix("192.0.2.0/24", ""), prefix("127.0.0.0/8", ""), prefix("2001:db8:53::/48", ""), prefix("::1/128", ""),
		prefix("198.51.100.0/24", placement.Observe), prefix("203.0.113.0/24", "", "nyc1", "tyo1"), prefix("198.18.5.0/24", "", "ams1")}}}
	u.current.Store(&placement.Snapshot{Inventory: inv})
	for a, want := range map[string]bool{
		"192.0.2.1":      true,
		"2001:db8:53::1": true,
		"127.0.0.1":      false, // on this host
		"::1":            false,
		"198.51.100.1":   false, // we only watch: somebody else binds it
		"203.0.113.1":    false, // other sites announce it
		"198.18.5.1":     true,
		"10.0.0.1":       false, // of no prefix
	} {
		if got := away(netip.MustParseAddr(a)); got != want {
			t.Errorf("%s: away %t, want %t", a, got, want)
		}
	}
	inv.Roles = map[string]placement.Mode{"bgp": placement.Observe}
	if away(netip.MustParseAddr("192.0.2.1")) {
		t.Error("away while the speaker only watches")
	}
	u.cfg.Mode = placement.Observe
	if u.away() != nil {
		t.Error("a node that only watches binds nothing")
	}
	if u = (&unit{cfg: &config.Node{}}); u.away() != nil {
		t.Error("away without a speaker in this process")
	}
}
