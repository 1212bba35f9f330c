package zone

import (
	"slices"

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
	// Redirects is set where a record of the zone is a DNAME.
	Redirects bool
}

// node is a name of the tree. The zero node is an empty non-terminal.
type node struct {
	name string
	sets []RRset // in order of type
	kids *family // nil for none
	mark *Mark
}

// set returns the RRset of a type, or nil.
func (n *node) set(t uint16) *RRset {
	i, ok := n.find(t)
	if !ok {
		return nil
	}
	return &n.sets[i]
}

// open returns the RRset of a type, making an empty one where there is none.
func (n *node) open(t uint16) *RRset {
	i, ok := n.find(t)
	if !ok {
		n.sets = slices.Insert(n.sets, i, RRset{Type: t})
	}
	return &n.sets[i]
}

// find returns where the RRset of a type stands, or would.
func (n *node) find(t uint16) (int, bool) {
	return slices.BinarySearchFunc(n.sets, t, func(s RRset, t uint16) int { return int(s.Type) - int(t) })
}

// add puts a record of its type into an RRset. Duplicates are dropped, and the lowest TTL
// of an RRset holds for all of it (RFC 2181 section 5.2). Signatures are no RRset:
// each has the TTL of what it covers (RFC 4034 section 3).
func (s *RRset) add(rr dns.RR) (added bool) {
	if slices.ContainsFunc(s.RRs, func(o dns.RR) bool { return dns.IsDuplicate(o, rr) }) {
		return false
	}
	s.RRs = append(s.RRs, rr)
	if s.Type == dns.TypeRRSIG {
		return true
	}
	if ttl, first := rr.Header().Ttl, s.RRs[0].Header().Ttl; ttl != first {
		for _, o := range s.RRs {
			o.Header().Ttl = min(ttl, first)
		}
	}
	return true
}

// within returns what stands before origin in a name, without the dot between them; ok
// is false for a name that does not lie in the zone. Both are in canonical form.
func within(name, origin string) (rest string, ok bool) {
	at := len(name) - len(origin)
	switch {
	case at < 0 || name[at:] != origin:
		return "", false
	case at == 0:
		return "", true
	case origin == ".":
		return name[:at], true
	case name[at-1] != '.' || escaped(name, at-1):
		return "", false
	}
	return name[:at-1], true
}

// topmost cuts the last label off what stands before the origin.
func topmost(rest string) (label, left string) {
	for i := len(rest) - 1; i >= 0; i-- {
		if rest[i] == '.' && !escaped(rest, i) {
			return rest[i+1:], rest[:i]
		}
	}
	return rest, ""
}

// escaped tells whether an octet of a name is escaped: an odd number of backslashes
// stands before it.
func escaped(name string, i int) bool {
	n := 0
	for n < i && name[i-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// node returns the node of a name whatever lies above it, or nil.
func (z *Zone) node(name string) *node {
	rest, ok := within(name, z.Origin)
	n := z.root
	if !ok {
		return nil
	}
	for label := ""; rest != "" && n != nil; {
		label, rest = topmost(rest)
		n = n.kid(label)
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
	own := func(n *node) *node {
		if !fresh[n] {
			c := *n
			c.kids = n.kids.clone()
			n = &c
			fresh[n] = true
		}
		return n
	}
	out.root = own(z.root)
	for i := range marks {
		name := Canonical(marks[i].Name)
		rest, ok := within(name, z.Origin)
		if !ok {
			continue
		}
		n := out.root
		for label := ""; rest != ""; {
			label, rest = topmost(rest)
			at := n.kids.place(label)
			if at < 0 {
				at = len(n.kids.nodes)
				n.kids.add(&node{name: behind(name, rest)})
			}
			n.kids.nodes[at] = own(n.kids.nodes[at])
			n = n.kids.nodes[at]
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
	name = dns.Fqdn(name)
	plain, lower := true, true
	for i := range len(name) {
		c := name[i]
		plain = plain && !special(c)
		lower = lower && (c < 'A' || c > 'Z')
	}
	if !plain {
		buf := make([]byte, 255)
		if _, err := dns.PackDomainName(name, buf, 0, nil, false); err == nil {
			if s, _, err := dns.UnpackDomainName(buf, 0); err == nil {
				name, lower = s, false
			}
		}
	}
	if lower {
		return name
	}
	buf := []byte(name)
	toLower(buf)
	return string(buf)
}

// special tells whether an octet of a label is escaped, or escapes another.
func special(c byte) bool {
	switch c {
	case '\\', '"', '\'', '(', ')', ';', '@':
		return true
	}
	return c <= ' ' || c > '~'
}
