package decide

import (
	"slices"

	"rhumb/placement"
	"rhumb/placement/solve"
)

// entry is a class of a service, or one weighted group of it, in the solver's book.
type entry struct {
	service int
	class   int
	demand  int64
	options []solve.Option
	// clusters by option, as the market counts them.
	clusters []uint16
}

// entries books every class with demand that want names (nil: all), with the
// clusters open under st as its options.
func (l *ledger) entries(st statuses, want func(sv *serving, class int) bool) []entry {
	var out []entry
	for i, sv := range l.services {
		for class, d := range sv.demand {
			if d > 0 && (want == nil || want(sv, class)) {
				out = l.book(out, i, class, st[sv.m])
			}
		}
	}
	return out
}

// book enters one class: an entry for each group of its first open tier, which
// prefers its own group, then the others of the tier, then the next tiers.
func (l *ledger) book(out []entry, service, class int, st []status) []entry {
	sv := l.services[service]
	ranked := sv.m.ranked[class]
	first := slices.IndexFunc(ranked, func(c placement.Candidate) bool { return c.Tier != noTier && st[c.Cluster].open() })
	if first < 0 {
		return out
	}
	t := sv.m.layout(class).tiers[ranked[first].Tier]
	if len(t) == 1 {
		return append(out, l.entry(service, class, sv.demand[class], nil, ranked[first:], st))
	}
	groups := openGroups(t, st)
	weights := make([]int64, len(groups))
	for k, g := range groups {
		weights[k] = int64(g.weight)
	}
	left := sv.demand[class]
	for k, g := range groups {
		d := sv.demand[class] * int64(g.weight) / whole
		if k == len(groups)-1 {
			d = left
		}
		left -= d
		if d > 0 {
			out = append(out, l.entry(service, class, d, g.clusters, ranked[first:], st))
		}
	}
	return out
}

func (l *ledger) entry(service, class int, demand int64, prefer []uint16, ranked []placement.Candidate, st []status) entry {
	sv := l.services[service]
	e := entry{service: service, class: class, demand: demand,
		options: make([]solve.Option, 0, len(ranked)), clusters: make([]uint16, 0, len(ranked))}
	for pass := range 2 { // own group first, tier by tier
		for _, c := range ranked {
			s := st[c.Cluster]
			own := c.Tier > ranked[0].Tier || prefer == nil || slices.Contains(prefer, c.Cluster)
			if c.Tier == noTier || !s.open() || own == (pass == 1) {
				continue
			}
			o := solve.Option{Cluster: sv.fleet[c.Cluster], Rank: 2 * int32(c.Tier), Cost: int32(c.Cost), Limit: solve.Unlimited}
			if !own {
				o.Rank++
			}
			if s.limit < whole {
				o.Limit = (demand*int64(s.limit) + whole/2) / whole
			}
			e.options = append(e.options, o)
			e.clusters = append(e.clusters, c.Cluster)
		}
	}
	e.sort()
	return e
}

// sort brings options and clusters into the solver's order: price, then the
// order in which they rank.
func (e *entry) sort() {
	if slices.IsSortedFunc(e.options, compareOptions) {
		return
	}
	order := make([]int, len(e.options))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return compareOptions(e.options[a], e.options[b]) })
	options, clusters := slices.Clone(e.options), slices.Clone(e.clusters)
	for i, k := range order {
		e.options[i], e.clusters[i] = options[k], clusters[k]
	}
}

func compareOptions(a, b solve.Option) int {
	if a.Rank != b.Rank {
		return int(a.Rank - b.Rank)
	}
	return int(a.Cost - b.Cost)
}

// solve fits the entries into capacity, warm from the divisions before, and
// writes the result into the services. With before, it refuses to touch anything
// when what it was given does not suffice, and says so.
func (l *ledger) solve(entries []entry, capacity []int64, before [][][]part) bool {
	p := &solve.Problem{Capacity: capacity, Classes: make([]solve.Class, len(entries))}
	for i := range entries {
		p.Classes[i] = solve.Class{Demand: entries[i].demand, Options: entries[i].options}
	}
	var prev [][]solve.Part
	if before != nil {
		prev = l.warm(entries, before)
	}
	r := solve.Solve(p, prev)
	partial := len(capacity) > 0 && &capacity[0] != &l.capacity[0]
	if partial && (r.Unserved > 0 || r.ScaleNum > r.ScaleDen) {
		return false
	}
	l.write(entries, r.Parts)
	return true
}

// warm turns earlier divisions into parts of the entries.
func (l *ledger) warm(entries []entry, before [][][]part) [][]solve.Part {
	out := make([][]solve.Part, len(entries))
	for from := 0; from < len(entries); {
		to := from + 1
		for to < len(entries) && entries[to].class == entries[from].class && entries[to].service == entries[from].service {
			to++
		}
		sv := l.services[entries[from].service]
		loads := make([]int64, len(sv.fleet))
		for _, p := range before[entries[from].service][entries[from].class] {
			loads[p.cluster] = (sv.demand[entries[from].class]*int64(p.perMille) + whole - 1) / whole
		}
		for own := range 2 {
			for i := from; i < to; i++ {
				out[i] = entries[i].draw(out[i], loads, int32(own))
			}
		}
		from = to
	}
	return out
}

// draw lets an entry claim what its class had on its options: first on those of
// its own group (even ranks), then on the others.
func (e *entry) draw(parts []solve.Part, loads []int64, odd int32) []solve.Part {
	left := e.demand
	for _, p := range parts {
		left -= p.Load
	}
	for o := range e.options {
		if e.options[o].Rank%2 != odd {
			continue
		}
		if take := min(left, loads[e.clusters[o]], e.options[o].Limit); take > 0 {
			parts = append(parts, solve.Part{Option: int32(o), Load: take})
			loads[e.clusters[o]] -= take
			left -= take
		}
	}
	return parts
}

// write turns the solver's parts into per mille of each class.
func (l *ledger) write(entries []entry, solved [][]solve.Part) {
	for from := 0; from < len(entries); {
		sv, class := l.services[entries[from].service], entries[from].class
		var parts []part
		var weights []int64
		to := from
		for ; to < len(entries) && entries[to].class == class && l.services[entries[to].service] == sv; to++ {
			for _, sp := range solved[to] {
				c := entries[to].clusters[sp.Option]
				k := slices.IndexFunc(parts, func(p part) bool { return p.cluster == c })
				if k < 0 {
					k = len(parts)
					parts, weights = append(parts, part{cluster: c}), append(weights, 0)
				}
				weights[k] += sp.Load
			}
		}
		from = to
		if parts = rounded(sv.m, parts, weights); parts != nil && !slices.Equal(parts, sv.parts[class]) {
			sv.set(class, parts)
		}
	}
}

// rounded gives whole per mille; nil when nothing was placed, and policy alone decides.
func rounded(m *market, parts []part, weights []int64) []part {
	if len(parts) == 1 {
		return m.single[parts[0].cluster]
	}
	for i, pm := range apportion(weights, whole) {
		parts[i].perMille = pm
	}
	parts = slices.DeleteFunc(parts, func(p part) bool { return p.perMille == 0 })
	if len(parts) == 1 {
		return m.single[parts[0].cluster]
	}
	return parts
}
