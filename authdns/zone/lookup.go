package zone

import (
	"github.com/miekg/dns"
)

// Kind is what a look-up met.
type Kind uint8

// The kinds of Result.
const (
	Answer     Kind = iota // RRs answer the question
	NoData                 // the name exists, the type does not (RFC 2308 section 2.2)
	NXDomain               // neither the name nor anything below it exists (RFC 8020)
	Delegation             // the name lies at or below a cut
	CNAME                  // RRs is the alias; its target is to be looked up next
	DNAME                  // RRs is the DNAME of an ancestor (RFC 6672)
	Outside                // not a name of this zone
)

var kindNames = [...]string{"answer", "nodata", "nxdomain", "delegation", "cname", "dname", "outside"}

// String names the kind, for logs and tests.
func (k Kind) String() string { return kindNames[k] }

// Result is what a zone says about a name and a type.
type Result struct {
	Kind Kind
	// Owner is the name that RRs belong to: the cut of a Delegation, the owner of
	// a DNAME, else the name asked for, also where a wildcard made the answer.
	Owner string
	RRs   []dns.RR
	// Mark is the value laid over the name, its wildcard, or the cut; else nil.
	// It is given beside what the file says, for the caller to decide.
	Mark any
	// Wildcard is set when the answer was synthesised (RFC 4592).
	Wildcard bool
}

// Addressed tells whether the file has addresses at a name, or an alias, or leaves it to
// others.
func (z *Zone) Addressed(name string) bool {
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		switch r := z.Lookup(name, t); {
		case r.Wildcard:
		case r.Kind == Answer || r.Kind == CNAME || r.Kind == Delegation || r.Kind == DNAME:
			return true
		}
	}
	return false
}

// Lookup finds what the zone says about a name and a type. The name is in
// canonical form.
func (z *Zone) Lookup(name string, qtype uint16) Result {
	rest, ok := within(name, z.Origin)
	if !ok {
		return Result{Kind: Outside}
	}
	n := z.root
	for label := ""; rest != ""; {
		if s := n.set(dns.TypeDNAME); s != nil {
			return Result{Kind: DNAME, Owner: behind(name, rest), RRs: s.RRs}
		}
		label, rest = topmost(rest)
		kid := n.kid(label)
		if kid == nil {
			return n.synthesize(name, qtype)
		}
		n = kid
		if n.cut() && (rest != "" || qtype != dns.TypeDS) {
			return n.delegation(behind(name, rest))
		}
	}
	return n.answer(name, qtype)
}

// cut tells whether a node below the apex delegates.
func (n *node) cut() bool {
	return (n.mark != nil && n.mark.Cut) || n.set(dns.TypeNS) != nil
}

// delegation gives what the file says of a cut beside its mark: the caller may
// have no better name servers to offer.
func (n *node) delegation(owner string) Result {
	r := Result{Kind: Delegation, Owner: owner}
	if s := n.set(dns.TypeNS); s != nil {
		r.RRs = s.RRs
	}
	if n.mark != nil {
		r.Mark = n.mark.Value
	}
	return r
}

// synthesize answers from the wildcard of the closest encloser, which blocks
// every wildcard above it (RFC 4592 section 2.2).
func (n *node) synthesize(name string, qtype uint16) Result {
	w := n.kid("*")
	if w == nil {
		return Result{Kind: NXDomain, Owner: name}
	}
	r := w.answer(name, qtype)
	r.Wildcard = true
	return r
}

// answer says what a node holds for a type. At a cut only DS gets here: it is
// the parent's to answer (RFC 4035 section 3.1.4.1).
func (n *node) answer(name string, qtype uint16) Result {
	r := Result{Kind: NoData, Owner: name}
	if n.mark != nil && !n.mark.Cut {
		r.Mark = n.mark.Value
	}
	if s := n.set(qtype); s != nil {
		r.Kind, r.RRs = Answer, s.RRs
		return r
	}
	// NSEC and RRSIG stand beside an alias, so asking for them is asking about the alias
	// itself (RFC 4034 sections 3 and 4).
	if s := n.set(dns.TypeCNAME); s != nil && qtype != dns.TypeNSEC && qtype != dns.TypeRRSIG {
		r.Kind, r.RRs = CNAME, s.RRs
	}
	return r
}

// behind returns what follows the beginning of a name, without the dot between them.
func behind(name, rest string) string {
	switch {
	case rest == "":
		return name
	case len(rest)+1 == len(name): // all but the root's dot
		return "."
	}
	return name[len(rest)+1:]
}

// ancestor drops labels from the left of a name, keeping the others.
func ancestor(name string, drop int) string {
	if drop == 0 {
		return name
	}
	off, end := 0, false
	for ; drop > 0 && !end; drop-- {
		off, end = dns.NextLabel(name, off)
	}
	if end {
		return "."
	}
	return name[off:]
}
