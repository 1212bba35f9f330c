package placement

import (
	"cmp"
	"net/netip"
)

// Trace gathers the reasons of one choice on its way. It is filled by Choose
// itself, so that what is explained is what is done.
type Trace struct {
	Snapshot   Name              `json:"snapshot"`
	Service    string            `json:"service"`
	Policy     string            `json:"policy"`
	Client     netip.Addr        `json:"client"`
	Class      int               `json:"class"` // -1 where nothing is known of the client
	Location   Location          `json:"location"`
	Match      netip.Prefix      `json:"match"`
	Scope      netip.Prefix      `json:"scope"`
	Hash       int               `json:"hash"` // 0..999 among the shares
	Candidates []TracedCandidate `json:"candidates"`
	FailOpen   bool              `json:"fail_open,omitempty"`
	Chosen     string            `json:"chosen"` // SITE/CLUSTER, or "" for the all-down rule
	Source     string            `json:"source"` // of the class table
}

// TracedCandidate is a candidate with its reasons spelled out.
type TracedCandidate struct {
	Cluster ClusterID `json:"cluster"`
	Tier    int       `json:"tier"`
	CostMS  float64   `json:"cost_ms"`
	// CostBy is the prefix or the site from which it was measured; empty: by distance.
	CostBy   string  `json:"cost_by,omitempty"`
	Out      string  `json:"out"`
	Reason   string  `json:"reason"`
	Verdict  Verdict `json:"verdict"`
	PerMille int     `json:"per_mille"` // its share of the class
}

// record fills the trace from what was chosen, never from a second decision of its
// own: the two could differ, and the explanation would be wrong when it is needed.
func (t *Trace) record(s *Snapshot, c *Choice, hash int) {
	t.Snapshot, t.Service, t.Policy = s.Name, c.Map.Service.Name, c.Map.Policy.Name
	t.Match, t.Scope, t.Hash = c.Match, c.Scope, hash
	t.Class, t.FailOpen = int(c.Class), c.Row.FailOpen || s.FailOpen(c.Map.Service.Name)
	if s.Classes != nil {
		t.Source = s.Classes.Source
	}
	if c.Class == NoClass {
		t.Class = -1
	} else if int(c.Class) < len(s.Classes.Locations) {
		t.Location = s.Classes.Locations[c.Class]
	}
	shares := make(map[uint16]int)
	last := 0
	for _, sh := range c.Row.Shares {
		shares[sh.Candidate] += int(sh.Upto) - last
		last = int(sh.Upto)
	}
	measured := s.Inventory.Measure(s.Classes)
	near, distance := s.Inventory.Nearest(t.Location.At)
	for i, cand := range c.Row.Candidates {
		one := s.traced(c, cand, shares[uint16(i)])
		if c.Class != NoClass {
			_, one.CostBy = measured.Cost(c.Class, one.Cluster.Site, near, distance)
		}
		t.Candidates = append(t.Candidates, one)
	}
	if id, ok := c.Cluster(); ok {
		t.Chosen = id.String()
	}
}

// traced spells a candidate out.
func (s *Snapshot) traced(c *Choice, cand Candidate, share int) TracedCandidate {
	id := c.Map.Clusters[cand.Cluster]
	v := s.Verdict(id)
	return TracedCandidate{Cluster: id, Tier: int(cand.Tier), CostMS: cand.Cost.Milliseconds(),
		Out: cand.Out.String(), Reason: s.reason(id, cand.Out, v) + s.limited(id, cand.Out), Verdict: v, PerMille: share}
}

// limited says why a candidate that serves gets a part of its clients alone.
func (s *Snapshot) limited(id ClusterID, out Out) string {
	for _, w := range s.Plan.Weights {
		if out == In && w.Cluster == id {
			return "; limited by dial or ramp: " + w.Cause
		}
	}
	return ""
}

// reason says in words why a candidate is in or out.
func (s *Snapshot) reason(id ClusterID, out Out, v Verdict) string {
	site := s.Verdict(SiteID(id.Site))
	switch out {
	case OutDown:
		if v.Shunned {
			return "this site does not reach it, and no other says that it is up: " + cmp.Or(v.Cause, site.Cause)
		}
		if !site.Usable() && v.Usable() {
			return "site " + id.Site + " is down: " + site.Cause
		}
		return "down: " + v.Cause
	case OutForced:
		return "forced down by the operator"
	case OutDrained:
		if d := s.Inventory.Drained(id.Site); d != nil {
			return "drained by " + d.Who + ": " + d.Reason
		}
		return "drained"
	case OutDialled:
		return "limited by dial or ramp: " + s.weightCause(id)
	case OutFull:
		return "no room within its capacity"
	case OutTier:
		return "a tier above has room"
	case OutFarther:
		return "farther than the chosen one"
	case OutSkipped:
		return "an earlier choice: the policy answers with a later one"
	case OutExcluded:
		return "the policy does not name it for this client"
	}
	if v.State == Down && v.Capped {
		return "kept in service though it measures down: " + v.Cause
	}
	if v.State == Degraded && v.Cause != "" {
		return "usable: degraded: " + v.Cause
	}
	return "usable: " + v.State.String()
}

// weightCause says what limits a cluster. A limit which the plan does not know
// came after it: a cluster which was down in the plan comes back by the next one.
func (s *Snapshot) weightCause(id ClusterID) string {
	for _, w := range s.Plan.Weights {
		if w.Cluster == id {
			return w.Cause
		}
	}
	return "waits for the next plan"
}
