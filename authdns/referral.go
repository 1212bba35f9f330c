package authdns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
	"rhumb/placement"
)

// delegation is a zone whose name servers are chosen per resolver.
type delegation struct {
	zone    string
	service string
	observe bool
	pick    int
	// ttl of NS and glue in seconds; child and parent give the same.
	ttl uint32
	// hosts by site, for the clusters of the service; global lists all in order.
	hosts  map[string]*host
	global []*host
	// child is the zone where this node holds it: its apex NS is the generic set.
	child *served
}

// host is a name server's name and addresses.
type host struct {
	name string
	all  []netip.Addr
	ttl  uint32
}

// addrs returns all addresses of the type asked: a host has few, and glue is
// whole or worthless.
func (h *host) addrs(qtype uint16) []netip.Addr { return ofFamily(h.all, qtype, len(h.all)) }

// hostName returns the name of a site's name servers in a zone.
func hostName(site, zone string) string {
	if zone == "." {
		return "ns-" + strings.ToLower(site) + "."
	}
	return "ns-" + strings.ToLower(site) + "." + zone
}

// choose returns the name servers of a resolver and how long they may be kept.
// It depends on the resolver's address and the Snapshot alone, so that parent
// and child give the same set. None means that the generic set is to be used.
func (d *delegation) choose(snap *placement.Snapshot, resolver netip.Addr) (out []*host, ttl uint32) {
	if snap == nil || d.observe {
		return nil, 0
	}
	c, ok := snap.Choose(d.service, resolver, nil)
	if !ok {
		return nil, 0
	}
	return d.chooseRow(snap, &c)
}

// chooseRow is choose for a row of the service's map.
func (d *delegation) chooseRow(snap *placement.Snapshot, c *placement.Choice) (out []*host, ttl uint32) {
	for _, id := range snap.NameServers(c, d.pick) {
		if h := d.hosts[id.Site]; h != nil {
			out = append(out, h)
		}
	}
	return out, seconds(c.TTL())
}

// referral sends the resolver to the name servers of a cut.
func (v *visit) referral(res zone.Result) {
	r := v.reply
	if d, ok := res.Mark.(*delegation); ok {
		v.out.personal = true
		if hosts, ttl := d.choose(v.state.snap, v.resolver()); len(hosts) > 0 {
			r.authority, r.glue = d.records(r, hosts, ttl)
			return
		}
		v.generic(d, res)
		return
	}
	v.staticReferral(v.zone, res.Owner, res.RRs)
}

// resolver is who sent the packet; ECS does not count in a referral.
func (v *visit) resolver() netip.Addr { return v.from.addr.Addr().Unmap() }

// generic refers to the same set for everybody: what the parent's file says, else
// the apex of the child, else every host known. It is used while no map says
// better, since a failure at the top is a failure of everything below.
func (v *visit) generic(d *delegation, res zone.Result) {
	switch {
	case len(res.RRs) > 0:
		v.staticReferral(v.zone, res.Owner, res.RRs)
	case d.child.servesApex():
		v.staticReferral(d.child, res.Owner, d.child.apexNS())
	case len(d.global) > 0:
		v.reply.authority, v.reply.glue = d.records(v.reply, d.global, d.ttl)
	default:
		v.reply.notReady("name servers of " + d.zone + " not known yet")
	}
}

// staticReferral sends the resolver to NS records of a file. Addresses of name
// servers below the cut must go along (RFC 9471), others may.
func (v *visit) staticReferral(from *served, cut string, ns []dns.RR) {
	r := v.reply
	r.authority = r.records(cut, ns, noTTL)
	r.glue, r.extra = from.glue(r, cut, ns)
}

// apexNS answers the NS of a zone's own apex with the set that the referral
// gives this resolver, no longer to be kept than that one.
func (v *visit) apexNS() {
	r, d := v.reply, v.zone.refer
	v.out.personal = true
	if hosts, ttl := d.choose(v.state.snap, v.resolver()); len(hosts) > 0 {
		r.answer, r.extra = d.records(r, hosts, ttl)
		return
	}
	ns := v.zone.apexNS()
	r.answer = r.records(v.zone.name, ns, noTTL)
	required, optional := v.zone.glue(r, v.zone.name, ns)
	r.extra = append(required, optional...)
}

// records makes the NS set of hosts, and all of their addresses.
func (d *delegation) records(r *reply, hosts []*host, ttl uint32) (ns, glue []dns.RR) {
	owner := d.zone
	for _, h := range hosts {
		name := strings.TrimSuffix(h.name, d.zone) + owner
		hdr := dns.RR_Header{Name: owner, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: ttl}
		ns = append(ns, &dns.NS{Hdr: hdr, Ns: name})
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
			glue = append(glue, addressRRs(name, h.addrs(t), ttl)...)
		}
	}
	return ns, glue
}
