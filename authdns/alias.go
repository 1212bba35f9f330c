package authdns

import (
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
)

// alias is a name that has the addresses of another one beside records of its own, as an
// apex must have them, where a CNAME could not stand (RFC 1034 section 3.6.2). Nobody
// outside sees that it is one: it answers for A and AAAA as if they were its own, and for
// HTTPS and SVCB as its target does where that is a name of ours, so that it says no less
// of how that is spoken to than a CNAME or an AliasMode record would (RFC 9460 section 2.4.2).
type alias struct{ target string }

// followed tells whether a type is answered with what the target of an alias has.
func followed(qtype uint16) bool {
	switch qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
		return true
	}
	return false
}

// follow answers with what an alias's target has: of names in our zones by what they say
// to this client now, of others by what they said last.
func (v *visit) follow(name string, a *alias) {
	r := v.reply
	if v.depth++; v.depth > maxChain {
		r.notReady("an alias leads back to itself")
		return
	}
	target, ttl := a.target, uint32(noTTL)
	for range maxChain {
		z := v.state.holder(target)
		if z == nil {
			v.foreign(name, target, ttl)
			return
		}
		if z.zone == nil {
			r.notReady("zone of an alias's target not loaded")
			return
		}
		sub := v.within(z, target)
		r.scope = max(r.scope, sub.reply.scope)
		var found []dns.RR
		for _, rr := range sub.reply.answer {
			ttl = min(ttl, rr.Header().Ttl)
			if rr.Header().Rrtype == r.q.qtype {
				found = append(found, rr)
			}
		}
		next := sub.reply.last()
		switch {
		case sub.reply.rcode != dns.RcodeSuccess && sub.reply.rcode != dns.RcodeNameError:
			r.rcode, r.aa, r.ede, r.answer = sub.reply.rcode, false, sub.reply.ede, nil
			return
		case len(found) > 0:
			r.answer = append(r.answer, asOwn(name, found, ttl)...)
			return
		case !sub.reply.aa: // below a cut: others know
			v.foreign(name, target, ttl)
			return
		case next == target || len(sub.reply.authority) > 0:
			v.denial(ttl)
			return
		}
		target = next // an alias of the zone that leaves it
	}
	r.notReady("an alias leads too far")
}

// asOwn are records of a target as those of an alias. A binding whose target is its owner
// (".", RFC 9460 section 2.5.2) is right there as well, since both have the same addresses.
func asOwn(name string, rrs []dns.RR, ttl uint32) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		out[i].Header().Name, out[i].Header().Ttl = name, ttl
	}
	return out
}

// within asks one of our zones for a name in place of that which the client asked for.
func (v *visit) within(z *served, target string) *visit {
	q := *v.reply.q
	q.name, q.canon, q.question = target, target, nil
	sub := &visit{state: v.state, zone: z, from: v.from, reply: &reply{q: &q}, out: v.out, depth: v.depth}
	many := v.out.wildcard // of the name that was asked for
	sub.resolve()
	v.out.wildcard = many
	return sub
}

// foreign answers with what a name of others had when it was looked up last. That is its
// addresses alone: bindings of others may hold keys that change within the hour, and
// clients do without.
func (v *visit) foreign(name, target string, ttl uint32) {
	if t := v.reply.q.qtype; t != dns.TypeA && t != dns.TypeAAAA {
		v.denial(ttl)
		return
	}
	v.out.fleeting = true
	addrs, own, ok := v.state.self.outside.addresses(target, v.reply.q.qtype == dns.TypeAAAA)
	switch {
	case !ok:
		v.reply.notReady("target of an alias not resolved yet")
	case len(addrs) == 0:
		v.denial(min(ttl, own))
	default:
		v.reply.answer = append(v.reply.answer, addressRRs(name, addrs, min(ttl, own))...)
	}
}

// holder is the zone of ours that knows most of a name, on whichever level; nil for names
// of others.
func (s *state) holder(name string) *served {
	low, top := s.low.find(name, dns.TypeNone), s.top.find(name, dns.TypeNone)
	if low == nil || top != nil && len(top.name) > len(low.name) {
		low = top
	}
	if low != nil && low.hidden {
		return nil
	}
	return low
}

// abroad are the names of others to which aliases may lead, for whatever client.
func (s *state) abroad() []string {
	w := &walk{state: s, seen: map[string]bool{}}
	for _, name := range sortedKeys(s.marks) {
		for _, m := range s.marks[name] {
			if a, ok := m.Value.(*alias); ok {
				w.visit(a.target)
			}
		}
	}
	slices.Sort(w.out)
	return w.out
}

// walk goes wherever an alias may lead.
type walk struct {
	state *state
	seen  map[string]bool
	out   []string
}

func (w *walk) visit(name string) {
	if w.seen[name] {
		return
	}
	w.seen[name] = true
	z := w.state.holder(name)
	if z == nil {
		w.out = append(w.out, name)
		return
	}
	if z.zone == nil {
		return
	}
	res := z.zone.Lookup(name, dns.TypeA)
	switch m := res.Mark.(type) {
	case *alias:
		w.visit(m.target)
		return
	case *steered:
		for _, target := range m.elsewhere {
			w.visit(target)
		}
	}
	switch res.Kind {
	case zone.Delegation:
		w.out = append(w.out, name)
	case zone.CNAME:
		w.visit(zone.Canonical(res.RRs[0].(*dns.CNAME).Target))
	case zone.DNAME:
		v := visit{state: w.state, zone: z, reply: &reply{q: &query{canon: name, qtype: dns.TypeA}}, out: &outcome{}}
		if next := v.redirect(name, res); next != "" {
			w.visit(next)
		}
	}
}

// addressOf is the address of a record that has one.
func addressOf(rr dns.RR) (out []netip.Addr) {
	switch rr := rr.(type) {
	case *dns.A:
		if a, ok := netip.AddrFromSlice(rr.A); ok {
			out = append(out, a.Unmap())
		}
	case *dns.AAAA:
		if a, ok := netip.AddrFromSlice(rr.AAAA); ok {
			out = append(out, a)
		}
	}
	return out
}
