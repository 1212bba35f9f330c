package zone

import (
	"iter"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// Size is the number of records, those which Plus has laid over it included.
func (z *Zone) Size() int { return z.Records }

// All gives every record but the SOA, glue included: a name before those below it,
// the names beside each other and the types in order. They belong to the zone:
// copy before packing. Marks are passed over.
func (z *Zone) All() iter.Seq[dns.RR] {
	return func(yield func(dns.RR) bool) { _ = z.root.all(yield) && z.shade.all(yield) }
}

// all walks a node and what lies below; false means that nobody wants more.
func (n *node) all(yield func(dns.RR) bool) bool {
	for i := range n.sets {
		for _, rr := range n.sets[i].RRs {
			if n.sets[i].Type != dns.TypeSOA && !yield(rr) {
				return false
			}
		}
	}
	for _, k := range n.sorted() {
		if !k.all(yield) {
			return false
		}
	}
	return true
}

// sorted returns the nodes right below one by label.
func (n *node) sorted() []*node {
	return slices.SortedFunc(slices.Values(n.below()), func(a, b *node) int { return strings.Compare(a.label(), b.label()) })
}

// Changes returns the records, without the SOA, by which two versions differ:
// those that only the old one has, and those that only the new one has. A record
// with another TTL is another record. They are copies, since those who remember what has
// gone would otherwise keep whole versions that have gone with it.
func Changes(old, next *Zone) (removed, added []dns.RR) {
	d := differ{}
	d.nodes(old.root, next.root)
	d.nodes(old.shade, next.shade)
	return alone(d.removed), alone(d.added)
}

// alone returns copies of records that share no memory with their zone, but for names
// within them.
func alone(rrs []dns.RR) []dns.RR {
	for i, rr := range rrs {
		rrs[i] = dns.Copy(rr)
		rrs[i].Header().Name = strings.Clone(rr.Header().Name)
	}
	return rrs
}

// differ collects what two trees do not have in common.
type differ struct {
	removed, added []dns.RR
	pace           pacer
}

// nodes compares two nodes of one name and what lies below them; either may be nil.
func (d *differ) nodes(old, next *node) {
	d.pace.step()
	if old == next {
		return // shared by With or Plus
	}
	var none node
	if old == nil {
		old = &none
	}
	if next == nil {
		next = &none
	}
	d.sets(old, next)
	for _, k := range old.below() {
		d.nodes(k, next.kid(k.label()))
	}
	for _, k := range next.below() {
		if l := k.label(); old.kid(l) == nil {
			d.nodes(nil, k)
		}
	}
}

// sets compares the RRsets of two nodes.
func (d *differ) sets(old, next *node) {
	for i := range old.sets {
		s := &old.sets[i]
		d.removed = append(d.removed, missing(s, next.set(s.Type))...)
	}
	for i := range next.sets {
		s := &next.sets[i]
		d.added = append(d.added, missing(s, old.set(s.Type))...)
	}
}

// missing returns the records of a set which another one lacks.
func missing(s, other *RRset) []dns.RR {
	if s.Type == dns.TypeSOA {
		return nil
	}
	if other == nil {
		return s.RRs
	}
	var out []dns.RR
	for _, rr := range s.RRs {
		if !slices.ContainsFunc(other.RRs, func(o dns.RR) bool { return o.Header().Ttl == rr.Header().Ttl && dns.IsDuplicate(o, rr) }) {
			out = append(out, rr)
		}
	}
	return out
}

// Plus returns the zone with records laid over it: of each name and type that they
// have they take the place of what stood there. Those outside the zone are passed
// over. The receiver stays as it is and shares what is not touched.
func (z *Zone) Plus(rrs []dns.RR) *Zone {
	var marks []Mark
	for _, rr := range rrs {
		marks = append(marks, Mark{Name: rr.Header().Name})
	}
	out := z.With(marks) // fresh nodes along each path
	type place struct {
		n *node
		t uint16
	}
	cleared := make(map[place]bool)
	for _, rr := range rrs {
		n := out.node(Canonical(rr.Header().Name))
		if n == nil {
			continue
		}
		if n.mark != nil { // the sets still are the receiver's
			n.mark, n.sets = nil, slices.Clone(n.sets)
			for i := range n.sets {
				n.sets[i].RRs = slices.Clone(n.sets[i].RRs)
			}
		}
		p := place{n, rr.Header().Rrtype}
		if s := n.set(p.t); s != nil && !cleared[p] {
			out.Records -= len(s.RRs)
			s.RRs = nil
		}
		cleared[p] = true
		n.place(rr)
		out.Records++
		out.Redirects = out.Redirects || p.t == dns.TypeDNAME
	}
	return out
}

// place puts a record into its set without a look at the others.
func (n *node) place(rr dns.RR) {
	s := n.open(rr.Header().Rrtype)
	s.RRs = append(s.RRs, rr)
}
