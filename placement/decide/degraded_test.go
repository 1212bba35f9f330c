package decide

import (
	"strings"
	"testing"

	"rhumb/placement"
)

// TestDegradedServesAtHalfWeight: a degraded cluster stays in the map with half its
// weight, and says why; the operator's word takes the limit away.
func TestDegradedServesAtHalfWeight(t *testing.T) {
	inv, ct := fleet(3), classes(t)
	id := placement.ClusterID{Site: "ams1", Name: "web"}
	degraded := append(allUp(inv), vote("ams1", id.String(), placement.Degraded, "", 1))
	for i := range degraded {
		if v := &degraded[i]; v.Object == id {
			v.State, v.Cause = placement.Degraded, "192.0.2.1:80: refused"
		}
	}
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: degraded, Now: epoch()})
	if len(plan.Weights) != 1 || plan.Weights[0].Cluster != id || plan.Weights[0].PerMille != degradedPart || !strings.Contains(plan.Weights[0].Cause, "refused") {
		t.Errorf("weights %+v", plan.Weights)
	}
	if len(plan.Down) != 0 {
		t.Errorf("down %v", plan.Down)
	}
	forced := clone(inv)
	forced.Forces = []placement.Force{{Object: id, State: placement.ForceUp, Audit: placement.Audit{Who: "op", Reason: "known"}}}
	plan, _ = Plan(PlanInput{Inventory: forced, Classes: ct, Votes: degraded, Now: epoch()})
	if len(plan.Weights) != 0 {
		t.Errorf("forced up: weights %+v", plan.Weights)
	}
}
