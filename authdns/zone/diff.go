package zone

import (
	"slices"

	"github.com/miekg/dns"
)

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

// Shape says what a name means for those below it.
type Shape uint8

// The shapes.
const (
	Plain    Shape = iota // a name below it that is not in the zone does not exist
	Wild                  // it has a wildcard (RFC 4592)
	Redirect              // it has a DNAME (RFC 6672)
	Cut                   // it is delegated
)

// Visit calls visit for every name that is not below a cut, empty ones among
// them, in no particular order, with the types that the file holds there.
func (z *Zone) Visit(visit func(name string, types []uint16, s Shape)) {
	z.walk(func(name string, n *node, under bool) {
		if under {
			return
		}
		types := make([]uint16, len(n.sets))
		for i := range n.sets {
			types[i] = n.sets[i].Type
		}
		shape := Plain
		switch {
		case n != z.root && n.cut():
			shape = Cut
		case n.set(dns.TypeDNAME) != nil:
			shape = Redirect
		case n.kids["*"] != nil:
			shape = Wild
		}
		visit(name, types, shape)
	})
}

// join puts a label before a name; the root has no dot to spare.
func join(label, name string) string {
	if name == "." {
		return label + "."
	}
	return label + "." + name
}
