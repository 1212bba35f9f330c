package decide

import (
	"strings"

	"rhumb/placement"
)

// status is what one cluster may take now: Out is In when it is open, and then
// limit is its part of the clients in per mille.
type status struct {
	out   placement.Out
	limit int
}

func (s status) open() bool { return s.out == placement.In && s.limit > 0 }

// allOpen is the status of the base: everything up, nothing drained.
func allOpen(m *market) []status {
	out := make([]status, len(m.clusters))
	for i := range out {
		out[i].limit = whole
	}
	return out
}

// planned is the status that a plan was solved with.
func planned(m *market, plan *placement.Plan) []status {
	out := allOpen(m)
	for i, id := range m.clusters {
		out[i] = plannedOne(plan, id)
	}
	return out
}

func plannedOne(plan *placement.Plan, id placement.ClusterID) status {
	for _, d := range plan.Down {
		if d == id {
			return status{out: placement.OutDown}
		}
	}
	return weighed(plan, id)
}

// weighed is the status by what a plan limits, whether the cluster is up or not.
func weighed(plan *placement.Plan, id placement.ClusterID) status {
	for k := range plan.Weights {
		w := &plan.Weights[k]
		switch {
		case w.Cluster != id:
		case w.PerMille > 0:
			return status{limit: w.PerMille}
		case strings.HasPrefix(w.Cause, causeDrain):
			return status{out: placement.OutDrained}
		default:
			return status{out: placement.OutDialled}
		}
	}
	return status{limit: whole}
}

// now is the status by the verdicts of this moment. Nothing comes back but by a
// plan: what the plan was solved without stays out although it is up again.
func now(m *market, plan *placement.Plan, verdicts []placement.Verdict) []status {
	out := planned(m, plan)
	for i, id := range m.clusters {
		v := verdictOf(verdicts, id)
		switch {
		case v.Force == placement.ForceDown:
			out[i].out = placement.OutForced
		case dead(v, m.policy):
			out[i].out = placement.OutDown
		case out[i].out == placement.OutDown && m.drainsOutlast() && weighed(plan, id).out == placement.OutDrained:
			out[i].out = placement.OutDrained
		case out[i].out == placement.OutDown:
			out[i].out = placement.OutDialled
		}
	}
	return out
}

// drainsOutlast tells whether a cluster that was down in the plan, and is up again, is
// still drained, as with algorithm 2: it is not the first to be opened when others fail.
func (m *market) drainsOutlast() bool { return m.algorithm >= 2 }

// dead tells whether a cluster is out of service for the services of a policy:
// a policy that fails closed does not trust what the removal cap keeps.
func dead(v *placement.Verdict, p *placement.Policy) bool {
	if v.Capped && v.Force == placement.NoForce && failsClosed(p) {
		return true
	}
	return !v.Usable()
}

func failsClosed(p *placement.Policy) bool {
	return p.AllDown.Closed()
}

// fallbacks are the statuses to try, one after another, for a class none of
// whose clusters is open: first what is up but held back; then, where the
// policy fails open, whatever is not the operator's will to leave out; and at
// last even that.
func fallbacks(m *market, st []status) [][]status {
	levels := [][]placement.Out{{placement.OutDialled}}
	if !failsClosed(m.policy) {
		levels = append(levels,
			[]placement.Out{placement.OutDialled, placement.OutDown},
			[]placement.Out{placement.OutDialled, placement.OutDown, placement.OutDrained, placement.OutForced})
	}
	var out [][]status
	for _, opened := range levels {
		level := make([]status, len(st))
		copy(level, st)
		for i := range level {
			for _, o := range opened {
				if level[i].out == o {
					level[i] = status{limit: whole}
				}
			}
		}
		out = append(out, level)
	}
	return out
}

func verdictOf(verdicts []placement.Verdict, id placement.ClusterID) *placement.Verdict {
	lo, hi := 0, len(verdicts)
	for lo < hi {
		mid := (lo + hi) / 2
		if verdicts[mid].Object.Compare(id) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(verdicts) && verdicts[lo].Object == id {
		return &verdicts[lo]
	}
	return &placement.Verdict{Object: id}
}
