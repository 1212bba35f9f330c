package placement

import "net/netip"

// Inputs names what a Plan was made from. A node which lacks one of them keeps
// its last Snapshot, says so loudly, and lowers nothing.
type Inputs struct {
	Inventory  int64  `json:"inventory"`   // Inventory.Revision
	ClassTable string `json:"class_table"` // hex SHA-256
	Algorithm  int    `json:"algorithm"`
}

// Plan is a decision in short form; kilobytes, since a class which goes to its
// nearest open cluster needs no entry.
type Plan struct {
	// Revision counts plans; it is the first half of a Snapshot's name.
	Revision int64  `json:"revision"`
	Inputs   Inputs `json:"inputs"`
	// Votes is the votes revision the plan was made with.
	Votes int64  `json:"votes"`
	Made  Time   `json:"made"`
	By    string `json:"by"`
	// Down are the clusters and sites which the plan was solved without, in
	// order of id: what a node goes on believing when too few are left to say
	// otherwise, and what comes back only by another plan.
	Down []ClusterID `json:"down,omitempty"`
	// Services in order of name.
	Services []ServicePlan `json:"services"`
	// Weights limit clusters by dial, drain and ramp; absent means all.
	Weights []Weight `json:"weights,omitempty"`
	// Ramps are the clusters which come back by and by.
	Ramps []Ramp `json:"ramps,omitempty"`
	// Steps are the lowerings by intent, in order of prefix and site.
	Steps   []Announcement `json:"steps,omitempty"`
	Anchors []Anchors      `json:"anchors"`
	Backups []Backup       `json:"backups"`
	Drains  []DrainState   `json:"drains,omitempty"`
	// Digest is the hex SHA-256 of the Snapshot which the director unfolded
	// from this plan with the votes at revision Votes.
	Digest string `json:"digest,omitempty"`
}

// ServicePlan is the part of a Plan for one service.
type ServicePlan struct {
	Service string `json:"service"`
	// Splits are the classes which do not simply go to their nearest open
	// cluster, in order of class.
	Splits []Split `json:"splits,omitempty"`
	// Demand by class, in order of class, so that every node can push the load
	// of a dead cluster to where there is room without asking anybody. Without any
	// the expected one counts.
	Demand []ClassDemand `json:"demand,omitempty"`
	// Measured is what was asked, from which Demand was made, in order of class. The
	// next plan begins with it, so that neither a new director nor the restart of a
	// name server forgets it.
	Measured []ClassRate `json:"measured,omitempty"`
	// Last is what was out when one of the clusters was usable last; nil where the policy
	// does not ask for it.
	Last *LastUsable `json:"last,omitempty"`
	// Kept is set when the new decision failed its check and the last good one
	// stays; Refusal says why.
	Kept    bool     `json:"kept,omitempty"`
	Refusal *Refusal `json:"refusal,omitempty"`
}

// LastUsable is the state of a service before all of it fell.
type LastUsable struct {
	Down []ClusterID `json:"down,omitempty"`
}

// ClassDemand is the demand of one class in requests per second. The keys are short
// because a plan holds thousands of them.
type ClassDemand struct {
	Class uint16 `json:"c"`
	QPS   int64  `json:"q"`
}

// Split sends the clients of a class to several clusters: only the few classes on a
// border between two catchments need one.
type Split struct {
	Class  uint16       `json:"c"`
	Shares []SplitShare `json:"s"`
}

// SplitShare is a cluster's part of a class in per mille.
type SplitShare struct {
	Cluster  ClusterID `json:"c"`
	PerMille int       `json:"p"`
}

// Weight limits a cluster to a part of its clients, in per mille. Which ones is
// decided by hash, so that a higher weight adds clients and moves none away.
type Weight struct {
	Cluster  ClusterID `json:"cluster"`
	PerMille int       `json:"per_mille"`
	Cause    string    `json:"cause"`
}

// Ramp says when a recovered cluster began to come back. The time is in the plan, so
// that the ramp goes on where it was when another node takes the lease.
type Ramp struct {
	Cluster ClusterID `json:"cluster"`
	Start   Time      `json:"start"`
}

// Backup says which sites shadow the sessions of a site, nearest in failure
// first, and the epoch under which they may take over without asking the store.
type Backup struct {
	Site  string   `json:"site"`
	Order []string `json:"order"`
	Epoch uint64   `json:"epoch"`
}

// Phase is how far a drain has come; the order of the values is the order of the phases.
type Phase string

// The phases of a drain. Each waits for the one before to have had its effect, so
// that at no moment a client is sent to where nobody listens.
const (
	PhasePlan      Phase = "plan"     // judged, load shift computed
	PhaseDNS       Phase = "dns"      // answers move away
	PhaseTTL       Phase = "ttl"      // the caches' time runs out
	PhaseGShut     Phase = "gshut"    // routes are de-preferred
	PhaseSessions  Phase = "sessions" // handed over or forwarded
	PhaseWithdraw  Phase = "withdraw" // the last step, by Slot
	PhaseDrained   Phase = "drained"
	PhaseReturning Phase = "returning" // undrained; announced again, ramping up
)

// DrainState is a drain's progress. It stands in the plan, not in the head of the
// director: a new one goes on with the phase, and never begins again.
type DrainState struct {
	Site  string `json:"site"`
	Phase Phase  `json:"phase"`
	Since Time   `json:"since"` // when the phase began
	// Expired is set when the time has run out and the site stays drained.
	Expired bool `json:"expired,omitempty"`
}

// Step returns the step that the plan's intents ask of a prefix at a site; plainly
// announced where they ask nothing. Health is not in it: every node adds what the
// verdicts say.
func (p *Plan) Step(prefix netip.Prefix, site string) Step {
	for i := range p.Steps {
		if a := &p.Steps[i]; a.Prefix == prefix && a.Site == site {
			return a.Want
		}
	}
	return Announce
}

// Drain returns the state of a site's drain, or nil.
func (p *Plan) Drain(site string) *DrainState {
	for i := range p.Drains {
		if p.Drains[i].Site == site {
			return &p.Drains[i]
		}
	}
	return nil
}
