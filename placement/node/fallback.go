package node

import (
	"slices"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// goOn serves as well as can be while a state cannot be unfolded. With a plan in
// force that one stays, and with it its inventory and its class table; votes go
// on being folded, since health must not stand still because an intent cannot be
// followed. Without any, a makeshift is made of the plan that cannot be unfolded.
func (n *Node) goOn(state State) {
	current := n.c.Current.Load()
	if current == nil || n.makeshift {
		n.standIn(state)
		return
	}
	kept := n.held
	if n.view.Inventory != nil && !n.view.Inventory.Frozen() {
		kept.Votes, kept.Revision = n.view.Votes, n.view.VotesRevision
	}
	votes, patched := decide.Patch(kept.Votes, n.ahead(kept.Inventory))
	if err := n.put(kept, votes, patched, current.Classes); err != nil {
		n.c.Log.Debug("node: the last snapshot stays as it is", "err", err)
	}
}

// standIn serves where no snapshot was ever made here, as on the first start of a
// binary with another class table: what the plan says of sites and clusters holds,
// and within it each client goes to the nearest by the table at hand. The name
// tells that it is of this node alone, and it is not kept on disk.
func (n *Node) standIn(state State) {
	if state.Plan == nil || state.Inventory == nil {
		return
	}
	classes, err := n.c.Classes(state.Inventory)
	if err != nil {
		return // the alarm says it already
	}
	plan := *state.Plan
	plan.Inputs.ClassTable, plan.Inputs.Algorithm, plan.Digest = "", placement.Algorithm, ""
	if classes != nil {
		plan.Inputs.ClassTable = classes.Digest
	}
	plan.Services = slices.Clone(plan.Services)
	for i := range plan.Services { // their classes are numbers of another table
		plan.Services[i].Splits, plan.Services[i].Demand = nil, nil
	}
	state.Plan = &plan
	votes, _ := decide.Patch(state.Votes, n.ahead(state.Inventory))
	if err := n.put(state, votes, true, classes); err != nil {
		n.c.Log.Error("node: nothing can be served", "snapshot", state.Name, "err", err)
		return
	}
	n.makeshift = true
}
