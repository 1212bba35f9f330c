package forward

import (
	"cmp"
	"slices"
	"strings"

	"rhumb/placement"
)

// leg is what is known of one half of a way by a third site.
type leg uint8

const (
	legUp      leg = iota
	legUnknown     // nobody said anything of it
	legBroken
)

// candidate is a site that might pass on what is for another.
type candidate struct {
	site string
	// offers tells that it said lately that it relays; a site of a version that can't
	// never says so.
	offers bool
	// near is the leg from here to it, far the one from it to the other site.
	near, far leg
	// failures is how often the way by it failed while the direct path did, lately, in
	// quarters.
	failures int
	// cost is the round trip by it, as far as known.
	cost placement.Cost
}

// maxDoubtful is how many candidates are tried of whose legs nothing is known (Gummadi et
// al., OSDI 2004, found four at random to do nearly as well as all).
const maxDoubtful = 4

// rank returns the sites by which a broken path may be gone round, the best first. Who
// has failed together with the path shares something with it: a provider, a cable, a
// building; such a site comes behind any that hasn't, however near it is. Of two alike
// the shorter way is better. Where a leg isn't known the candidate is a last resort;
// where one is known to be broken it is none.
func rank(list []candidate) []string {
	list = slices.DeleteFunc(slices.Clone(list), func(c candidate) bool {
		return !c.offers || c.near == legBroken || c.far == legBroken
	})
	slices.SortFunc(list, candidate.compare)
	var out []string
	doubtful := 0
	for _, c := range list {
		if c.doubt() {
			if doubtful++; doubtful > maxDoubtful {
				break
			}
		}
		out = append(out, c.site)
	}
	return out
}

// doubt tells that not both legs are known to be up.
func (c candidate) doubt() bool { return c.near != legUp || c.far != legUp }

// compare orders candidates by how well they serve.
func (c candidate) compare(d candidate) int {
	return cmp.Or(compareBool(c.doubt(), d.doubt()), cmp.Compare(c.failures, d.failures),
		cmp.Compare(c.cost, d.cost), strings.Compare(c.site, d.site))
}

// compareBool puts false first.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
