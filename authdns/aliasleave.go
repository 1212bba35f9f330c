package authdns

import (
	"net/netip"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
)

// What is an alias here is a set of addresses in a copy elsewhere: that of its target when
// the version was made. A copy follows a serial, and addresses of others change without
// one, so all who copy a version get the same, whenever they come.

// still is what the target of an alias has for everybody: its addresses, or the name of
// others that has them.
type still struct {
	addrs  []netip.Addr
	ttl    uint32
	abroad string
}

// stillOf goes where an alias leads, as follow does, but for no client in particular; false
// where that is not known.
func (s *state) stillOf(target string) (out still, ok bool) {
	out.ttl = noTTL
	for range maxChain {
		z := s.holder(target)
		if z == nil {
			out.abroad = target
			return out, true
		}
		if z.zone == nil || z.blind {
			return out, false
		}
		res := z.zone.Lookup(target, dns.TypeA)
		next := ""
		switch m := res.Mark.(type) {
		case *steered:
			if len(m.fixed) > 0 || m.other == "" {
				out.addrs, out.ttl = m.fixed, min(out.ttl, m.ttl)
				return out, m.service != nil
			}
			next, out.ttl = m.other, min(out.ttl, m.ttl)
		case *alias:
			next = m.target
		case *host:
			out.addrs, out.ttl = m.all, min(out.ttl, m.ttl)
			return out, true
		}
		switch {
		case next != "":
		case res.Kind == zone.Delegation:
			out.abroad = target
			return out, true
		case res.Kind == zone.CNAME:
			next, out.ttl = zone.Canonical(res.RRs[0].(*dns.CNAME).Target), min(out.ttl, res.RRs[0].Header().Ttl)
		case res.Kind == zone.DNAME:
			v := visit{state: s, zone: z, reply: &reply{q: &query{canon: target, qtype: dns.TypeA}}, out: &outcome{}}
			if next = v.redirect(target, res); next == "" {
				return out, true // too long for a name: nobody has it
			}
			out.ttl = min(out.ttl, res.RRs[0].Header().Ttl)
		default:
			out.add(res)
			out.add(z.zone.Lookup(target, dns.TypeAAAA))
			return out, true
		}
		target = next
	}
	return out, false // it leads back to itself
}

// add takes the addresses of an answer.
func (t *still) add(res zone.Result) {
	if res.Kind != zone.Answer {
		return
	}
	for _, rr := range res.RRs {
		t.addrs, t.ttl = append(t.addrs, addressOf(rr)...), min(t.ttl, rr.Header().Ttl)
	}
}

// loan says that a name has the addresses of one of others, for so long at most.
type loan struct {
	name, target string
	ttl          uint32
}

// loansOf are the aliases of a zone that lead to names of others.
func (s *state) loansOf(zone string) (out []loan) {
	for _, m := range s.marks[zone] {
		if a, ok := m.Value.(*alias); ok {
			if t, ok := s.stillOf(a.target); ok && t.abroad != "" {
				out = append(out, loan{m.Name, t.abroad, t.ttl})
			}
		}
	}
	return out
}

// records are what a name of others had when it was looked up last, as an alias has it;
// false while neither kind of address is known.
func (o *outside) records(b loan) (out []dns.RR, ok bool) {
	for _, ipv6 := range []bool{false, true} {
		addrs, ttl, known := o.addresses(b.target, ipv6)
		out, ok = append(out, addressRRs(b.name, addrs, min(b.ttl, ttl))...), ok || known
	}
	return out, ok
}
