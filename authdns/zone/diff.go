package zone

import "slices"

// Change is how the owner names of two versions differ; both lists are sorted.
type Change struct {
	Lost, Added []string
}

// Diff compares the names with records of two versions; either may be nil.
// The shrink rule judges Lost against the number of names there were.
func Diff(old, new *Zone) Change {
	before, after := old.Names(), new.Names()
	return Change{Lost: without(before, after), Added: without(after, before)}
}

// without returns the names of a that are not in b; both are sorted.
func without(a, b []string) []string {
	var out []string
	for _, n := range a {
		if _, ok := slices.BinarySearch(b, n); !ok {
			out = append(out, n)
		}
	}
	return out
}

// Names returns the names which have records, glue included, sorted; none of a
// nil Zone.
func (z *Zone) Names() []string {
	if z == nil {
		return nil
	}
	out := make([]string, 0, z.Owners)
	z.walk(func(name string, n *node, _ bool) {
		if len(n.sets) > 0 {
			out = append(out, name)
		}
	})
	slices.Sort(out)
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

// Visit calls visit for every name with records or a mark that is not below a
// cut, in no particular order, with the types that the file holds there.
func (z *Zone) Visit(visit func(name string, types []uint16)) {
	z.walk(func(name string, n *node, under bool) {
		if under || (len(n.sets) == 0 && n.mark == nil) {
			return
		}
		types := make([]uint16, len(n.sets))
		for i := range n.sets {
			types[i] = n.sets[i].Type
		}
		visit(name, types)
	})
}

// join puts a label before a name; the root has no dot to spare.
func join(label, name string) string {
	if name == "." {
		return label + "."
	}
	return label + "." + name
}
