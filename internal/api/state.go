package api

import (
	"time"

	"rhumb/placement"
)

// State is what is known at one moment. It is a value: nobody changes what it
// points to once it was handed over.
type State struct {
	// Snapshot in force at this node; nil before the first one.
	Snapshot  *placement.Snapshot
	Nodes     []placement.Node
	Slots     []placement.Slot
	Announced []placement.Announced
	Loads     []placement.Load
	// Demand is what each name server is asked.
	Demand []placement.DemandReport
	// Looks on demand that stand, and what vantages have answered.
	Looks  []placement.LookRequest
	Looked []placement.LookAnswer
	// Plan is the newest plan in the store, perhaps ahead of the Snapshot's.
	Plan *placement.Plan
	// Inventory is what the store holds, perhaps ahead of the Snapshot's; nil: none yet.
	Inventory *placement.Inventory
	// Connected tells whether the store answers; Heartbeat is when it last did.
	Connected bool
	Heartbeat time.Time
	// Alarms of this process.
	Alarms []placement.Alarm
	// Twin is set where this node is an input-delayed twin.
	Twin *placement.TwinStatus
	Now  time.Time
}

// inventory returns the newest inventory known; an empty one before the first.
func (s *State) inventory() *placement.Inventory {
	switch {
	case s.Inventory != nil:
		return s.Inventory
	case s.Snapshot != nil && s.Snapshot.Inventory != nil:
		return s.Snapshot.Inventory
	}
	return &placement.Inventory{}
}

// plan returns the newest plan known; an empty one before the first.
func (s *State) plan() *placement.Plan {
	switch {
	case s.Plan != nil:
		return s.Plan
	case s.Snapshot != nil && s.Snapshot.Plan != nil:
		return s.Snapshot.Plan
	}
	return &placement.Plan{}
}

// name returns the name of the snapshot in force, or "".
func (s *State) name() string {
	if s.Snapshot == nil {
		return ""
	}
	return s.Snapshot.Name.String()
}
