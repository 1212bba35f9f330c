package placement

import (
	"fmt"
	"time"
)

// Time is an instant in UTC; JSON prints RFC 3339.
type Time = time.Time

// State is what is believed of a Cluster or a Site.
type State uint8

// The states. Unknown means that nothing was heard yet: it serves. Path means
// that the site lives and our path to it is broken: nothing is removed.
const (
	Unknown State = iota
	Up
	Degraded
	Path
	Down
)

var stateNames = [...]string{"unknown", "up", "degraded", "path", "down"}

// String returns the state as API and files write it.
func (s State) String() string { return stateNames[s] }

// MarshalText prints the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the state's name.
func (s *State) UnmarshalText(b []byte) error {
	return unmarshalName(s, stateNames[:], b, "state")
}

// unmarshalName reads one of a fixed set of names, exactly: a state from a newer
// version must be refused, not taken for the zero value.
func unmarshalName[T ~uint8](v *T, names []string, b []byte, what string) error {
	for i, n := range names {
		if n == string(b) {
			*v = T(i)
			return nil
		}
	}
	return fmt.Errorf("%s %q: want one of %v", what, b, names)
}

// Vote is what one vantage says of a Cluster or Site after damping.
type Vote struct {
	Object  ClusterID `json:"object"`
	Vantage string    `json:"vantage"` // node which looked
	Site    string    `json:"site"`    // the vantage's site
	Domain  string    `json:"domain"`  // its failure domain
	State   State     `json:"state"`
	Fault   Fault     `json:"fault,omitempty"`
	Cause   string    `json:"cause,omitempty"`
	Since   Time      `json:"since"`
	// Hold is set while the vantage doubts itself: the vote counts for nobody.
	Hold bool `json:"hold,omitempty"`
	// Second names the class of evidence which agrees with a Down found by
	// looking; it alone is no Down.
	Second Evidence `json:"second,omitempty"`
	// Without, on a vote on the vantage's own site, names a vantage of that site, on
	// another machine, which it hears no more. Once that is Sure, what that one said last
	// counts no more.
	Without string `json:"without,omitempty"`
	Sure    bool   `json:"sure,omitempty"`
	// Incarnation and Seq order the votes of one vantage: of two votes on one
	// object the later replaces the earlier, whichever way it came.
	Incarnation uint32 `json:"incarnation"`
	Seq         uint64 `json:"seq"`
}

// Evidence is a class of facts that speak for a failure. Looks (probes, beats) are
// the first; a prober broken everywhere produces nothing of the others.
type Evidence string

// The second classes.
const (
	NoEvidence Evidence = ""
	Process    Evidence = "process" // the kernel's word: exited, listener gone
	Passive    Evidence = "passive" // what clients' sessions met
)

// Own tells whether a site speaks about itself. Only then may a route go down
// without anybody else's consent.
func (v *Vote) Own() bool { return v.Site == v.Object.Site }

// Newer tells whether v replaces o, a vote of the same vantage on the same object.
// Numbers order, not clocks: votes come by store, beats and socket, and the one
// which comes last is not the one which was cast last.
func (v *Vote) Newer(o *Vote) bool {
	if v.Incarnation != o.Incarnation {
		return v.Incarnation > o.Incarnation
	}
	return v.Seq > o.Seq
}

// Verdict is all Votes on one object folded. It is computed on every node and
// never stored.
type Verdict struct {
	Object ClusterID `json:"object"`
	State  State     `json:"state"`
	Since  Time      `json:"since"`
	// Force is the operator's word, kept beside the measured State.
	Force ForceState `json:"force,omitempty"`
	// Own is what the site's own vantages say, and with which fault.
	Own   State `json:"own"`
	Fault Fault `json:"fault,omitempty"`
	// DownDomains of Domains fresh failure domains say down.
	DownDomains int `json:"down_domains"`
	Domains     int `json:"domains"`
	// Capped is set when the removal cap keeps a measured Down in service.
	Capped bool `json:"capped,omitempty"`
	// Agreed is set when a second class of evidence speaks for a Down: the
	// removal cap then does not hold it.
	Agreed bool `json:"agreed,omitempty"`
	// Shunned is set on a node whose own site cannot reach the object, and which
	// nobody else contradicts: its answers leave the object out, no route does.
	Shunned bool   `json:"shunned,omitempty"`
	Cause   string `json:"cause,omitempty"`
}

// Usable tells whether clients may be sent to the object. A person's word comes
// first, then the removal cap, then what was measured; only Down takes away, since
// Path is our trouble and Unknown nobody's. A cluster is in a site, whose verdict
// counts beside its own: the caller asks both.
func (v *Verdict) Usable() bool {
	switch v.Force {
	case ForceUp:
		return true
	case ForceDown:
		return false
	}
	return !v.Shunned && (v.State != Down || v.Capped)
}

// Load is what a cluster carries, as the edges of its site report it.
type Load struct {
	Cluster  ClusterID `json:"cluster"`
	QPS      int64     `json:"qps"`      // requests a second
	Sessions int64     `json:"sessions"` // connections of clients
	// Counted tells that requests are: those of a server that is not ours nobody counts.
	Counted bool `json:"counted,omitempty"`
	At      Time `json:"at"`
}
