package placement

// Event is something that an operator may want to know later.
type Event struct {
	ID   int64  `json:"id"`
	At   Time   `json:"at"`
	Kind string `json:"kind"` // health, bgp, drain, config, session, snapshot
	Site string `json:"site,omitempty"`
	Node string `json:"node,omitempty"`
	Text string `json:"text"`
	// Who asked, for changes by an operator.
	Who      string `json:"who,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
}

// Patch is what this node's loop changed ahead of the store.
type Patch struct {
	Node  string `json:"node"`
	Votes []Vote `json:"votes"` // newer than the votes revision
}
