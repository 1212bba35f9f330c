package store

import (
	"time"

	"rhumb/placement"
)

// View is one immutable whole of what the store holds. Views share what did not
// change between them; nobody changes what one holds.
type View struct {
	// Revision is the store revision which the view shows; 0 until the store
	// was read for the first time.
	Revision int64
	// Inventory is nil until a configuration was applied.
	Inventory *placement.Inventory
	// Recent are the last distinct inventories, newest first, the current one
	// and the one that the plan names among them, so that the plan can be unfolded.
	Recent []*placement.Inventory
	// Plan is nil until the first one.
	Plan *placement.Plan
	// Votes in order of object and vantage. Equal VotesRevisions mean equal
	// votes, in whichever process.
	Votes         []placement.Vote
	VotesRevision int64
	// VotesListed tells that VotesRevision is that at which they were read, and no vote
	// has come or gone since: others may know the same votes by an earlier one.
	VotesListed bool
	// Announced in order of prefix and node; Slots of prefix and number; Nodes
	// of name and unit; Loads of cluster; Demand of node.
	Announced []placement.Announced
	Slots     []placement.Slot
	Nodes     []placement.Node
	Loads     []placement.Load
	Demand    []placement.DemandReport
	// Looks are asked for by people and are gone after a minute, in order of ID; Looked
	// are the answers, of request and vantage.
	Looks  []placement.LookRequest
	Looked []placement.LookAnswer
	// Leader is the node which directs, "" for none.
	Leader string
	// Heartbeat is the director's last sign of life, by its own clock.
	Heartbeat time.Time
	// Connected tells whether the store answered a linearizable read within
	// the last seconds; Since, from when on that is so. While it is false, what
	// the view lacks proves nothing.
	Connected bool
	Since     time.Time
}

// InventoryAt returns the inventory of a revision if the view has it.
func (v *View) InventoryAt(revision int64) *placement.Inventory {
	for _, in := range v.Recent {
		if in.Revision == revision {
			return in
		}
	}
	return nil
}
