package decide

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"rhumb/placement"
)

// rampStep is in per mille; each step of a ramp is a plan.
const rampStep = 100

// degradedPart is what a degraded cluster still gets, in per mille.
const degradedPart = 500

// The causes of a weight, in front of what explains it.
const (
	causeDrain    = "drain"
	causeDial     = "dial"
	causeRamp     = "ramp"
	causeDegraded = "degraded"
)

// ramps lists the clusters on their way back: those that the last plan was
// solved without and that are usable again, those of a site whose drain has
// ended, and those whose ramp still runs. A ramp whose cluster began to fail
// meanwhile is aborted: it begins anew when that has ended, from the floor.
func ramps(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Ramp {
	if in.Prev == nil {
		return nil
	}
	var out []placement.Ramp
	ramp := in.Inventory.Comeback().Ramp.D()
	for i := range verdicts {
		v := &verdicts[i]
		if v.Object.IsSite() || !v.Usable() {
			continue
		}
		start, ok := in.rampStart(plan, v)
		if ok && (in.Now.Sub(start) < ramp || failing(v)) {
			out = append(out, placement.Ramp{Cluster: v.Object, Start: start})
		}
	}
	return out
}

// failed tells whether the last plan knew a cluster as failing.
func (in *PlanInput) failed(id placement.ClusterID) bool {
	return slices.ContainsFunc(in.Prev.Weights, func(w placement.Weight) bool {
		return w.Cluster == id && strings.Contains(w.Cause, causeDegraded)
	})
}

// comeback is how long a ramp takes at most, its delay included.
func (in *PlanInput) comeback() time.Duration {
	r := in.Inventory.Comeback()
	return r.Delay.D() + r.Ramp.D()
}

// failing tells whether a cluster serves, and not as it should.
func failing(v *placement.Verdict) bool {
	return v.State == placement.Degraded && v.Force == placement.NoForce
}

func (in *PlanInput) rampStart(plan *placement.Plan, v *placement.Verdict) (time.Time, bool) {
	if slices.Contains(in.Prev.Down, v.Object) {
		return in.Now.Add(in.delayOf(v.Object, v.Since)), true
	}
	old, now := in.Prev.Drain(v.Object.Site), plan.Drain(v.Object.Site)
	if old != nil && old.Phase != placement.PhaseReturning && old.Phase != placement.PhasePlan && now != nil && now.Phase == placement.PhaseReturning {
		return in.Now.Add(prependDwell + in.delayOf(v.Object, now.Since)), true
	}
	for _, r := range in.Prev.Ramps {
		switch {
		case r.Cluster != v.Object:
		case in.failed(v.Object) && !failing(v):
			return in.Now, true // aborted: from the floor again
		default:
			return r.Start, true
		}
	}
	return time.Time{}, false
}

// delayOf spreads starts over the delay by a hash of who came back and when: a
// second director would choose the same.
func (in *PlanInput) delayOf(id placement.ClusterID, since time.Time) time.Duration {
	span := in.Inventory.Comeback().Delay.D() / time.Millisecond
	if span <= 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(id.String()))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(since.UnixNano())))
	sum := h.Sum64()
	return time.Duration((sum>>32)%uint64(span)) * time.Millisecond
}

// rampPart is the part of its clients that a returning cluster gets.
func rampPart(r *placement.Recovery, start, now time.Time) int {
	passed := now.Sub(start)
	switch {
	case passed < 0:
		return 0
	case passed >= r.Ramp.D():
		return whole
	}
	linear := r.Floor + int(int64(whole-r.Floor)*int64(passed)/int64(r.Ramp))
	return max(r.Floor, linear/rampStep*rampStep)
}

// weights combines drains, dials, ramps and degraded states, in order of cluster.
func weights(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Weight {
	var out []placement.Weight
	back := in.Inventory.Comeback()
	for i := range verdicts {
		v := &verdicts[i]
		if v.Object.IsSite() {
			continue
		}
		w := limit{part: whole}
		if d := plan.Drain(v.Object.Site); d != nil && d.Phase != placement.PhasePlan && d.Phase != placement.PhaseReturning {
			w.by(0, causeDrain+": "+string(d.Phase))
		}
		w.dial(in.Inventory, v.Object)
		for _, r := range plan.Ramps {
			if r.Cluster == v.Object {
				w.ramp(&back, v, r.Start, in.Now)
			}
		}
		if failing(v) {
			w.by(degradedPart, causeDegraded+": "+v.Cause)
		}
		if w.part < whole {
			out = append(out, placement.Weight{Cluster: v.Object, PerMille: w.part, Cause: strings.Join(w.causes, "; ")})
		}
	}
	return out
}

// limit multiplies the parts of one cluster and keeps their causes.
type limit struct {
	part   int
	causes []string
}

func (l *limit) by(part int, cause string) {
	if part < whole {
		l.part = l.part * part / whole
		l.causes = append(l.causes, cause)
	}
}

// ramp limits a cluster on its way back; one that fails meanwhile stays at the floor.
func (l *limit) ramp(r *placement.Recovery, v *placement.Verdict, start, now time.Time) {
	part := rampPart(r, start, now)
	if failing(v) {
		part = min(part, r.Floor)
	}
	l.by(part, fmt.Sprintf("%s: %d %%", causeRamp, part/10))
}

func (l *limit) dial(inv *placement.Inventory, id placement.ClusterID) {
	for i := range inv.Dials {
		d := &inv.Dials[i]
		switch {
		case !d.Live() || !d.Covers(id):
		case d.OfCluster():
			l.by(max(0, d.PerMille), fmt.Sprintf("%s: %s at %g %% by %s", causeDial, id.Name, float64(d.PerMille)/10, d.Who))
		default:
			l.by(max(0, d.PerMille), fmt.Sprintf("%s: %g %% by %s", causeDial, float64(d.PerMille)/10, d.Who))
		}
	}
}
