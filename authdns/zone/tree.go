package zone

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// RRset is all records of one type at one name, with one TTL (RFC 2181 section 5).
type RRset struct {
	Type uint16
	RRs  []dns.RR
}

// Mark says that the answer of a name comes from elsewhere.
type Mark struct {
	Name string
	// Cut makes the name a zone cut; Value then says who serves the child.
	Cut bool
	// Value belongs to the caller and comes back in Result.Mark.
	Value any
}

// Zone is one version of a zone; it is immutable and safe for concurrent use.
type Zone struct {
	// Origin is lower case and fully qualified.
	Origin string
	root   *node
	// shade holds what belongs to hashed names, apart from the names themselves.
	shade *node
	// Signed is set where the owner of the zone has signed it.
	Signed *Signed
	// Records and Owners count the records and the names which have any, as the
	// file holds them, marks excluded.
	Records, Owners int
}

// node is a name of the tree. The zero node is an empty non-terminal.
type node struct {
	sets []RRset // in order of type
	kids map[string]*node
	mark *Mark
}

// set returns the RRset of a type, or nil.
func (n *node) set(t uint16) *RRset {
	i, ok := slices.BinarySearchFunc(n.sets, t, func(s RRset, t uint16) int { return int(s.Type) - int(t) })
	if !ok {
		return nil
	}
	return &n.sets[i]
}

// add puts a record into its RRset. Duplicates are dropped, and the lowest TTL
// of an RRset holds for all of it (RFC 2181 section 5.2). Signatures are no RRset:
// each has the TTL of what it covers (RFC 4034 section 3).
func (n *node) add(rr dns.RR) (added bool) {
	t := rr.Header().Rrtype
	i, ok := slices.BinarySearchFunc(n.sets, t, func(s RRset, t uint16) int { return int(s.Type) - int(t) })
	if !ok {
		n.sets = slices.Insert(n.sets, i, RRset{Type: t})
	}
	s := &n.sets[i]
	if slices.ContainsFunc(s.RRs, func(o dns.RR) bool { return dns.IsDuplicate(o, rr) }) {
		return false
	}
	s.RRs = append(s.RRs, rr)
	if t == dns.TypeRRSIG {
		return true
	}
	ttl := min(rr.Header().Ttl, s.RRs[0].Header().Ttl)
	for _, o := range s.RRs {
		o.Header().Ttl = ttl
	}
	return true
}

// labels returns the labels of name below origin, the topmost first; ok is
// false when name does not lie in the zone. Both are in canonical form.
func labels(name, origin string) (out []string, ok bool) {
	if name == origin {
		return nil, true
	}
	if !dns.IsSubDomain(origin, name) {
		return nil, false
	}
	all := dns.SplitDomainName(name)
	out = all[:len(all)-dns.CountLabel(origin)]
	slices.Reverse(out)
	return out, true
}

// node returns the node of a name whatever lies above it, or nil.
func (z *Zone) node(name string) *node {
	path, ok := labels(name, z.Origin)
	if !ok {
		return nil
	}
	n := z.root
	for _, l := range path {
		if n = n.kids[l]; n == nil {
			return nil
		}
	}
	return n
}

// RRset returns the records of a name and type as they stand in the file, glue
// included, or nil.
func (z *Zone) RRset(name string, t uint16) []dns.RR {
	n := z.node(Canonical(name))
	if n == nil {
		return nil
	}
	if s := n.set(t); s != nil {
		return s.RRs
	}
	return nil
}

// Mark returns what was laid over a name by With, or nil.
func (z *Zone) Mark(name string) any {
	if n := z.node(Canonical(name)); n != nil && n.mark != nil {
		return n.mark.Value
	}
	return nil
}

// SOA returns the start of authority.
func (z *Zone) SOA() *dns.SOA { return z.root.set(dns.TypeSOA).RRs[0].(*dns.SOA) }

// With returns the zone with marks laid over it. Names outside the zone are
// passed over; the receiver stays as it is and shares all untouched nodes.
func (z *Zone) With(marks []Mark) *Zone {
	out := *z
	fresh := make(map[*node]bool)
	clone := func(n *node) *node {
		if n == nil {
			n = &node{}
		} else if !fresh[n] {
			c := *n
			c.kids = make(map[string]*node, len(n.kids)+1)
			for l, k := range n.kids {
				c.kids[l] = k
			}
			n = &c
		}
		if n.kids == nil {
			n.kids = make(map[string]*node)
		}
		fresh[n] = true
		return n
	}
	out.root = clone(z.root)
	for i := range marks {
		path, ok := labels(Canonical(marks[i].Name), z.Origin)
		if !ok {
			continue
		}
		n := out.root
		for _, l := range path {
			n.kids[l] = clone(n.kids[l])
			n = n.kids[l]
		}
		n.mark = &marks[i]
	}
	return &out
}

// Canonical returns a name in the form in which names are compared: lower case,
// fully qualified, each octet escaped in the one way in which it is unpacked
// from a message (RFC 4034 section 6.2). A name that cannot be packed comes
// back in lower case only.
func Canonical(name string) string {
	name = dns.CanonicalName(name)
	if !strings.ContainsRune(name, '\\') {
		return name
	}
	buf := make([]byte, 255)
	if _, err := dns.PackDomainName(name, buf, 0, nil, false); err != nil {
		return name
	}
	s, _, err := dns.UnpackDomainName(buf, 0)
	if err != nil {
		return name
	}
	return dns.CanonicalName(s)
}
