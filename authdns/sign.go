package authdns

import (
	"errors"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
)

// signing is how a zone is signed from one hour to the next. A new one is made
// with each hour and each change of keys, so replies made ahead go by its pointer.
type signing struct {
	ring *dnssec.Ring
	made *signatures
}

// signatures are those of a Server, and what it may spend on more.
type signatures struct {
	cache *dnssec.Cache
	// rate is how many names that do not exist are signed in a second, over UDP and as
	// many over TCP. datagrams and streams pay for them, each their own: who is sent to
	// TCP has shown his address, and must not find it sold out. Workers which tell
	// classes of askers apart pay by a purse instead of datagrams.
	rate               int
	datagrams, streams *dnssec.Budget
	metrics            *signMetrics
	hour               time.Time // that is signed for; guarded by Server.loading
	clock              clock
}

// Bounds of what is kept and made.
const (
	// keptAbsent is how many signatures of names that do not exist are kept.
	keptAbsent = 16384
	// defaultSignBudget is how many a second are made over UDP, and as many over
	// TCP: about a fifth of a core each.
	defaultSignBudget = 4000
)

var errBudget = errors.New("no signatures left for names that do not exist in this second")

// proof says what stands behind a reply.
type proof uint8

const (
	proofNone    proof = iota
	proofCompact       // signed, with denial as RFC 9824 has it
	proofLater         // not signed in time: truncated, so that it is asked again over TCP
)

// edeInvalidType tells that a type is none that can be asked for (RFC 9824 section 3.5).
const edeInvalidType = 30

// refusedText is the extended error of a type that is turned away.
func refusedText(t uint16) *extended {
	if t == dns.TypeNXNAME {
		return &extended{code: edeInvalidType}
	}
	return nil
}

// secure adds what a validator needs to the reply of a signed zone: signatures,
// the DS or the proof that there is none, and the proof of denials.
func (v *visit) secure() {
	r := v.reply
	if !v.zone.validated() || r.rcode != dns.RcodeSuccess && r.rcode != dns.RcodeNameError && r.rcode != dns.RcodeYXDomain {
		return
	}
	if v.zone.sign == nil {
		v.attach()
		return
	}
	s := sealer{zone: v.zone, signing: v.zone.sign, from: v.from}
	if r.q.qtype == dns.TypeNSEC || r.q.qtype == dns.TypeRRSIG {
		s.inspect(r)
	}
	if r.q.edns.do {
		s.seal(r)
	}
	v.out.unsigned = errors.Is(s.err, errBudget)
	// The limit on replies sees NOERROR: it is still one of very many names.
	v.out.wildcard, v.out.absent = v.out.wildcard || s.absent, s.absent
	switch {
	case s.err == nil:
	case v.out.unsigned && !v.from.tcp:
		r.proof, r.rcode = proofLater, dns.RcodeSuccess
	default:
		r.notReady(s.err.Error()) // unsigned it would be taken for a forgery
		r.glue, r.extra, r.ede.code = nil, nil, edeOther
	}
}

// sealer signs one reply; the first error ends it. It looks at nothing but the reply and
// the zone, so every way of answering is signed, those to come included.
type sealer struct {
	zone    *served
	signing *signing
	from    asker
	absent  bool // the reply is about a name that does not exist
	err     error
}

// seal adds the signatures and proofs of all sections. Additional records which
// may be left out are: their signatures would have to go along (RFC 4035 section 3.1.1),
// as those of bindings do.
func (s *sealer) seal(r *reply) {
	r.proof = proofCompact
	if !r.binds() {
		r.extra = nil
	}
	denies := len(r.authority) > 0 && r.authority[0].Header().Rrtype == dns.TypeSOA
	r.answer, r.extra = s.signed(r.answer), s.signed(r.extra)
	switch {
	case denies:
		proof := s.denial(r)
		r.authority = append(s.signed(r.authority), s.signed(proof)...)
		if r.rcode == dns.RcodeNameError && !r.q.edns.co {
			r.rcode = dns.RcodeSuccess // the proof says that the name exists, and is nothing
		}
	case !r.aa && len(r.authority) > 0:
		r.authority = append(r.authority, s.signed(s.cut(zone.Canonical(r.authority[0].Header().Name)))...)
	}
}

// signed returns records with the signatures of each RRset behind it. A CNAME
// that a DNAME means has none: the DNAME's stands for it (RFC 6672 section 5.3.1).
func (s *sealer) signed(rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for first := 0; first < len(rrs) && s.err == nil; {
		end := first + 1
		for end < len(rrs) && sameSet(rrs[end-1], rrs[end]) {
			end++
		}
		out = append(out, rrs[first:end]...)
		if t := rrs[first].Header().Rrtype; t != dns.TypeRRSIG && !meant(rrs, first) {
			out = append(out, s.signatures(rrs[first:end])...)
		}
		first = end
	}
	return out
}

// meant tells whether a record is the CNAME which the DNAME before it means.
func meant(rrs []dns.RR, i int) bool {
	if i == 0 || rrs[i].Header().Rrtype != dns.TypeCNAME || rrs[i-1].Header().Rrtype != dns.TypeDNAME {
		return false
	}
	above, name := rrs[i-1].Header().Name, rrs[i].Header().Name
	return above != name && dns.IsSubDomain(above, name)
}

// signatures returns those of an RRset, with its TTL, from the cache or made now. Whoever
// asks for what exists gets it signed, budget or not: there is an end to that. Two
// workers may make the same signature at once; it comes out the same.
func (s *sealer) signatures(rrs []dns.RR) []dns.RR {
	h, made := rrs[0].Header(), s.signing.made
	ttl := s.originalTTL(h)
	id, err := s.signing.ring.Identify(rrs, ttl)
	if err != nil {
		s.err = err
		return nil
	}
	sigs, ok := made.cache.Get(id)
	if !ok {
		exists := s.zone.zone.At(h.Name).Exists
		if !exists && !s.pay() {
			s.err = errBudget
			return nil
		}
		if sigs, err = s.signing.ring.Sign(rrs, ttl); err != nil {
			s.err = err
			return nil
		}
		made.metrics.count(exists)
		made.cache.Put(id, sigs, exists)
	}
	out := make([]dns.RR, len(sigs)) // copies: packing writes to records, and the TTL is this reply's
	for i, sig := range sigs {
		out[i] = dns.Copy(sig)
		out[i].Header().Ttl = h.Ttl
	}
	return out
}

// pay charges a signature of a name that does not exist to whom it is for.
func (s *sealer) pay() bool {
	switch {
	case s.from.tcp:
		return s.signing.made.streams.Take()
	case s.from.funds != nil:
		return s.from.funds.sign()
	}
	return s.signing.made.datagrams.Take()
}

// originalTTL is the TTL that is signed: what is served, but for denials, whose SOA
// and NSEC are served with less where the caller says so.
func (s *sealer) originalTTL(h *dns.RR_Header) uint32 {
	switch h.Rrtype {
	case dns.TypeSOA:
		return s.zone.zone.SOA().Hdr.Ttl
	case dns.TypeNSEC:
		return s.denialTTL()
	}
	return h.Ttl
}

// denialTTL is how long a denial may be kept (RFC 9077).
func (s *sealer) denialTTL() uint32 {
	soa := s.zone.zone.SOA()
	return min(soa.Minttl, soa.Hdr.Ttl)
}
