package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/store"
)

// placementEvent is the API's event.
type placementEvent = placement.Event

// ops are the changes an operator may ask of a unit: judged by the rules against
// the snapshot in force, then stored for the whole fleet.
type ops struct{ u *unit }

func newOps(u *unit) api.Ops {
	o := ops{u}
	out := api.Ops{Drainer: o, Setter: o, Freezer: o, Applier: o, History: o, Slots: o, Retirer: o, Simulator: o, Looker: u.desk}
	if u.twin != nil {
		out.Twin = u.twin
	}
	return out
}

// basis is the state upon which an operator's wish is judged.
func (o ops) basis(site string) (*placement.Inventory, *placement.Snapshot, error) {
	v, s := o.u.views.view(), o.u.current.Load()
	if s == nil || v.Inventory == nil {
		return nil, nil, fmt.Errorf("%w: no snapshot yet", api.ErrUnavailable)
	}
	if _, node := v.Inventory.Node(site); site != "" && !node && v.Inventory.Site(site) == nil {
		return nil, nil, fmt.Errorf("%w: site %s", api.ErrNotFound, site)
	}
	return v.Inventory, s, nil
}

// judgeTries is how often a wish is judged anew because of another one, and
// judgePause how long the view gets to show that one.
const (
	judgeTries = 20
	judgePause = 100 * time.Millisecond
)

// judged carries out a wish, and again when another was stored between judging and
// storing it: two drains at once would each be the only one in the other's eyes.
func (o ops) judged(ctx context.Context, wish func() (api.Outcome, error)) (api.Outcome, error) {
	for try := 1; ; try++ {
		out, err := wish()
		if !errors.Is(err, api.ErrConflict) || try == judgeTries {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(judgePause):
		}
	}
}

// Drain begins a drain.
func (o ops) Drain(ctx context.Context, d placement.Drain, dryRun bool) (api.Outcome, error) {
	return o.judged(ctx, func() (api.Outcome, error) { return o.drainOnce(ctx, d, dryRun) })
}

func (o ops) drainOnce(ctx context.Context, d placement.Drain, dryRun bool) (api.Outcome, error) {
	inv, snap, err := o.basis(d.Site)
	if err != nil {
		return api.Outcome{}, err
	}
	if r := decide.JudgeDrain(inv, snap, d, d.Override); r != nil {
		return api.Outcome{}, o.refused(d.Who, "drain", d.Site, "drain", r, dryRun)
	}
	out := api.Outcome{Object: d.Site, DryRun: dryRun, Snapshot: snap.Name.String(), Text: "drains: answers move, then routes, then sessions", Undo: "rhumb undrain " + d.Site}
	if d.OfNode() {
		out.Text = "drains: its sessions go to the other nodes of its site, which stays; its routes go where another node of the site announces them"
	} else {
		out.Forecast = forecast(decide.Simulate(snap, decide.Change{Drain: []string{d.Site}}))
	}
	if dryRun {
		return out, nil
	}
	if out.Revision, err = o.u.store.Expecting(inv.Revision).PutDrain(ctx, d); errors.Is(err, store.ErrConflict) {
		return api.Outcome{}, storeError(err)
	}
	o.audit(d.Who, "drain", d.Site, d.Site+" drains: "+d.Reason, err)
	return out, storeError(err)
}

// Undrain takes a drain back. The site returns by the plan's ramp; a ramp of the
// caller's own is refused rather than forgotten, since no plan would keep to it.
func (o ops) Undrain(ctx context.Context, u api.Undrain) (api.Outcome, error) {
	if u.Ramp != 0 {
		return api.Outcome{}, fmt.Errorf("%w: a ramp for one return is not kept by this version; leave it out, and the site returns by the fleet's own", api.ErrInvalid)
	}
	inv, snap, err := o.basis(u.Site)
	if err != nil {
		return api.Outcome{}, err
	}
	d := inv.Drained(u.Site)
	if d == nil {
		return api.Outcome{}, fmt.Errorf("%w: %s is not drained", api.ErrNotFound, u.Site)
	}
	ended := *d
	ended.Ended = time.Now().UTC()
	rev, err := o.u.store.PutDrain(ctx, ended)
	o.audit(u.Who, "drain", u.Site, u.Site+" comes back: "+u.Reason, err)
	text := "comes back: announced prepended, then plain, then its clients ramp up"
	if d.OfNode() {
		text = "takes sessions again, as the router sends them"
	}
	return api.Outcome{Object: u.Site, Text: text, Snapshot: snap.Name.String(), Revision: rev}, storeError(err)
}

// Force stores the operator's word on a site or cluster. It stands beside what is
// measured and ends only by another word.
func (o ops) Force(ctx context.Context, f placement.Force, dryRun bool) (api.Outcome, error) {
	return o.judged(ctx, func() (api.Outcome, error) { return o.forceOnce(ctx, f, dryRun) })
}

func (o ops) forceOnce(ctx context.Context, f placement.Force, dryRun bool) (api.Outcome, error) {
	inv, snap, err := o.basis(f.Object.Site)
	if err != nil {
		return api.Outcome{}, err
	}
	if f.Object.Site == "" {
		return api.Outcome{}, &placement.Refusal{Rule: placement.RuleEmptySelector, Object: "force", Have: "no site", Limit: "a site of the fleet"}
	}
	if !f.Object.IsSite() && inv.Cluster(f.Object) == nil {
		return api.Outcome{}, fmt.Errorf("%w: cluster %s", api.ErrNotFound, f.Object)
	}
	if f.State == placement.ForceDown && f.Object.IsSite() {
		// To its clients a site forced down is a drained one, only at once.
		if r := decide.JudgeDrain(inv, snap, placement.Drain{Site: f.Object.Site}, f.Override); r != nil {
			return api.Outcome{}, o.refused(f.Who, "config", f.Object.Site, "force down", r, dryRun)
		}
	}
	if f.State == placement.NoForce {
		f.Ended = time.Now().UTC()
	}
	out := api.Outcome{Object: f.Object.String(), DryRun: dryRun, Snapshot: snap.Name.String(), Text: "forced " + or(string(f.State), "no more: what is measured rules"),
		Undo: "rhumb force " + f.Object.String() + " auto"}
	if dryRun {
		return out, nil
	}
	if out.Revision, err = o.u.store.Expecting(inv.Revision).PutForce(ctx, f); errors.Is(err, store.ErrConflict) {
		return api.Outcome{}, storeError(err)
	}
	o.audit(f.Who, "config", f.Object.Site, out.Object+" "+out.Text+": "+f.Reason, err)
	return out, storeError(err)
}

// Dial limits the share of a site or cluster; 1000 per mille ends the limit.
func (o ops) Dial(ctx context.Context, d placement.Dial, dryRun bool) (api.Outcome, error) {
	return o.judged(ctx, func() (api.Outcome, error) { return o.dialOnce(ctx, d, dryRun) })
}

func (o ops) dialOnce(ctx context.Context, d placement.Dial, dryRun bool) (api.Outcome, error) {
	site, cluster, _ := strings.Cut(d.Site, "/")
	inv, snap, err := o.basis(site)
	if err != nil {
		return api.Outcome{}, err
	}
	if id := (placement.ClusterID{Site: site, Name: cluster}); d.OfCluster() && inv.Cluster(id) == nil {
		return api.Outcome{}, fmt.Errorf("%w: cluster %s", api.ErrNotFound, id)
	}
	if r := decide.JudgeDial(inv, snap, d, d.Override); r != nil {
		return api.Outcome{}, o.refused(d.Who, "config", site, fmt.Sprintf("dial of %s to %g %%", d.Site, float64(d.PerMille)/10), r, dryRun)
	}
	if d.PerMille >= 1000 {
		d.Ended = time.Now().UTC()
	}
	out := api.Outcome{Object: d.Site, DryRun: dryRun, Snapshot: snap.Name.String(), Text: fmt.Sprintf("dialled to %g %% of its clients", float64(d.PerMille)/10),
		Forecast: forecast(decide.Simulate(snap, decide.Change{Dial: map[string]int{d.Site: d.PerMille}})), Undo: "rhumb dial " + d.Site + " 100 --reason …"}
	if dryRun {
		return out, nil
	}
	if out.Revision, err = o.u.store.Expecting(inv.Revision).PutDial(ctx, d); errors.Is(err, store.ErrConflict) {
		return api.Outcome{}, storeError(err)
	}
	o.audit(d.Who, "config", site, d.Site+" "+out.Text+": "+d.Reason, err)
	return out, storeError(err)
}

// Pin holds a site at a plan; revision 0 releases it.
func (o ops) Pin(ctx context.Context, p placement.Pin) (api.Outcome, error) {
	_, snap, err := o.basis(p.Site)
	if err != nil {
		return api.Outcome{}, err
	}
	if p.Site == "" {
		return api.Outcome{}, &placement.Refusal{Rule: placement.RuleEmptySelector, Object: "pin", Have: "no site", Limit: "a site of the fleet"}
	}
	text := fmt.Sprintf("held at plan %d; its health goes on", p.Revision)
	if p.Revision == 0 {
		p.Ended, text = time.Now().UTC(), "follows the newest plan again"
	} else if _, err := o.u.store.PlanAt(ctx, p.Revision); err != nil {
		return api.Outcome{}, storeError(fmt.Errorf("plan %d: %w", p.Revision, err))
	}
	rev, err := o.u.store.PutPin(ctx, p)
	o.audit(p.Who, "config", p.Site, p.Site+" "+text+": "+p.Reason, err)
	return api.Outcome{Object: p.Site, Text: text, Snapshot: snap.Name.String(), Revision: rev, Undo: "rhumb pin " + p.Site + " --release"}, storeError(err)
}

// Freeze stops every automatic decision.
func (o ops) Freeze(ctx context.Context, f placement.Freeze) (api.Outcome, error) {
	rev, err := o.u.store.PutFreeze(ctx, f)
	o.audit(f.Who, "config", "", "frozen: "+f.Reason, err)
	return api.Outcome{Object: "fleet", Text: "frozen: nothing is decided by itself; manual verbs still work", Revision: rev, Undo: "rhumb thaw"}, storeError(err)
}

// Thaw lets decisions go on.
func (o ops) Thaw(ctx context.Context, who string) (api.Outcome, error) {
	inv, _, err := o.basis("")
	if err != nil {
		return api.Outcome{}, err
	}
	if !inv.Frozen() {
		return api.Outcome{}, fmt.Errorf("%w: the fleet is not frozen", api.ErrNotFound)
	}
	f := inv.Freeze
	f.Ended = time.Now().UTC()
	rev, err := o.u.store.PutFreeze(ctx, f)
	o.audit(who, "config", "", "thawed", err)
	return api.Outcome{Object: "fleet", Text: "thawed: decisions go on", Revision: rev}, storeError(err)
}

// FreeSlot takes a slot from a site which cannot give it back itself.
func (o ops) FreeSlot(ctx context.Context, f api.FreeSlot) (api.Outcome, error) {
	slots := o.u.views.view().Slots
	i := slices.IndexFunc(slots, func(s placement.Slot) bool { return s.Prefix == f.Prefix && s.Number == f.Number })
	if i < 0 {
		return api.Outcome{}, fmt.Errorf("%w: slot %d of %s is free", api.ErrNotFound, f.Number, f.Prefix)
	}
	err := o.u.store.FreeSlot(ctx, f.Prefix, f.Number, slots[i].Site, f.Reason)
	o.audit(f.Who, "bgp", slots[i].Site, fmt.Sprintf("slot %d of %s freed: %s", f.Number, f.Prefix, f.Reason), err)
	return api.Outcome{Object: f.Prefix.String(), Text: "slot freed; its holder was " + slots[i].Site}, storeError(err)
}

// audit writes who changed what into the fleet's log. A change which the store
// did not take is told as well: the operator may have to ask why it is not there.
func (o ops) audit(who, kind, site, text string, err error) {
	if err != nil {
		text = "failed: " + text + because(err.Error())
	}
	o.u.event(placement.Event{Kind: kind, Site: site, Text: text, Who: who})
}

// refused writes down that a rule kept somebody from something, and returns the
// refusal. What was only tried is nobody's business.
func (o ops) refused(who, kind, site, what string, r *placement.Refusal, dryRun bool) error {
	if !dryRun {
		o.u.event(placement.Event{Kind: kind, Site: site, Who: who, Text: what + " refused: " + r.Error()})
	}
	return r
}

// Simulate forecasts the load. What it cannot compute it refuses, since a forecast
// that left half of the question out would be believed.
func (o ops) Simulate(_ context.Context, r api.SimulateRequest) (api.Forecast, error) {
	inv, snap, err := o.basis("")
	if err != nil {
		return api.Forecast{}, err
	}
	for _, site := range slices.Concat(r.Down, r.Drain, sortedKeys(r.Capacity)) {
		if inv.Site(site) == nil {
			return api.Forecast{}, fmt.Errorf("%w: site %s", api.ErrNotFound, site)
		}
	}
	dials := make(map[string]int)
	for _, object := range sortedKeys(r.Dial) {
		site, cluster, ofCluster := strings.Cut(object, "/")
		if id := (placement.ClusterID{Site: site, Name: cluster}); inv.Site(site) == nil || ofCluster && inv.Cluster(id) == nil {
			return api.Forecast{}, fmt.Errorf("%w: site or cluster %s", api.ErrNotFound, object)
		}
		if p := r.Dial[object]; !(p >= 0 && p <= 100) {
			return api.Forecast{}, fmt.Errorf("%w: dial of %s: %g %% is not within 0 and 100", api.ErrInvalid, object, p)
		}
		dials[object] = int(r.Dial[object]*10 + 0.5)
	}
	if len(r.Capacity) > 0 || r.Growth != 0 && r.Growth != 1 {
		return api.Forecast{}, fmt.Errorf("%w: capacity and growth are not simulated by this version; down, drain and dial are", api.ErrInvalid)
	}
	f := forecast(decide.Simulate(snap, decide.Change{Lose: r.Down, Drain: r.Drain, Dial: dials}))
	if r.Alone {
		for _, site := range inv.Sites {
			f.Alone = append(f.Alone, failure(site.Name, decide.Simulate(snap, decide.Change{Lose: []string{site.Name}})))
		}
		slices.SortStableFunc(f.Alone, func(a, b api.Failure) int { return cmp.Compare(b.Load, a.Load) })
	}
	return *f, nil
}

// forecast folds the clusters of a forecast into sites.
func forecast(in decide.Forecast) *api.Forecast {
	out := &api.Forecast{Snapshot: in.Snapshot, Moved: float64(in.Moved) / 1000, Forced: float64(in.Forced) / 1000,
		RTT50: [2]float64{in.Before.P50, in.After.P50}, RTT95: [2]float64{in.Before.P95, in.After.P95}, Anycast: "unknown"}
	at := make(map[string]int)
	for _, c := range in.Clusters {
		i, ok := at[c.Cluster.Site]
		if !ok {
			i = len(out.Sites)
			at[c.Cluster.Site] = i
			out.Sites = append(out.Sites, api.ForecastSite{Site: c.Cluster.Site})
		}
		s := &out.Sites[i]
		s.Before, s.After = s.Before+c.Before, s.After+c.After
		if c.Open {
			s.Capacity += c.Capacity
		}
	}
	return out
}

// failure is a row of the table of single losses.
func failure(site string, f decide.Forecast) api.Failure {
	out := api.Failure{Site: site, Load: f.Utilisation}
	for _, c := range f.Clusters {
		if c.Capacity > 0 && c.Open && float64(c.After)/float64(c.Capacity) >= f.Utilisation-1e-9 {
			out.Fullest = c.Cluster.Site
		}
	}
	return out
}

// Apply judges a fleet by the rules and stores it. The first one of a store is not
// judged: there is nothing yet that it could harm. A dry run returns the refusals
// beside the changes; the real one ends at the first.
func (o ops) Apply(ctx context.Context, r api.ApplyRequest) (api.ApplyResult, error) {
	v := o.u.views.view()
	old := v.Inventory
	if err := runsEverywhere(v.Nodes, &r.Fleet); err != nil {
		return api.ApplyResult{}, err
	}
	res := api.ApplyResult{DryRun: r.DryRun, Answers: -1, Changes: fleetChanges(fleetOf(old), &r.Fleet)}
	if old != nil {
		refusals, answers, err := o.judge(v, &r.Fleet, r.Override)
		if err != nil {
			return res, err
		}
		res.Refusals, res.Answers = refusals, answers
		if len(refusals) > 0 && !r.DryRun {
			return res, o.refused(r.Who, "config", "", "configuration", &refusals[0], false)
		}
	}
	if r.DryRun {
		return res, nil
	}
	r.Fleet.SetAside = placement.Audit{}
	if len(r.Override) > 0 {
		r.Fleet.SetAside = placement.Audit{Who: r.Who, Reason: r.Note, Since: time.Now().UTC(), Override: r.Override}
	}
	rev, err := o.u.store.PutFleet(ctx, &r.Fleet, r.Blobs, r.Expect, r.Who, r.Note)
	res.Revision = rev
	o.audit(r.Who, "config", "", fmt.Sprintf("configuration applied, %d changes: %s", len(res.Changes), r.Note), err)
	return res, storeError(err)
}

// runsEverywhere refuses a fleet that some live node would read without the half of it:
// releases drop what they do not know, and their clients would get other answers.
func runsEverywhere(nodes []placement.Node, f *placement.Fleet) error {
	need, why := f.MinAlgorithm()
	if common, old := placement.CommonAlgorithm(nodes); common < need {
		return fmt.Errorf("%w: %s needs algorithm %d, and node %s (%s, release %s) runs algorithms %v: upgrade it first",
			api.ErrInvalid, why, need, old.Name, old.Unit, old.Version, old.Algorithms)
	}
	return nil
}

// judge unfolds both configurations with the same votes and asks the rules.
func (o ops) judge(v *store.View, next *placement.Fleet, override []string) ([]placement.Refusal, float64, error) {
	inv := *v.Inventory
	inv.Fleet = *next
	before, err := o.whatIf(v, v.Inventory)
	if err != nil {
		return nil, 0, err
	}
	after, err := o.whatIf(v, &inv)
	if err != nil {
		return nil, 0, err
	}
	answers, _ := decide.AnswerChange(before, after)
	return append(decide.JudgeDeletions(v.Inventory, &inv, v.Announced), decide.JudgeApply(v.Inventory, &inv, before, after, override)...), answers, nil
}

// whatIf is the snapshot which an inventory would give with the present votes. It
// plans as the director would, and stores nothing.
func (o ops) whatIf(v *store.View, inv *placement.Inventory) (*placement.Snapshot, error) {
	classes, err := o.u.classes.of(inv)
	if err != nil {
		return nil, err
	}
	plan, _ := decide.Plan(decide.PlanInput{Inventory: inv, Classes: classes, Votes: v.Votes, VotesRevision: v.VotesRevision,
		Prev: v.Plan, Asked: decide.Foreseen(v.Plan, v.Demand, classes.Digest), Announced: v.Announced, Slots: v.Slots, Now: time.Now().UTC(), By: "what-if"})
	return decide.Unfold(inv, classes, plan, decide.Fold(inv, v.Votes, plan), v.VotesRevision, false)
}

// fleetOf is the fleet of an inventory, an empty one before the first apply.
func fleetOf(inv *placement.Inventory) *placement.Fleet {
	if inv == nil {
		return &placement.Fleet{}
	}
	return &inv.Fleet
}
