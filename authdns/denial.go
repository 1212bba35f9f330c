package authdns

import (
	"slices"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
)

// What a signed zone denies, it denies for one name at a time (RFC 9824): the proof lies
// between the name and the very next possible one, so it holds whatever else is in the
// zone, gives nothing else away, and needs no order of names.

// denial is the proof that goes with a reply which denies, of the name at the end of its
// aliases: NXNAME where that does not exist (RFC 9824 section 3.1), else its types.
func (s *sealer) denial(r *reply) []dns.RR {
	name, ttl := r.last(), r.authority[0].Header().Ttl
	if r.rcode == dns.RcodeNameError {
		s.absent = true
		return []dns.RR{dnssec.Denial(name, []uint16{dns.TypeNXNAME}, ttl)}
	}
	return []dns.RR{dnssec.Denial(name, without(s.types(name), r.q.qtype), ttl)}
}

// cut is what a referral says of the child's keys: its DS records, or the proof that
// there are none (RFC 4035 section 3.1.4.1).
func (s *sealer) cut(name string) []dns.RR {
	if ds := s.zone.zone.RRset(name, dns.TypeDS); len(ds) > 0 {
		return (*reply)(nil).records(name, ds, noTTL)
	}
	return []dns.RR{dnssec.Denial(name, s.types(name), s.denialTTL())}
}

// types lists all types that a name may have in any state of the fleet, since
// resolvers deny the others by what is said once (RFC 8198).
func (s *sealer) types(name string) []uint16 {
	h := s.zone.zone.At(name)
	types := slices.Clone(h.Types)
	add := func(t uint16, may bool) {
		if may {
			types = append(types, t)
		}
	}
	switch m := h.Mark.(type) {
	case *steered:
		add(dns.TypeHTTPS, m.https != nil)
		add(dns.TypeSVCB, m.svcb != nil)
		// Without a map nobody knows the families.
		add(dns.TypeA, m.service == nil || m.aliased || len(ofFamily(m.fixed, dns.TypeA, 1)) > 0)
		add(dns.TypeAAAA, m.service == nil || m.aliased || len(ofFamily(m.fixed, dns.TypeAAAA, 1)) > 0)
	case *alias:
		types = append(types, dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB)
	case *host:
		add(dns.TypeA, len(m.addrs(dns.TypeA)) > 0)
		add(dns.TypeAAAA, len(m.addrs(dns.TypeAAAA)) > 0)
	}
	return types
}

// without returns types but for one: the type that is denied now may be there for
// another client, or in another state.
func without(types []uint16, t uint16) []uint16 {
	return slices.DeleteFunc(types, func(o uint16) bool { return o == t })
}

// inspect answers questions for the proofs themselves: with the NSEC of the name, or
// with its signature, which is as good as any other (RFC 8482 section 4.1). NODATA with
// a proof which lists the very type would contradict itself.
func (s *sealer) inspect(r *reply) {
	asked := r.q.qtype
	if len(r.authority) == 0 || r.authority[0].Header().Rrtype != dns.TypeSOA || r.rcode == dns.RcodeNameError && !r.q.edns.do {
		return
	}
	r.q.qtype = dns.TypeNone // nothing is taken out of the bitmap
	nsec := s.denial(r)
	r.q.qtype = asked
	if asked == dns.TypeRRSIG {
		nsec = s.signatures(nsec)
	}
	r.answer, r.authority, r.rcode = append(r.answer, nsec...), nil, dns.RcodeSuccess
}

// warm makes the signatures that a zone's file needs ahead of time, and not while
// a state waits to come into force.
func (s *served) warm() {
	seal := sealer{zone: s, signing: s.sign}
	s.zone.Visit(func(owner string, types []uint16, _ any, shape zone.Shape) {
		for _, t := range types {
			if shape != zone.Cut || t == dns.TypeDS {
				seal.signatures((*reply)(nil).records(owner, s.zone.RRset(owner, t), noTTL))
			}
		}
		seal.signatures([]dns.RR{dnssec.Denial(owner, seal.types(owner), seal.denialTTL())})
	})
}
