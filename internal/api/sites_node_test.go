package api

import (
	"testing"

	"rhumb/placement"
)

// TestRefusalOfANode: what keeps a node from going is told of its site, though another
// node is the loudest there.
func TestRefusalOfANode(t *testing.T) {
	st := testState(t)
	p := st.Inventory.Prefixes[0].Prefix
	no := &placement.Refusal{Rule: placement.RuleLastNode, Object: p.String() + " at ams1/n1"}
	said := func(step placement.Step, no *placement.Refusal) placement.Node {
		return placement.Node{Site: "ams1", BGP: &placement.BGPStatus{Routes: []placement.RouteStatus{{Prefix: p, Announced: step, Refusal: no}}}}
	}
	for _, nodes := range [][]placement.Node{
		{said(placement.GShut, no), said(placement.Announce, nil)}, {said(placement.Announce, nil), said(placement.GShut, no)},
		{said(placement.Announce, nil), said(placement.Announce, no)},
	} {
		st.Nodes = nodes
		r := Route{Prefix: p}
		if r.reported(&st, "ams1"); r.Announced != placement.Announce || r.Refusal != no {
			t.Errorf("announced %s, refused %v", r.Announced, r.Refusal)
		}
	}
}
