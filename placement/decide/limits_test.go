package decide

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// stateOf plans and unfolds an inventory with everything up.
func stateOf(t testing.TB, inv *placement.Inventory, ct *placement.ClassTable) *placement.Snapshot {
	t.Helper()
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), VotesRevision: 1, Now: epoch()})
	return mustUnfold(t, inv, ct, plan, allUp(inv), 1)
}

// clone copies what the cases below change.
func clone(inv *placement.Inventory) *placement.Inventory {
	c := *inv
	c.Revision++
	c.Sites, c.Services, c.Prefixes, c.Zones, c.Policies = slices.Clone(c.Sites), slices.Clone(c.Services), slices.Clone(c.Prefixes), slices.Clone(c.Zones), slices.Clone(c.Policies)
	for i := range c.Sites {
		c.Sites[i].Clusters = slices.Clone(c.Sites[i].Clusters)
	}
	return &c
}

func rules(all []placement.Refusal) string {
	var out []string
	for _, r := range all {
		out = append(out, string(r.Rule)+" "+r.Object)
	}
	return strings.Join(out, ", ")
}

func TestJudgeApply(t *testing.T) {
	cases := []struct {
		name   string
		change func(inv *placement.Inventory)
		want   string
	}{
		{"nothing changes", func(*placement.Inventory) {}, ""},
		{"a site leaves", func(inv *placement.Inventory) { inv.Sites = inv.Sites[1:] }, ""},
		{"a service that matches nothing", func(inv *placement.Inventory) { inv.Services[1].Clusters = []string{"wbe"} },
			"empty-selector www, max-answer-change www"},
		{"a prefix that nobody may announce", func(inv *placement.Inventory) { inv.Prefixes[0].Sites = []string{"xxx1"} },
			"empty-selector 203.0.113.0/24, blast-radius 203.0.113.0/24"},
		{"a prefix at two sites less", func(inv *placement.Inventory) { inv.Prefixes[0].Sites = []string{"ams1", "fra1", "lax1", "nyc1"} },
			"blast-radius 203.0.113.0/24"},
		{"two prefixes lowered at different sites", func(inv *placement.Inventory) {
			inv.Prefixes[0].Sites = []string{"ams1", "fra1", "lax1", "nyc1", "sin1"}
			inv.Prefixes[1].Sites = []string{"ams1", "fra1", "lax1", "nyc1", "syd1"}
		}, "blast-radius prefixes"},
		{"a zone loses half of its names", func(inv *placement.Inventory) { inv.Zones[0].Names = 50 }, "shrink cdn.test."},
		{"a zone vanishes", func(inv *placement.Inventory) { inv.Zones = inv.Zones[1:] }, "shrink cdn.test."},
		{"RFC 9432 6: a catalog vanishes", func(inv *placement.Inventory) { inv.Zones = inv.Zones[:1] }, "shrink catz.test."},
		{"RFC 9432 6: a catalog is a zone like any other", func(inv *placement.Inventory) { inv.Zones[1].Catalog = nil }, "shrink catz.test."},
		{"a catalog has other primaries", func(inv *placement.Inventory) {
			inv.Zones[1].Secondary = &placement.Secondary{Key: "k."}
		}, ""},
		{"a zone loses a quarter", func(inv *placement.Inventory) { inv.Zones[0].Names = 75 }, ""},
		{"a third of the capacity at two sites", func(inv *placement.Inventory) {
			inv.Sites[0].Clusters[1].Capacity = 0 + 1
			inv.Sites[1].Clusters[1].Capacity = 1
		}, "shrink capacity"},
		{"everybody sent to one site", func(inv *placement.Inventory) { inv.Policies[0].Choose = sitesBranch("syd1") }, "max-answer-change ns"},
		{"all addresses of a service change", func(inv *placement.Inventory) {
			for i := range inv.Sites {
				for k := range inv.Sites[i].Clusters {
					inv.Sites[i].Clusters[k].Addresses = []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", 100+i))}
				}
			}
		}, "max-answer-change ns"},
		{"demand beyond the headroom", func(inv *placement.Inventory) { inv.Services[1].Demand = map[string]int64{"*": 5300} }, "min-headroom fleet"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			inv, ct := fleet(6), classes(t)
			inv.Zones = []placement.Zone{{Name: "cdn.test.", Names: 100}, {Name: "catz.test.", Secondary: &placement.Secondary{}, Catalog: &placement.Catalog{}}}
			inv.Prefixes = append(inv.Prefixes, placement.Prefix{Prefix: netip.MustParsePrefix("2001:db8::/48"), Slots: 1, Mode: placement.Act})
			before := stateOf(t, inv, ct)
			next := clone(inv)
			tc.change(next)
			got := JudgeApply(inv, next, before, stateOf(t, next, ct), nil)
			if rules(got) != tc.want {
				t.Errorf("%q, want %q", rules(got), tc.want)
			}
			var names []string
			for _, r := range got {
				names = append(names, string(r.Rule))
			}
			for _, r := range JudgeApply(inv, next, before, stateOf(t, next, ct), names) {
				if r.Rule != placement.RuleEmptySelector {
					t.Errorf("%s was overridden by name, and still stands", r.Rule)
				}
			}
		})
	}
}

func TestJudgeDrain(t *testing.T) {
	op := placement.Audit{Who: "op", Reason: "power"}
	cases := []struct {
		name   string
		sites  int
		change func(inv *placement.Inventory)
		site   string
		want   placement.RuleName
	}{
		{"one of three", 3, nil, "ams1", ""},
		{"one of two", 2, nil, "ams1", placement.RuleMinSites},
		{"a second one", 6, func(inv *placement.Inventory) { inv.Drains = []placement.Drain{{Site: "nyc1", Audit: op}} }, "ams1", placement.RuleMaxDrains},
		{"the same again", 6, func(inv *placement.Inventory) { inv.Drains = []placement.Drain{{Site: "ams1", Audit: op}} }, "ams1", ""},
		{"one that has ended does not count", 6, func(inv *placement.Inventory) {
			ended := op
			ended.Ended = epoch()
			inv.Drains = []placement.Drain{{Site: "nyc1", Audit: ended}}
		}, "ams1", ""},
		{"beside a node of another site", 6, func(inv *placement.Inventory) { inv.Drains = []placement.Drain{{Site: "nyc1/n1", Audit: op}} }, "ams1", ""},
		{"an unknown site", 3, nil, "xxx1", placement.RuleEmptySelector},
		{"no room for its clients", 3, func(inv *placement.Inventory) { inv.Services[1].Demand = map[string]int64{"*": 1800} }, "ams1", placement.RuleMinHeadroom},
		{"the fleet allows less", 3, func(inv *placement.Inventory) {
			inv.Services[1].Demand = map[string]int64{"*": 1750}
			inv.Safety.MinHeadroom = 0.05
		}, "ams1", ""},
		{"the fleet asks for more sites", 3, func(inv *placement.Inventory) { inv.Safety.MinSites = 3 }, "ams1", placement.RuleMinSites},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			inv := fleet(tc.sites)
			if tc.change != nil {
				tc.change(inv)
			}
			s := stateOf(t, inv, classes(t))
			d := placement.Drain{Site: tc.site}
			r := JudgeDrain(inv, s, d, nil)
			if (r == nil) != (tc.want == "") || (r != nil && r.Rule != tc.want) {
				t.Fatalf("%v, want %q", r, tc.want)
			}
			if r != nil && r.Rule != placement.RuleEmptySelector {
				d.Override = []string{string(placement.RuleMinSites), string(placement.RuleMinHeadroom), string(placement.RuleMaxDrains)}
				if r := JudgeDrain(inv, s, d, nil); r != nil {
					t.Errorf("overridden by name, and still %v", r)
				}
			}
		})
	}
}

func TestJudgeDial(t *testing.T) {
	inv := fleet(2)
	s := stateOf(t, inv, classes(t))
	if r := JudgeDial(inv, s, placement.Dial{Site: "ams1", PerMille: 500}, nil); r != nil {
		t.Errorf("half: %v", r)
	}
	if r := JudgeDial(inv, s, placement.Dial{Site: "ams1"}, nil); r == nil || r.Rule != placement.RuleMinSites {
		t.Errorf("to nothing, of two: %v", r)
	}
}

// TestForecastIsWhatHappens: a loss that was simulated and then comes puts the
// load where the forecast said.
func TestForecastIsWhatHappens(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Services[1].Demand = map[string]int64{"europe": 1200, "north-america": 300, "asia": 100}
	before := stateOf(t, inv, ct)
	f := Simulate(before, Change{Lose: []string{"nyc1"}})
	after := mustUnfold(t, inv, ct, before.Plan, killed(inv, allUp(inv), "nyc1", time.Minute), 2)
	l := newLedger(newWorld(inv, ct, placement.Algorithm), after.Plan)
	l.replay(after.Plan)
	l.move(l.statuses(func(m *market) []status { return now(m, after.Plan, after.Verdicts) }))
	var actual []placement.Load
	for id, i := range l.clusters {
		actual = append(actual, placement.Load{Cluster: id, QPS: (l.load(nil)[i] + 500) / 1000})
	}
	score := ScoreForecast(f, actual)
	if score.Error != 0 {
		t.Errorf("forecast and outcome differ: %+v", score)
	}
	if f.Forced == 0 || f.Moved < f.Forced || f.Moved > 2*f.Forced {
		t.Errorf("moved %d, forced %d", f.Moved, f.Forced)
	}
	actual[0].QPS += 1600
	if e := ScoreForecast(f, actual).Error; e < 0.32 || e > 0.34 {
		t.Errorf("an error of 1600 in 4800 scores %v", e)
	}
}
