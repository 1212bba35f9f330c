package zone

import (
	"maps"
	"slices"
)

// Change is how the owner names of two versions differ; both lists are sorted.
type Change struct {
	Lost, Added []string
}

// Diff compares the names with records of two versions; either may be nil.
// The shrink rule judges Lost against the number of names there were.
func Diff(old, new *Zone) Change {
	before, after := old.owners(), new.owners()
	var c Change
	for _, n := range slices.Sorted(maps.Keys(before)) {
		if !after[n] {
			c.Lost = append(c.Lost, n)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(after)) {
		if !before[n] {
			c.Added = append(c.Added, n)
		}
	}
	return c
}

func (z *Zone) owners() map[string]bool {
	out := make(map[string]bool)
	if z == nil {
		return out
	}
	z.walk(func(name string, n *node, _ bool) {
		if len(n.sets) > 0 {
			out[name] = true
		}
	})
	return out
}

// walk visits every node, in no particular order; under tells that the node
// lies below a cut.
func (z *Zone) walk(visit func(name string, n *node, under bool)) {
	var down func(name string, n *node, under bool)
	down = func(name string, n *node, under bool) {
		visit(name, n, under)
		under = under || (n != z.root && n.cut())
		for l, k := range n.kids {
			down(join(l, name), k, under)
		}
	}
	down(z.Origin, z.root, false)
}

func join(label, name string) string {
	if name == "." {
		return label + "."
	}
	return label + "." + name
}
