package decide

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"rhumb/placement"
)

func sitesBranch(names ...string) placement.Branch { return placement.Branch{Sites: names} }

// drawn prints tiers as "a+b > 30:c 70:d".
func drawn(tiers []tier, clusters []placement.ClusterID) string {
	var out []string
	for _, tr := range tiers {
		var groups []string
		for _, g := range tr {
			var names []string
			for _, c := range g.clusters {
				names = append(names, clusters[c].Site)
			}
			text := strings.Join(names, "+")
			if len(tr) > 1 {
				text = fmt.Sprintf("%d:%s", g.weight, text)
			}
			groups = append(groups, text)
		}
		out = append(out, strings.Join(groups, " "))
	}
	return strings.Join(out, " > ")
}

func TestTiers(t *testing.T) {
	clusters := []placement.ClusterID{{Site: "a", Name: "w"}, {Site: "b", Name: "w"}, {Site: "c", Name: "w"}, {Site: "d", Name: "w"}}
	weighted := func(w int, b placement.Branch) placement.Weighted { return placement.Weighted{Weight: w, Branch: b} }
	eu := places{"", "DE", "EU", "europe"}
	cases := []struct {
		name string
		b    placement.Branch
		at   places
		want string
	}{
		{"empty is the nearest of all", placement.Branch{}, eu, "a+b+c+d"},
		{"some sites", sitesBranch("b", "d"), eu, "b+d"},
		{"an unknown site", sitesBranch("z"), eu, ""},
		{"failover", placement.Branch{Failover: []placement.Branch{sitesBranch("b"), sitesBranch("a", "b")}}, eu, "b > a"},
		{"geo by country", placement.Branch{Geo: map[string]placement.Branch{"de": sitesBranch("a"), "EU": sitesBranch("b"), "*": sitesBranch("c")}}, eu, "a"},
		{"geo by continent", placement.Branch{Geo: map[string]placement.Branch{"EU": sitesBranch("b"), "europe": sitesBranch("d"), "*": sitesBranch("c")}}, eu, "b"},
		{"geo by region of the fleet", placement.Branch{Geo: map[string]placement.Branch{"europe": sitesBranch("d"), "*": sitesBranch("c")}}, eu, "d"},
		{"geo by override beats the country", placement.Branch{Geo: map[string]placement.Branch{"DE": sitesBranch("a"), "asia": sitesBranch("c")}}, places{"asia", "DE", "EU", "europe"}, "c"},
		{"geo, all others", placement.Branch{Geo: map[string]placement.Branch{"US": sitesBranch("a"), "*": sitesBranch("c")}}, eu, "c"},
		{"geo, nothing fits", placement.Branch{Geo: map[string]placement.Branch{"US": sitesBranch("a")}}, eu, "a+b+c+d"},
		{"weighted", placement.Branch{Weighted: []placement.Weighted{weighted(1, sitesBranch("a")), weighted(3, sitesBranch("b", "c"))}}, eu, "250:a 750:b+c"},
		{"a weight of nothing", placement.Branch{Weighted: []placement.Weighted{weighted(0, sitesBranch("a")), weighted(3, sitesBranch("b"))}}, eu, "b"},
		{"failover of geo of weighted", placement.Branch{Failover: []placement.Branch{
			{Geo: map[string]placement.Branch{"EU": {Weighted: []placement.Weighted{weighted(50, sitesBranch("a")), weighted(50, sitesBranch("b"))}}}},
			sitesBranch("d")}}, eu, "500:a 500:b > d"},
		{"weighted of failover", placement.Branch{Weighted: []placement.Weighted{
			weighted(1, placement.Branch{Failover: []placement.Branch{sitesBranch("a"), sitesBranch("c")}}), weighted(1, sitesBranch("b"))}}, eu, "500:a 500:b > c"},
		{"weighted of weighted", placement.Branch{Weighted: []placement.Weighted{
			weighted(1, placement.Branch{Weighted: []placement.Weighted{weighted(1, sitesBranch("a")), weighted(1, sitesBranch("b"))}}), weighted(1, sitesBranch("c"))}}, eu, "250:a 250:b 500:c"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := drawn(compile(&tc.b, clusters, tc.at).tiers, clusters); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// TestTierClosesUpward: a lower tier serves only when the one above is closed,
// and a closed group's weight goes to the others of its tier.
func TestTierClosesUpward(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Services[1].Demand = nil
	inv.Policies[0].Choose = placement.Branch{Failover: []placement.Branch{
		{Weighted: []placement.Weighted{{Weight: 7, Branch: sitesBranch("ams1")}, {Weight: 3, Branch: sitesBranch("nyc1")}}}, sitesBranch("sin1")}}
	show := func(down ...string) string {
		for _, d := range down {
			inv.Forces = append(inv.Forces, placement.Force{Object: placement.ClusterID{Site: d, Name: "web"}, State: placement.ForceDown})
		}
		defer func() { inv.Forces = nil }()
		plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()})
		return heads(mustUnfold(t, inv, ct, plan, allUp(inv), 1), "www")[0]
	}
	for _, tc := range []struct{ down, want string }{{"", "ams1:700 nyc1:300"}, {"ams1", "nyc1"}, {"ams1 nyc1", "sin1"}} {
		if got := show(strings.Fields(tc.down)...); got != tc.want {
			t.Errorf("without %q: %s, want %s", tc.down, got, tc.want)
		}
	}
}

func TestApportion(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		weights := make([]int64, 1+r.IntN(6))
		var sum int64
		for i := range weights {
			weights[i] = r.Int64N(1 << (1 + r.IntN(40)))
			sum += weights[i]
		}
		got, total := apportion(weights, whole), 0
		for i, n := range got {
			total += n
			if sum > 0 {
				if exact := float64(weights[i]) * whole / float64(sum); float64(n) < exact-1 || float64(n) > exact+1 {
					t.Fatalf("%v of %v: %d, exactly %.2f", got, weights, n, exact)
				}
			}
		}
		if sum > 0 && total != whole {
			t.Fatalf("%v sums to %d", got, total)
		}
	}
}
