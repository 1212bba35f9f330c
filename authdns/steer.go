package authdns

import (
	"net/netip"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// steered is a name whose addresses are chosen per client.
type steered struct {
	// service is nil while no Snapshot says which one it is.
	service *placement.Service
	policy  string
	allDown placement.AllDown
	pick    int
	ttl     uint32
	observe bool
	// https and svcb are what the name says of its protocols; nil: nothing.
	https, svcb *placement.Binding
	// aliased is set where some cluster has a name of others in place of addresses;
	// other is the first of them where no cluster has any.
	aliased bool
	other   string
	// elsewhere are all of these names.
	elsewhere []string
	// ecs is the fleet's cap, off where the policy ignores client subnets.
	ecs placement.ECS
	// fixed is what a static set would say: one answer for everybody.
	fixed []netip.Addr
}

// decision is how a steered name was answered, for counters and logs.
type decision struct {
	service, policy string
	site            string // "" where the all-down rule answered
	class           uint16
	reason          string
	// observed is set when the decision was only looked at; the static set was sent.
	observed bool
}

// The reasons of a decision.
const (
	reasonNearest  = "nearest"
	reasonSpill    = "spill"
	reasonHealth   = "health"
	reasonDrain    = "drain"
	reasonFailOpen = "fail_open"
	reasonStatic   = "static"
)

// steer answers with what the cluster has that serves the client, and returns the name
// to go on with where that is one. It returns false where the file shall answer instead.
func (v *visit) steer(name string, st *steered, res zone.Result) (next string, ok bool) {
	s, q := v.state, v.reply.q
	if st.service == nil {
		return v.unmapped(name, st, res)
	}
	client, used := q.edns.ecs.client(v.from.addr.Addr().Unmap(), st.ecs)
	c, ok := s.snap.Choose(st.service.Name, client, nil)
	if !ok {
		return v.unmapped(name, st, res)
	}
	d := &decision{service: st.service.Name, policy: st.policy, class: c.Class, reason: reason(&c), observed: st.observe}
	if id, ok := c.Cluster(); ok {
		d.site = id.Site
	}
	v.out.decision = d
	if st.observe {
		if res.Kind == zone.Answer {
			return "", false
		}
		return v.give(name, st, st.other, st.static), true
	}
	if used > 0 {
		v.out.ecs = ecsUsed
		v.reply.scope = max(v.reply.scope, q.edns.ecs.scope(c.Scope, used, st.ecs)) // of all names on the way
	}
	if c.Head < 0 && st.allDown == placement.Static && res.Kind == zone.Answer {
		d.reason = reasonStatic
		return "", false
	}
	if !st.typed(q.qtype) && res.Kind == zone.Answer && v.target(st, &c) == "" {
		return "", false // the file's, while the name is no alias
	}
	return v.chosen(name, st, &c, client), true
}

// unmapped answers while nothing says who serves whom: with the static set of
// the file or of the Inventory, else "not ready".
func (v *visit) unmapped(name string, st *steered, res zone.Result) (next string, ok bool) {
	switch {
	case res.Kind == zone.Answer:
		return "", false
	case len(st.fixed) > 0 || st.other != "":
		return v.give(name, st, st.other, st.static), true
	}
	v.reply.notReady("no snapshot yet")
	return "", true
}

// chosen writes the addresses of a choice, or what the policy says when nobody
// is left to choose.
func (v *visit) chosen(name string, st *steered, c *placement.Choice, client netip.Addr) (next string) {
	if c.Head >= 0 {
		return v.give(name, st, v.target(st, c), func(ipv6 bool) []netip.Addr {
			return hosts(v.state.snap.Addresses(c, client, ipv6, st.pick))
		})
	}
	switch st.allDown {
	case placement.NoData:
		v.denial(st.ttl)
	case placement.ServFail:
		v.reply.rcode, v.reply.aa = dns.RcodeServerFailure, false
		v.reply.ede = &extended{edeOther, "no cluster of " + st.service.Name + " is usable"}
	case placement.Refuse:
		v.reply.rcode, v.reply.aa = dns.RcodeRefused, false
		v.reply.ede = &extended{edeOther, "no cluster of " + st.service.Name + " is usable"}
	case placement.All:
		v.out.decision.reason = reasonFailOpen
		return v.give(name, st, st.other, st.everyone)
	case placement.Static:
		v.out.decision.reason = reasonStatic
		return v.give(name, st, st.other, st.static)
	default:
		v.out.decision.reason = reasonFailOpen
		return v.give(name, st, st.other, st.static)
	}
	return ""
}

// target is the name of others that serve a client, or "".
func (v *visit) target(st *steered, c *placement.Choice) string {
	id, ok := c.Cluster()
	if !st.aliased || !ok {
		return ""
	}
	return v.state.snap.Inventory.CNAME(id)
}

// typed tells whether a type is chosen per client whoever serves.
func (st *steered) typed(qtype uint16) bool {
	return qtype == dns.TypeA || qtype == dns.TypeAAAA || st.binding(qtype) != nil
}

// steers tells whether what is said to a type depends on the client: of a name that may
// be an alias all types do, but for those which stand beside one (RFC 4034 section 2.5).
func (st *steered) steers(qtype uint16) bool {
	switch qtype {
	case dns.TypeANY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeDS:
		return false
	}
	return st.aliased || st.typed(qtype)
}

// everyone are all addresses of all clusters.
func (st *steered) everyone(ipv6 bool) []netip.Addr {
	if ipv6 {
		return ofFamily(st.fixed, dns.TypeAAAA, len(st.fixed))
	}
	return ofFamily(st.fixed, dns.TypeA, len(st.fixed))
}

// static are addresses of the static set.
func (st *steered) static(ipv6 bool) []netip.Addr {
	if ipv6 {
		return ofFamily(st.fixed, dns.TypeAAAA, st.pick)
	}
	return ofFamily(st.fixed, dns.TypeA, st.pick)
}

// give answers with an alias, and returns the name to go on with, or with addresses, or
// with how they are spoken to. Their ports have no place in DNS.
func (v *visit) give(name string, st *steered, alias string, addrs func(ipv6 bool) []netip.Addr) (next string) {
	qtype := v.reply.q.qtype
	switch b := st.binding(qtype); {
	case alias != "":
		h := dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: st.ttl}
		v.reply.answer = append(v.reply.answer, &dns.CNAME{Hdr: h, Target: alias})
		if qtype == dns.TypeCNAME { // RFC 1034 section 3.6.2
			return ""
		}
		return alias
	case b != nil:
		v.bind(name, b, addrs(false), addrs(true), st.ttl)
	case !st.typed(qtype):
		v.denial(st.ttl)
	default:
		v.addresses(name, addrs(qtype == dns.TypeAAAA), st.ttl)
	}
	return ""
}

// hosts drops the ports.
func hosts(in []netip.AddrPort) []netip.Addr {
	var out []netip.Addr
	for _, ap := range in {
		out = append(out, ap.Addr())
	}
	return out
}

// reasons lists them all, in the order in which they are counted.
var reasons = [...]string{reasonNearest, reasonSpill, reasonHealth, reasonDrain, reasonFailOpen, reasonStatic}

// reason tells in one word why this cluster: the first choice, or what kept the
// clients from the one before it.
func reason(c *placement.Choice) string {
	switch {
	case c.Head < 0:
		return reasonHealth
	case c.Row.FailOpen:
		return reasonFailOpen
	case c.Head == 0:
		return reasonNearest
	}
	switch c.Row.Candidates[0].Out {
	case placement.OutDown, placement.OutForced:
		return reasonHealth
	case placement.OutDrained:
		return reasonDrain
	case placement.OutExcluded, placement.OutTier, placement.OutFarther, placement.OutSkipped:
		return reasonNearest
	}
	return reasonSpill
}

// ofFamily returns up to pick addresses of the type asked, in the order given.
func ofFamily(addrs []netip.Addr, qtype uint16, pick int) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is6() == (qtype == dns.TypeAAAA) && len(out) < pick {
			out = append(out, a)
		}
	}
	return out
}
