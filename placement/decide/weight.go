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

// How a cluster comes back: not at once with all others, and not at full load.
const (
	rampDelay = 30 * time.Second // the start lies at random within it
	rampTime  = 60 * time.Second // linear from rampFloor
	rampFloor = 100              // per mille
	rampStep  = 100              // per mille; each step is a plan
)

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
// ended, and those whose ramp still runs.
func ramps(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Ramp {
	if in.Prev == nil {
		return nil
	}
	var out []placement.Ramp
	for i := range verdicts {
		v := &verdicts[i]
		if v.Object.IsSite() || !v.Usable() {
			continue
		}
		start, ok := in.rampStart(plan, v)
		if ok && in.Now.Sub(start) < rampTime {
			out = append(out, placement.Ramp{Cluster: v.Object, Start: start})
		}
	}
	return out
}

func (in *PlanInput) rampStart(plan *placement.Plan, v *placement.Verdict) (time.Time, bool) {
	if slices.Contains(in.Prev.Down, v.Object) {
		return in.Now.Add(delayOf(v.Object, v.Since)), true
	}
	old, now := in.Prev.Drain(v.Object.Site), plan.Drain(v.Object.Site)
	if old != nil && old.Phase != placement.PhaseReturning && old.Phase != placement.PhasePlan && now != nil && now.Phase == placement.PhaseReturning {
		return in.Now.Add(prependDwell + delayOf(v.Object, now.Since)), true
	}
	for _, r := range in.Prev.Ramps {
		if r.Cluster == v.Object {
			return r.Start, true
		}
	}
	return time.Time{}, false
}

// delayOf spreads starts over rampDelay by a hash of who came back and when: a
// second director would choose the same.
func delayOf(id placement.ClusterID, since time.Time) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(id.String()))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(since.UnixNano())))
	sum := h.Sum64()
	return time.Duration((sum>>32)%uint64(rampDelay/time.Millisecond)) * time.Millisecond
}

// rampPart is the part of its clients that a returning cluster gets.
func rampPart(start, now time.Time) int {
	passed := now.Sub(start)
	switch {
	case passed < 0:
		return 0
	case passed >= rampTime:
		return whole
	}
	linear := rampFloor + int(int64(whole-rampFloor)*int64(passed)/int64(rampTime))
	return linear / rampStep * rampStep
}

// weights combines drains, dials, ramps and degraded states, in order of cluster.
func weights(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict) []placement.Weight {
	var out []placement.Weight
	for i := range verdicts {
		v := &verdicts[i]
		if v.Object.IsSite() {
			continue
		}
		w := limit{part: whole}
		if d := plan.Drain(v.Object.Site); d != nil && d.Phase != placement.PhasePlan && d.Phase != placement.PhaseReturning {
			w.by(0, causeDrain+": "+string(d.Phase))
		}
		w.dial(in.Inventory, v.Object.Site)
		for _, r := range plan.Ramps {
			if r.Cluster == v.Object {
				part := rampPart(r.Start, in.Now)
				w.by(part, fmt.Sprintf("%s: %d %%", causeRamp, part/10))
			}
		}
		if v.State == placement.Degraded && v.Force == placement.NoForce {
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

func (l *limit) dial(inv *placement.Inventory, site string) {
	for i := range inv.Dials {
		if d := &inv.Dials[i]; d.Site == site && d.Live() {
			l.by(max(0, d.PerMille), fmt.Sprintf("%s: %d %% by %s", causeDial, d.PerMille/10, d.Who))
		}
	}
}
