package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// wanted is the state that the view asks for: the plan in force, or the one that
// the site is pinned to, with the inventory that it names. While decisions are
// frozen the votes stay as they were.
func (n *Node) wanted(ctx context.Context) (State, error) {
	state := State{Plan: n.view.Plan, Votes: n.view.Votes, Revision: n.view.VotesRevision}
	if n.view.Inventory.Frozen() && n.held.Plan != nil {
		state.Votes, state.Revision = n.held.Votes, n.held.Revision
	}
	if pin := n.pinned(); pin != nil {
		plan, err := n.planAt(ctx, pin.Revision)
		if err != nil {
			return state, fmt.Errorf("node: pinned to plan %d: %w", pin.Revision, err)
		}
		state.Plan = plan
	}
	if state.Plan == nil {
		return n.first(state)
	}
	state.Inventory = n.inventoryAt(state.Plan.Inputs.Inventory)
	if state.Inventory == nil {
		return state, fmt.Errorf("node: plan %d names inventory %d, which is not at hand", state.Plan.Revision, state.Plan.Inputs.Inventory)
	}
	return state, nil
}

// first serves where the store has no plan: with the last plan, if there ever
// was one, else with one made of the inventory alone, number 0: the nearest
// eligible cluster, by static capacity, loudly.
func (n *Node) first(state State) (State, error) {
	inv := n.view.Inventory
	if n.held.Plan != nil {
		state.Plan, state.Inventory = n.held.Plan, n.held.Inventory
		switch {
		case n.held.Inventory.Revision == inv.Revision:
			return state, nil
		case n.held.Plan.Revision > 0:
			return state, errors.New("node: the store has no plan for its inventory; the last one stays")
		}
	}
	classes, err := n.c.Classes(inv)
	if err != nil {
		return state, fmt.Errorf("node: class table: %w", err)
	}
	plan, _ := decide.Plan(decide.PlanInput{Inventory: inv, Classes: classes, Now: n.c.Now(), By: n.c.Node})
	plan.Revision, plan.Digest = 0, ""
	state.Plan, state.Inventory = plan, inv
	return state, nil
}

func (n *Node) pinned() *placement.Pin {
	for i := range n.view.Inventory.Pins {
		if p := &n.view.Inventory.Pins[i]; p.Site == n.c.Site && p.Live() {
			return p
		}
	}
	return nil
}

func (n *Node) planAt(ctx context.Context, revision int64) (*placement.Plan, error) {
	switch {
	case n.view.Plan != nil && n.view.Plan.Revision == revision:
		return n.view.Plan, nil
	case n.held.Plan != nil && n.held.Plan.Revision == revision:
		return n.held.Plan, nil
	case n.c.PlanAt == nil:
		return nil, errors.New("it is not at hand")
	}
	return n.c.PlanAt(ctx, revision)
}

func (n *Node) inventoryAt(revision int64) *placement.Inventory {
	if n.view.Inventory.Revision == revision {
		return n.view.Inventory
	}
	for _, inv := range n.view.Recent {
		if inv.Revision == revision {
			return inv
		}
	}
	if n.held.Inventory != nil && n.held.Inventory.Revision == revision {
		return n.held.Inventory
	}
	return nil
}

// unfold makes the snapshot of a state. Where the director unfolded the same
// state to something else, one of the two is wrong, and nobody here can tell
// which: what serves stays.
func (n *Node) unfold(state *State, votes []placement.Vote, patched bool, classes *placement.ClassTable) (*placement.Snapshot, error) {
	if state.Inventory == nil || state.Plan == nil {
		return nil, errors.New("node: no plan")
	}
	if classes == nil {
		var err error
		if classes, err = n.c.Classes(state.Inventory); err != nil {
			return nil, fmt.Errorf("node: class table: %w", err)
		}
	}
	verdicts := decide.Fold(state.Inventory, votes, state.Plan)
	if decide.Shun(state.Inventory, votes, n.c.Site, verdicts) {
		patched = true
	}
	s, err := n.unfolder.Unfold(state.Inventory, classes, state.Plan, verdicts, state.Revision, patched)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if r := s.Check(); r != nil {
		return nil, fmt.Errorf("node: snapshot %s: %w", s.Name, r)
	}
	want := state.Plan.Digest
	if want != "" && want != s.Digest && !patched && state.Revision == state.Plan.Votes && n.c.Current.Load() != nil {
		return nil, fmt.Errorf("node: snapshot %s: digest %.12s, the director has %.12s", s.Name, s.Digest, want)
	}
	return s, nil
}

// ahead is the votes that count before the store has them: those on what the
// inventory knows. While decisions are frozen there are none.
func (n *Node) ahead(inv *placement.Inventory) []placement.Vote {
	if latest := cmp.Or(n.view.Inventory, inv); latest.Frozen() {
		return nil
	}
	var out []placement.Vote
	for _, v := range n.heard {
		if inv.Cluster(v.Object) != nil || (v.Object.IsSite() && inv.Site(v.Object.Site) != nil) {
			out = append(out, v)
		}
	}
	return out
}
