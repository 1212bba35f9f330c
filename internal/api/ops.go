package api

import (
	"context"
	"net/netip"
	"time"

	"rhumb/placement"
)

// Ops are the changes an operator may ask for. A nil field is answered with
// 501: this unit does not do that. Each returns a *placement.Refusal, or one of
// the errors of this package, wrapped or joined.
type Ops struct {
	Drainer   Drainer
	Setter    Setter
	Freezer   Freezer
	Applier   Applier
	History   Historian
	Slots     SlotFreer
	Retirer   Retirer
	Simulator Simulator
	Looker    Looker
	Twin      TwinFeed // of an input-delayed twin alone
}

// Drainer takes sites out and brings them back.
type Drainer interface {
	// Drain begins a drain; with dryRun it says what would happen.
	Drain(ctx context.Context, d placement.Drain, dryRun bool) (Outcome, error)
	// Undrain takes the drain of a site back; the site ramps up over ramp.
	Undrain(ctx context.Context, u Undrain) (Outcome, error)
}

// Setter stores an operator's word on a site.
type Setter interface {
	// Force with State placement.NoForce lets the measured state rule again.
	Force(ctx context.Context, f placement.Force, dryRun bool) (Outcome, error)
	// Dial with 1000 per mille ends the limit.
	Dial(ctx context.Context, d placement.Dial, dryRun bool) (Outcome, error)
	// Pin with revision 0 releases the site.
	Pin(ctx context.Context, p placement.Pin) (Outcome, error)
}

// Freezer stops every automatic decision, and lets them go on.
type Freezer interface {
	Freeze(ctx context.Context, f placement.Freeze) (Outcome, error)
	Thaw(ctx context.Context, who string) (Outcome, error)
}

// Applier checks and writes a fleet.
type Applier interface {
	Apply(ctx context.Context, r ApplyRequest) (ApplyResult, error)
}

// Historian knows the configurations which were applied and are kept.
type Historian interface {
	// Versions are newest first; the first is in force.
	Versions(ctx context.Context) ([]ConfigVersion, error)
	// FleetAt returns the fleet applied as a revision, 0 for the one in force; it is
	// the caller's to change.
	FleetAt(ctx context.Context, revision int64) (*placement.Fleet, error)
	// Compare lists what differs between two of them.
	Compare(from, to *placement.Fleet) []Change
}

// SlotFreer takes a Slot from a site which cannot give it back itself.
type SlotFreer interface {
	FreeSlot(ctx context.Context, f FreeSlot) (Outcome, error)
}

// Simulator forecasts the load after a loss or a drain.
type Simulator interface {
	Simulate(ctx context.Context, r SimulateRequest) (Forecast, error)
}

// Outcome says what a change did, or with a dry run would do.
type Outcome struct {
	// Object which changed, as ams1 or ams1/web.
	Object string `json:"object"`
	// Text says in a sentence what happens now.
	Text     string `json:"text"`
	DryRun   bool   `json:"dry_run,omitempty"`
	Snapshot string `json:"snapshot,omitempty"` // in force when it was decided
	Revision int64  `json:"revision,omitempty"` // of the store, after the change
	// Forecast is the load shift, where the change moves load.
	Forecast *Forecast `json:"forecast,omitempty"`
	// Overridden are the rules which refused and were set aside by name.
	Overridden []placement.Refusal `json:"overridden,omitempty"`
	// Undo is the command which reverses the change.
	Undo string `json:"undo,omitempty"`
}

// Undrain brings a site back.
type Undrain struct {
	Site   string             `json:"site"`
	Ramp   placement.Duration `json:"ramp,omitempty"` // 0: the fleet's own
	Who    string             `json:"who"`
	Reason string             `json:"reason,omitempty"`
}

// FreeSlot names a Slot to take back.
type FreeSlot struct {
	Prefix netip.Prefix `json:"prefix"`
	Number int          `json:"number"`
	Who    string       `json:"who"`
	Reason string       `json:"reason"`
}

// ApplyRequest is a checked fleet with the zone files that it names.
type ApplyRequest struct {
	Fleet placement.Fleet   `json:"fleet"`
	Blobs map[string][]byte `json:"blobs,omitempty"` // zone files by hex SHA-256
	// Expect is the revision which the caller saw; 0 means any. A different one
	// is ErrConflict.
	Expect   int64    `json:"expect,omitempty"`
	Override []string `json:"override,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
	Who      string   `json:"who,omitempty"`
	Note     string   `json:"note,omitempty"`
}

// ApplyResult says what an apply changed, or would change.
type ApplyResult struct {
	Revision int64    `json:"revision"`
	DryRun   bool     `json:"dry_run,omitempty"`
	Changes  []Change `json:"changes"`
	// Answers is the part of the answers which change, 0..1, weighted by demand;
	// negative where nobody could say.
	Answers float64 `json:"answers"`
	// Refusals are the rules which refuse (dry run) or were set aside.
	Refusals []placement.Refusal `json:"refusals,omitempty"`
}

// Change is one difference between two fleets.
type Change struct {
	Kind   string `json:"kind"`   // site, service, policy, check, prefix, zone, override, fleet
	Object string `json:"object"` // its name
	Verb   string `json:"verb"`   // added, removed, changed
	Text   string `json:"text,omitempty"`
}

// ConfigVersion is one configuration as it was applied.
type ConfigVersion struct {
	Revision int64     `json:"revision"` // as the apply told it
	Who      string    `json:"who"`
	At       time.Time `json:"at"`
	Note     string    `json:"note,omitempty"`
	SHA256   string    `json:"sha256"` // of the fleet
	Current  bool      `json:"current,omitempty"`
}

// ConfigDiff is what differs between two configurations; revision 0 is the one in force.
type ConfigDiff struct {
	From    int64    `json:"from"`
	To      int64    `json:"to"`
	Changes []Change `json:"changes"`
}

// RollbackRequest applies a kept configuration anew.
type RollbackRequest struct {
	Revision int64    `json:"revision"`
	Reason   string   `json:"reason"`
	Expect   int64    `json:"expect,omitempty"` // as in ApplyRequest
	Override []string `json:"override,omitempty"`
	DryRun   bool     `json:"dry_run,omitempty"`
}

// SimulateRequest asks for a forecast. Sites may stand in Down, Drain and Dial at once.
type SimulateRequest struct {
	Down     []string           `json:"down,omitempty"`
	Drain    []string           `json:"drain,omitempty"`
	Dial     map[string]float64 `json:"dial,omitempty"`         // percent by SITE or SITE/CLUSTER
	Capacity map[string]int64   `json:"capacity_qps,omitempty"` // by site
	// Growth multiplies all demand: 1.2 is 20 % more; 0 means 1.
	Growth float64 `json:"growth,omitempty"`
	// Alone asks for the loss of every single site as well.
	Alone bool `json:"alone,omitempty"`
}

// Forecast is the load per site before and after.
type Forecast struct {
	Snapshot string         `json:"snapshot"`
	Sites    []ForecastSite `json:"sites"`
	// Moved is the part of the demand which changes its site, Forced the part
	// which had to, Unserved what found no room; 0..1.
	Moved    float64 `json:"moved"`
	Forced   float64 `json:"forced"`
	Unserved float64 `json:"unserved"`
	// RTT50 and RTT95 in ms, before and after, weighted by demand.
	RTT50 [2]float64 `json:"rtt50_ms"`
	RTT95 [2]float64 `json:"rtt95_ms"`
	// Anycast says what is known of routes: "unknown" without measured catchments.
	Anycast string `json:"anycast"`
	// Alone is the table of every single site's failure, worst first.
	Alone   []Failure          `json:"alone,omitempty"`
	Refusal *placement.Refusal `json:"refusal,omitempty"`
}

// ForecastSite is one site's load in queries per second.
type ForecastSite struct {
	Site     string `json:"site"`
	Before   int64  `json:"before_qps"`
	After    int64  `json:"after_qps"`
	Capacity int64  `json:"capacity_qps"` // 0: without limit
}

// Over tells whether the site would be asked for more than it can.
func (f *ForecastSite) Over() bool { return f.Capacity > 0 && f.After > f.Capacity }

// Failure is what the loss of one site does to the fullest of the others.
type Failure struct {
	Site     string  `json:"site"`
	Fullest  string  `json:"fullest"`
	Load     float64 `json:"load"`     // of the fullest, 1 = its capacity
	Unserved float64 `json:"unserved"` // part of the demand without room
}

// EventLog holds what happened; the store is one.
type EventLog interface {
	// Events returns those with an ID above since, oldest first, and of those
	// the newest up to limit.
	Events(ctx context.Context, since int64, limit int) ([]placement.Event, error)
}

// audit fills who asked for an intent and since when.
func audit(a *placement.Audit, who string, now time.Time) {
	a.Who, a.Since = who, now.UTC()
	a.Ended = time.Time{}
}
