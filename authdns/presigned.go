package authdns

import (
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
)

// A zone that its owner has signed is served with his signatures and his proofs; no
// key is needed, and nothing is made here. What is chosen per client cannot be signed
// so, hence there are no steered names in such a zone.

// presigned tells whether a zone carries its owner's signatures.
func presigned(z *zone.Zone) bool { return z != nil && z.Signed != nil }

// validated tells whether replies of a zone differ for those who validate.
func (s *served) validated() bool { return s.sign != nil || presigned(s.zone) }

// signed tells the same of a zone that was loaded.
func (l *loaded) signed() bool { return l.sign != nil || presigned(l.zone) }

// attach adds to a reply what the zone's owner has signed and proved. Additional
// records which may be left out are, as in replies that are signed here.
func (v *visit) attach() {
	r, z := v.reply, v.zone.zone
	if !r.q.edns.do {
		return
	}
	var proofs []*zone.Proof
	for i, rr := range r.answer {
		if name := rr.Header().Name; !meant(r.answer, i) && !z.At(name).Exists {
			proofs = union(proofs, z.Expanded(name))
		}
	}
	if !r.binds() {
		r.extra = nil
	}
	r.extra, r.answer = attested(z, r.extra), attested(z, r.answer)
	switch {
	case len(r.authority) > 0 && r.authority[0].Header().Rrtype == dns.TypeSOA:
		r.authority = attested(z, r.authority)
		proofs = union(proofs, z.Deny(r.last()))
	case !r.aa && len(r.authority) > 0:
		cut := zone.Canonical(r.authority[0].Header().Name)
		if ds := z.RRset(cut, dns.TypeDS); len(ds) > 0 {
			r.authority = append(r.authority, attested(z, r.records(cut, ds, noTTL))...)
		} else {
			proofs = union(proofs, z.Insecure(cut))
		}
	}
	for _, p := range proofs {
		owner := zone.Canonical(p.RR.Header().Name)
		r.authority = append(r.authority, r.records(owner, append([]dns.RR{p.RR}, p.Sigs...), p.RR.Header().Ttl)...)
	}
}

// union appends proofs that are not there yet.
func union(have, more []*zone.Proof) []*zone.Proof {
	for _, p := range more {
		if !slices.Contains(have, p) {
			have = append(have, p)
		}
	}
	return have
}

// attested returns records with the owner's signatures of each RRset behind it. What
// a DNAME means has none, and neither has what is no record of the zone.
func attested(z *zone.Zone, rrs []dns.RR) []dns.RR {
	var out []dns.RR
	for first := 0; first < len(rrs); {
		end := first + 1
		for end < len(rrs) && sameSet(rrs[end-1], rrs[end]) {
			end++
		}
		out = append(out, rrs[first:end]...)
		if h := rrs[first].Header(); !meant(rrs, first) {
			out = append(out, (*reply)(nil).records(h.Name, z.Signatures(h.Name, h.Rrtype), h.Ttl)...)
		}
		first = end
	}
	return out
}

// last is the name at the end of the aliases of a reply.
func (r *reply) last() string {
	name := r.q.canon
	for _, rr := range r.answer {
		if c, ok := rr.(*dns.CNAME); ok {
			name = zone.Canonical(c.Target)
		}
	}
	return name
}

// anySigned answers ANY with one RRset of the name, since a record that is made up
// could not be signed (RFC 8482 section 4.1).
func (v *visit) anySigned(name string) {
	for _, t := range v.zone.zone.At(name).Types {
		if t != dns.TypeRRSIG && t != dns.TypeNSEC {
			v.static(name, v.zone.zone.Lookup(name, t))
			return
		}
	}
	v.negative(zone.NoData)
}

// oneType leaves of all signatures at a name those of one RRset: enough for who asks
// for them by type, and no load to send to somebody else.
func oneType(sigs []dns.RR) []dns.RR {
	first := sigs[0].(*dns.RRSIG).TypeCovered
	return slices.DeleteFunc(slices.Clone(sigs), func(rr dns.RR) bool { return rr.(*dns.RRSIG).TypeCovered != first })
}

// foreign notes that something which is chosen here lies in a zone that its owner has
// signed; it is left as the file has it then.
func (c *compiler) foreign(l *loaded, what string) {
	s := l.zone.Signed
	c.state.faults[l.meta.Name] = fmt.Sprintf("%szone:%d:%d: the zone is signed by its owner: %s cannot be signed, and stays as the zone has it",
		l.meta.Name, s.Line, s.Column, what)
}

// endsSoon is how long before the owner's signatures end somebody is told: most
// signers renew theirs earlier.
const endsSoon = 24 * time.Hour

// ending says that the signatures of a zone's owner end soon, or have; else "".
func (l *loaded) ending(now time.Time) string {
	if l.sign != nil || !presigned(l.zone) {
		return ""
	}
	end := l.zone.Signed.Expires
	switch {
	case !now.Before(end):
		return "signatures have ended at " + end.Format(time.RFC3339) + ": validating resolvers answer with SERVFAIL"
	case end.Sub(now) < endsSoon:
		return "signatures end at " + end.Format(time.RFC3339)
	}
	return ""
}

// logSigned tells what is unwise in a version that its owner has signed, or wrong soon.
func (s *Server) logSigned(name string, z *zone.Zone) {
	if !presigned(z) {
		return
	}
	if n := z.Signed.Iterations; n > 0 {
		s.log.Warn("zone signed elsewhere hashes its names more than once: want 0 iterations (RFC 9276 section 3.1)", "zone", name, "iterations", n)
	}
	if why := (&loaded{zone: z}).ending(s.now()); why != "" {
		s.log.Error("zone signed elsewhere: its owner does not renew it", "zone", name, "err", why)
	}
}

// warnEnding tells of signatures that end, once an hour; loading is held.
func (s *Server) warnEnding() {
	now := s.now()
	for _, name := range sortedKeys(s.zones) {
		if why := s.zones[name].ending(now); why != "" {
			s.log.Error("zone signed elsewhere: its owner does not renew it", "zone", name, "err", why)
		}
	}
}
