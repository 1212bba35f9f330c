package authdns

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// binding is what a steered name says to a type of RFC 9460, or nil.
func (st *steered) binding(qtype uint16) *placement.Binding {
	switch qtype {
	case dns.TypeHTTPS:
		return st.https
	case dns.TypeSVCB:
		return st.svcb
	}
	return nil
}

// bind answers with one record in ServiceMode whose target is the name itself. Hints and
// additional addresses are those that questions for them get now, from one choice: a
// client that connects by the hints and one that asks first meet the same servers (RFC
// 9460 sections 4.1 and 7.3).
func (v *visit) bind(name string, b *placement.Binding, v4, v6 []netip.Addr, ttl uint32) {
	r := v.reply
	svcb := dns.SVCB{Hdr: dns.RR_Header{Name: name, Rrtype: r.q.qtype, Class: dns.ClassINET, Ttl: ttl},
		Priority: 1, Target: ".", Value: bindingParams(b, v4, v6)}
	if r.q.qtype == dns.TypeHTTPS {
		r.answer = append(r.answer, &dns.HTTPS{SVCB: svcb})
	} else {
		r.answer = append(r.answer, &svcb)
	}
	r.extra = append(addressRRs(name, v4, ttl), addressRRs(name, v6, ttl)...)
}

// bindingParams are in order of their keys, as they stand in a record (RFC 9460 section 2.2).
func bindingParams(b *placement.Binding, v4, v6 []netip.Addr) (params []dns.SVCBKeyValue) {
	if len(b.ALPN) > 0 {
		params = append(params, &dns.SVCBAlpn{Alpn: b.ALPN})
	}
	if b.NoDefault {
		params = append(params, &dns.SVCBNoDefaultAlpn{})
	}
	if b.Port != 0 {
		params = append(params, &dns.SVCBPort{Port: b.Port})
	}
	if len(v4) > 0 {
		params = append(params, &dns.SVCBIPv4Hint{Hint: ips(v4)})
	}
	if len(v6) > 0 {
		params = append(params, &dns.SVCBIPv6Hint{Hint: ips(v6)})
	}
	return params
}

func ips(addrs []netip.Addr) []net.IP {
	out := make([]net.IP, len(addrs))
	for i, a := range addrs {
		out[i] = a.AsSlice()
	}
	return out
}

// besides are what goes along with bindings of the file: addresses of the targets, and
// for an alias the target's own bindings, as far as the zone has them (RFC 9460 section
// 4.1). What is chosen per client is left to a question of its own.
func (s *served) besides(r *reply, owner string, rrs []dns.RR) (out []dns.RR) {
	seen := map[string]bool{}
	for _, rr := range rrs {
		b := svcbOf(rr)
		target := zone.Canonical(b.Target)
		if target == "." && b.Priority != 0 {
			target = owner
		}
		if seen[target] {
			continue
		}
		seen[target] = true
		types := []uint16{dns.TypeA, dns.TypeAAAA, r.q.qtype}
		if target == owner {
			types = types[:2]
		}
		for _, t := range types {
			if res := s.zone.Lookup(target, t); res.Kind == zone.Answer && res.Mark == nil {
				out = append(out, r.records(target, res.RRs, noTTL)...)
			}
		}
	}
	return out
}

// svcbOf is the common part of SVCB and its kin; nil for other records.
func svcbOf(rr dns.RR) *dns.SVCB {
	switch rr := rr.(type) {
	case *dns.HTTPS:
		return &rr.SVCB
	case *dns.SVCB:
		return rr
	}
	return nil
}

// binds tells whether a reply is about bindings, whose additional records are signed
// and stay (RFC 9460 section 4.1).
func (r *reply) binds() bool {
	return len(r.answer) > 0 && (r.q.qtype == dns.TypeHTTPS || r.q.qtype == dns.TypeSVCB)
}
