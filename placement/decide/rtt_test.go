package decide

import (
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement"
)

// TestMeasuredSteers: clients go where the operator has measured the shortest way, a whole
// class by its prefixes, others by the site that is nearest to them; and explain says so.
func TestMeasuredSteers(t *testing.T) {
	pre := func(i byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, i, 0}), 24) }
	ms := func(n int) placement.Cost { return placement.Cost(16 * n) }
	for _, c := range []struct {
		name string
		rtt  []placement.RTT
		want []string // beside ams1, nyc1, sin1, then three that only know these
		by   string   // of nyc1, for the first of them
		cost float64
	}{
		{"by distance", nil, []string{"ams1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "", 0},
		{"a prefix", []placement.RTT{{Prefix: pre(0), Site: "nyc1", Cost: ms(2)}}, []string{"nyc1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "10.0.0.0/24", 2},
		{"the mean of two of a class", []placement.RTT{{Prefix: pre(0), Site: "nyc1", Cost: ms(2)}, {Prefix: netip.MustParsePrefix("10.0.0.128/25"), Site: "nyc1", Cost: ms(8)}},
			[]string{"ams1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "10.0.0.0/24", 5},
		{"from a site", []placement.RTT{{Near: "ams1", Site: "nyc1", Cost: 0}, {Prefix: pre(0), Site: "ams1", Cost: ms(4)}},
			[]string{"nyc1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "ams1", 3},
		{"a prefix beats a site", []placement.RTT{{Near: "ams1", Site: "nyc1", Cost: 0}, {Prefix: pre(0), Site: "nyc1", Cost: ms(200)}},
			[]string{"ams1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "10.0.0.0/24", 200},
		{"a site nearer to itself is no news", []placement.RTT{{Near: "ams1", Site: "ams1", Cost: ms(500)}}, []string{"ams1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "", 0},
		{"nobody knows the prefix", []placement.RTT{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Site: "nyc1"}}, []string{"ams1", "nyc1", "sin1", "ams1", "nyc1", "sin1"}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv, ct := fleet(3), classes(t)
			inv.RTT, inv.Services[1].Demand = c.rtt, nil
			plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()})
			s := mustUnfold(t, inv, ct, plan, allUp(inv), 1)
			if got := heads(s, "www")[:6]; !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
			var tr placement.Trace
			s.Choose("www", netip.MustParseAddr("10.0.0.1"), &tr)
			for _, cand := range tr.Candidates {
				if cand.Cluster.Site == "nyc1" && (cand.CostBy != c.by || c.by != "" && cand.CostMS != c.cost) {
					t.Errorf("explained as %.1f ms by %q, want %.1f by %q", cand.CostMS, cand.CostBy, c.cost, c.by)
				}
			}
		})
	}
}
