package zone

import (
	"slices"

	"github.com/miekg/dns"
)

// Grown returns the zone with records more than it has, beside those which are there. Names outside the
// zone are passed over; the receiver stays as it is and shares all untouched nodes.
func (z *Zone) Grown(rrs []dns.RR) *Zone {
	var marks []Mark
	for _, rr := range rrs {
		marks = append(marks, Mark{Name: rr.Header().Name})
	}
	out := z.With(marks) // makes nodes of our own along the way to each record
	fresh := make(map[*node]bool)
	for _, rr := range rrs {
		n := out.node(Canonical(rr.Header().Name))
		if n == nil {
			continue
		}
		if !fresh[n] {
			fresh[n] = true
			n.mark = nil // the one that With has put there is gone, the caller's own comes back
			if was := z.node(Canonical(rr.Header().Name)); was != nil {
				n.mark = was.mark
			}
			// Adding to an RRset may lower its TTL: the records before keep theirs.
			n.sets = slices.Clone(n.sets)
			for i := range n.sets {
				n.sets[i].RRs = cloneRRs(n.sets[i].RRs)
			}
		}
		if n.open(rr.Header().Rrtype).add(dns.Copy(rr)) {
			out.Records++
			out.Redirects = out.Redirects || rr.Header().Rrtype == dns.TypeDNAME
		}
	}
	return out
}

// cloneRRs copies records whose headers are to be written.
func cloneRRs(rrs []dns.RR) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
	}
	return out
}

// Held is what a zone has at a name, whatever its wildcards make of it.
type Held struct {
	// Types are those of the file, in order; at a cut NS and DS alone, since the
	// others belong to the child.
	Types []uint16
	Mark  any
	// Exists is set for a name of the zone, an empty one too; Wildcard where the
	// types are a wildcard's.
	Exists, Wildcard bool
}

// At returns what the zone has at a name in canonical form. Below a cut or a DNAME
// it has nothing.
func (z *Zone) At(name string) Held {
	rest, ok := within(name, z.Origin)
	if !ok {
		return Held{}
	}
	n := z.root
	for label := ""; rest != ""; {
		if n.set(dns.TypeDNAME) != nil {
			return Held{}
		}
		label, rest = topmost(rest)
		kid := n.kid(label)
		if kid == nil {
			w := n.kid("*")
			if w == nil {
				return Held{}
			}
			h := w.held(false)
			h.Exists, h.Wildcard = false, true
			return h
		}
		if n = kid; n.cut() && rest != "" {
			return Held{}
		}
	}
	return n.held(n != z.root && n.cut())
}

// held is what a node has for a proof: at a cut its own records are the child's.
func (n *node) held(cut bool) Held {
	h := Held{Exists: true}
	for i := range n.sets {
		if t := n.sets[i].Type; !cut || t == dns.TypeDS {
			h.Types = append(h.Types, t)
		}
	}
	if cut { // a cut that was laid over the zone has no NS records in the file
		h.Types = append(h.Types, dns.TypeNS)
	} else if n.mark != nil {
		h.Mark = n.mark.Value
	}
	return h
}
