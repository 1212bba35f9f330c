package decide

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"rhumb/placement"
)

// PlanInput is all that a plan is made from; time is a value among others.
type PlanInput struct {
	Inventory     *placement.Inventory
	Classes       *placement.ClassTable
	Votes         []placement.Vote
	VotesRevision int64
	// Prev is the plan in force, nil before the first one.
	Prev *placement.Plan
	// Asked is what the clients of services with PerQuery ask (Gauge.Read); nil: what
	// the plan before was made with. Without any the expected demand counts.
	Asked []placement.ServiceDemand
	// Sessions that a draining site has still to hand over, as its edge nodes
	// report; a site that reports none has no entry.
	Sessions map[string]int
	// Announced is what every node says it announces.
	Announced []placement.Announced
	Slots     []placement.Slot
	Now       time.Time
	By        string
	// Algorithm is the version to decide by, one that every node runs; 0 is the newest.
	Algorithm int
}

// Plan decides: what is down, how clusters are limited, how far each drain has
// come, who is an anchor, who shadows whom, and how clients are divided. Given
// the same input it returns the same plan. The refusals say which services keep
// their last good part, and why.
//
// Moves are reckoned from the base, where everything is up, never from the plan
// before: so a recovery leads back to the very same map.
func Plan(in PlanInput) (*placement.Plan, []placement.Refusal) {
	return new(Planner).Plan(in)
}

// Planner makes one plan after another and keeps what does not change with
// health. It changes no result. It is not safe for concurrent use.
type Planner struct {
	u Unfolder
}

// Plan makes a plan: see the function of that name.
func (p *Planner) Plan(in PlanInput) (*placement.Plan, []placement.Refusal) {
	verdicts := Fold(in.Inventory, in.Votes, in.Prev)
	plan := &placement.Plan{Revision: 1, Votes: in.VotesRevision, Made: in.Now, By: in.By,
		Inputs: placement.Inputs{Inventory: in.Inventory.Revision, Algorithm: cmp.Or(in.Algorithm, placement.Algorithm)}}
	if in.Prev != nil {
		plan.Revision = in.Prev.Revision + 1
	}
	if in.Classes != nil {
		plan.Inputs.ClassTable = in.Classes.Digest
	}
	plan.Down = downNow(verdicts)
	plan.Drains = drains(&in, verdicts)
	plan.Ramps = ramps(&in, plan, verdicts)
	plan.Weights = weights(&in, plan, verdicts)
	Standing(&in, plan, verdicts)
	plan.Backups = backups(&in, plan, verdicts)
	refusals := p.services(&in, plan, verdicts)
	p.sign(&in, plan)
	return plan, refusals
}

// downNow lists what the plan is solved without.
func downNow(verdicts []placement.Verdict) []placement.ClusterID {
	var out []placement.ClusterID
	for i := range verdicts {
		if !verdicts[i].Usable() {
			out = append(out, verdicts[i].Object)
		}
	}
	return out
}

// services divides the clients of every service: the base first, then on to
// what the plan has open. Only the classes that do not simply go where policy
// alone would send them are written down.
func (p *Planner) services(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Refusal {
	w := p.u.worldOf(in.Inventory, in.Classes, plan.Inputs.Algorithm)
	if in.Asked == nil {
		in.Asked = Measured(in.Prev, plan.Inputs.ClassTable)
	}
	for i := range in.Inventory.Services {
		s := &in.Inventory.Services[i]
		sp := placement.ServicePlan{Service: s.Name}
		if s.PerQuery > 0 {
			sp.Measured = askedOf(in.Asked, s.Name)
			sp.Demand = w.counted(s, sp.Measured)
		}
		plan.Services = append(plan.Services, sp)
	}
	slices.SortFunc(plan.Services, func(a, b placement.ServicePlan) int {
		return placement.SiteID(a.Service).Compare(placement.SiteID(b.Service))
	})
	l := newLedger(w, plan)
	l.open(l.statuses(allOpen))
	st := l.statuses(func(m *market) []status { return planned(m, plan) })
	l.move(st)
	var refusals []placement.Refusal
	for _, sv := range l.services {
		sp := servicePlan(plan, sv.service.Name)
		sp.Splits, sp.Last = l.splits(sv, st[sv.m]), lastUsable(in, plan, verdicts, sv)
		if r := in.check(sv); r != nil {
			keep(in, sp, r)
			refusals = append(refusals, *r)
		}
	}
	return refusals
}

// splits lists the classes which are not divided as policy alone would.
func (l *ledger) splits(sv *serving, st []status) []placement.Split {
	if sv.demand == nil {
		return nil
	}
	var out []placement.Split
	for class, parts := range sv.parts {
		if len(parts) == 0 || slices.Equal(parts, l.w.parts(sv.m, class, st)) {
			continue
		}
		split := placement.Split{Class: uint16(class)}
		if class == l.w.known {
			split.Class = placement.NoClass
		}
		for _, p := range parts {
			split.Shares = append(split.Shares, placement.SplitShare{Cluster: sv.m.clusters[p.cluster], PerMille: p.perMille})
		}
		out = append(out, split)
	}
	return out
}

// check judges one service; a refusal keeps its last good part.
func (in *PlanInput) check(sv *serving) *placement.Refusal {
	switch {
	case in.Inventory.Policy(sv.service.Policy) == nil:
		return &placement.Refusal{Rule: placement.RuleEmptySelector, Object: sv.service.Name,
			Have: fmt.Sprintf("policy %q, which is not there", sv.service.Policy), Limit: "a policy of the fleet"}
	case len(sv.m.clusters) == 0:
		return &placement.Refusal{Rule: placement.RuleEmptySelector, Object: sv.service.Name,
			Have: "no eligible cluster", Limit: "at least 1"}
	}
	return nil
}

// keep puts the last good part of a service in place of the refused one.
func keep(in *PlanInput, sp *placement.ServicePlan, r *placement.Refusal) {
	if in.Prev != nil {
		old := servicePlan(in.Prev, sp.Service)
		sp.Splits, sp.Demand, sp.Measured = old.Splits, old.Demand, old.Measured
	}
	sp.Kept, sp.Refusal = true, r
}

// Check judges a plan by the snapshot that every node will make of it.
func (p *Planner) Check(inv *placement.Inventory, classes *placement.ClassTable, plan *placement.Plan, votes []placement.Vote) *placement.Refusal {
	s, err := p.u.Unfold(inv, classes, plan, Fold(inv, votes, plan), plan.Votes, false)
	if err != nil {
		return &placement.Refusal{Rule: placement.RuleFault, Object: "plan", Have: err.Error(), Limit: "a plan that unfolds"}
	}
	return s.Check()
}

// sign unfolds the plan as every node will and notes the digest of the result,
// by which they compare theirs.
func (p *Planner) sign(in *PlanInput, plan *placement.Plan) {
	s, err := p.u.Unfold(in.Inventory, in.Classes, plan, Fold(in.Inventory, in.Votes, plan), in.VotesRevision, false)
	if err == nil { // the inputs are our own: it cannot fail
		plan.Digest = s.Digest
	}
}

// Same tells whether two plans decide alike: who made them, when, with which
// votes and under which number does not count.
func Same(a, b *placement.Plan) bool {
	return a != nil && b != nil && a.Inputs == b.Inputs && sameIntents(a, b) && sameServices(a, b) && sameSites(a, b)
}

// sameSites compares who stands by whom.
func sameSites(a, b *placement.Plan) bool {
	return slices.EqualFunc(a.Anchors, b.Anchors, func(x, y placement.Anchors) bool {
		return x.Prefix == y.Prefix && slices.Equal(x.Sites, y.Sites)
	}) && slices.EqualFunc(a.Backups, b.Backups, func(x, y placement.Backup) bool {
		return x.Site == y.Site && x.Epoch == y.Epoch && slices.Equal(x.Order, y.Order)
	})
}

func sameIntents(a, b *placement.Plan) bool {
	return slices.Equal(a.Down, b.Down) && slices.Equal(a.Weights, b.Weights) && slices.Equal(a.Steps, b.Steps) &&
		slices.EqualFunc(a.Ramps, b.Ramps, func(x, y placement.Ramp) bool { return x.Cluster == y.Cluster && x.Start.Equal(y.Start) }) &&
		slices.EqualFunc(a.Drains, b.Drains, func(x, y placement.DrainState) bool {
			return x.Site == y.Site && x.Phase == y.Phase && x.Expired == y.Expired
		})
}

func sameServices(a, b *placement.Plan) bool {
	return slices.EqualFunc(a.Services, b.Services, func(x, y placement.ServicePlan) bool {
		return x.Service == y.Service && x.Kept == y.Kept && sameLast(x.Last, y.Last) && slices.Equal(x.Demand, y.Demand) &&
			slices.EqualFunc(x.Splits, y.Splits, func(s, t placement.Split) bool { return s.Class == t.Class && slices.Equal(s.Shares, t.Shares) })
	})
}

func sameLast(a, b *placement.LastUsable) bool {
	return (a == nil) == (b == nil) && (a == nil || slices.Equal(a.Down, b.Down))
}
