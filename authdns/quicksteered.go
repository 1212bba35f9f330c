package authdns

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// quickSteered makes what is answered from maps. The bodies of steered names hold
// every answer that a map may come to, so they outlive snapshots of one Inventory:
// votes change often, and must act at once.
func (c *compiler) quickSteered(q *quick, before *state) {
	names := c.quickServices(q)
	if c.sameSteered(q, before) {
		q.low.steered, q.top.steered = before.quick.low.steered, before.quick.top.steered
		q.low.keptSteered, q.top.keptSteered = before.quick.low.keptSteered, before.quick.top.keptSteered
	} else {
		for _, l := range []placement.Level{placement.LowLevel, placement.TopLevel} {
			q.level(l).steered, q.level(l).keptSteered = c.quickNames(q, l, names), newKept(q)
		}
	}
	q.low.chosen, q.top.chosen = c.quickApexes(q), c.quickCuts(q)
}

// sameSteered tells whether the bodies of steered names would be those of a state.
func (c *compiler) sameSteered(q *quick, before *state) bool {
	return before != nil && before.snap != nil && before.snap.Inventory == c.snap.Inventory &&
		before.quick.low.key == q.low.key && before.quick.top.key == q.top.key &&
		slices.EqualFunc(before.quick.services, q.services, func(a, b quickService) bool {
			return a.zone == b.zone && a.steered.service == b.steered.service && slices.Equal(a.m.Clusters, b.m.Clusters)
		})
}

// quickSteeredName is a steered name, and its service's place.
type quickSteeredName struct {
	name    string
	service int
}

// quickServices lists the services that are answered from their maps, one for each
// zone with names of it, and the names.
func (c *compiler) quickServices(q *quick) (names []quickSteeredName) {
	for i, name := range q.zones {
		done := map[*steered]int{}
		for _, m := range c.marks[name] {
			st, ok := m.Value.(*steered)
			if !ok || st.service == nil || st.observe || m.Name == "." {
				continue
			}
			if _, ok := done[st]; !ok && c.quickService(q, st, i) {
				done[st] = len(q.services) - 1
			}
			if k, ok := done[st]; ok {
				names = append(names, quickSteeredName{m.Name, k})
			}
		}
	}
	return names
}

// quickNames makes the bodies of all steered names of a level: for each cluster
// which may serve, and each order of its addresses.
func (c *compiler) quickNames(q *quick, l placement.Level, names []quickSteeredName) *wire.Index {
	var b wire.Builder
	made := map[quickAnswers]int{}
	for _, n := range names {
		c.quickName(q, &b, l, n, made)
	}
	return b.Index()
}

// quickAnswers are the bodies of a service and type which go with any of its names.
type quickAnswers struct {
	service int
	qtype   uint16
}

// quickApexes makes the NS sets of the zones that are referred to, as the zones
// themselves give them.
func (c *compiler) quickApexes(q *quick) *wire.Index {
	var b wire.Builder
	for i, name := range q.zones {
		z := c.state.low[name]
		if z == nil || z.zone == nil || z.refer == nil || len(q.cuts) > math.MaxUint16 {
			continue
		}
		b.Add(wireName(name), dns.TypeNS, uint16(len(q.cuts)))
		c.quickSets(q, &b, z.refer, z, i, name, func(v *visit, ns, glue []dns.RR) { v.reply.answer, v.reply.extra = ns, glue })
	}
	return b.Index()
}

// quickCuts makes the referrals to them, as the zones around them give them. A
// cut below another one is never reached.
func (c *compiler) quickCuts(q *quick) *wire.Index {
	var b wire.Builder
	for _, name := range q.zones {
		around := c.state.top.find(name, dns.TypeNone)
		if around == nil || around.zone == nil || around.name == name || len(q.cuts) > math.MaxUint16 {
			continue
		}
		res := around.zone.Lookup(name, dns.TypeNone)
		d, ok := res.Mark.(*delegation)
		if !ok || res.Kind != zone.Delegation || res.Owner != name {
			continue
		}
		tag, targets := uint16(len(q.cuts)), spelled{below: name}
		for _, h := range d.global {
			targets.add(h.name)
		}
		b.AddSuffix(wireName(name), tag, false)
		c.quickSets(q, &b, d, around, slices.Index(q.zones, around.name), targets.below1(), func(v *visit, ns, glue []dns.RR) {
			v.reply.aa, v.reply.authority, v.reply.glue = false, ns, glue
		})
		targets.leave(&b, tag, func(string) bool { return true })
	}
	return b.Index()
}

// quickSets adds a body for each set of name servers that a resolver may be given.
func (c *compiler) quickSets(q *quick, b *wire.Builder, d *delegation, z *served, zoneAt int, asked string, write func(v *visit, ns, glue []dns.RR)) {
	cut := quickCut{service: d.service, zone: zoneAt}
	m := c.snap.Map(d.service)
	made := map[string]uint32{}
	var signed [][]byte
	for i := range rowsOf(m) {
		hosts, ttl := d.chooseRow(c.snap, &placement.Choice{Map: m, Row: m.Rows[i]})
		key := fmt.Sprint(ttl)
		for _, h := range hosts {
			key += " " + h.name
		}
		at, ok := made[key]
		if !ok {
			at = uint32(len(made))
			made[key] = at
			b.Reply(c.quickSet(z, d, asked, hosts, ttl, false, write))
			if z.validated() {
				signed = append(signed, c.quickSet(z, d, asked, hosts, ttl, true, write))
			}
		}
		cut.bodies = append(cut.bodies, at)
	}
	cut.signed = uint32(len(made))
	for _, msg := range signed {
		b.Reply(msg)
	}
	if len(cut.bodies) == 0 || d.observe {
		b.Reply(nil)
		cut.bodies = nil
	}
	q.cuts = append(q.cuts, cut)
}

func rowsOf(m *placement.ServiceMap) []*placement.Row {
	if m == nil {
		return nil
	}
	return m.Rows
}

// quickSet packs one set of name servers; nil where the generic one is to be given.
func (c *compiler) quickSet(z *served, d *delegation, asked string, hosts []*host, ttl uint32, signed bool, write func(v *visit, ns, glue []dns.RR)) []byte {
	if len(hosts) == 0 {
		return nil
	}
	return c.quickChoice(z, asked, dns.TypeNS, signed, func(v *visit) {
		ns, glue := d.records(v.reply, hosts, ttl)
		write(v, ns, glue)
	})
}

// quickService adds a service with a map.
func (c *compiler) quickService(q *quick, st *steered, zoneAt int) bool {
	m := c.snap.Map(st.service.Name)
	if m == nil || len(m.Rows) == 0 || len(q.services) > math.MaxUint16 {
		return false
	}
	s := quickService{steered: st, zone: zoneAt, m: m, decision: q.decisions, row: q.rows}
	for f := range s.turns {
		at := uint32(1) // the first body is for when nobody is left to choose
		for _, id := range m.Clusters {
			n := c.orders(id, f)
			s.turns[f] = append(s.turns[f], turn{at, n})
			at += uint32(n)
		}
	}
	for _, id := range m.Clusters {
		s.sites = append(s.sites, id.Site)
	}
	if m.Policy.Answers.Set() {
		c.quickSeveral(&s)
	}
	s.sites = append(s.sites, "")
	q.decisions += len(s.sites) * len(reasons)
	q.rows += len(m.Rows)
	q.services = append(q.services, s)
	return true
}

// maxOrders bounds the orders in which the addresses of a cluster are given in one answer.
const maxOrders = 64

// orders is in how many ways the addresses of a cluster follow each other. Both kinds
// turn by the same number: together they come round when both have. 0 is too many.
func (c *compiler) orders(id placement.ClusterID, family int) int {
	n4, n6 := max(1, len(c.snap.Inventory.Addresses(id, false))), max(1, len(c.snap.Inventory.Addresses(id, true)))
	switch family {
	case family4:
		return n4
	case family6:
		return n6
	}
	n := n4
	for n%n6 != 0 {
		n += n4
	}
	if n > maxOrders {
		return 0
	}
	return n
}

// quickName adds a steered name where a level serves its zone. made holds the
// entries whose bodies can be shared.
func (c *compiler) quickName(q *quick, b *wire.Builder, l placement.Level, n quickSteeredName, made map[quickAnswers]int) {
	svc := &q.services[n.service]
	z := c.state.forest(l)[q.zones[svc.zone]]
	if z == nil || z.zone == nil || z.zone.Mark(n.name) != any(svc.steered) {
		return // not served here, or something else was laid over it later
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB} {
		if !svc.steered.typed(t) {
			continue
		}
		key, tag := quickAnswers{n.service, t}, uint16(n.service)
		if same, ok := made[key]; ok {
			b.AddSame(wireName(n.name), t, tag, same)
			continue
		}
		entry, shared := b.Add(wireName(n.name), t, tag), !svc.steered.aliased
		c.quickBodies(svc, z, n.name, t, func(msg []byte) {
			b.Reply(msg)
			shared = shared && onlyAnswers(msg, familyOf(t))
		})
		if shared {
			made[key] = entry
		}
	}
}

// quickBodies makes the replies to one name and type: the first is for when nobody is
// left to choose.
func (c *compiler) quickBodies(svc *quickService, z *served, name string, qtype uint16, add func(msg []byte)) {
	st, family := svc.steered, familyOf(qtype)
	pick := st.pick
	if svc.several != nil {
		pick = 1 // of each cluster; they are put together when the query comes
	}
	if st.allDown == placement.Static {
		add(nil) // what the file has is of each name
	} else {
		add(c.quickChoice(z, name, qtype, false, func(v *visit) {
			v.out.decision = &decision{}
			v.chosen(name, st, &placement.Choice{Head: -1}, netip.Addr{})
		}))
	}
	for k, id := range svc.m.Clusters {
		for by := range svc.turns[family][k].count {
			alias := ""
			if st.aliased {
				alias = c.snap.Inventory.CNAME(id)
			}
			if dns.IsSubDomain(z.name, alias) && alias != "" {
				add(nil) // the zone has more to say of it
				continue
			}
			add(c.quickChoice(z, name, qtype, false, func(v *visit) {
				v.give(name, st, alias, func(ipv6 bool) []netip.Addr {
					all := c.snap.Inventory.Addresses(id, ipv6)
					return hosts(placement.Rotated(all, by%max(1, len(all)), pick))
				})
			}))
		}
	}
}

// onlyAnswers tells whether a reply holds records of the name asked and nothing else:
// their owners point at the question, whatever it is. A denial names the zone. The
// additional addresses of a binding are of the name asked.
func onlyAnswers(msg []byte, family int) bool {
	return msg == nil || binary.BigEndian.Uint16(msg[6:]) > 0 && binary.BigEndian.Uint16(msg[8:]) == 0 &&
		(family == familyBoth || binary.BigEndian.Uint16(msg[10:]) == 0)
}
