package health

import (
	"cmp"
	"hash/fnv"
	"slices"

	"rhumb/placement"
)

const (
	// everybody is up to how many sites all watch each other: each datagram then has
	// room for a word on all the others.
	everybody = 12
	// nearest is how many of the nearest sites a site of a larger fleet picks.
	nearest = 6
)

// Watching says who watches whom among sites, by name and in order of it: up to a dozen
// all watch each other. Beyond that each picks its six nearest, which see the same and
// can tell it of one another, and two more elsewhere, lest a region judge itself alone:
// one by lot, and the site nearest to that, so that the two can bear each other out.
// Whoever picks is picked: of a pair that watches, each hears the other. The lot falls by
// the names, so that every node works out the same from the same fleet.
func Watching(sites []placement.Site) map[string][]string {
	all := slices.Clone(sites)
	slices.SortFunc(all, func(a, b placement.Site) int { return cmp.Compare(a.Name, b.Name) })
	picked := make(map[string]map[string]bool, len(all))
	for i := range all {
		picked[all[i].Name] = make(map[string]bool)
	}
	for i := range all {
		for _, other := range picks(all, i) {
			picked[all[i].Name][other], picked[other][all[i].Name] = true, true
		}
	}
	out := make(map[string][]string, len(all))
	for i := range all {
		list := []string{}
		for k := range all {
			if picked[all[i].Name][all[k].Name] {
				list = append(list, all[k].Name)
			}
		}
		out[all[i].Name] = list
	}
	return out
}

// picks returns whom a site picks.
func picks(all []placement.Site, of int) (out []string) {
	near := byDistance(all, of)
	if len(all) > everybody {
		far := near[nearest:]
		near = near[:nearest:nearest]
		lot := slices.MinFunc(far, func(a, b int) int {
			return cmp.Or(cmp.Compare(ticket(all[of].Name, all[a].Name), ticket(all[of].Name, all[b].Name)), cmp.Compare(a, b))
		})
		near = append(near, lot)
		for _, k := range byDistance(all, lot) {
			if k != of && !slices.Contains(near, k) {
				near = append(near, k)
				break
			}
		}
	}
	for _, k := range near {
		out = append(out, all[k].Name)
	}
	return out
}

// byDistance returns the other sites, nearest first; ties fall by name.
func byDistance(all []placement.Site, of int) []int {
	cost := make([]placement.Cost, len(all))
	out := make([]int, 0, len(all)-1)
	for k := range all {
		if k != of {
			cost[k] = placement.DistanceCost(all[of].At, all[k].At)
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Or(cmp.Compare(cost[a], cost[b]), cmp.Compare(a, b)) })
	return out
}

// ticket is a site's lot in another's draw.
func ticket(of, other string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(of + "\x00" + other))
	return h.Sum64()
}
