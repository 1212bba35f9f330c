package placement

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"rhumb/placement/lpm"
)

// Name names a state: plan revision . votes revision, +p where this node's loop
// patched it ahead of the store. Equal names (but for +p) mean equal answers.
type Name struct {
	Plan    int64 `json:"plan"`
	Votes   int64 `json:"votes"`
	Patched bool  `json:"patched,omitempty"`
}

// String prints PLAN.VOTES, with +p for a patched state: what logs, NSID and
// metrics show, and `explain --at` reads.
func (n Name) String() string {
	s := strconv.FormatInt(n.Plan, 10) + "." + strconv.FormatInt(n.Votes, 10)
	if n.Patched {
		s += "+p"
	}
	return s
}

// ParseName reads 1042.17 or 1042.17+p, and no other spelling of them: names are
// compared as text in logs, NSID and metrics, so one state has one.
func ParseName(s string) (Name, error) {
	t, patched := strings.CutSuffix(s, "+p")
	plan, votes, ok := strings.Cut(t, ".")
	p, err1 := strconv.ParseInt(plan, 10, 64)
	v, err2 := strconv.ParseInt(votes, 10, 64)
	n := Name{p, v, patched}
	if !ok || err1 != nil || err2 != nil || p < 0 || v < 0 || n.String() != s {
		return Name{}, fmt.Errorf("snapshot name %q: want PLAN.VOTES, as 1042.17", s)
	}
	return n, nil
}

// Snapshot is a Plan unfolded with Verdicts: who serves whom, at one named
// state. It is immutable; appliers hold a pointer to a whole one, never parts.
type Snapshot struct {
	Name Name
	// Listed tells that this node has not seen the vote that Name names come or go, but
	// read the votes afterwards: others may know the same state by an earlier name.
	Listed    bool
	Inventory *Inventory
	Plan      *Plan
	Classes   *ClassTable
	// Verdicts in order of object (by which they are searched); every cluster and every site has one.
	Verdicts []Verdict
	// Maps in order of service.
	Maps []ServiceMap
	// Announcements in order of prefix and site, for every site that may announce.
	Announcements []Announcement
	Anchors       []Anchors
	Backups       []Backup
	// Alarms are the loud conditions of this state (fail-open, capped, stale …).
	Alarms []Alarm
	// Digest is the hex SHA-256 of everything above but names, times and causes.
	Digest string
}

// Alarm is a condition which an operator must see; it changes nothing by itself.
type Alarm struct {
	Kind   string `json:"kind"` // as SnapshotStale, FailOpenActive, DrainExpired
	Object string `json:"object,omitempty"`
	Text   string `json:"text"`
}

// AlarmFailOpen says that answers of a service are given as if what measures down
// were up, since the monitor is the likelier fault, or since nobody else is left.
const AlarmFailOpen = "FailOpenActive"

// FailOpen tells whether a service fails open in this state.
func (s *Snapshot) FailOpen(service string) bool {
	return slices.ContainsFunc(s.Alarms, func(a Alarm) bool { return a.Kind == AlarmFailOpen && a.Object == service })
}

// ServiceMap says for each class which clusters serve a service.
type ServiceMap struct {
	Service *Service
	Policy  *Policy
	// Clusters are the eligible clusters in order of id; candidates point into it.
	Clusters []ClusterID
	// Keys number the clusters for draws; nil where the policy draws none.
	Keys []uint64
	// Rows by class id; the last one is for NoClass.
	Rows []*Row
	// Blocks gives the largest aligned client block with one answer (ECS scope). They
	// are folded from the snapshot's class table.
	Blocks *lpm.Blocks
}

// Row is the decision for one class. Rows are shared between classes which are
// decided alike, and immutable.
type Row struct {
	// Candidates in order of preference: tier, cost, id.
	Candidates []Candidate
	// Shares divide the class's clients; the last one's Upto is 1000. Empty
	// means that nobody is usable: the policy's all-down rule answers.
	Shares []Share
	// Extras may stand in an answer beside the one that serves, in order of preference:
	// usable, with room, and not those of others. Empty but by a policy with Answers.
	Extras []Extra
	// FailOpen is set when all were down and are taken as up.
	FailOpen bool
}

// Candidate is one eligible cluster as one class sees it. It is 12 bytes: there are
// as many as rows times clusters.
type Candidate struct {
	Cluster uint16 // index into ServiceMap.Clusters
	Tier    uint8
	Out     Out
	Cost    Cost
}

// Out says why a candidate gets none of the new clients of a class.
type Out uint8

// The reasons.
const (
	In        Out = iota
	OutDown       // verdict down
	OutForced     // operator's word
	OutDrained
	OutDialled  // the operator's dial or a ramp leaves it out of this class
	OutFull     // no room within capacity
	OutTier     // an open tier above has room
	OutFarther  // usable, but others are nearer
	OutExcluded // the policy does not name it for this class
	OutSkipped  // an earlier choice, which the policy passes over
)

var outNames = [...]string{"in", "down", "forced", "drained", "dialled", "full", "lower-tier", "farther", "excluded", "skipped"}

// String returns the reason in a word, as explain prints it.
func (o Out) String() string { return outNames[o] }

// MarshalText prints the reason.
func (o Out) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Usable tells whether the candidate could take clients if the ones before it could not.
func (o Out) Usable() bool {
	return o == In || o == OutFull || o == OutTier || o == OutFarther || o == OutSkipped
}

// Share gives the clients whose hash is below Upto (per mille, cumulative) to a candidate.
type Share struct {
	Candidate uint16 // index into Row.Candidates
	Upto      uint16
}

// Map returns the map of a service, or nil. Maps are in order of service, which is
// what makes the search right; Unfold keeps it.
func (s *Snapshot) Map(service string) *ServiceMap {
	i, ok := slices.BinarySearchFunc(s.Maps, service, func(m ServiceMap, n string) int {
		return strings.Compare(m.Service.Name, n)
	})
	if !ok {
		return nil
	}
	return &s.Maps[i]
}

// Verdict returns the verdict on an object; Unknown where there is none, and
// unknown serves: what nobody looked at was not found broken.
func (s *Snapshot) Verdict(id ClusterID) Verdict {
	i, ok := slices.BinarySearchFunc(s.Verdicts, id, func(v Verdict, id ClusterID) int {
		return v.Object.Compare(id)
	})
	if !ok {
		return Verdict{Object: id}
	}
	return s.Verdicts[i]
}

// AnchorSites returns the sites which keep a prefix announced whatever their votes
// say; none where nobody may announce it.
func (s *Snapshot) AnchorSites(p netip.Prefix) []string {
	for i := range s.Anchors {
		if s.Anchors[i].Prefix == p {
			return s.Anchors[i].Sites
		}
	}
	return nil
}

// BackupOrder returns the sites which may take over a site's sessions, and the epoch.
func (s *Snapshot) BackupOrder(site string) ([]string, uint64) {
	for i := range s.Backups {
		if s.Backups[i].Site == site {
			return s.Backups[i].Order, s.Backups[i].Epoch
		}
	}
	return nil, 0
}

// Check judges the snapshot before anybody acts upon it. A Refusal keeps the
// previous one: an old truth is better than a new one which can take the last
// route or the last name server away. Every node checks by itself, so that a
// director which is broken or of another mind moves nobody.
func (s *Snapshot) Check() *Refusal {
	for i := range s.Inventory.Prefixes {
		if r := s.checkAnchors(&s.Inventory.Prefixes[i]); r != nil {
			return r
		}
	}
	for i := range s.Maps {
		if r := s.checkNameServers(&s.Maps[i]); r != nil {
			return r
		}
	}
	return nil
}

// MinAnchors returns how many Anchors a prefix of n announcing sites needs: what
// the operator says, by default 2, but 1 below three sites, where two would leave
// nobody who may withdraw; never more than there are sites.
func (p *Prefix) MinAnchors(n int) int {
	want := p.MinAnnouncing
	if want <= 0 {
		want = 2
	}
	if n < 3 {
		want = min(want, 1)
	}
	return min(want, n)
}

// checkAnchors counts only anchors that may announce: a site which is not in the
// inventory any more keeps no prefix up.
func (s *Snapshot) checkAnchors(p *Prefix) *Refusal {
	sites := s.Inventory.AnnouncingSites(p)
	named := 0
	for _, a := range s.AnchorSites(p.Prefix) {
		if slices.Contains(sites, a) {
			named++
		}
	}
	if want := p.MinAnchors(len(sites)); named < want {
		return &Refusal{Rule: RuleAnchors, Object: p.Prefix.String(),
			Have: fmt.Sprintf("%d anchors", named), Limit: fmt.Sprintf("%d", want)}
	}
	return nil
}

// checkNameServers refuses a referral whose name servers share one fate: a
// resolver returns to the parent only when the NS TTL ends, so a set of one
// region dies with the region for an hour.
//
// It is enough that the eligible clusters lie in two regions: then NameServers
// finds two for every class. A fleet of one site has no choice.
func (s *Snapshot) checkNameServers(m *ServiceMap) *Refusal {
	if !m.Service.IsNameServer() || len(m.Clusters) == 0 || len(s.Inventory.Sites) < 2 {
		return nil
	}
	regions := make(map[string]bool)
	for _, c := range m.Clusters {
		regions[s.Inventory.fate(c)] = true
	}
	if len(regions) < 2 {
		return &Refusal{Rule: RuleOneFate, Object: m.Service.Zone, Have: "every name server in one region", Limit: "2 regions"}
	}
	return nil
}
