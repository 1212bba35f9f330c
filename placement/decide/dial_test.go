package decide

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// twins gives every site a second cluster that serves www.
func twins(n int) *placement.Inventory {
	inv := fleet(n)
	for i := range inv.Sites {
		inv.Sites[i].Clusters = append(inv.Sites[i].Clusters, placement.Cluster{Name: "web2",
			Addresses: []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:80", 100+i))}})
	}
	inv.Services[1].Clusters, inv.Services[1].Demand = []string{"web", "web2"}, nil
	return inv
}

func dialled(inv *placement.Inventory, object string, perMille int) *placement.Inventory {
	c := *inv
	c.Dials = append(slices.Clone(inv.Dials), placement.Dial{Site: object, PerMille: perMille, Audit: placement.Audit{Who: "op"}})
	return &c
}

// TestDialOfCluster: a cluster's dial and its site's multiply; other clusters keep their clients.
func TestDialOfCluster(t *testing.T) {
	inv, ct := dialled(dialled(twins(3), "ams1/web", 500), "ams1", 600), classes(t)
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()})
	for _, want := range []placement.Weight{
		{Cluster: placement.ClusterID{Site: "ams1", Name: "web"}, PerMille: 300, Cause: "dial: web at 50 % by op; dial: 60 % by op"},
		{Cluster: placement.ClusterID{Site: "ams1", Name: "web2"}, PerMille: 600, Cause: "dial: 60 % by op"},
	} {
		if !slices.Contains(plan.Weights, want) {
			t.Errorf("no weight %+v in %+v", want, plan.Weights)
		}
	}
	s := mustUnfold(t, inv, ct, plan, allUp(inv), 1)
	var tr placement.Trace
	s.Choose("www", netip.MustParseAddr("10.0.0.1"), &tr)
	if c := tr.Candidates[0]; c.PerMille != 300 || c.Reason != "usable: up; limited by dial or ramp: dial: web at 50 % by op; dial: 60 % by op" {
		t.Errorf("explained as %+v", c)
	}
	little := dialled(twins(3), "ams1/web", 5)
	if plan, _ := Plan(PlanInput{Inventory: little, Classes: ct, Votes: allUp(little), Now: epoch()}); len(plan.Weights) != 1 || plan.Weights[0].Cause != "dial: web at 0.5 % by op" {
		t.Errorf("half a percent is told as %+v", plan.Weights)
	}
	gone := dialled(twins(3), "ams1/web", 0)
	plan, _ = Plan(PlanInput{Inventory: gone, Classes: ct, Votes: allUp(gone), Now: epoch()})
	tr = placement.Trace{}
	mustUnfold(t, gone, ct, plan, allUp(gone), 1).Choose("www", netip.MustParseAddr("10.0.0.1"), &tr)
	if c := tr.Candidates[0]; c.Out != "dialled" || c.Reason != "limited by dial or ramp: dial: web at 0 % by op" || tr.Chosen != "ams1/web2" {
		t.Errorf("at 0 %%: %s, chosen %s", c.Reason, tr.Chosen)
	}
}

// TestDialMovesOneWay: while a dial is raised, who has come to the cluster stays there,
// and nobody comes back to a cluster that he left.
func TestDialMovesOneWay(t *testing.T) {
	ct := classes(t)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		inv := twins(3 + r.IntN(3))
		inv.Policies[0].Choose = []placement.Branch{{},
			{Failover: []placement.Branch{{Sites: []string{"ams1", "sin1"}}, {}}},
			{Weighted: []placement.Weighted{{Weight: 3, Branch: placement.Branch{Sites: []string{"nyc1"}}}, {Weight: 2, Branch: placement.Branch{}}}},
		}[r.IntN(3)]
		for range r.IntN(3) {
			s := &inv.Sites[r.IntN(len(inv.Sites))]
			inv = dialled(inv, s.Name+"/web2", r.IntN(1001))
		}
		object := "ams1/web"
		if r.IntN(2) == 0 {
			object = "nyc1/web"
		}
		var clients []netip.Addr
		for i := range 400 {
			clients = append(clients, netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(6)), byte(i)}), netip.AddrFrom4([4]byte{byte(20 + r.IntN(80)), byte(i), byte(r.IntN(256)), 1}))
		}
		left := make([]map[string]bool, len(clients))
		last := make([]string, len(clients))
		for perMille := 0; perMille <= whole; perMille += 40 {
			now := dialled(inv, object, perMille)
			plan, _ := Plan(PlanInput{Inventory: now, Classes: ct, Votes: allUp(now), Now: epoch()})
			s := mustUnfold(t, now, ct, plan, allUp(now), 1)
			for i, c := range clients {
				choice, _ := s.Choose("www", c, nil)
				id, _ := choice.Cluster()
				at := id.String()
				if left[i] == nil {
					left[i] = make(map[string]bool)
				}
				if at == last[i] {
					continue
				}
				if left[i][at] || last[i] == object {
					t.Fatalf("seed %d: at %d per mille of %s client %s goes from %s to %s", seed, perMille, object, c, last[i], at)
				}
				left[i][last[i]], last[i] = true, at
			}
		}
	}
}

// TestJudgeClusterDial: the limits judge it as an intent, by service.
func TestJudgeClusterDial(t *testing.T) {
	ct := classes(t)
	for _, c := range []struct {
		name string
		inv  *placement.Inventory
		d    placement.Dial
		want placement.RuleName
		have string
	}{
		{"half of one", twins(3), placement.Dial{Site: "ams1/web", PerMille: 500}, "", ""},
		{"one of two in the site", dialled(dialled(twins(2), "nyc1/web", 0), "nyc1/dns", 0), placement.Dial{Site: "ams1/web"}, "", ""},
		{"the last but one site of a service", fleet(2), placement.Dial{Site: "ams1/web"}, placement.RuleMinSites, "1 sites would serve www"},
		{"after others", dialled(fleet(3), "sin1/web", 0), placement.Dial{Site: "ams1/web"}, placement.RuleMinSites, "1 sites would serve www"},
		{"with its twin", dialled(twins(2), "ams1/web2", 0), placement.Dial{Site: "ams1/web"}, placement.RuleMinSites, "1 sites would serve www"},
		{"under the site's", dialled(fleet(3), "sin1", 0), placement.Dial{Site: "ams1/web"}, placement.RuleMinSites, "1 sites would serve www"},
		{"no such cluster", fleet(3), placement.Dial{Site: "ams1/mail"}, placement.RuleEmptySelector, "no such site or cluster"},
		{"no such site", fleet(3), placement.Dial{Site: "ber1/web"}, placement.RuleEmptySelector, "no such site or cluster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.inv.Services[1].Demand = nil // no load: the sites alone are judged
			s := stateOf(t, c.inv, ct)
			r := JudgeDial(c.inv, s, c.d, nil)
			if (r == nil) != (c.want == "") || r != nil && (r.Rule != c.want || r.Have != c.have || r.Object != c.d.Site) {
				t.Fatalf("%v, want %q: %q", r, c.want, c.have)
			}
			if r != nil && r.Rule == placement.RuleMinSites {
				if r := JudgeDial(c.inv, s, c.d, []string{string(placement.RuleMinSites)}); r != nil {
					t.Errorf("overridden by name, and still %v", r)
				}
			}
		})
	}
	full := twins(2)
	full.Services[1].Clusters, full.Services[1].Demand = []string{"web"}, map[string]int64{"europe": 900, "north-america": 900}
	if r := JudgeDial(full, stateOf(t, full, ct), placement.Dial{Site: "ams1/web", PerMille: 300}, nil); r == nil || r.Rule != placement.RuleMinHeadroom {
		t.Errorf("without room elsewhere: %v", r)
	}
}

// TestDialForecast: a dial that is simulated and then set puts the load where the
// forecast said, also one raised from nothing.
func TestDialForecast(t *testing.T) {
	ct := classes(t)
	base := fleet(3)
	base.Services[1].Demand = map[string]int64{"europe": 600, "north-america": 300, "asia": 100}
	for _, c := range []struct {
		stands, change map[string]int
	}{
		{nil, map[string]int{"ams1/web": 400}},
		{map[string]int{"ams1": 500}, map[string]int{"ams1/web": 400}},
		{map[string]int{"ams1/web": 0}, map[string]int{"ams1/web": 700}},
		{map[string]int{"ams1/web": 300, "ams1": 800}, map[string]int{"ams1": 1000}},
	} {
		inv := base
		for object, n := range c.stands {
			inv = dialled(inv, object, n)
		}
		f := Simulate(stateOf(t, inv, ct), Change{Dial: c.change})
		then := base
		for object, n := range c.stands {
			if _, again := c.change[object]; !again {
				then = dialled(then, object, n)
			}
		}
		for object, n := range c.change {
			then = dialled(then, object, n)
		}
		after := Simulate(stateOf(t, then, ct), Change{})
		for i := range f.Clusters {
			if f.Clusters[i].After != after.Clusters[i].Before {
				t.Errorf("%v then %v: %s is forecast to carry %d, and carries %d", c.stands, c.change, f.Clusters[i].Cluster, f.Clusters[i].After, after.Clusters[i].Before)
			}
		}
	}
}

// TestClusterDialRamps: a cluster that comes back ramps within what its dial leaves it.
func TestClusterDialRamps(t *testing.T) {
	inv, ct := dialled(fleet(3), "ams1/web", 500), classes(t)
	id := placement.ClusterID{Site: "ams1", Name: "web"}
	down, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: webDown(allUp(inv), "ams1"), Now: epoch()})
	back, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Prev: down, Now: epoch().Add(time.Minute)})
	if len(back.Ramps) != 1 || back.Ramps[0].Cluster != id {
		t.Fatalf("ramps %+v", back.Ramps)
	}
	half, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Prev: back, Now: back.Ramps[0].Start.Add(inv.Comeback().Ramp.D() / 2)})
	i := slices.IndexFunc(half.Weights, func(w placement.Weight) bool { return w.Cluster == id })
	if i < 0 || half.Weights[i].PerMille != 250 {
		t.Errorf("weights %+v, want half of half", half.Weights)
	}
}
