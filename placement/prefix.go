package placement

import "net/netip"

// Reach says how far an announcement may travel.
type Reach string

// The reaches of a prefix. A local one catches clients of direct neighbours; when
// it goes, the global one that covers it goes on attracting them.
const (
	Global Reach = "global"
	Local  Reach = "local" // NO_EXPORT, under a global cover
)

// Witness says whether a fallback must be seen before the last step.
type Witness string

// The witness rules. The witness is our own router showing another site's route:
// the only proof that traffic has somewhere to go which does not come from us.
const (
	WitnessAdvisory Witness = "advisory" // asked, and logged; a Slot suffices
	WitnessRequired Witness = "required"
	WitnessOff      Witness = "off"
)

// Prefix is an anycast net and the rules under which it may be lowered.
type Prefix struct {
	Prefix netip.Prefix `json:"prefix"`
	Reach  Reach        `json:"reach"`
	// Sites may announce it; empty means every site.
	Sites []string `json:"sites,omitempty"`
	// Clusters are the cluster names of a site whose failure lowers the
	// prefix there; without any the prefix is not health-gated.
	Clusters []string `json:"clusters,omitempty"`
	// Slots is how many sites may be withdrawn at once by intent or health; never
	// more than the sites less their anchors.
	Slots int `json:"slots"`
	// MinAnnouncing is how many Sites the Anchors name; 0: see MinAnchors.
	MinAnnouncing int     `json:"min_announcing"`
	Prepend       int     `json:"prepend"` // AS path copies added from step prepend on
	MED           uint32  `json:"med"`     // MED from step prepend on
	Witness       Witness `json:"witness"`
	Mode          Mode    `json:"mode"`
}

// Step is a rung of the ladder, louder first; a higher number is a lower
// announcement. Each step keeps the attributes of the one before.
type Step uint8

// The ladder. It goes down one step after the other, with a dwell at each: what
// moves traffic gently comes before what drops it.
const (
	Announce  Step = iota // plain
	Prepend               // + AS path prepend and MED
	GShut                 // + community 65535:0 (RFC 8326): same reach, least preferred
	Withdrawn             // no route
)

var stepNames = [...]string{"announce", "prepend", "gshut", "withdrawn"}

// String returns the step as files and API write it.
func (s Step) String() string { return stepNames[s] }

// MarshalText prints the step's name.
func (s Step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the step's name.
func (s *Step) UnmarshalText(b []byte) error {
	return unmarshalName(s, stepNames[:], b, "step")
}

// Announcement is what is wanted of one Prefix at one Site, and why. The
// speaker goes there by way of the ladder and the guard.
type Announcement struct {
	Prefix netip.Prefix `json:"prefix"`
	Site   string       `json:"site"`
	Want   Step         `json:"want"`
	// Fault is the proof behind a lowering by health: local, shared, or none
	// for a quorum's verdict against a site whose own votes are up.
	Fault Fault `json:"fault,omitempty"`
	// Intent is set when an operator, a drain or a configuration asks.
	Intent bool   `json:"intent,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Mode   Mode   `json:"mode"`
}

// Anchors are, for one Prefix, the named Sites which go on announcing,
// prepended, when only their own Votes fail: no coordination needed, no
// counting, so that broken probers everywhere leave each prefix on the world.
type Anchors struct {
	Prefix netip.Prefix `json:"prefix"`
	Sites  []string     `json:"sites"`
}

// Slot is one Site's right to take one Prefix down. It is not leased: a silent
// holder keeps it, lest its site be counted as present.
type Slot struct {
	Prefix   netip.Prefix `json:"prefix"`
	Number   int          `json:"number"`
	Site     string       `json:"site"`
	Cause    string       `json:"cause"`
	Revision int64        `json:"revision,omitempty"`
	Taken    Time         `json:"taken"`
}

// Announced is what a node says it announces (a leased key in the store).
type Announced struct {
	Prefix netip.Prefix `json:"prefix"`
	Site   string       `json:"site"`
	Node   string       `json:"node"`
	Step   Step         `json:"step"`
	// Anchor acknowledges a Snapshot which names the site to stay: from here on the
	// node goes no lower than gshut, so another anchor may be let go.
	Anchor bool `json:"anchor,omitempty"`
	// Twin says that the node is an input-delayed twin: it takes clients whom nobody else
	// does, so nobody may leave because it stays.
	Twin bool `json:"twin,omitempty"`
	// Revision of the key, for the transaction which takes a Slot.
	Revision int64 `json:"-"`
}
