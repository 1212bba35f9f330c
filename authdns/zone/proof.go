package zone

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Signed is what the owner of a zone has put into it for those who validate. It
// is immutable. What it proves depends on no key, so whoever holds the zone can
// answer with it.
type Signed struct {
	// Expires is when the first of the RRsets is left without a valid signature.
	Expires time.Time
	// File, Line and Column are the place of the SOA's signature, for complaints.
	Line, Column int
	// Iterations are those of NSEC3, 0 with NSEC.
	Iterations uint16

	chain []link
	// hashed is set where the chain is of NSEC3; then keys are hashes.
	hashed bool
	hashing
}

// Proof is an NSEC or NSEC3 record with its signatures. They belong to the zone:
// copy before packing. Equal proofs are one pointer.
type Proof struct {
	RR   dns.RR
	Sigs []dns.RR
}

// link is a proof at its place in the chain.
type link struct {
	key  string
	next string // the key of the record's next name
	Proof
}

// optOut tells whether insecure delegations may hide between a link and the next
// (RFC 5155 section 6).
func (l *link) optOut() bool {
	rr, ok := l.RR.(*dns.NSEC3)
	return ok && rr.Flags&1 != 0
}

// match returns the link of a key, nil for none.
func (s *Signed) match(key string) *link {
	i, ok := slices.BinarySearchFunc(s.chain, key, func(l link, key string) int { return strings.Compare(l.key, key) })
	if !ok {
		return nil
	}
	return &s.chain[i]
}

// cover returns the link between which and its next a key lies: the last one
// before it, or, before all of them, the last of the ring.
func (s *Signed) cover(key string) *link {
	i, _ := slices.BinarySearchFunc(s.chain, key, func(l link, key string) int { return strings.Compare(l.key, key) })
	return &s.chain[(i+len(s.chain)-1)%len(s.chain)]
}

// key is the place of a name in the chain.
func (s *Signed) key(name string) string {
	if s.hashed {
		return s.of(name)
	}
	return orderKey(name)
}

// at returns the link of a name where there is one, else the one that covers it.
func (s *Signed) at(name string) *link {
	key := s.key(name)
	if l := s.match(key); l != nil {
		return l
	}
	return s.cover(key)
}

// proofs collects links, each once.
type proofs []*Proof

func (p *proofs) add(links ...*link) {
	for _, l := range links {
		if !slices.Contains(*p, &l.Proof) {
			*p = append(*p, &l.Proof)
		}
	}
}

// Deny proves that a name which Lookup finds no answer for does not exist, or has
// not the type: by itself, or by the wildcard that speaks for it (RFC 4035 section
// 3.1.3, RFC 5155 section 7.2). Of a zone that is not signed it is empty.
func (z *Zone) Deny(name string) []*Proof {
	s := z.Signed
	if s == nil {
		return nil
	}
	var out proofs
	encloser, exact := z.encloser(name)
	switch {
	case exact && s.hashed:
		s.existing(&out, name, z.Origin)
	case exact:
		out.add(s.at(name)) // an empty name has none of its own: the one before it goes past it
	case s.hashed:
		encloser = s.enclosed(&out, name, encloser, z.Origin)
		out.add(s.at(join("*", encloser)))
	default:
		out.add(s.at(name), s.at(join("*", encloser)))
	}
	return out
}

// Expanded proves that nothing stood closer to a name than the wildcard which it
// was answered from (RFC 4035 section 3.1.3.3, RFC 5155 section 7.2.6).
func (z *Zone) Expanded(name string) []*Proof {
	s := z.Signed
	if s == nil {
		return nil
	}
	var out proofs
	if s.hashed {
		encloser, _ := z.encloser(name)
		out.add(s.at(below(name, encloser)))
	} else {
		out.add(s.at(name))
	}
	return out
}

// Insecure proves that a cut has no DS (RFC 4035 section 3.1.4.1, RFC 5155
// section 7.2.7).
func (z *Zone) Insecure(cut string) []*Proof {
	s := z.Signed
	if s == nil {
		return nil
	}
	var out proofs
	if s.hashed {
		s.existing(&out, cut, z.Origin)
	} else {
		out.add(s.at(cut))
	}
	return out
}

// existing adds the NSEC3 of a name which exists. Where opting out has left it
// without one, the closest encloser that has one and the gap below that stand
// for it (RFC 5155 section 7.2.4).
func (s *Signed) existing(out *proofs, name, origin string) {
	if l := s.match(s.key(name)); l != nil {
		out.add(l)
		return
	}
	if name != origin {
		s.enclosed(out, name, ancestor(name, 1), origin)
	}
}

// enclosed adds the proof of the closest encloser: that it exists, and that the
// next closer name does not (RFC 5155 section 7.2.1). It returns the encloser,
// which opting out may have moved up.
func (s *Signed) enclosed(out *proofs, name, encloser, origin string) string {
	for {
		if l := s.match(s.key(encloser)); l != nil {
			out.add(l)
			break
		}
		if encloser == origin {
			break // not in a chain that was checked
		}
		encloser = ancestor(encloser, 1)
	}
	out.add(s.at(below(name, encloser)))
	return encloser
}

// encloser returns the longest existing name that a name ends with; exact is set
// where that is the name itself.
func (z *Zone) encloser(name string) (encloser string, exact bool) {
	rest, _ := within(name, z.Origin)
	n := z.root
	for rest != "" {
		label, left := topmost(rest)
		kid := n.kid(label)
		if kid == nil {
			return behind(name, rest), false
		}
		n, rest = kid, left
	}
	return name, true
}

// below returns the name one label longer than an encloser on the way to a name:
// the next closer name (RFC 5155 section 1.3).
func below(name, encloser string) string {
	return ancestor(name, dns.CountLabel(name)-dns.CountLabel(encloser)-1)
}

// Signatures returns the signatures of an RRset, which may be the wildcard's that
// the name is answered from; they belong to the zone.
func (z *Zone) Signatures(name string, t uint16) []dns.RR {
	n := z.node(name)
	if n == nil {
		encloser, _ := z.encloser(name)
		if n = z.node(join("*", encloser)); n == nil {
			return nil
		}
	}
	return n.sigs(t)
}

// sigs are the signatures of one type at a node.
func (n *node) sigs(t uint16) []dns.RR {
	s := n.set(dns.TypeRRSIG)
	if s == nil {
		return nil
	}
	var out []dns.RR
	for _, rr := range s.RRs {
		if rr.(*dns.RRSIG).TypeCovered == t {
			out = append(out, rr)
		}
	}
	return out
}
