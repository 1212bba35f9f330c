package decide

import (
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// TestSkipFirst: a second name leads every client elsewhere than the first one does, whoever
// is down, as long as two are there.
func TestSkipFirst(t *testing.T) {
	for _, c := range []struct {
		name  string
		skip  int
		down  []string
		want  []string // of the clients beside ams1, nyc1 and sin1
		out   placement.Out
		first string // beside ams1, by the first name
	}{
		{"the second", 1, nil, []string{"nyc1", "ams1", "ams1"}, placement.OutSkipped, "ams1"},
		{"the third", 2, nil, []string{"sin1", "sin1", "nyc1"}, placement.OutSkipped, "ams1"},
		{"the second of those that are left", 1, []string{"ams1"}, []string{"sin1", "sin1", "nyc1"}, placement.OutDown, "nyc1"},
		{"the last of too few", 2, []string{"ams1"}, []string{"sin1", "sin1", "nyc1"}, placement.OutDown, "nyc1"},
		{"the only one", 1, []string{"ams1", "nyc1"}, []string{"sin1", "sin1", "sin1"}, placement.OutDown, "sin1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv, ct := fleet(3), classes(t)
			inv.Policies[0].AllDown = placement.NoData
			later := inv.Policies[0]
			later.Name, later.SkipFirst = "later", c.skip
			inv.Policies = append([]placement.Policy{later}, inv.Policies...)
			inv.Services[1].Demand = nil
			www2 := inv.Services[1]
			www2.Name, www2.Names, www2.Policy = "www2", []string{"www2.cdn.test."}, "later"
			inv.Services = append(inv.Services, www2)
			votes := webDown(allUp(inv), c.down...)
			plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()})
			for i := range 2 { // at once, and by the next plan
				s := mustUnfold(t, inv, ct, plan, votes, 1)
				if got := heads(s, "www2")[:3]; !slices.Equal(got, c.want) || heads(s, "www")[0] != c.first {
					t.Errorf("round %d: %q, want %q; by the first name %q", i, got, c.want, heads(s, "www")[:3])
				}
				row := s.Map("www2").Rows[0]
				if got := row.Candidates[0].Out; got != c.out {
					t.Errorf("round %d: ams1 is %v for its neighbour, want %v", i, got, c.out)
				}
				plan, _ = Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Prev: plan, Now: epoch().Add(time.Hour)})
			}
		})
	}
}
