package decide

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"rhumb/placement"
)

// Fold turns all votes into a verdict on every site and cluster, in order of
// object. It knows no time: a vote that is present and not held is fresh,
// since the store drops those of a vantage whose lease ran out. The order of
// the votes does not matter. plan may be nil.
//
// A vantage that holds any of its votes on other sites doubts itself: none of
// them counts, an old word that all is up neither, and its domain is not fresh.
// What it says of its own site it saw at home, and that counts.
//
// A site may have two vantages, on two machines. What one of them said last counts no
// more once the other is sure to hear it no more: a dead machine's word that all is up
// would else stand until its lease ends. Where each misses the other, both live, and count.
//
// What other sites say of an object counts by failure domain; a domain says
// down only if all of its observers do:
//
//	domains that vote   1    2   3   4   5   6   7
//	needed for down   never  2   2   3   3   4   4    (n/2 + 1)
//	wrong ones borne    1    1   1   2   2   3   3
//
// A fleet of two domains could never lose one that way. There the other one
// suffices if the object's own site has fallen silent as well: its lease ran out,
// which is evidence of another kind.
//
// Then, for one object:
//
//	the site's own vantages       other sites         verdict
//	all down (local or shared)    whatever            down
//	up, degraded or silent        quorum down         down
//	up, degraded or silent        some domains down   path (for those that complain)
//	degraded                      none down           degraded
//	up, or silent                 none down, one up   up
//	silent                        silent              unknown, which serves
//
// Fewer than half of the configured domains fresh: what other sites say is put
// aside, and what the plan was solved without stays down. A site that is down
// takes its clusters along. At last the removal cap (removalCap) marks what
// stays in service all the same. The operator's Force stands beside all this and
// is never mixed in.
func Fold(inv *placement.Inventory, votes []placement.Vote, plan *placement.Plan) []placement.Verdict {
	b := newBallot(inv, votes, plan)
	out := b.verdicts()
	siteDown(out)
	removalCap(inv, out, b.solvedDown)
	return out
}

// ballot is the newest vote of each vantage on each object, with what is
// needed to weigh them.
type ballot struct {
	inv        *placement.Inventory
	votes      []placement.Vote // in order of object, vantage
	solvedDown map[placement.ClusterID]bool
	held       bool
	two        bool // the fleet has two domains
}

func newBallot(inv *placement.Inventory, votes []placement.Vote, plan *placement.Plan) *ballot {
	b := &ballot{inv: inv, solvedDown: make(map[placement.ClusterID]bool)}
	if plan != nil {
		for _, id := range plan.Down {
			b.solvedDown[id] = true
		}
	}
	configured := make(map[string]bool)
	for i := range inv.Sites {
		if !inv.Sites[i].Foreign() {
			configured[inv.Sites[i].Domain()] = true
		}
	}
	all := newest(votes)
	doubting := doubters(all)
	silent := silenced(all, doubting)
	fresh := make(map[string]bool)
	for _, v := range all {
		site, doubts := inv.Site(v.Site), doubting[v.Vantage]
		if site == nil || v.Hold || doubts && !v.Own() || silent[v.Vantage] == v.Site {
			continue // no longer of the fleet, doubting itself, or gone
		}
		v.Domain = site.Domain() // the fleet's word, not the vantage's
		if !doubts {
			fresh[v.Domain] = true
		}
		b.votes = append(b.votes, v)
	}
	b.held, b.two = len(fresh)*2 < len(configured), len(configured) == 2
	return b
}

// doubters are the vantages that hold a vote on another site. A vote that was
// taken back is unknown as well as held, and says nothing of its vantage.
func doubters(votes []placement.Vote) map[string]bool {
	out := make(map[string]bool)
	for i := range votes {
		if v := &votes[i]; v.Hold && !v.Own() && v.State != placement.Unknown {
			out[v.Vantage] = true
		}
	}
	return out
}

// silenced are the vantages, with their site, which the other one of their site hears no
// more. One that says the same of the other lives: the two are cut off from each other. Who
// doubts what it hears is no witness.
func silenced(votes []placement.Vote, doubting map[string]bool) map[string]string {
	misses := make(map[string]*placement.Vote)
	for i := range votes {
		if v := &votes[i]; v.Without != "" && v.Object == placement.SiteID(v.Site) {
			misses[v.Vantage] = v
		}
	}
	out := make(map[string]string)
	for vantage, v := range misses {
		other := misses[v.Without]
		if v.Sure && !v.Hold && !doubting[vantage] && (other == nil || other.Without != vantage) {
			out[v.Without] = v.Site
		}
	}
	return out
}

// newest sorts votes by object and vantage and keeps the last of each.
func newest(votes []placement.Vote) []placement.Vote {
	all := slices.Clone(votes)
	slices.SortFunc(all, compareVotes)
	return slices.CompactFunc(all, func(a, b placement.Vote) bool {
		return a.Object == b.Object && a.Vantage == b.Vantage && a.Site == b.Site
	})
}

// compareVotes puts the newest vote of a vantage first. The fields after Seq
// only matter where a vantage contradicts itself under one number.
func compareVotes(a, b placement.Vote) int {
	return cmp.Or(a.Object.Compare(b.Object), strings.Compare(a.Site, b.Site), strings.Compare(a.Vantage, b.Vantage),
		cmp.Compare(b.Incarnation, a.Incarnation), cmp.Compare(b.Seq, a.Seq),
		cmp.Compare(a.State, b.State), a.Since.Compare(b.Since), strings.Compare(a.Cause, b.Cause))
}

// verdicts judges each site and then its clusters, in order of id.
func (b *ballot) verdicts() []placement.Verdict {
	var ids []placement.ClusterID
	for i := range b.inv.Sites {
		s := &b.inv.Sites[i]
		ids = append(ids, placement.SiteID(s.Name))
		for k := range s.Clusters {
			ids = append(ids, placement.ClusterID{Site: s.Name, Name: s.Clusters[k].Name})
		}
	}
	slices.SortFunc(ids, placement.ClusterID.Compare)
	out := make([]placement.Verdict, len(ids))
	rest := b.votes
	for i, id := range ids {
		var mine []placement.Vote
		mine, rest = cut(rest, id)
		out[i] = b.verdict(id, mine)
	}
	return out
}

// cut splits off the votes on id from sorted votes; those before it are on
// objects which the inventory does not know.
func cut(votes []placement.Vote, id placement.ClusterID) (mine, rest []placement.Vote) {
	i := 0
	for i < len(votes) && votes[i].Object.Compare(id) < 0 {
		i++
	}
	k := i
	for k < len(votes) && votes[k].Object == id {
		k++
	}
	return votes[i:k], votes[k:]
}

func (b *ballot) verdict(id placement.ClusterID, votes []placement.Vote) placement.Verdict {
	v := placement.Verdict{Object: id, Force: b.inv.Forced(id)}
	own, foreign := voice{}, make(map[string]*voice)
	for i := range votes {
		vote := &votes[i]
		if vote.Own() {
			own.hear(vote)
			continue
		}
		if foreign[vote.Domain] == nil {
			foreign[vote.Domain] = &voice{}
		}
		foreign[vote.Domain].hear(vote)
	}
	v.Own, v.Fault = own.state(), own.fault()
	q := count(foreign)
	v.Domains, v.DownDomains = q.domains, len(q.down)
	v.State, v.Since, v.Cause = b.weigh(id, &own, &q)
	v.Agreed = v.Own == placement.Down && (own.second > 0 || !b.held && q.reached())
	return v
}

// weigh is the second table of Fold, row by row.
func (b *ballot) weigh(id placement.ClusterID, own *voice, q *quorum) (placement.State, placement.Time, string) {
	switch {
	case own.state() == placement.Down:
		return placement.Down, own.last, own.cause
	case b.held && b.solvedDown[id]:
		return placement.Down, own.last, "held: fewer than half of the domains are fresh"
	case b.held:
		return own.state(), own.last, own.cause
	case q.reached(), b.two && len(q.down) == 1 && own.total() == 0:
		return placement.Down, q.since(), fmt.Sprintf("%d of %d domains: %s", len(q.down), q.domains, q.cause())
	case len(q.down) > 0:
		return placement.Path, q.down[0].last, fmt.Sprintf("from %s: %s", q.names(), q.cause())
	case own.state() != placement.Unknown:
		return own.state(), own.last, own.cause
	}
	return q.rest, q.restSince, ""
}

// voice is what the observers of one domain say together.
type voice struct {
	domain string
	states [5]int // by placement.State
	local  int    // votes down with a local fault
	second int    // votes down with a second class of evidence
	last   placement.Time
	cause  string
}

func (v *voice) hear(vote *placement.Vote) {
	v.domain = vote.Domain
	v.states[vote.State]++
	if vote.State == placement.Down && vote.Fault == placement.LocalFault {
		v.local++
	}
	if vote.State == placement.Down && vote.Second != placement.NoEvidence {
		v.second++
	}
	if vote.Since.After(v.last) {
		v.last = vote.Since
	}
	if v.cause == "" {
		v.cause = vote.Cause
	}
}

func (v *voice) total() int {
	n := 0
	for _, k := range v.states {
		n += k
	}
	return n
}

// state is down only if all observers say so, and up as soon as one does.
func (v *voice) state() placement.State {
	switch n := v.total(); {
	case n == 0 || v.states[placement.Unknown] == n:
		return placement.Unknown
	case v.states[placement.Down] == n-v.states[placement.Unknown]:
		return placement.Down
	case v.states[placement.Degraded] > 0 && v.states[placement.Up] == 0:
		return placement.Degraded
	case v.states[placement.Up] > 0:
		return placement.Up
	}
	return placement.Path
}

// fault is local only if every observer found it here: a mixed finding may
// lower no further than a shared one.
func (v *voice) fault() placement.Fault {
	switch {
	case v.state() != placement.Down:
		return placement.NoFault
	case v.local == v.states[placement.Down]:
		return placement.LocalFault
	}
	return placement.SharedFault
}

// quorum is the count over the domains of other sites.
type quorum struct {
	domains   int
	down      []*voice // oldest first
	rest      placement.State
	restSince placement.Time
}

func count(foreign map[string]*voice) quorum {
	var q quorum
	for _, domain := range sortedKeys(foreign) {
		v := foreign[domain]
		state := v.state()
		if state == placement.Unknown {
			continue // it looked, and has nothing to say yet
		}
		q.domains++
		if state == placement.Down {
			q.down = append(q.down, v)
			continue
		}
		if q.rest != placement.Up {
			q.rest = state
		}
		if v.last.After(q.restSince) {
			q.restSince = v.last
		}
	}
	slices.SortStableFunc(q.down, func(a, b *voice) int { return a.last.Compare(b.last) })
	return q
}

func (q *quorum) needed() int { return q.domains/2 + 1 }

// reached is never true for a single domain: it cannot tell the object's death
// from that of its own path.
func (q *quorum) reached() bool { return q.domains > 1 && len(q.down) >= q.needed() }

// since is when the vote was cast that made the quorum.
func (q *quorum) since() placement.Time { return q.down[q.needed()-1].last }

func (q *quorum) cause() string { return q.down[0].cause }

func (q *quorum) names() string {
	names := make([]string, 0, len(q.down))
	for _, v := range q.down {
		names = append(names, v.domain)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// siteDown takes the clusters of dead sites along. A site's verdict precedes
// those of its clusters, since "-" sorts before every name.
func siteDown(verdicts []placement.Verdict) {
	sites := make(map[string]*placement.Verdict)
	for i := range verdicts {
		if v := &verdicts[i]; v.Object.IsSite() {
			sites[v.Object.Site] = v
		}
	}
	for i := range verdicts {
		v := &verdicts[i]
		site := sites[v.Object.Site]
		if v.Object.IsSite() || site == nil || site.State != placement.Down {
			continue
		}
		if v.State == placement.Down { // by its own probes, and now by others
			v.Agreed = v.Agreed || v.Own == placement.Down && site.Own != placement.Down
			continue
		}
		v.State, v.Since, v.Agreed = placement.Down, site.Since, site.Agreed
		v.Cause = fmt.Sprintf("site %s is down: %s", v.Object.Site, site.Cause)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
