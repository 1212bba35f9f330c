package zone

import (
	"iter"
	"maps"
	"slices"

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
	for _, l := range slices.Sorted(maps.Keys(n.kids)) {
		if !n.kids[l].all(yield) {
			return false
		}
	}
	return true
}

// Changes returns the records, without the SOA, by which two versions differ:
// those that only the old one has, and those that only the new one has. A record
// with another TTL is another record.
func Changes(old, next *Zone) (removed, added []dns.RR) {
	d := differ{}
	d.nodes(old.root, next.root)
	d.nodes(old.shade, next.shade)
	return d.removed, d.added
}

// differ collects what two trees do not have in common.
type differ struct{ removed, added []dns.RR }

// nodes compares two nodes of one name and what lies below them; either may be nil.
func (d *differ) nodes(old, next *node) {
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
	labels := slices.Collect(maps.Keys(old.kids))
	for l := range next.kids {
		if old.kids[l] == nil {
			labels = append(labels, l)
		}
	}
	slices.Sort(labels)
	for _, l := range labels {
		d.nodes(old.kids[l], next.kids[l])
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
	}
	return out
}

// place puts a record into its set without a look at the others.
func (n *node) place(rr dns.RR) {
	t := rr.Header().Rrtype
	if s := n.set(t); s != nil {
		s.RRs = append(s.RRs, rr)
		return
	}
	i, _ := slices.BinarySearchFunc(n.sets, t, func(s RRset, t uint16) int { return int(s.Type) - int(t) })
	n.sets = slices.Insert(n.sets, i, RRset{Type: t, RRs: []dns.RR{rr}})
}
