package placement

import (
	"net/netip"
	"strings"
)

// ForceState is the operator's word on a Site or Cluster. It stands beside the
// measured state and never in its place: when it ends, what was measured all the
// while holds at once.
type ForceState string

// The forced states; NoForce lets the measured state rule.
const (
	NoForce   ForceState = ""
	ForceUp   ForceState = "up"
	ForceDown ForceState = "down"
)

// Force overrides the measured state of a Cluster or Site. An ended intent is
// kept with Ended set, so that a revision is a function of the store's content.
type Force struct {
	Object ClusterID  `json:"object"`
	State  ForceState `json:"state"`
	Audit
}

// Audit says who asked for an intent, why, and until when.
type Audit struct {
	Who    string `json:"who"`
	Reason string `json:"reason"`
	Since  Time   `json:"since"`
	Until  Time   `json:"until,omitzero"`
	// Ended is set when the intent was taken back.
	Ended Time `json:"ended,omitzero"`
	// Override names the rules that the operator set aside.
	Override []string `json:"override,omitempty"`
}

// Live tells whether the intent holds.
func (a *Audit) Live() bool { return a.Ended.IsZero() }

// Expired tells whether its time has run out; it goes on holding all the same,
// loudly, since ending it by itself would move clients at an hour nobody chose.
func (a *Audit) Expired(now Time) bool {
	return a.Live() && !a.Until.IsZero() && now.After(a.Until)
}

// Drain takes a Site out of service in phases. Its end pages and changes nothing:
// a site must not come back at night because an estimate was wrong.
type Drain struct {
	// Site is its name, or SITE/NODE: of one of several edges there, whose sessions go to
	// its neighbours while the site stays.
	Site string `json:"site"`
	// Return "auto" opts in to coming back at Until, on green checks.
	Return string `json:"return,omitempty"`
	Audit
}

// OfNode tells whether it is of one node and not of a site.
func (d *Drain) OfNode() bool { return strings.Contains(d.Site, "/") }

// Retirement takes a Prefix off the world for good, one Site after the other. It is
// the one order by which a prefix may be silent everywhere, and it stands apart from
// the configuration: a job which deletes prefixes by mistake cannot give it.
type Retirement struct {
	Prefix netip.Prefix `json:"prefix"`
	Audit
}

// Dial limits the share of its clients that a Site or one of its Clusters gets, in per
// mille; 1000 is all, 0 none of the new ones. A cluster gets what both leave it.
type Dial struct {
	// Site is its name, or SITE/CLUSTER. Releases that know sites alone find none of
	// that name and dial nothing, where a field of its own would dial the whole site.
	Site     string `json:"site"`
	PerMille int    `json:"per_mille"`
	Audit
}

// OfCluster tells whether it is of one cluster and not of a site.
func (d *Dial) OfCluster() bool { return strings.Contains(d.Site, "/") }

// Covers tells whether a cluster is limited by it.
func (d *Dial) Covers(id ClusterID) bool { return d.Site == id.Site || d.Site == id.String() }

// Freeze stops every automatic decision; manual verbs still work. Votes are cast and
// shown all the same, so that it is seen what a thaw will do.
type Freeze struct {
	Audit
}

// Pin holds a Site at a Plan revision, as a stage of an apply does with the sites
// which are not its turn yet.
type Pin struct {
	Site     string `json:"site"`
	Revision int64  `json:"revision"`
	Audit
}
