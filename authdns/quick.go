package authdns

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// quick is what the fast path holds of a state: finished replies to what is asked
// most. Every one of them was made by the slow path, so that both give the same
// octets; what depends on more than the name, the type and a choice of the Snapshot
// is left to it.
type quick struct {
	options wire.Options
	zones   []string // by the number that counts go by
	// services hold what steered names need beside their bodies.
	services []quickService
	// cuts are those of the top level, and the apexes of the low one.
	cuts      []quickCut
	low, top  quickLevel
	decisions int // cells of all services in a ledger
	rows      int
}

// quickLevel is one level's replies. The static ones outlive snapshots.
type quickLevel struct {
	static  *wire.Index
	steered *wire.Index
	// chosen holds what depends on the resolver: cuts of the top level, and NS sets
	// of the apexes that they lead to.
	chosen *wire.Index
	// static depends on this: zones, marks and hosts, in text.
	key string
}

// quickCut is a zone whose name servers are chosen per resolver.
type quickCut struct {
	service string
	zone    int
	// bodies by row of the service's map, counted from the entry's first.
	bodies []uint32
}

// quickService is a service, in one zone, whose names are answered from its map.
type quickService struct {
	steered *steered
	zone    int
	m       *placement.ServiceMap
	sites   []string // of the map's clusters, in their order, "" at the end: nobody
	// turns say for A and AAAA where the bodies of a cluster begin in an entry, and
	// in how many orders its addresses are given.
	turns [2][]turn
	// The service's first cells in a ledger.
	decision, row int
}

type turn struct {
	first uint32
	count int
}

// maxQuick bounds the names whose replies are made ahead. Beyond it a new zone
// would take seconds to come into force.
const maxQuick = 100_000

// quicken makes the fast path of a state, taking over from the one before what
// has not changed.
func (c *compiler) quicken(before *state) {
	s := c.state
	q := &quick{options: wire.Options{Subnet: !s.ecs.Off}}
	if !s.self.Hide {
		q.options.NSID = s.nsid()
	}
	q.zones = slices.Sorted(maps.Keys(c.zones))
	for _, l := range []placement.Level{placement.LowLevel, placement.TopLevel} {
		lv := q.level(l)
		lv.key = c.staticKey(l)
		if old := before.quickLevel(l); old != nil && old.key == lv.key {
			lv.static = old.static
		} else {
			lv.static = c.quickStatic(q, l)
		}
	}
	s.quick = q
	if s.snap != nil {
		c.quickSteered(q, before)
	}
}

func (q *quick) level(l placement.Level) *quickLevel {
	if l == placement.TopLevel {
		return &q.top
	}
	return &q.low
}

func (s *state) quickLevel(l placement.Level) *quickLevel {
	if s == nil || s.quick == nil {
		return nil
	}
	return s.quick.level(l)
}

// staticKey names all that the static replies of a level depend on.
func (c *compiler) staticKey(l placement.Level) string {
	var b strings.Builder
	f := c.state.forest(l)
	for _, name := range slices.Sorted(maps.Keys(c.zones)) {
		z := c.zones[name]
		// Pointers are good names: the zones of the state before were held until now.
		fmt.Fprintf(&b, "%s %p %v %v %q\n", name, z.zone, f[name] != nil, f[name] != nil && f[name].blind, z.meta.NameServers)
		for _, m := range c.marks[name] {
			fmt.Fprintf(&b, " %s", m.Name)
			switch v := m.Value.(type) {
			case *host:
				fmt.Fprintf(&b, " %v %d", v.all, v.ttl)
			case *steered:
				mapped := v.service != nil && len(rowsOf(c.snap.Map(v.service.Name))) > 0
				fmt.Fprintf(&b, " %v %v %v %d %d", mapped, v.observe, v.fixed, v.pick, v.ttl)
			}
		}
	}
	return b.String()
}

// quickStatic asks the slow path for every name and type of the files, and for
// what is below each name.
func (c *compiler) quickStatic(q *quick, l placement.Level) *wire.Index {
	var b wire.Builder
	f := c.state.forest(l)
	left := maxQuick
	for i, name := range q.zones {
		z := f[name]
		if z == nil {
			continue
		}
		if z.zone == nil || z.zone.Owners > left || i > math.MaxUint16 {
			b.AddSuffix(wireName(name), 0) // for the slow path, whatever the zone around it says
			b.Reply(nil)
			continue
		}
		left -= z.zone.Owners
		c.quickZone(&b, f, z, l, uint16(i))
	}
	return b.Index()
}

// quickZone adds the static replies of a zone.
func (c *compiler) quickZone(b *wire.Builder, f forest, z *served, l placement.Level, tag uint16) {
	own := func(name string) bool { return f.find(name, dns.TypeNone) == z } // not of a deeper zone
	soa := z.zone.SOA()
	spelt := spelled{below: z.name}
	spelt.add(soa.Ns, soa.Mbox)
	denial := c.quickDenial(z, spelt.below1())
	z.zone.Visit(func(owner string, types []uint16, shape zone.Shape) {
		if !own(owner) {
			return
		}
		b.AddSuffix(wireName(owner), tag)
		switch {
		case shape == zone.Cut:
			targets := spelled{below: owner}
			for _, rr := range z.zone.RRset(owner, dns.TypeNS) {
				targets.add(rr.(*dns.NS).Ns)
			}
			b.Reply(c.quickReferral(z, owner, targets.below1()))
			targets.leave(b, tag, own)
			return
		case shape == zone.Plain && !spelt.takes(owner) && z.denies(owner):
			b.Reply(denial)
		default:
			b.Reply(nil)
		}
		c.state.quickTypes(b, z, owner, types, l, tag)
	})
	spelt.leave(b, tag, own)
}

// denies tells whether names below one do not exist: a DNAME above it would
// speak for them first.
func (s *served) denies(owner string) bool {
	return s.zone.Lookup(join("x", owner), dns.TypeNone).Kind == zone.NXDomain
}

// spelled are the names that a reply for all names below another spells out. A
// question that shares more of one than the other name would have it point there,
// so such questions are left to the slow path: by the ancestor of each that is
// one label longer than the other name.
type spelled struct {
	below string
	tops  []string
	taken []string // tops that have an entry
}

func (s *spelled) add(names ...string) {
	for _, name := range names {
		name = zone.Canonical(name)
		labels := dns.CountLabel(name) - dns.CountLabel(s.below)
		if !dns.IsSubDomain(s.below, name) || labels == 0 {
			continue
		}
		at, _ := dns.PrevLabel(name, dns.CountLabel(s.below)+1)
		if top := name[at:]; !slices.Contains(s.tops, top) {
			s.tops = append(s.tops, top)
		}
	}
}

// takes tells whether a name is one of the tops, or below one.
func (s *spelled) takes(name string) bool {
	if slices.Contains(s.tops, name) {
		s.taken = append(s.taken, name)
	}
	return slices.ContainsFunc(s.tops, func(top string) bool { return dns.IsSubDomain(top, name) })
}

// leave adds entries without a reply for the tops that have none, as far as they
// are the zone's own.
func (s *spelled) leave(b *wire.Builder, tag uint16, own func(string) bool) {
	for _, top := range s.tops {
		if !slices.Contains(s.taken, top) && own(top) {
			b.AddSuffix(wireName(top), tag)
			b.Reply(nil)
		}
	}
}

// below1 is a name one label longer, which is none of the tops: what is made for
// it spells the tops out, and goes with every name that shares none of them.
func (s *spelled) below1() string {
	label := "x"
	for slices.Contains(s.tops, join(label, s.below)) {
		label += "x"
	}
	return join(label, s.below)
}

// join puts a label before a name.
func join(label, name string) string {
	if name == "." {
		return label + "."
	}
	return label + "." + name
}

// quickTypes adds the replies of one name.
func (s *state) quickTypes(b *wire.Builder, z *served, owner string, types []uint16, l placement.Level, tag uint16) {
	_, chosen := z.zone.Mark(owner).(*steered)
	for _, t := range askedTypes(types) {
		if z.refer != nil && t == dns.TypeNS && owner == z.name {
			continue // per resolver
		}
		if chosen && (t == dns.TypeA || t == dns.TypeAAAA) {
			continue // per client
		}
		if msg := s.quickReply(owner, t, l); msg != nil {
			b.Add(wireName(owner), t, tag)
			b.Reply(msg)
		}
	}
}

// quickDenial is what a zone says of names that do not exist, for one of them.
func (c *compiler) quickDenial(z *served, name string) []byte {
	return c.quickChoice(z, name, dns.TypeNone, func(v *visit) { v.negative(zone.NXDomain) })
}

// quickReferral is what is said of a name below a cut where it is the same for
// everybody, else nil.
func (c *compiler) quickReferral(z *served, cut, name string) []byte {
	res := z.zone.Lookup(name, dns.TypeNone)
	if _, ok := res.Mark.(*delegation); ok || res.Kind != zone.Delegation || res.Owner != cut {
		return nil
	}
	return c.quickChoice(z, name, dns.TypeNone, func(v *visit) {
		v.reply.aa = false
		v.referral(res)
	})
}

// askedTypes are the types of a name, and those which are asked of any name.
func askedTypes(types []uint16) []uint16 {
	out := append(slices.Clone(types), dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS)
	slices.Sort(out)
	return slices.Compact(out)
}

// quickReply is the slow path's reply where it is the same for everybody, else nil.
func (s *state) quickReply(name string, qtype uint16, l placement.Level) []byte {
	in := make([]byte, headerLen, headerLen+260)
	in[5] = 1
	in = append(in, wireName(name)...)
	in = append(in, byte(qtype>>8), byte(qtype), 0, dns.ClassINET)
	out := make([]byte, maxTCP)
	nobody := netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	n, o := s.answer(in, out, asker{addr: nobody, level: l, tcp: true})
	authoritative := n > headerLen && out[2]&0x04 != 0
	if o.decision != nil || o.rcode != dns.RcodeSuccess || !authoritative || n > wire.MaxUDP {
		return nil
	}
	return out[:n]
}

// wireName is a canonical name in the form it has in a message.
func wireName(name string) []byte {
	b := make([]byte, 255)
	n, err := dns.PackDomainName(name, b, 0, nil, false)
	if err != nil {
		return nil // no name of a zone
	}
	return b[:n]
}

// quickSteered makes what is answered from maps. The bodies of steered names hold
// every answer that a map may come to, so they outlive snapshots of one Inventory:
// votes change often, and must act at once.
func (c *compiler) quickSteered(q *quick, before *state) {
	names := c.quickServices(q)
	if c.sameSteered(q, before) {
		q.low.steered, q.top.steered = before.quick.low.steered, before.quick.top.steered
	} else {
		for _, l := range []placement.Level{placement.LowLevel, placement.TopLevel} {
			q.level(l).steered = c.quickNames(q, l, names)
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
		b.AddSuffix(wireName(name), tag)
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
			b.Reply(c.quickSet(z, d, asked, hosts, ttl, write))
		}
		cut.bodies = append(cut.bodies, at)
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
func (c *compiler) quickSet(z *served, d *delegation, asked string, hosts []*host, ttl uint32, write func(v *visit, ns, glue []dns.RR)) []byte {
	if len(hosts) == 0 {
		return nil
	}
	return c.quickChoice(z, asked, dns.TypeNS, func(v *visit) {
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
			n := max(1, len(c.snap.Inventory.Addresses(id, f == 1)))
			s.turns[f] = append(s.turns[f], turn{at, n})
			at += uint32(n)
		}
	}
	for _, id := range m.Clusters {
		s.sites = append(s.sites, id.Site)
	}
	s.sites = append(s.sites, "")
	q.decisions += len(s.sites) * len(reasons)
	q.rows += len(m.Rows)
	q.services = append(q.services, s)
	return true
}

// quickName adds a steered name where a level serves its zone. made holds the
// entries whose bodies can be shared.
func (c *compiler) quickName(q *quick, b *wire.Builder, l placement.Level, n quickSteeredName, made map[quickAnswers]int) {
	svc := &q.services[n.service]
	z := c.state.forest(l)[q.zones[svc.zone]]
	if z == nil || z.zone == nil || z.zone.Mark(n.name) != any(svc.steered) {
		return // not served here, or something else was laid over it later
	}
	for f, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		key, tag := quickAnswers{n.service, t}, uint16(n.service)
		if same, ok := made[key]; ok {
			b.AddSame(wireName(n.name), t, tag, same)
			continue
		}
		entry, shared := b.Add(wireName(n.name), t, tag), true
		c.quickBodies(svc, z, n.name, f, func(msg []byte) {
			b.Reply(msg)
			shared = shared && onlyAnswers(msg)
		})
		if shared {
			made[key] = entry
		}
	}
}

// quickBodies makes the replies to one name: the first is for when nobody is left
// to choose.
func (c *compiler) quickBodies(svc *quickService, z *served, name string, family int, add func(msg []byte)) {
	t := []uint16{dns.TypeA, dns.TypeAAAA}[family]
	add(c.quickChoice(z, name, t, func(v *visit) {
		v.out.decision = &decision{}
		v.chosen(name, svc.steered, &placement.Choice{Head: -1}, netip.Addr{})
	}))
	for k, id := range svc.m.Clusters {
		all := c.snap.Inventory.Addresses(id, family == 1)
		for by := range svc.turns[family][k].count {
			add(c.quickChoice(z, name, t, func(v *visit) {
				v.addresses(name, hosts(placement.Rotated(all, by, svc.steered.pick)), svc.steered.ttl)
			}))
		}
	}
}

// onlyAnswers tells whether a reply holds addresses of the name asked and nothing
// else: their owners point at the question, whatever it is. A denial names the zone.
func onlyAnswers(msg []byte) bool {
	return msg == nil || binary.BigEndian.Uint16(msg[6:]) > 0 && binary.BigEndian.Uint32(msg[8:]) == 0
}

// quickChoice packs what the slow path writes about one choice.
func (c *compiler) quickChoice(z *served, name string, qtype uint16, write func(*visit)) []byte {
	question := append(wireName(name), byte(qtype>>8), byte(qtype), 0, dns.ClassINET)
	q := query{question: question, name: name, canon: zone.Canonical(name), qtype: qtype, qclass: dns.ClassINET}
	r := reply{q: &q, aa: true}
	write(&visit{state: c.state, zone: z, reply: &r, out: &outcome{}})
	out := make([]byte, maxUDP)
	n, truncated := r.pack(out, maxUDP)
	if r.rcode != dns.RcodeSuccess && r.rcode != dns.RcodeNameError || truncated {
		return nil
	}
	return out[:n]
}
