package authdns

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// identity is who answers.
type identity struct {
	Site, Node, Version string
	// Hide switches NSID and CHAOS off.
	Hide bool
	// outside knows the names of others; nil: none is known.
	outside *outside
	// Mode of this node; Observe holds whatever the Inventory says.
	Mode placement.Mode
	// Idle is how long a TCP connection may idle, as keepalive tells it.
	Idle time.Duration
}

// state is everything an answer depends on, compiled together and immutable.
type state struct {
	self     identity
	snap     *placement.Snapshot // nil on a fresh node
	ecs      placement.ECS
	top, low forest
	// marks and refer are what was laid over the zones, by zone; both are for views.
	marks map[string][]zone.Mark
	refer map[string]*delegation
	// faults say by zone what could not be laid over it.
	faults map[string]string
	quick  *quick
}

// forest holds the zones of one level by name.
type forest map[string]*served

// served is a zone as one level serves it.
type served struct {
	name string
	zone *zone.Zone // nil until a first version was right
	// unserved says why zone is nil, where it is so on purpose.
	unserved string
	// refer is set where the name servers are chosen per resolver.
	refer *delegation
	// blind is set while the names steered in the zone are not known.
	blind bool
	// hidden is set for a list of zones, of which only the SOA is anybody's business.
	hidden bool
	sign   *signing // nil for a zone that is not signed here
}

// forest returns the zones of a level. A listener without one is low, as a lone
// authoritative server is.
func (s *state) forest(l placement.Level) forest {
	if l == placement.TopLevel {
		return s.top
	}
	return s.low
}

// find returns the zone with the longest suffix of a name. The DS of an apex
// belongs to the parent, where that is served too (RFC 4035 section 3.1.4.1).
func (f forest) find(name string, qtype uint16) *served {
	var apex *served
	for off, end := 0, false; ; off, end = dns.NextLabel(name, off) {
		suffix := "."
		if !end && name != "." {
			suffix = name[off:]
		}
		if z := f[suffix]; z != nil {
			if off > 0 || qtype != dns.TypeDS || apex != nil {
				return z
			}
			apex = z
		}
		if suffix == "." {
			return apex
		}
	}
}

// owns returns what tells whether a name at or below a zone's apex belongs to it, and
// not to a deeper one.
func (f forest) owns(z *served) func(name string) bool {
	for name := range f {
		if name != z.name && dns.IsSubDomain(z.name, name) {
			return func(name string) bool { return f.find(name, dns.TypeNone) == z }
		}
	}
	return func(string) bool { return true }
}

// loaded is a zone as it was handed in, with the last version that was right.
type loaded struct {
	meta    placement.Zone
	zone    *zone.Zone // nil while none was
	file    *zone.Zone // as it was parsed, without what its keys add
	keys    []*dnssec.Key
	noKeys  error // why there are none, or not all
	sign    *signing
	steered []string // names known to be steered before any Snapshot says so
	fault   string   // why the newest version is not served
	// unserved says why no version is, although there may be one.
	unserved string
	at       time.Time // when the version in force was loaded
}

// on tells whether a level serves the zone. With name servers of its own it is
// never served on a top address: the deeper zone would answer, and the referral
// would never be seen.
func (l *loaded) on(level placement.Level) bool {
	if l.meta.NameServers != "" {
		return level == placement.LowLevel
	}
	return l.meta.Level == "" || l.meta.Level == level
}

// compile makes the state. It is a pure function; zones are keyed by name. What
// the state before has in common with it is taken over, not made again.
func compile(self identity, zones map[string]*loaded, snap *placement.Snapshot, before *state) *state {
	c := &compiler{zones: zones, snap: snap, marks: make(map[string][]zone.Mark),
		state: &state{self: self, snap: snap, faults: make(map[string]string)}}
	if snap != nil {
		c.state.ecs = snap.Inventory.ECS
	}
	c.steer()
	c.aliases()
	refer := c.delegate()
	c.state.top = c.forest(placement.TopLevel, refer)
	c.state.low = c.forest(placement.LowLevel, refer)
	for _, name := range slices.Sorted(maps.Keys(refer)) {
		refer[name].child = c.state.low[name]
	}
	c.state.marks, c.state.refer = c.marks, refer
	c.quicken(before)
	return c.state
}

// compiler is one run of compile.
type compiler struct {
	zones map[string]*loaded
	snap  *placement.Snapshot
	state *state
	marks map[string][]zone.Mark // by zone, on every level which serves it

	scratch scratch
}

// owner returns the zone which a name belongs to, or nil.
func (c *compiler) owner(name string) *loaded {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		if l := c.zones[name[off:]]; l != nil {
			return l
		}
	}
	return c.zones["."]
}

// steer marks the steered names. Without a Snapshot the names that came with
// the zones are marked as not ready, so that none of them is denied.
func (c *compiler) steer() {
	if c.snap == nil {
		for _, name := range slices.Sorted(maps.Keys(c.zones)) {
			for _, n := range c.zones[name].steered {
				c.mark(n, &steered{})
			}
		}
		return
	}
	inv := c.snap.Inventory
	for i := range inv.Services {
		svc := &inv.Services[i]
		if len(svc.Names) == 0 {
			continue
		}
		st := c.steered(svc)
		for _, n := range svc.Names {
			c.mark(n, st)
		}
	}
}

// mark lays a steered name over its zone. A CNAME of the file cannot stand
// beside addresses, so there the file wins, loudly.
func (c *compiler) mark(name string, st *steered) {
	name = zone.Canonical(name)
	l := c.owner(name)
	if l == nil || l.zone == nil {
		return
	}
	switch r := l.zone.Lookup(name, dns.TypeCNAME); {
	case presigned(l.zone):
		c.foreign(l, "steered name "+name)
	case r.Kind == zone.Answer && !r.Wildcard:
		c.state.faults[l.meta.Name] = fmt.Sprintf("steered name %s is a CNAME in the file", name)
	case r.Kind == zone.Delegation || r.Kind == zone.DNAME:
		c.state.faults[l.meta.Name] = fmt.Sprintf("steered name %s lies below a %s", name, r.Kind)
	default:
		if st.aliased && name == l.meta.Name {
			c.state.faults[name] = "the apex is steered, and cannot be an alias: clients of a cluster with a CNAME get no answer"
			apex := *st
			apex.aliased, apex.other, apex.elsewhere = false, "", nil
			st = &apex
		}
		c.marks[l.meta.Name] = append(c.marks[l.meta.Name], zone.Mark{Name: name, Value: st})
	}
}

// aliases marks the names that have the addresses of others. One of a steered name is
// another name of its service: then it is answered as fast.
func (c *compiler) aliases() {
	named := make(map[string]*steered)
	for _, zone := range sortedKeys(c.marks) {
		for _, m := range c.marks[zone] {
			if st, ok := m.Value.(*steered); ok && st.service != nil && !st.aliased && !st.observe {
				named[m.Name] = st
			}
		}
	}
	for _, name := range sortedKeys(c.zones) {
		l := c.zones[name]
		for _, a := range l.meta.Aliases {
			if l.zone == nil || c.owner(a.Name) != l {
				continue
			}
			switch r := l.zone.Lookup(a.Name, dns.TypeA); {
			case presigned(l.zone):
				c.foreign(l, "the alias "+a.Name)
			case r.Kind == zone.Delegation || r.Kind == zone.DNAME || (r.Kind == zone.CNAME || r.Kind == zone.Answer) && !r.Wildcard:
				c.state.faults[name] = fmt.Sprintf("alias %s is a %s in the file", a.Name, r.Kind)
			case named[a.Target] != nil:
				c.marks[name] = append(c.marks[name], zone.Mark{Name: a.Name, Value: named[a.Target]})
			default:
				c.marks[name] = append(c.marks[name], zone.Mark{Name: a.Name, Value: &alias{a.Target}})
			}
		}
	}
}

// steered reads Service and Policy once, so that no query has to.
func (c *compiler) steered(svc *placement.Service) *steered {
	p := c.snap.Inventory.Policy(svc.Policy)
	st := &steered{service: svc, policy: svc.Policy, pick: p.Picks(), ttl: seconds(svc.AnswerTTL(p)), observe: c.observes(svc.Mode), ecs: c.snap.Inventory.ECS, https: svc.HTTPS, svcb: svc.SVCB}
	if p != nil {
		st.allDown, st.ecs.Off = p.AllDown, st.ecs.Off || p.IgnoreECS
	}
	st.fixed = c.fixed(svc)
	for _, id := range c.snap.Inventory.Eligible(svc) {
		if alias := c.snap.Inventory.CNAME(id); alias != "" {
			st.aliased, st.elsewhere = true, append(st.elsewhere, alias)
			if st.other == "" && len(st.fixed) == 0 {
				st.other = alias
			}
		}
	}
	return st
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }

// fixed is what a static set would hold: the first address of each family of
// every eligible cluster in order, then the second ones, and so on.
func (c *compiler) fixed(svc *placement.Service) []netip.Addr {
	var lists [][]netip.Addr
	longest := 0
	for _, id := range c.snap.Inventory.Eligible(svc) {
		for _, v6 := range []bool{false, true} {
			var list []netip.Addr
			for _, ap := range c.snap.Inventory.Cluster(id).Addresses {
				if ap.Addr().Is6() == v6 {
					list = append(list, ap.Addr())
				}
			}
			lists = append(lists, list)
			longest = max(longest, len(list))
		}
	}
	var out []netip.Addr
	for i := range longest {
		for _, l := range lists {
			if i < len(l) && !slices.Contains(out, l[i]) {
				out = append(out, l[i])
			}
		}
	}
	return out
}

// observes tells whether a service is only watched: by its own mode, else the
// role's; the node's own word and an explicit one on the role hold for all.
func (c *compiler) observes(own placement.Mode) bool {
	inv := c.snap.Inventory
	if c.state.self.Mode == placement.Observe || inv.Roles["authdns"] == placement.Observe {
		return true
	}
	return own.Or(c.state.self.Mode.Or(inv.RoleMode("authdns"))) == placement.Observe
}

// delegate makes the delegations of zones whose name servers are chosen per
// resolver, and marks hosts and cuts.
func (c *compiler) delegate() map[string]*delegation {
	out := make(map[string]*delegation)
	for _, name := range slices.Sorted(maps.Keys(c.zones)) {
		l := c.zones[name]
		if l.meta.NameServers == "" {
			continue
		}
		own := presigned(l.zone)
		if own {
			c.foreign(l, "the choice of its name servers")
		}
		d := &delegation{zone: name, service: l.meta.NameServers, pick: placement.DefaultPick, ttl: seconds(placement.DefaultReferralTTL), hosts: make(map[string]*host)}
		out[name] = d
		c.hosts(d)
		for _, h := range d.global {
			if own {
				break // the zone's own names stand for themselves
			}
			c.marks[name] = append(c.marks[name], zone.Mark{Name: h.name, Value: h})
		}
	}
	return out
}

// hosts makes the name servers of a delegation, one host a site with the
// addresses of all its eligible clusters. They come from the Inventory and not
// from a map, so that they stand even while no map does.
func (c *compiler) hosts(d *delegation) {
	if c.snap == nil {
		return
	}
	inv := c.snap.Inventory
	svc := inv.Service(d.service)
	if svc == nil {
		return
	}
	d.observe = c.observes(svc.Mode)
	p := inv.Policy(svc.Policy)
	d.ttl, d.pick = seconds(svc.AnswerTTL(p)), p.Picks()
	for _, id := range inv.Eligible(svc) {
		h := d.hosts[id.Site]
		if h == nil {
			h = &host{name: hostName(id.Site, d.zone), ttl: d.ttl}
			d.hosts[id.Site] = h
			d.global = append(d.global, h)
		}
		for _, ap := range inv.Cluster(id).Addresses {
			if !slices.Contains(h.all, ap.Addr()) {
				h.all = append(h.all, ap.Addr())
			}
		}
	}
}

// forest lays the marks over the zones of one level. On the top level a zone
// that is referred to is a cut in the zone around it.
func (c *compiler) forest(level placement.Level, refer map[string]*delegation) forest {
	f := make(forest)
	for name, l := range c.zones {
		if !l.on(level) {
			continue
		}
		s := &served{name: name, zone: l.zone, unserved: l.unserved, blind: c.snap == nil && l.meta.NameServers != "", hidden: l.meta.Catalog != nil, sign: l.sign}
		if level == placement.LowLevel && !presigned(l.zone) {
			s.refer = refer[name]
		}
		f[name] = s
	}
	cuts := make(map[string][]zone.Mark)
	if level == placement.TopLevel {
		for _, name := range slices.Sorted(maps.Keys(refer)) {
			if around := f.find(name, dns.TypeNone); around != nil {
				cuts[around.name] = append(cuts[around.name], zone.Mark{Name: name, Cut: true, Value: refer[name]})
				if presigned(around.zone) && len(around.zone.RRset(name, dns.TypeNS)) == 0 {
					c.foreign(c.zones[around.name], "the delegation of "+name+", which it does not have,")
				}
			}
		}
	}
	for name, s := range f {
		if marks := slices.Concat(c.marks[name], cuts[name]); s.zone != nil && len(marks) > 0 {
			s.zone = s.zone.With(marks)
		}
		c.entrust(s, cuts[name])
		c.checkApex(s)
	}
	return f
}

// checkApex tells of a name server which the zone itself should know and does
// not: no resolver could reach it (RFC 1912 section 2.3).
func (c *compiler) checkApex(s *served) {
	if s.zone == nil || s.blind {
		return
	}
	for _, rr := range s.zone.RRset(s.name, dns.TypeNS) {
		target := zone.Canonical(rr.(*dns.NS).Ns)
		if k := s.zone.Lookup(target, dns.TypeNone).Kind; k == zone.Outside || k == zone.Delegation {
			continue
		}
		if len(s.hostRRs(target)) == 0 {
			c.state.faults[s.name] = fmt.Sprintf("name server %s has no address", target)
		}
	}
}

// servesApex tells whether the zone's file names servers that can be reached
// from what it holds.
func (s *served) servesApex() bool { return s != nil && s.zone != nil && len(s.apexNS()) > 0 }

// apexNS returns the NS records of the file whose targets lie elsewhere or have
// an address, since one that cannot be resolved is worse than none.
func (s *served) apexNS() []dns.RR {
	var out []dns.RR
	for _, rr := range s.zone.RRset(s.name, dns.TypeNS) {
		target := zone.Canonical(rr.(*dns.NS).Ns)
		if !dns.IsSubDomain(s.name, target) || len(s.hostRRs(target)) > 0 {
			out = append(out, rr)
		}
	}
	return out
}

// glue returns copies of the addresses of name servers which the zone knows:
// those below the cut, which nobody could find otherwise, and the others.
func (s *served) glue(r *reply, cut string, ns []dns.RR) (required, optional []dns.RR) {
	for _, rr := range ns {
		target := zone.Canonical(rr.(*dns.NS).Ns)
		rrs := r.records(target, s.hostRRs(target), noTTL)
		if dns.IsSubDomain(cut, target) {
			required = append(required, rrs...)
		} else {
			optional = append(optional, rrs...)
		}
	}
	return required, optional
}

// hostRRs returns the addresses of a name, made ones before those of the file.
// They may be shared: copy before packing.
func (s *served) hostRRs(name string) []dns.RR {
	if h, ok := s.zone.Mark(name).(*host); ok {
		return addressRRs(name, h.all, h.ttl)
	}
	return append(slices.Clone(s.zone.RRset(name, dns.TypeA)), s.zone.RRset(name, dns.TypeAAAA)...)
}
