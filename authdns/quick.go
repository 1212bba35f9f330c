package authdns

import (
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
// octets; what depends on more than the name, the type and the choice of a cluster
// is left to it (referrals, wildcards, names that do not exist).
type quick struct {
	options wire.Options
	zones   []string // by the number that counts go by
	// services hold what steered names need beside their bodies.
	services  []quickService
	low, top  quickLevel
	decisions int // cells of all services in a ledger
	rows      int
}

// quickLevel is one level's replies. The static ones outlive snapshots.
type quickLevel struct {
	static  *wire.Index
	steered *wire.Index
	// static depends on this: zones, marks and hosts, in text.
	key string
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
			lv.static = s.quickStatic(q, l)
		}
	}
	s.quick = q
	if s.snap != nil {
		c.quickSteered(q)
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
		fmt.Fprintf(&b, "%s %p %v %v\n", name, z.zone, f[name] != nil, f[name] != nil && f[name].blind)
		for _, m := range c.marks[name] {
			fmt.Fprintf(&b, " %s", m.Name)
			switch v := m.Value.(type) {
			case *host:
				fmt.Fprintf(&b, " %v %d", v.all, v.ttl)
			case *steered:
				mapped := v.service != nil && c.snap.Map(v.service.Name) != nil
				fmt.Fprintf(&b, " %v %v %v %d %d", mapped, v.observe, v.fixed, v.pick, v.ttl)
			}
		}
	}
	return b.String()
}

// quickStatic asks the slow path for every name and type of the files.
func (s *state) quickStatic(q *quick, l placement.Level) *wire.Index {
	var b wire.Builder
	f := s.forest(l)
	left := maxQuick
	for i, name := range q.zones {
		z := f[name]
		if z == nil || z.zone == nil || z.zone.Owners > left {
			continue
		}
		left -= z.zone.Owners
		z.zone.Visit(func(owner string, types []uint16) {
			if f.find(owner, dns.TypeNone) != z {
				return // it belongs to a deeper zone
			}
			_, chosen := z.zone.Mark(owner).(*steered)
			for _, t := range quickTypes(types) {
				if z.refer != nil && t == dns.TypeNS && owner == name {
					continue // per resolver
				}
				if chosen && (t == dns.TypeA || t == dns.TypeAAAA) {
					continue // per client
				}
				if msg := s.quickReply(owner, t, l); msg != nil {
					b.Add(wireName(owner), t, uint16(i))
					b.Reply(msg)
				}
			}
		})
	}
	return b.Index()
}

// quickTypes are the types of a name, and those which are asked of any name.
func quickTypes(types []uint16) []uint16 {
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

// quickSteered makes the bodies of all steered names: for each cluster which may
// serve, and each order of its addresses.
func (c *compiler) quickSteered(q *quick) {
	low, top := wire.Builder{}, wire.Builder{}
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
				c.quickName(q, &low, placement.LowLevel, m.Name, k)
				c.quickName(q, &top, placement.TopLevel, m.Name, k)
			}
		}
	}
	q.low.steered, q.top.steered = low.Index(), top.Index()
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

// quickName adds a steered name where a level serves its zone.
func (c *compiler) quickName(q *quick, b *wire.Builder, l placement.Level, name string, service int) {
	svc := &q.services[service]
	z := c.state.forest(l)[q.zones[svc.zone]]
	if z == nil || z.zone == nil {
		return
	}
	for f, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		b.Add(wireName(name), t, uint16(service))
		b.Reply(c.quickChoice(z, name, t, func(v *visit) {
			v.out.decision = &decision{}
			v.chosen(name, svc.steered, &placement.Choice{Head: -1}, netip.Addr{})
		}))
		for k, id := range svc.m.Clusters {
			all := c.snap.Inventory.Addresses(id, f == 1)
			for by := range svc.turns[f][k].count {
				b.Reply(c.quickChoice(z, name, t, func(v *visit) {
					v.addresses(name, hosts(placement.Rotated(all, by, svc.steered.pick)), svc.steered.ttl)
				}))
			}
		}
	}
}

// quickChoice packs what the slow path writes about one choice.
func (c *compiler) quickChoice(z *served, name string, qtype uint16, write func(*visit)) []byte {
	question := append(wireName(name), byte(qtype>>8), byte(qtype), 0, dns.ClassINET)
	q := query{question: question, name: name, canon: zone.Canonical(name), qtype: qtype, qclass: dns.ClassINET}
	r := reply{q: &q, aa: true}
	write(&visit{state: c.state, zone: z, reply: &r, out: &outcome{}})
	out := make([]byte, maxUDP)
	n, truncated := r.pack(out, maxUDP)
	if r.rcode != dns.RcodeSuccess || truncated {
		return nil
	}
	return out[:n]
}
