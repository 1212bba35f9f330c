package placement

import "slices"

// minServers is how many name servers a set has at least: with one, its loss is
// the loss of the zone until the TTL of the NS records ends.
const minServers = 2

// NameServers returns the clusters of a referral, one a site. Of these rules the
// earlier ones win, where there are sites enough to keep them at all:
//
//  1. two at least;
//  2. never all of one fate (region): a resolver which knows a dead region alone
//     comes back to the parent only when the TTL of the NS records has run out;
//  3. two which are usable now;
//  4. as many as pick says, none of them unusable;
//  5. the most preferred first.
//
// Where rule 2 can be kept only by one that is unusable now, the set has one
// more than pick: an asker loses one timeout to it, and is better off than in
// the hour after its region died.
//
// The result depends on the Row alone, not on the client, so that a child zone
// can answer its apex NS with the same set that the parent referred to.
func (s *Snapshot) NameServers(c *Choice, pick int) []ClusterID {
	ranked, usable := s.rankSites(c)
	n := max(minServers, min(pick, usable))
	out := slices.Clone(ranked[:min(n, len(ranked))])
	if len(out) < minServers || !s.oneFate(out) {
		return out
	}
	for i, id := range ranked[len(out):] {
		switch foreign := s.Inventory.fate(id) != s.Inventory.fate(out[0]); {
		case !foreign:
		case n+i < usable || n > usable || n == pick && n > minServers:
			out[n-1] = id // it is usable, or the last one is not, or can be spared
			return out
		default:
			return append(out, id)
		}
	}
	return out
}

// rankSites returns one cluster of each site: first those of the usable sites,
// whose number it returns too, then the others; in both the most preferred first.
func (s *Snapshot) rankSites(c *Choice) (ranked []ClusterID, usable int) {
	for _, want := range []bool{true, false} {
		for _, cand := range c.Row.Candidates {
			id := c.Map.Clusters[cand.Cluster]
			if cand.Out.Usable() == want && !hasSite(ranked, id.Site) {
				ranked = append(ranked, id)
			}
		}
		if want {
			usable = len(ranked)
		}
	}
	return ranked, usable
}

// oneFate tells whether all of a set would die together.
func (s *Snapshot) oneFate(ids []ClusterID) bool {
	for _, id := range ids {
		if s.Inventory.fate(id) != s.Inventory.fate(ids[0]) {
			return false
		}
	}
	return true
}

func hasSite(ids []ClusterID, site string) bool {
	return slices.ContainsFunc(ids, func(id ClusterID) bool { return id.Site == site })
}

// fate returns what a name server dies with: its region, or its site where none
// is named. Shared failure domains do not count: they say who counts as one
// voice in a quorum, and many fleets buy all of their transit from one ISP.
func (f *Fleet) fate(c ClusterID) string {
	if s := f.Site(c.Site); s != nil && s.Region != "" {
		return s.Region
	}
	return c.Site
}
