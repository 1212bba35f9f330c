package authdns

import (
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
)

// maxChain bounds the aliases followed within a zone.
const maxChain = 16

// visit is one question at one zone.
type visit struct {
	state *state
	zone  *served
	from  asker
	reply *reply
	out   *outcome
	depth int // of aliases within aliases
}

// resolve answers the question, following aliases while they stay in the zone
// (RFC 1034 section 4.3.2).
func (v *visit) resolve() {
	name := v.reply.q.canon
	for hop := 0; hop <= maxChain; hop++ {
		res := v.zone.zone.Lookup(name, v.reply.q.qtype)
		if res.Kind == zone.Outside || (res.Kind == zone.Delegation && hop > 0) {
			return // an alias has left the zone: the resolver goes on by itself
		}
		if hop == 0 {
			v.reply.aa = res.Kind != zone.Delegation
			v.out.wildcard = res.Wildcard || res.Kind == zone.DNAME
		}
		if name = v.step(name, res); name == "" {
			return
		}
	}
}

// step uses one result; it returns the name to go on with, or "".
func (v *visit) step(name string, res zone.Result) string {
	qtype := v.reply.q.qtype
	if res.Kind == zone.Delegation {
		v.referral(res)
		return ""
	}
	if next, ok := v.marked(name, res); ok {
		return next
	}
	switch {
	case qtype == dns.TypeANY && res.Kind != zone.NXDomain && res.Kind != zone.DNAME:
		if presigned(v.zone.zone) {
			v.anySigned(name)
			break
		}
		v.minimalAny(name)
	case res.Kind == zone.Answer:
		v.static(name, res)
	case res.Kind == zone.CNAME:
		return v.alias(name, res.RRs)
	case res.Kind == zone.DNAME:
		return v.redirect(name, res)
	default:
		v.negative(res.Kind)
	}
	return ""
}

// marked answers where something else than the file answers: steered addresses,
// hosts of name servers, and the apex NS of a zone referred to per resolver.
func (v *visit) marked(name string, res zone.Result) (next string, ok bool) {
	qtype := v.reply.q.qtype
	if qtype == dns.TypeNS && name == v.zone.name && v.zone.refer != nil {
		v.apexNS()
		return "", true
	}
	switch m := res.Mark.(type) {
	case *steered:
		if m.steers(qtype) {
			return v.steer(name, m, res)
		}
	case *alias:
		if followed(qtype) && res.Kind != zone.Answer {
			v.follow(name, m)
			return "", true
		}
	case *host:
		if qtype == dns.TypeA || qtype == dns.TypeAAAA {
			v.addresses(name, m.addrs(qtype), m.ttl)
			return "", true
		}
	}
	return "", false
}

// static answers from the file. The addresses of apex name servers go along
// where there is room: a resolver which primes needs them (RFC 8109 section 4.1).
func (v *visit) static(name string, res zone.Result) {
	r, rrs := v.reply, res.RRs
	if r.q.qtype == dns.TypeRRSIG {
		rrs = oneType(rrs)
	}
	r.answer = append(r.answer, r.records(name, rrs, noTTL)...)
	switch r.q.qtype {
	case dns.TypeHTTPS, dns.TypeSVCB:
		r.extra = v.zone.besides(r, name, res.RRs)
	case dns.TypeNS:
		required, optional := v.zone.glue(r, v.zone.name, res.RRs)
		r.extra = append(required, optional...)
	}
}

// alias sends the CNAME and returns where to go on. The resolver could ask again
// by itself; chasing within the zone saves it the round trip.
func (v *visit) alias(name string, rrs []dns.RR) string {
	r := v.reply
	r.answer = append(r.answer, r.records(name, rrs, noTTL)...)
	return zone.Canonical(rrs[0].(*dns.CNAME).Target)
}

// redirect answers below a DNAME with the CNAME which it means for this name
// (RFC 6672 section 3.1).
func (v *visit) redirect(name string, res zone.Result) string {
	r, d := v.reply, res.RRs[0].(*dns.DNAME)
	r.answer = append(r.answer, r.records(res.Owner, res.RRs, noTTL)...)
	target := strings.TrimSuffix(name, res.Owner)
	if res.Owner == "." {
		target = name
	}
	if d.Target != "." {
		target += zone.Canonical(d.Target)
	}
	if !fitsName(target) {
		r.rcode = dns.RcodeYXDomain
		return ""
	}
	h := dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: d.Hdr.Ttl}
	r.answer = append(r.answer, &dns.CNAME{Hdr: h, Target: target})
	if r.q.qtype == dns.TypeCNAME {
		return ""
	}
	return target
}

// fitsName tells whether a name has at most 255 octets (RFC 1035 section 2.3.4).
func fitsName(name string) bool {
	_, err := dns.PackDomainName(name, make([]byte, 255), 0, nil, false)
	return err == nil
}

// minimalAny answers ANY with one small record (RFC 8482 section 4.2).
func (v *visit) minimalAny(name string) {
	r := v.reply
	h := dns.RR_Header{Name: name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: 3600}
	r.answer = append(r.answer, &dns.HINFO{Hdr: h, Cpu: "RFC8482"})
}

// negative says that the type or the name does not exist. While no Snapshot is
// at hand a zone that is steered does not know its own names, and must not deny
// one of them.
func (v *visit) negative(kind zone.Kind) {
	t := v.reply.q.qtype
	address := t == dns.TypeA || t == dns.TypeAAAA
	if v.zone.blind && (kind == zone.NXDomain || address) {
		v.reply.notReady("no snapshot yet")
		return
	}
	if kind == zone.NXDomain {
		v.reply.rcode = dns.RcodeNameError
	}
	v.denial(noTTL)
}

// denial adds the SOA of the zone. Its TTL is how long the denial may be kept
// (RFC 2308 section 3).
func (v *visit) denial(ttl uint32) {
	soa := v.zone.zone.SOA()
	v.reply.authority = v.reply.records(v.zone.name, []dns.RR{soa}, min(ttl, soa.Minttl))
}

// addresses answers with addresses of the type asked, or says that there are none.
func (v *visit) addresses(name string, addrs []netip.Addr, ttl uint32) {
	if len(addrs) == 0 {
		v.denial(ttl)
		return
	}
	v.reply.answer = append(v.reply.answer, addressRRs(name, addrs, ttl)...)
}

// addressRRs makes A or AAAA records, as each address is.
func addressRRs(owner string, addrs []netip.Addr, ttl uint32) []dns.RR {
	out := make([]dns.RR, 0, len(addrs))
	for _, a := range addrs {
		h := dns.RR_Header{Name: owner, Class: dns.ClassINET, Ttl: ttl}
		if a.Is4() {
			h.Rrtype = dns.TypeA
			out = append(out, &dns.A{Hdr: h, A: net.IP(a.AsSlice())})
		} else {
			h.Rrtype = dns.TypeAAAA
			out = append(out, &dns.AAAA{Hdr: h, AAAA: net.IP(a.AsSlice())})
		}
	}
	return out
}
