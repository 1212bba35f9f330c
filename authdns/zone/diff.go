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
	return Change{Lost: old.without(new), Added: new.without(old)}
}

// without returns the names with records which another version lacks, sorted.
func (z *Zone) without(other *Zone) []string {
	var out []string
	if z == nil {
		return nil
	}
	var pace pacer
	var pair func(n, o *node)
	pair = func(n, o *node) {
		pace.step()
		if n == o {
			return // shared by With or Plus
		}
		if len(n.sets) > 0 && (o == nil || len(o.sets) == 0) {
			out = append(out, n.name)
		}
		for _, k := range n.below() {
			pair(k, o.kid(k.label()))
		}
	}
	if other == nil {
		other = &Zone{}
	}
	pair(z.root, other.root)
	slices.Sort(out)
	return out
}

// Names returns the names which have records, glue included, sorted; none of a
// nil Zone.
func (z *Zone) Names() []string { return z.without(nil) }

// walk visits every node, in no particular order; under tells that the node
// lies below a cut.
func (z *Zone) walk(visit func(name string, n *node, under bool)) {
	var pace pacer
	var down func(n *node, under bool)
	down = func(n *node, under bool) {
		pace.step()
		visit(n.name, n, under)
		under = under || (n != z.root && n.cut())
		for _, k := range n.below() {
			down(k, under)
		}
	}
	down(z.root, false)
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
// them, in no particular order, with the types that the file holds there, and what was
// laid over it by With. The types are good until visit returns.
func (z *Zone) Visit(visit func(name string, types []uint16, mark any, s Shape)) {
	var types []uint16
	z.walk(func(name string, n *node, under bool) {
		if under {
			return
		}
		types = types[:0]
		for i := range n.sets {
			types = append(types, n.sets[i].Type)
		}
		shape := Plain
		switch {
		case n != z.root && n.cut():
			shape = Cut
		case n.set(dns.TypeDNAME) != nil:
			shape = Redirect
		case n.kid("*") != nil:
			shape = Wild
		}
		var mark any
		if n.mark != nil {
			mark = n.mark.Value
		}
		visit(name, types, mark, shape)
	})
}

// join puts a label before a name; the root has no dot to spare.
func join(label, name string) string {
	if name == "." {
		return label + "."
	}
	return label + "." + name
}
