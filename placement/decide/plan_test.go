package decide

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// announced is every site announcing the prefix of the fleet at a step.
func announced(inv *placement.Inventory, steps map[string]placement.Step) []placement.Announced {
	var out []placement.Announced
	for _, s := range inv.Sites {
		out = append(out, placement.Announced{Prefix: inv.Prefixes[0].Prefix, Site: s.Name, Node: s.Name + "-a", Step: steps[s.Name]})
	}
	return out
}

// lateTwin is an input-delayed twin of a site, which knows of nothing yet.
func lateTwin(inv *placement.Inventory, site string) placement.Announced {
	return placement.Announced{Prefix: inv.Prefixes[0].Prefix, Site: site, Node: site + "-t", Step: placement.Prepend, Twin: true}
}

// knowing lets the announcements of a site acknowledge that it is an anchor.
func knowing(all []placement.Announced, sites ...string) []placement.Announced {
	for i := range all {
		all[i].Anchor = slices.Contains(sites, all[i].Site)
	}
	return all
}

// TestAnchorsMoveInTwoPlans: the successor joins first, and the predecessor
// leaves only when the successor announces and has said that it knows.
func TestAnchorsMoveInTwoPlans(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch(), Announced: announced(inv, nil)}
	sites := func() []string { return in.Prev.Anchors[0].Sites }
	in.Prev, _ = Plan(in)
	if !slices.Equal(sites(), []string{"ams1", "nyc1"}) {
		t.Fatalf("first %v", sites())
	}
	drained := clone(inv)
	drained.Drains = []placement.Drain{{Site: "ams1", Audit: placement.Audit{Who: "op", Reason: "power"}}}
	in.Inventory = drained
	in.Announced = announced(inv, map[string]placement.Step{"sin1": placement.Withdrawn}) // for a reason of its own
	for i := range 3 {
		in.Now = in.Now.Add(time.Minute)
		in.Prev, _ = Plan(in)
		if !slices.Equal(sites(), []string{"ams1", "nyc1", "sin1"}) {
			t.Fatalf("plan %d: %v, though sin1 is not heard", i, sites())
		}
	}
	twice := append(announced(inv, nil), placement.Announced{Prefix: inv.Prefixes[0].Prefix, Site: "sin1", Node: "sin1-b"})
	for name, heard := range map[string][]placement.Announced{
		"does not know it":             knowing(announced(inv, nil), "ams1", "nyc1"),
		"has a node which does not":    append(knowing(announced(inv, nil), "nyc1", "sin1"), twice[len(twice)-1]),
		"is the only one who knows it": knowing(announced(inv, nil), "sin1"),
	} {
		in.Announced, in.Now = heard, in.Now.Add(time.Minute)
		if in.Prev, _ = Plan(in); !slices.Equal(sites(), []string{"ams1", "nyc1", "sin1"}) {
			t.Fatalf("%v, though sin1 %s", sites(), name)
		}
	}
	in.Announced = append(knowing(announced(inv, map[string]placement.Step{"sin1": placement.Withdrawn}), "nyc1"), lateTwin(inv, "sin1"))
	if in.Prev, _ = Plan(in); !slices.Equal(sites(), []string{"ams1", "nyc1", "sin1"}) {
		t.Fatalf("%v, though at sin1 a twin alone announces", sites())
	}
	in.Announced = append(knowing(twice, "nyc1", "sin1"), lateTwin(inv, "sin1"))
	in.Prev, _ = Plan(in)
	if !slices.Equal(sites(), []string{"nyc1", "sin1"}) {
		t.Fatalf("at last %v", sites())
	}
}

// TestAnchorsOfAnotherList: sites which a configuration takes from a prefix stay
// anchors until the new ones have taken over.
func TestAnchorsOfAnotherList(t *testing.T) {
	inv, ct := fleet(4), classes(t)
	inv.Prefixes[0].Sites = []string{"ams1", "nyc1"}
	inv.Prefixes[0].MinAnnouncing = 1
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch(), Announced: knowing(announced(inv, nil), "ams1")}
	in.Prev, _ = Plan(in)
	moved := clone(inv)
	moved.Prefixes[0].Sites = []string{"nyc1", "sin1"}
	in.Inventory = moved
	for _, step := range []struct {
		knows []string
		want  []string
	}{{[]string{"ams1"}, []string{"ams1", "nyc1"}}, {[]string{"ams1"}, []string{"ams1", "nyc1"}}, {[]string{"ams1", "nyc1"}, []string{"nyc1"}}} {
		in.Announced = knowing(announced(inv, nil), step.knows...)
		in.Prev, _ = Plan(in)
		if got := in.Prev.Anchors[0].Sites; !slices.Equal(got, step.want) {
			t.Fatalf("%v know it: anchors %v, want %v", step.knows, got, step.want)
		}
	}
}

// TestSlotHolderIsNeverNamed: rather too few anchors, which no node applies, than one
// that may be silent.
func TestSlotHolderIsNeverNamed(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	prefix := inv.Prefixes[0].Prefix
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch(), Announced: knowing(announced(inv, nil), "ams1", "nyc1")}
	in.Prev, _ = Plan(in)
	in.Slots = []placement.Slot{{Prefix: prefix, Number: 1, Site: "sin1"}}
	in.Inventory = clone(inv)
	in.Inventory.Drains = []placement.Drain{{Site: "ams1", Audit: placement.Audit{Who: "op", Reason: "power"}}}
	for range 3 {
		in.Now = in.Now.Add(time.Minute)
		in.Prev, _ = Plan(in)
		if got := in.Prev.Anchors[0].Sites; !slices.Equal(got, []string{"ams1", "nyc1"}) {
			t.Fatalf("anchors %v: sin1 holds a slot", got)
		}
	}
	in.Prev, in.Slots = nil, append(in.Slots, placement.Slot{Prefix: prefix, Number: 2, Site: "nyc1"})
	plan, _ := Plan(in)
	if r := new(Planner).Check(in.Inventory, ct, plan, in.Votes); r == nil || r.Rule != placement.RuleAnchors {
		t.Errorf("anchors %v, %v", plan.Anchors[0].Sites, r)
	}
}

func TestSlotHolderIsNoAnchor(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch(),
		Slots: []placement.Slot{{Prefix: inv.Prefixes[0].Prefix, Number: 1, Site: "ams1"}}})
	if got := plan.Anchors[0].Sites; !slices.Equal(got, []string{"nyc1", "sin1"}) {
		t.Errorf("anchors %v", got)
	}
}

// TestAnchorsWhenAllAreDown: naming needs no health.
func TestAnchorsWhenAllAreDown(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	var votes []placement.Vote
	for _, s := range inv.Sites {
		votes = append(votes, vote(s.Name, s.Name+"/-", placement.Down, placement.LocalFault, time.Second), vote(s.Name, s.Name+"/dns", placement.Down, placement.LocalFault, time.Second))
	}
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: votes, Now: epoch()})
	if n := len(plan.Anchors[0].Sites); n != 2 {
		t.Errorf("%d anchors", n)
	}
}

// TestDrainWaitsForTheRoutes: a phase that lowers routes waits until they are
// reported lowered, where the prefix acts at all.
func TestDrainWaitsForTheRoutes(t *testing.T) {
	for _, mode := range []placement.Mode{placement.Act, placement.Observe} {
		t.Run(string(mode), func(t *testing.T) {
			inv, ct := fleet(3), classes(t)
			inv.Prefixes[0].Mode = mode
			inv.Drains = []placement.Drain{{Site: "ams1", Audit: placement.Audit{Who: "op", Reason: "power"}}}
			in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch(), Announced: announced(inv, nil)}
			reach := func() placement.Phase {
				for range 20 {
					in.Prev, _ = Plan(in)
					in.Now = in.Now.Add(30 * time.Second)
				}
				return in.Prev.Drain("ams1").Phase
			}
			want := []placement.Phase{placement.PhaseGShut, placement.PhaseWithdraw, placement.PhaseDrained}
			if mode == placement.Observe {
				want = []placement.Phase{placement.PhaseDrained, placement.PhaseDrained, placement.PhaseDrained}
			}
			for i, step := range []placement.Step{placement.Announce, placement.GShut, placement.Withdrawn} {
				in.Announced = append(announced(inv, map[string]placement.Step{"ams1": step}), lateTwin(inv, "ams1"))
				if got := reach(); got != want[i] {
					t.Errorf("announced at %v: reaches %s, want %s", step, got, want[i])
				}
			}
		})
	}
}

func TestSessionsAreWaitedForNotForever(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Drains = []placement.Drain{{Site: "ams1", Audit: placement.Audit{Who: "op", Reason: "power"}}}
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch(), Sessions: map[string]int{"ams1": 7}}
	var at time.Duration
	for in.Prev == nil || in.Prev.Drain("ams1").Phase != placement.PhaseWithdraw {
		if in.Prev, _ = Plan(in); in.Prev.Drain("ams1").Phase == placement.PhaseSessions && at == 0 {
			at = in.Now.Sub(epoch())
		}
		in.Now = in.Now.Add(time.Second)
	}
	if waited := in.Now.Sub(epoch()) - at; waited < sessionsLimit || waited > sessionsLimit+3*time.Second {
		t.Errorf("waited %v", waited)
	}
}

// TestServiceKeepsItsLastGoodPart: one service that fails its check does not
// hold up the others.
func TestServiceKeepsItsLastGoodPart(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	inv.Services[1].Demand = map[string]int64{"europe": 1500, "asia": 100}
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()}
	in.Prev, _ = Plan(in)
	if len(in.Prev.Services[1].Splits) == 0 {
		t.Fatal("nothing is split: this proves little")
	}
	broken := clone(inv)
	broken.Services[1].Policy = "gone"
	in.Inventory = broken
	plan, refusals := Plan(in)
	www := servicePlan(plan, "www")
	if len(refusals) != 1 || refusals[0].Object != "www" || !www.Kept || www.Refusal == nil {
		t.Errorf("refusals %v, part %+v", refusals, www)
	}
	if fmt.Sprint(www.Splits) != fmt.Sprint(in.Prev.Services[1].Splits) {
		t.Errorf("splits %v, were %v", www.Splits, in.Prev.Services[1].Splits)
	}
	if servicePlan(plan, "ns").Kept {
		t.Error("the other service is held up")
	}
	s := mustUnfold(t, broken, ct, plan, in.Votes, 1)
	if !slices.ContainsFunc(s.Alarms, func(a placement.Alarm) bool { return a.Kind == AlarmKept && a.Object == "www" }) {
		t.Errorf("alarms %+v", s.Alarms)
	}
}

func TestRampDelayIsSpread(t *testing.T) {
	seen, in := make(map[time.Duration]bool), PlanInput{Inventory: fleet(3)}
	for i := range 100 {
		id := placement.ClusterID{Site: fmt.Sprint("s", i), Name: "web"}
		d := in.delayOf(id, epoch())
		if d < 0 || d >= 30*time.Second || d != in.delayOf(id, epoch()) {
			t.Fatalf("%v", d)
		}
		seen[d/(3*time.Second)] = true
	}
	if len(seen) != 10 {
		t.Errorf("a hundred starts fall into %d tenths of the delay", len(seen))
	}
}

func TestRampPart(t *testing.T) {
	back := placement.DefaultRecovery()
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{{-time.Second, 0}, {0, 100}, {30 * time.Second, 500}, {59 * time.Second, 900}, {time.Minute, 1000}} {
		if got := rampPart(&back, epoch(), epoch().Add(tc.after)); got != tc.want {
			t.Errorf("after %v: %d, want %d", tc.after, got, tc.want)
		}
	}
}

// TestBackupsAvoidOneFate: who shares a failure domain comes last, however near.
func TestBackupsAvoidOneFate(t *testing.T) {
	inv, ct := fleet(6), classes(t)
	inv.Site("ams1").Domains = []string{"isp-a"}
	inv.Site("fra1").Domains = []string{"isp-a", "power-b"}
	in := PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()}
	in.Prev, _ = Plan(in)
	order := previousBackup(in.Prev, "ams1").Order
	if order[0] != "nyc1" || order[len(order)-1] != "fra1" {
		t.Errorf("order %v", order)
	}
	again, _ := Plan(in)
	if e := previousBackup(again, "ams1").Epoch; e != 1 {
		t.Errorf("the epoch rose to %d though nothing changed", e)
	}
	in.Votes = killed(inv, in.Votes, "nyc1", time.Second)
	next, _ := Plan(in)
	b := previousBackup(next, "ams1")
	if b.Order[0] == "nyc1" || b.Epoch != 2 {
		t.Errorf("nyc1 is dead: %+v", b)
	}
}
