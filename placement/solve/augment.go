package solve

import (
	"math"
	"slices"
)

// augment serves what the fill left over: for each such class the shortest
// chain of moves on the graph of clusters that ends at one with room. Where
// there is none, the clusters it could reach are all full and hold nobody who
// could live elsewhere, so the same factor for all is stretched until they bear
// it: the least factor under which everybody is served.
func (s *state) augment() {
	var g *graph
	for i := range s.left {
		for s.left[i] > 0 {
			if g == nil {
				g = newGraph(s)
			}
			if !g.push(i) && !s.relieve(i, g.reached) {
				s.unserved += s.left[i]
				break
			}
		}
	}
}

// relieve stretches capacities so that the clusters in reach hold what is left
// of the class too; false when they have no capacity at all.
func (s *state) relieve(class int, reached []bool) bool {
	var load, capacity int64
	for c, in := range reached {
		if in && s.p.Capacity[c] > 0 {
			load += s.load[c]
			capacity += s.p.Capacity[c]
		}
	}
	if capacity == 0 {
		return false
	}
	s.stretch(load+s.left[class], capacity)
	return true
}

// graph has an edge from a to b when some class has load on a and an option on b.
type graph struct {
	s       *state
	classes [][]int // by cluster: classes that have (or had) load there
	edges   [][]edge
	dirty   []bool
	// of the last search
	dist    []int64
	via     []edge
	done    []bool
	reached []bool
}

// edge moves load of a class from one option to another.
type edge struct {
	class    int
	from, to int32 // options; from is -1 where the class enters
	price    int64
}

const noPrice = math.MaxInt64

func newGraph(s *state) *graph {
	n := len(s.capacity)
	g := &graph{s: s, classes: make([][]int, n), edges: make([][]edge, n), dirty: make([]bool, n),
		dist: make([]int64, n), via: make([]edge, n), done: make([]bool, n), reached: make([]bool, n)}
	for i, parts := range s.parts {
		for _, part := range parts {
			c := g.cluster(i, part.Option)
			g.classes[c] = append(g.classes[c], i)
		}
	}
	for c := range g.dirty {
		g.dirty[c] = true
	}
	return g
}

func (g *graph) cluster(class int, option int32) int32 {
	return g.s.p.Classes[class].Options[option].Cluster
}

// note records that a class has load on an option's cluster.
func (g *graph) note(class int, option int32) {
	c := g.cluster(class, option)
	if !slices.Contains(g.classes[c], class) {
		g.classes[c] = append(g.classes[c], class)
	}
	g.dirty[c] = true
}

// push moves as much of a class as one path takes; false when there is none.
func (g *graph) push(class int) bool {
	end := g.search(class)
	if end < 0 {
		return false
	}
	path := g.path(end)
	amount := min(g.s.left[class], g.s.room(end))
	for _, e := range path {
		amount = min(amount, g.s.space(e.class, e.to))
		if e.from >= 0 {
			amount = min(amount, g.s.on(e.class, e.from))
		}
	}
	for _, e := range path {
		g.soil(e.class)
		if e.from >= 0 {
			g.s.put(e.class, e.from, -amount)
		}
		g.s.put(e.class, e.to, amount)
		g.note(e.class, e.to)
	}
	g.s.left[class] -= amount
	return true
}

// soil marks every cluster that a class has load on: its limits there have changed.
func (g *graph) soil(class int) {
	for _, part := range g.s.parts[class] {
		g.dirty[g.cluster(class, part.Option)] = true
	}
}

// path lists the moves which end at a cluster, last one first.
func (g *graph) path(end int32) []edge {
	var out []edge
	for c := end; ; {
		e := g.via[c]
		out = append(out, e)
		if e.from < 0 {
			return out
		}
		c = g.cluster(e.class, e.from)
	}
}

// search finds the nearest cluster with room (Dijkstra on dense arrays; moves
// that would save cost count as free, which keeps prices from falling).
func (g *graph) search(class int) int32 {
	for c := range g.dist {
		g.dist[c], g.done[c], g.reached[c] = noPrice, false, false
	}
	for o := range g.s.p.Classes[class].Options {
		option := &g.s.p.Classes[class].Options[o]
		if g.s.p.Capacity[option.Cluster] > 0 && g.s.space(class, int32(o)) > 0 {
			g.offer(option.Cluster, option.price(), edge{class: class, from: -1, to: int32(o)})
		}
	}
	for {
		c := g.nearest()
		if c < 0 {
			return -1
		}
		g.done[c], g.reached[c] = true, true
		if g.s.room(c) > 0 {
			return c
		}
		for _, e := range g.from(c) {
			g.offer(g.cluster(e.class, e.to), g.dist[c]+e.price, e)
		}
	}
}

func (g *graph) offer(c int32, dist int64, e edge) {
	if dist < g.dist[c] {
		g.dist[c], g.via[c] = dist, e
	}
}

func (g *graph) nearest() int32 {
	best := int32(-1)
	for c := range g.dist {
		if !g.done[c] && g.dist[c] < noPrice && (best < 0 || g.dist[c] < g.dist[best]) {
			best = int32(c)
		}
	}
	return best
}

// from returns the cheapest move to each other cluster, computed anew only
// after something on this one has changed.
func (g *graph) from(c int32) []edge {
	if !g.dirty[c] {
		return g.edges[c]
	}
	best := make([]edge, len(g.dist))
	for i := range best {
		best[i].price = noPrice
	}
	g.classes[c] = slices.DeleteFunc(g.classes[c], func(class int) bool { return !g.leave(c, class, best) })
	out := g.edges[c][:0]
	for _, e := range best {
		if e.price < noPrice {
			out = append(out, e)
		}
	}
	g.edges[c], g.dirty[c] = out, false
	return out
}

// leave enters the moves of one class away from c into best; false when it has
// no load there any more.
func (g *graph) leave(c int32, class int, best []edge) bool {
	options, here := g.s.p.Classes[class].Options, false
	for _, part := range g.s.parts[class] {
		if options[part.Option].Cluster != c {
			continue
		}
		here = true
		for o := range options {
			to := &options[o]
			if to.Cluster == c || g.s.p.Capacity[to.Cluster] == 0 || g.s.space(class, int32(o)) == 0 {
				continue
			}
			price := max(0, to.price()-options[part.Option].price())
			if price < best[to.Cluster].price {
				best[to.Cluster] = edge{class, part.Option, int32(o), price}
			}
		}
	}
	return here
}
