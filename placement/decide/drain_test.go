package decide

import (
	"net/netip"
	"testing"

	"rhumb/placement"
)

// TestGreen: a drained site comes back by itself when nothing there is down and all is
// heard of that can be looked at. The addresses of its prefixes are off its hosts while
// those are withdrawn, and only then.
func TestGreen(t *testing.T) {
	site := func(name string) placement.Site {
		return placement.Site{Name: name, Clusters: []placement.Cluster{
			{Name: "web", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:80")}},
			{Name: "vod", Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("[2001:db8:53::1]:80")}},
			{Name: "both", Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:80"), netip.MustParseAddrPort("198.51.100.2:80")}},
			{Name: "none"},
		}}
	}
	inv := &placement.Inventory{Fleet: placement.Fleet{Sites: []placement.Site{site("ams1"), site("nyc1")},
		Prefixes: []placement.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}, {Prefix: netip.MustParsePrefix("2001:db8:53::/48"), Sites: []string{"ams1"}}}}}
	says := func(object string, s placement.State) placement.Verdict {
		id := placement.SiteID("ams1")
		if object != "" {
			id.Name = object
		}
		return placement.Verdict{Object: id, State: s}
	}
	elsewhere := says("web", placement.Down)
	elsewhere.Object.Site = "nyc1"
	capped := says("web", placement.Up)
	capped.Capped = true
	foreign := says("vod", placement.Unknown)
	foreign.Object.Site = "nyc1"
	for _, c := range []struct {
		name     string
		site     string
		phase    placement.Phase
		verdicts []placement.Verdict
		want     bool
	}{
		{"all up", "ams1", placement.PhaseDrained, []placement.Verdict{says("", placement.Up), says("web", placement.Up), says("vod", placement.Up), elsewhere}, true},
		{"a cluster is down", "ams1", placement.PhaseDrained, []placement.Verdict{says("web", placement.Up), says("vod", placement.Down)}, false},
		{"a cluster is degraded", "ams1", placement.PhaseDrained, []placement.Verdict{says("web", placement.Degraded)}, false},
		{"up for the cap alone", "ams1", placement.PhaseDrained, []placement.Verdict{capped}, false},
		{"the site is not heard of", "ams1", placement.PhaseDrained, []placement.Verdict{says("", placement.Unknown)}, true},
		{"the site is down", "ams1", placement.PhaseDrained, []placement.Verdict{says("", placement.Down)}, false},
		{"nothing known of an announced cluster", "ams1", placement.PhaseDrained, []placement.Verdict{says("web", placement.Up), says("vod", placement.Unknown)}, true},
		{"the same while its routes go", "ams1", placement.PhaseWithdraw, []placement.Verdict{says("vod", placement.Unknown)}, true},
		{"the same while its routes stand", "ams1", placement.PhaseSessions, []placement.Verdict{says("vod", placement.Unknown)}, false},
		{"nothing known of another cluster", "ams1", placement.PhaseDrained, []placement.Verdict{says("web", placement.Unknown)}, false},
		{"nothing known of one that is announced in part", "ams1", placement.PhaseDrained, []placement.Verdict{says("both", placement.Unknown)}, false},
		{"nothing known of one without addresses", "ams1", placement.PhaseDrained, []placement.Verdict{says("none", placement.Unknown)}, false},
		{"a prefix that others announce", "nyc1", placement.PhaseDrained, []placement.Verdict{foreign}, false},
		{"a site that is gone", "tyo1", placement.PhaseDrained, nil, false},
	} {
		in := &PlanInput{Inventory: inv}
		if got := in.green(&placement.DrainState{Site: c.site, Phase: c.phase}, c.verdicts); got != c.want {
			t.Errorf("%s: green %t, want %t", c.name, got, c.want)
		}
	}
}
