package decide

import (
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// fallen is a fleet of three whose policy has tiers, europe before america, and a rule for
// when nobody is left; the sites fall one after another.
func fallen(rule placement.AllDown) *placement.Inventory {
	inv := fleet(3)
	inv.Policies = append(inv.Policies, placement.Policy{Name: "tiers", Pick: 2, AllDown: rule,
		Choose: placement.Branch{Failover: []placement.Branch{{Sites: []string{"ams1", "nyc1"}}, {Sites: []string{"sin1"}}}}})
	inv.Services[1].Policy, inv.Services[1].Demand = "tiers", nil
	return inv
}

// webDown are the votes of sites which find their own web cluster down.
func webDown(votes []placement.Vote, sites ...string) []placement.Vote {
	out := slices.Clone(votes)
	for i := range out {
		if out[i].Object.Name == "web" && slices.Contains(sites, out[i].Site) {
			out[i] = vote(out[i].Site, out[i].Object.String(), placement.Down, placement.LocalFault, time.Second)
		}
	}
	return out
}

// TestAllDownRules: who is answered when the last cluster falls, at once, in the plans
// after it, and after somebody came back.
func TestAllDownRules(t *testing.T) {
	for _, c := range []struct {
		name string
		rule placement.AllDown
		// fall are those that are down in one plan after another.
		fall [][]string
		want []string // of the clients beside ams1, nyc1 and sin1
	}{
		{"all at once, as before", placement.LastGood, [][]string{{"ams1", "nyc1", "sin1"}}, []string{"ams1", "nyc1", "ams1"}},
		{"one was down already", placement.LastGood, [][]string{{"ams1"}, {"ams1", "nyc1", "sin1"}}, []string{"nyc1", "nyc1", "nyc1"}},
		{"the tier was down already", placement.LastGood, [][]string{{"ams1"}, {"ams1", "nyc1"}, {"ams1", "nyc1", "sin1"}}, []string{"sin1", "sin1", "sin1"}},
		{"and stays", placement.LastGood, [][]string{{"ams1"}, {"ams1", "nyc1", "sin1"}, {"ams1", "nyc1", "sin1"}, {"ams1", "nyc1", "sin1"}}, []string{"nyc1", "nyc1", "nyc1"}},
		{"forgotten when one comes back", placement.LastGood, [][]string{{"ams1"}, {"ams1", "nyc1", "sin1"}, {"nyc1", "sin1"}, {"ams1", "nyc1", "sin1"}}, []string{"ams1", "ams1", "ams1"}},
		{"the closest, whatever its tier", placement.Closest, [][]string{{"ams1", "nyc1", "sin1"}}, []string{"ams1", "nyc1", "sin1"}},
		{"but not while somebody is left", placement.Closest, [][]string{{"ams1", "nyc1"}}, []string{"sin1", "sin1", "sin1"}},
		{"all: the name server has them", placement.All, [][]string{{"ams1", "nyc1", "sin1"}}, []string{"", "", ""}},
		{"not while somebody is left", placement.All, [][]string{{"ams1", "nyc1"}}, []string{"sin1", "sin1", "sin1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv, ct := fallen(c.rule), classes(t)
			up := allUp(inv)
			plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: up, Now: epoch()})
			now := epoch()
			for i, down := range c.fall {
				votes := webDown(up, down...)
				atOnce := heads(mustUnfold(t, inv, ct, plan, votes, int64(i)), "www")[:3]
				now = now.Add(time.Hour) // ramps are over
				plan, _ = Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Prev: plan, Now: now})
				plan, _ = Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Prev: plan, Now: now.Add(time.Minute)})
				s := mustUnfold(t, inv, ct, plan, votes, int64(i))
				planned := heads(s, "www")[:3]
				if i < len(c.fall)-1 {
					continue
				}
				if !slices.Equal(atOnce, c.want) || !slices.Equal(planned, c.want) {
					t.Errorf("at once %q, by the next plan %q, want %q", atOnce, planned, c.want)
				}
				if s.Digest != plan.Digest {
					t.Error("the plan's digest is another one")
				}
				if everybody := len(down) == 3 && c.rule != placement.All; s.Map("www").Rows[0].FailOpen != everybody || s.FailOpen("www") != everybody {
					t.Errorf("fails open: %v, alarms %+v", s.Map("www").Rows[0].FailOpen, s.Alarms)
				}
			}
		})
	}
}

// TestClosestSparesTheOperator: what is drained or forced out is no choice while another
// cluster is there, however dead that measures.
func TestClosestSparesTheOperator(t *testing.T) {
	inv, ct := fallen(placement.Closest), classes(t)
	inv.Forces = []placement.Force{{Object: placement.ClusterID{Site: "ams1", Name: "web"}, State: placement.ForceDown, Audit: placement.Audit{Who: "x", Reason: "y"}}}
	votes := webDown(allUp(inv), "nyc1", "sin1")
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Now: epoch()})
	if got := heads(mustUnfold(t, inv, ct, plan, votes, 1), "www")[:3]; !slices.Equal(got, []string{"nyc1", "nyc1", "sin1"}) {
		t.Errorf("%q", got)
	}
}
