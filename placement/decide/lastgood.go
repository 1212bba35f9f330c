package decide

import (
	"slices"

	"rhumb/placement"
)

// lastUsable is what a plan remembers for services whose policy answers as before all of
// it fell: what is out now, or, while nobody is usable, what was before that.
func lastUsable(in *PlanInput, plan *placement.Plan, verdicts []placement.Verdict, sv *serving) *placement.LastUsable {
	if sv.m.policy.AllDown != placement.LastGood {
		return nil
	}
	st, out := now(sv.m, plan, verdicts), &placement.LastUsable{}
	if !slices.ContainsFunc(st, status.open) {
		if in.Prev != nil && servicePlan(in.Prev, sv.service.Name).Last != nil {
			out = servicePlan(in.Prev, sv.service.Name).Last
		}
		return out
	}
	for i, one := range st {
		if one.out == placement.OutDown {
			out.Down = append(out.Down, sv.m.clusters[i])
		}
	}
	return out
}

// lastGood is the status by which clients are answered when nobody is usable. What an
// operator keeps out stays out.
func lastGood(m *market, last *placement.LastUsable, st []status) []status {
	out := allOpen(m)
	for i, id := range m.clusters {
		switch {
		case st[i].out == placement.OutForced || st[i].out == placement.OutDrained:
			out[i] = st[i]
		case last != nil && slices.Contains(last.Down, id):
			out[i] = status{out: placement.OutDown}
		}
	}
	return out
}

// closest gives a class to the nearest cluster of all that its policy names, one that an
// operator keeps out only where there is no other.
func (rm *rowMaker) closest(class int) []part {
	best, kept := -1, false
	ranked := rm.m.ranked[class]
	for i, c := range ranked {
		out := rm.st[c.Cluster].out
		held := out == placement.OutForced || out == placement.OutDrained
		switch {
		case c.Tier == noTier:
		case best < 0 || kept && !held || kept == held && nearer(c, ranked[best]):
			best, kept = i, held
		}
	}
	if best < 0 {
		return nil
	}
	return rm.m.single[ranked[best].Cluster]
}

// nearer orders by cost alone; ties go to the lower tier, then to the lower id.
func nearer(a, b placement.Candidate) bool {
	return a.Cost < b.Cost || a.Cost == b.Cost && compareCandidates(a, b) < 0
}
