package decide

import (
	"slices"

	"rhumb/placement"
)

// Patch lays votes heard ahead of the store over those of the store. patched
// tells whether any of them was newer and says something else than the store's:
// a beat that repeats a vote makes no new state.
func Patch(stored, heard []placement.Vote) (votes []placement.Vote, patched bool) {
	votes = slices.Clone(stored)
	for _, h := range newest(heard) {
		i := slices.IndexFunc(votes, func(v placement.Vote) bool { return v.Object == h.Object && v.Vantage == h.Vantage && v.Site == h.Site })
		switch {
		case i < 0:
			votes, patched = append(votes, h), true
		case h.Newer(&votes[i]):
			patched = patched || differs(&votes[i], &h)
			votes[i] = h
		}
	}
	if !patched {
		return stored, false
	}
	return votes, true
}

// Shun marks the sites, and their clusters, which this site cannot reach and
// nobody else speaks for: the first step of action, before any verdict. Answers
// of this node then leave them out; no route and no other node does. It tells
// whether anything was marked, which makes the snapshot this node's own (+p).
//
//	own domain on the site   other sites' word    the site shunned
//	all say down             silent, or held      yes
//	all say down             any of them hears it no: our path is broken, not the site
//	otherwise                whatever             no
//
// What the site says of itself is no proof that clients reach it. A verdict down
// needs no shunning, and the operator's Force ends the matter.
func Shun(inv *placement.Inventory, votes []placement.Vote, site string, verdicts []placement.Verdict) bool {
	own := inv.Site(site)
	if own == nil {
		return false
	}
	b := newBallot(inv, votes, nil)
	shunned := make(map[string]bool)
	for i := range verdicts {
		v := &verdicts[i]
		if !v.Object.IsSite() {
			if shunned[v.Object.Site] && v.Force == placement.NoForce && v.State != placement.Down {
				v.Shunned = true
			}
			continue
		}
		if v.Object.Site == site || v.Force != placement.NoForce || v.State == placement.Down {
			continue
		}
		if b.unreached(v.Object, own.Domain()) {
			v.Shunned, shunned[v.Object.Site] = true, true
		}
	}
	return len(shunned) > 0
}

// unreached tells whether a domain says down and no other has anything to say.
func (b *ballot) unreached(id placement.ClusterID, domain string) bool {
	ours, others := voice{}, 0
	for i := range b.votes {
		switch v := &b.votes[i]; {
		case v.Object != id || v.Own() || v.State == placement.Unknown:
		case v.Domain == domain:
			ours.hear(v)
		case v.State != placement.Down:
			others++
		}
	}
	return others == 0 && ours.state() == placement.Down
}

func differs(a, b *placement.Vote) bool {
	return a.State != b.State || a.Fault != b.Fault || a.Hold != b.Hold || a.Second != b.Second || a.Without != b.Without || a.Sure != b.Sure
}
