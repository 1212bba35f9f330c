package authdns

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

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
	signed  []bool   // of the zones: replies differ for those who validate
	compact []bool   // of the zones: they deny as RFC 9824 has it
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
	static *wire.Index
	// lacks are the bodies of static that say of a zone's whole names that they have not
	// a type, by number of the zone.
	lacks   []uint32
	steered *wire.Index
	// chosen holds what depends on the resolver: cuts of the top level, and NS sets
	// of the apexes that they lead to.
	chosen *wire.Index
	// kept and keptSteered hold signed replies of the same kinds, made at their first
	// query; they live as long.
	kept, keptSteered *wire.Kept
	// static depends on this: zones, marks and hosts, see staticKey.
	key [sha256.Size]byte
}

// quickCut is a zone whose name servers are chosen per resolver.
type quickCut struct {
	service string
	zone    int
	// bodies by row of the service's map, counted from the entry's first.
	bodies []uint32
	// signed is how many bodies further on the signed ones begin.
	signed uint32
}

// quickService is a service, in one zone, whose names are answered from its map.
type quickService struct {
	steered *steered
	zone    int
	m       *placement.ServiceMap
	sites   []string // of the map's clusters, in their order, "" at the end: nobody
	// turns say for each family of types where the bodies of a cluster begin in an entry,
	// and in how many orders its addresses are given.
	turns [families][]turn
	// several tells of each cluster, where answers are made of several, how it may stand in one.
	several []fragment
	// The service's first cells in a ledger.
	decision, row int
}

// A turn without a count is left to the slow path.
type turn struct {
	first uint32
	count int
}

// The types that are answered alike: by addresses of one kind, or of both.
const (
	family4 = iota
	family6
	familyBoth // RFC 9460
	families
)

// familyOf is that of a type.
func familyOf(qtype uint16) int {
	switch qtype {
	case dns.TypeA:
		return family4
	case dns.TypeAAAA:
		return family6
	}
	return familyBoth
}

// maxQuick bounds the names whose replies are made ahead. Beyond it a new zone
// would take seconds to come into force.
const maxQuick = 2_000_000

// unlisted is how many bodies the entry of such a zone has, none of which is there: no
// other entry of the static index has as many, so that nobody takes its names, which
// the index does not hold, for ones that do not exist.
const unlisted = 3

// quicken makes the fast path of a state, taking over from the one before what
// has not changed.
func (c *compiler) quicken(before *state) {
	s := c.state
	q := &quick{options: wire.Options{Subnet: !s.ecs.Off}}
	if !s.self.Hide {
		q.options.NSID = s.nsid()
	}
	q.zones = slices.Sorted(maps.Keys(c.zones))
	for _, name := range q.zones {
		q.signed = append(q.signed, c.zones[name].signed())
		q.compact = append(q.compact, c.zones[name].sign != nil)
	}
	for _, l := range []placement.Level{placement.LowLevel, placement.TopLevel} {
		lv := q.level(l)
		lv.key = c.staticKey(l)
		lv.kept = newKept(q)
		if old := before.quickLevel(l); old != nil && old.key == lv.key {
			lv.static, lv.lacks, lv.kept = old.static, old.lacks, old.kept
		} else {
			lv.static, lv.lacks = c.quickStatic(q, l)
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

// staticKey names all that the static replies of a level depend on, by its SHA-256: the
// text has a line for each name that is not.
func (c *compiler) staticKey(l placement.Level) (key [sha256.Size]byte) {
	b := sha256.New()
	f := c.state.forest(l)
	for _, name := range slices.Sorted(maps.Keys(c.zones)) {
		z := c.zones[name]
		if z.meta.Catalog != nil {
			fmt.Fprintf(b, "%s %v hidden\n", name, f[name] != nil)
			continue
		}
		// Pointers are good names: the zones of the state before were held until now.
		fmt.Fprintf(b, "%s %p %p %v %v %q\n", name, z.zone, z.sign, f[name] != nil, f[name] != nil && f[name].blind, z.meta.NameServers)
		for _, m := range c.marks[name] {
			fmt.Fprintf(b, " %s", m.Name)
			switch v := m.Value.(type) {
			case *host:
				fmt.Fprintf(b, " %v %d", v.all, v.ttl)
			case *alias:
				fmt.Fprintf(b, " %s", v.target)
			case *steered:
				mapped := v.service != nil && len(rowsOf(c.snap.Map(v.service.Name))) > 0
				fmt.Fprintf(b, " %v %v %v %d %d %v %s", mapped, v.observe, v.fixed, v.pick, v.ttl, v.aliased, v.other)
				for _, bind := range []*placement.Binding{v.https, v.svcb} {
					if bind != nil {
						fmt.Fprintf(b, " %+v", *bind)
					}
				}
			}
		}
	}
	b.Sum(key[:0])
	return key
}

// quickChoice packs what the slow path writes about one choice, signed or not.
func (c *compiler) quickChoice(z *served, name string, qtype uint16, signed bool, write func(*visit)) []byte {
	question := append(wireName(name), byte(qtype>>8), byte(qtype), 0, dns.ClassINET)
	q := query{question: question, name: name, canon: zone.Canonical(name), qtype: qtype, qclass: dns.ClassINET}
	q.edns.do = signed
	r := reply{q: &q, aa: true}
	v := visit{state: c.state, zone: z, reply: &r, out: &outcome{}}
	write(&v)
	v.secure()
	out := make([]byte, maxUDP)
	n, truncated := r.pack(out, maxUDP)
	if r.rcode != dns.RcodeSuccess && r.rcode != dns.RcodeNameError || truncated {
		return nil
	}
	return out[:n]
}
