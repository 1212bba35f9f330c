package decide

import (
	"cmp"
	"slices"
	"strings"

	"rhumb/placement"
)

// layout is a Policy compiled for one kind of class: tiers to be filled in
// order, each with groups that divide the clients by weight.
type layout struct {
	tiers []tier
	// tierOf by cluster (index into the eligible ones); noTier where the policy
	// does not name it.
	tierOf []uint8
}

const noTier = 255

// tier holds groups whose weights sum to whole.
type tier []group

// group is clusters among which the nearest open one serves.
type group struct {
	weight   int
	clusters []uint16 // ascending
}

const whole = 1000 // per mille

// places is what a class may match in a geo branch, finest first: the fleet's
// region by override, country, continent, the region of the nearest site.
type places [4]string

// compile flattens a policy tree for a class at the given places: geo picks
// its branch, failover puts tiers one after another, weighted divides a tier.
func compile(b *placement.Branch, clusters []placement.ClusterID, at places) *layout {
	l := &layout{tiers: flatten(b, clusters, at), tierOf: make([]uint8, len(clusters))}
	for i := range l.tierOf {
		l.tierOf[i] = noTier
	}
	for t, tier := range l.tiers {
		for _, g := range tier {
			for _, c := range g.clusters {
				l.tierOf[c] = min(l.tierOf[c], uint8(min(t, noTier-1)))
			}
		}
	}
	return l
}

func flatten(b *placement.Branch, clusters []placement.ClusterID, at places) []tier {
	switch {
	case len(b.Geo) > 0:
		next := pickGeo(b.Geo, at)
		return flatten(&next, clusters, at)
	case len(b.Failover) > 0:
		var out []tier
		for i := range b.Failover {
			out = append(out, flatten(&b.Failover[i], clusters, at)...)
		}
		return dropRepeated(out)
	case len(b.Weighted) > 0:
		return flattenWeighted(b.Weighted, clusters, at)
	}
	return leaf(b.Sites, clusters)
}

// pickGeo returns the branch of the finest place that has one; with none, and
// no "*", the nearest of all: a client must not fall through a hole in the tree.
func pickGeo(geo map[string]placement.Branch, at places) placement.Branch {
	for _, place := range append(at[:], "*") {
		if place == "" {
			continue
		}
		for _, key := range sortedKeys(geo) {
			if strings.EqualFold(key, place) {
				return geo[key]
			}
		}
	}
	return placement.Branch{}
}

// leaf is one tier of the clusters of some sites, or of all.
func leaf(sites []string, clusters []placement.ClusterID) []tier {
	g := group{weight: whole}
	for i, c := range clusters {
		if len(sites) == 0 || slices.Contains(sites, c.Site) {
			g.clusters = append(g.clusters, uint16(i))
		}
	}
	if len(g.clusters) == 0 {
		return nil
	}
	return []tier{{g}}
}

// flattenWeighted joins the branches tier by tier; a branch's weight is divided
// among its own groups.
func flattenWeighted(branches []placement.Weighted, clusters []placement.ClusterID, at places) []tier {
	var out []tier
	for i := range branches {
		if branches[i].Weight <= 0 {
			continue
		}
		for t, tr := range flatten(&branches[i].Branch, clusters, at) {
			if t == len(out) {
				out = append(out, nil)
			}
			for _, g := range tr {
				out[t] = append(out[t], group{branches[i].Weight * g.weight, g.clusters})
			}
		}
	}
	for t := range out {
		weights := make([]int64, len(out[t]))
		for k, g := range out[t] {
			weights[k] = int64(g.weight)
		}
		for k, w := range apportion(weights, whole) {
			out[t][k].weight = w
		}
	}
	return out
}

// dropRepeated keeps each cluster in the first tier that names it.
func dropRepeated(tiers []tier) []tier {
	seen := make(map[uint16]bool)
	var out []tier
	for _, tr := range tiers {
		var kept tier
		for _, g := range tr {
			g.clusters = slices.DeleteFunc(slices.Clone(g.clusters), func(c uint16) bool { return seen[c] })
			if len(g.clusters) > 0 {
				kept = append(kept, g)
			}
		}
		for _, g := range kept {
			for _, c := range g.clusters {
				seen[c] = true
			}
		}
		if len(kept) > 0 {
			out = append(out, kept)
		}
	}
	return out
}

// apportion divides total by weights, whole numbers only, the largest
// remainders first, ties to the lower index. All weights zero gives zeros.
func apportion(weights []int64, total int64) []int {
	out := make([]int, len(weights))
	var sum int64
	for _, w := range weights {
		sum += w
	}
	if sum == 0 {
		return out
	}
	type rest struct {
		index int
		mod   int64
	}
	rests, left := make([]rest, len(weights)), total
	for i, w := range weights {
		hi, mod := mulDiv(w, total, sum)
		out[i], rests[i] = int(hi), rest{i, mod}
		left -= hi
	}
	slices.SortFunc(rests, func(a, b rest) int {
		return cmp.Or(cmp.Compare(b.mod, a.mod), cmp.Compare(a.index, b.index))
	})
	for _, r := range rests[:left] {
		out[r.index]++
	}
	return out
}

// bounds divides total by weights like apportion, but rounds the borders between them:
// one weight that grows then moves each border one way, and nobody to and fro.
func bounds(weights []int64, total int64) []int {
	var sum, upto int64
	for _, w := range weights {
		sum += w
	}
	out, last := make([]int, len(weights)), int64(0)
	for i, w := range weights {
		if sum == 0 {
			break
		}
		upto += w
		at, mod := mulDiv(upto, total, sum)
		if 2*mod >= sum {
			at++
		}
		out[i], last = int(at-last), at
	}
	return out
}
