package decide

import (
	"cmp"
	"slices"

	"rhumb/placement"
)

// part is a cluster's part of a class, in per mille.
type part struct {
	cluster  uint16
	perMille int
}

// spread divides a class by policy alone: in the first tier with an open
// cluster each group gives its weight to its nearest open one; what limits
// leave over goes to the next nearest, then to the next tier. It says nothing
// of capacity. Empty when nothing is open; else the parts sum to whole.
func (m *market) spread(class int, st []status) []part {
	ranked := m.ranked[class]
	first := slices.IndexFunc(ranked, func(c placement.Candidate) bool { return c.Tier != noTier && st[c.Cluster].open() })
	if first < 0 {
		return nil
	}
	l := m.layout(class)
	t := l.tiers[ranked[first].Tier]
	if len(t) == 1 && st[ranked[first].Cluster].limit == whole {
		return m.single[ranked[first].Cluster]
	}
	p := purse{st: st, borders: m.borders()}
	for _, g := range openGroups(t, st) {
		left := g.weight
		for _, c := range ranked[first:] {
			if c.Tier == ranked[first].Tier && left > 0 && slices.Contains(g.clusters, c.Cluster) {
				left -= p.take(c.Cluster, left, g.weight)
			}
		}
		p.left += left
	}
	p.spill(ranked[first:])
	return p.parts
}

// openGroups are the groups with an open cluster; they share out the weight of the others.
func openGroups(t tier, st []status) tier {
	var out tier
	var weights []int64
	for _, g := range t {
		if slices.ContainsFunc(g.clusters, func(c uint16) bool { return st[c].open() }) {
			out = append(out, g)
			weights = append(weights, int64(g.weight))
		}
	}
	for i, w := range apportion(weights, whole) {
		out[i].weight = w
	}
	return out
}

// purse hands out a class by per mille.
type purse struct {
	st    []status
	parts []part
	left  int
	// borders has the borders between the parts rounded, not the parts.
	borders bool
}

// borders tells whether borders are rounded, as algorithm 2 does.
func (m *market) borders() bool { return m.algorithm >= 2 }

// divide divides a class by weights, in order of candidate.
func (m *market) divide(weights []int64) []int {
	if m.borders() {
		return bounds(weights, whole)
	}
	return apportion(weights, whole)
}

// take gives a cluster up to its limit of a group's weight.
func (p *purse) take(cluster uint16, left, weight int) int {
	if !p.st[cluster].open() {
		return 0
	}
	amount := left
	if limit := p.st[cluster].limit; limit < whole {
		amount = min(left, (weight*limit+whole/2)/whole)
	}
	p.give(cluster, amount)
	return amount
}

func (p *purse) give(cluster uint16, amount int) {
	if amount == 0 {
		return
	}
	for i := range p.parts {
		if p.parts[i].cluster == cluster {
			p.parts[i].perMille += amount
			return
		}
	}
	p.parts = append(p.parts, part{cluster, amount})
}

// spill finds a place for what the limits of a tier left over: unlimited
// clusters in order of preference, then limited ones that have nothing yet;
// with none, those which have something bear the rest in proportion.
func (p *purse) spill(ranked []placement.Candidate) {
	for _, c := range ranked {
		if p.left == 0 {
			return
		}
		if c.Tier == noTier || slices.ContainsFunc(p.parts, func(q part) bool { return q.cluster == c.Cluster && p.st[c.Cluster].limit < whole }) {
			continue
		}
		p.left -= p.take(c.Cluster, p.left, whole)
	}
	if p.left == 0 {
		return
	}
	if p.borders {
		rank := func(q part) int {
			return slices.IndexFunc(ranked, func(c placement.Candidate) bool { return c.Cluster == q.cluster })
		}
		slices.SortFunc(p.parts, func(a, b part) int { return cmp.Compare(rank(a), rank(b)) })
	}
	weights := make([]int64, len(p.parts))
	for i := range p.parts {
		weights[i] = int64(p.parts[i].perMille)
	}
	if len(weights) == 0 { // limits too small to round to anything
		i := slices.IndexFunc(ranked, func(c placement.Candidate) bool { return c.Tier != noTier && p.st[c.Cluster].open() })
		p.give(ranked[i].Cluster, p.left)
		return
	}
	if p.borders {
		for i, all := range bounds(weights, whole) {
			p.parts[i].perMille = all
		}
		return
	}
	for i, more := range apportion(weights, int64(p.left)) {
		p.parts[i].perMille += more
	}
}

// byCapacity divides clients of whom nothing is known among the first open
// tier, each cluster by its capacity: all of them are equally near.
func (w *world) byCapacity(m *market, st []status) []part {
	class := w.known
	ranked := m.ranked[class]
	first := slices.IndexFunc(ranked, func(c placement.Candidate) bool { return c.Tier != noTier && st[c.Cluster].open() })
	if first < 0 {
		return nil
	}
	if len(m.layout(class).tiers[ranked[first].Tier]) > 1 {
		return m.spread(class, st)
	}
	var out []part
	var weights []int64
	unlimited := slices.ContainsFunc(m.clusters, func(id placement.ClusterID) bool { return capacityOf(w.inv, id) == 0 })
	for _, c := range ranked {
		if c.Tier != ranked[first].Tier || !st[c.Cluster].open() {
			continue
		}
		weight := int64(1) // capacities cannot be compared with none
		if !unlimited {
			weight = capacityOf(w.inv, m.clusters[c.Cluster])
		}
		out = append(out, part{cluster: c.Cluster})
		weights = append(weights, weight*int64(st[c.Cluster].limit))
	}
	for i, pm := range m.divide(weights) {
		out[i].perMille = pm
	}
	return slices.DeleteFunc(out, func(p part) bool { return p.perMille == 0 })
}

// parts divides a class by policy. Choices that the policy passes over are taken for closed.
func (w *world) parts(m *market, class int, st []status) []part {
	parts := w.first(m, class, st)
	for range m.policy.SkipFirst {
		st = slices.Clone(st)
		for _, p := range parts {
			st[p.cluster].limit = 0
		}
		next := w.first(m, class, st)
		if next == nil {
			break
		}
		parts = next
	}
	return parts
}

// first is spread for a class, or byCapacity for the class of nobody knows whom.
func (w *world) first(m *market, class int, st []status) []part {
	if class == w.known {
		return w.byCapacity(m, st)
	}
	return m.spread(class, st)
}

// defaults is parts for every class, under one status.
func (w *world) defaults(m *market, st []status) [][]part {
	out := make([][]part, w.rows())
	for class := range out {
		out[class] = w.parts(m, class, st)
	}
	return out
}
