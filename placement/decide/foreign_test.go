package decide

import (
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// elsewhere is a fleet of two sites, and others who serve at a third, which is far from
// everybody's fate and has no limit.
func elsewhere() *placement.Inventory {
	inv := fleet(3)
	inv.Policies = append(inv.Policies, placement.Policy{Name: "own-first", Pick: 2,
		Choose: placement.Branch{Failover: []placement.Branch{{Sites: []string{"ams1", "nyc1"}}, {Sites: []string{"sin1"}}}}})
	inv.Services[1].Policy = "own-first"
	inv.Site("sin1").Clusters = []placement.Cluster{{Name: "web", CNAME: "www.other.test."}}
	return inv
}

// TestForeignSite: a site where others serve takes clients like any other, with nobody
// to say that it is up; and it is nowhere counted among those which look, announce or
// keep sessions.
func TestForeignSite(t *testing.T) {
	inv, ct := elsewhere(), classes(t)
	votes := without(allUp(inv), "sin1")
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Now: epoch()})
	up := mustUnfold(t, inv, ct, plan, votes, 1)
	if got := heads(up, "www")[:3]; !slices.Equal(got, []string{"ams1", "nyc1", "ams1"}) {
		t.Errorf("all up: %q", got)
	}
	// With two domains one suffices for down, if the site itself is silent.
	dead := killed(inv, votes, "ams1", time.Second)
	if v := verdictOf(Fold(inv, dead, plan), placement.SiteID("ams1")); v.State != placement.Down {
		t.Errorf("ams1 is %v: others that serve were counted among those who look", v.State)
	}
	if b := previousBackup(plan, "ams1"); !slices.Equal(b.Order, []string{"nyc1"}) || previousBackup(plan, "sin1") != nil {
		t.Errorf("sessions of ams1 go to %v", b.Order)
	}
	if r := JudgeDrain(inv, up, placement.Drain{Site: "ams1"}, []string{"min_headroom"}); r == nil || r.Rule != placement.RuleMinSites {
		t.Errorf("one of two sites drained: %v", r)
	}
	// Both of ours down, by their own word: the next tier has them all.
	own := append(slices.Clone(votes), vote("ams1", "ams1/web", placement.Down, placement.LocalFault, time.Second),
		vote("nyc1", "nyc1/web", placement.Down, placement.LocalFault, time.Second))
	inv.Policies[1].AllDown = placement.NoData // else the removal cap keeps one of the two
	if got := heads(mustUnfold(t, inv, ct, plan, own, 2), "www"); got[0] != "sin1" || got[2] != "sin1" {
		t.Errorf("ours are down: %q", got)
	}
}
