package config

import (
	"net/netip"
	"slices"
	"strings"

	"rhumb/placement"
)

// refer checks what points from one entry to another, once all are known.
func (b *builder) refer() {
	f := &b.out.Fleet
	b.numbers()
	b.referCatalogs()
	names := make(map[string]string)
	for i := range f.Services {
		s := &f.Services[i]
		d, at := b.where("services", s.Name)
		if s.IsNameServer() {
			d, at = b.where("zones", "serve", strings.TrimSuffix(s.Zone, "."))
			at = append(at, "name_servers")
		}
		b.referService(d, at, s)
		b.referNames(d, at, s, names)
		b.referAliases(d, at, s)
		b.referVIPs(d, at, s)
		b.referQUIC(d, at, s)
	}
	b.referZoneAliases(names)
	for i := range f.Prefixes {
		b.referPrefix(&f.Prefixes[i])
	}
	for i := range f.Sites {
		for _, c := range f.Sites[i].Clusters {
			d, at := b.where("sites", f.Sites[i].Name)
			b.referCheck(d, append(slices.Clone(at), "clusters", c.Name, "check"), c.Check)
		}
	}
	for i := range f.Checks {
		b.referChildren(&f.Checks[i])
	}
}

// where finds the document in which an entry stands.
func (b *builder) where(path ...string) (*document, []string) {
	for _, d := range b.docs {
		if d.has(path...) {
			return d, path
		}
		if last := len(path) - 1; d.has(append(slices.Clone(path[:last]), path[last]+".")...) {
			return d, append(slices.Clone(path[:last]), path[last]+".")
		}
	}
	return b.docs[0], path
}

// numbers checks that no two sites mark their routes alike: a site would take the
// other's route for its own, and withdraw without a witness.
func (b *builder) numbers() {
	seen := make(map[uint16]string)
	for _, s := range b.out.Sites {
		if nodes := s.BeatNodes(); len(nodes) == 2 {
			seen[nodes[1].Number] = "the second machine of " + s.Name
		}
	}
	for _, s := range b.out.Sites {
		if other := seen[s.Number]; other != "" && s.Number != 0 {
			d, at := b.where("sites", s.Name)
			d.fail(append(at, "number"), "%d is the number of %s too", s.Number, other)
		}
		seen[s.Number] = s.Name
	}
}

// referService checks what a service names: each thing is there, and at least one
// site can serve it.
func (b *builder) referService(d *document, at []string, s *placement.Service) {
	f := &b.out.Fleet
	if f.Policy(s.Policy) == nil {
		d.fail(append(slices.Clone(at), "policy"), "there is no policy %q", s.Policy)
	}
	b.referCheck(d, append(slices.Clone(at), "check"), s.Check)
	for _, site := range s.Sites {
		if f.Site(site) == nil {
			d.fail(append(slices.Clone(at), "sites"), "there is no site %q", site)
		}
	}
	for _, c := range s.Clusters {
		if len(f.Eligible(&placement.Service{Clusters: []string{c}, Sites: s.Sites})) == 0 {
			d.fail(append(slices.Clone(at), "clusters"), "no site has a cluster %q", c)
		}
	}
}

// referNames checks that a steered name has one owner, lies in a zone which is
// answered beside the edges, and is not static there.
func (b *builder) referNames(d *document, at []string, s *placement.Service, names map[string]string) {
	for _, n := range s.Names {
		at := append(slices.Clone(at), "names")
		if other := names[n]; other != "" {
			d.fail(at, "%s is a name of service %s too", n, other)
		}
		names[n] = s.Name
		if z := b.zoneOf[n]; z != "" && (n != z || b.taken[z](n)) { // an apex has records at any rate
			d.fail(at, "%s is static in zone %s: a name is either static or steered", n, z)
		}
		if z := b.closest(n); b.signedAt[z] != "" {
			d.fail(at, "%s lies in zone %s, which its owner has signed (%s): what is chosen per client cannot be signed", n, z, b.signedAt[z])
		}
		if !b.inLowZone(n) {
			d.fail(at, "%s lies in no zone of level low", n)
		}
	}
}

// inLowZone tells whether a name lies in a zone of level low, which is no catalog.
func (b *builder) inLowZone(name string) bool {
	for _, z := range b.out.Zones {
		if z.Catalog == nil && z.Level == placement.LowLevel && (name == z.Name || strings.HasSuffix(name, "."+z.Name)) {
			return true
		}
	}
	return false
}

// referVIPs checks that the addresses whose sessions are kept alive are anycast.
func (b *builder) referVIPs(d *document, at []string, s *placement.Service) {
	if s.Edge == nil {
		return
	}
	for _, v := range s.Edge.VIPs {
		if !slices.ContainsFunc(b.out.Prefixes, func(p placement.Prefix) bool { return p.Prefix.Contains(v.Addr()) }) {
			d.fail(append(slices.Clone(at), "edge", "vips"), "%s lies in no announced prefix: sessions on a unicast address never stray", v)
		}
	}
}

// referPrefix checks what a prefix names, and that Slots and Anchors fit into the
// number of its sites: together they never take the last route away.
func (b *builder) referPrefix(p *placement.Prefix) {
	f := &b.out.Fleet
	d, at := b.where("prefixes", p.Prefix.String())
	for _, s := range p.Sites {
		if f.Site(s) == nil {
			d.fail(append(slices.Clone(at), "sites"), "there is no site %q", s)
		} else if f.Site(s).Foreign() {
			d.fail(append(slices.Clone(at), "sites"), "%s has no servers of ours that could announce it", s)
		}
	}
	for _, c := range p.Clusters {
		if len(f.Eligible(&placement.Service{Clusters: []string{c}, Sites: p.Sites})) == 0 {
			d.fail(append(slices.Clone(at), "clusters"), "no site has a cluster %q", c)
		}
	}
	n := len(f.AnnouncingSites(p))
	limit := n - p.MinAnchors(n)
	if p.Reach == placement.Local && b.covered(p.Prefix) {
		limit = n // the cover catches the clients: its Anchors stay
	}
	if p.Slots < 0 || p.Slots > max(limit, 0) && p.Slots > 1 {
		d.refuse(placement.RuleSlots, append(slices.Clone(at), "slots"), "%d slots; %d sites with %d anchors leave %d", p.Slots, n, p.MinAnchors(n), limit)
	}
	if p.MinAnnouncing > n {
		d.refuse(placement.RuleAnchors, append(slices.Clone(at), "min_announcing"), "%d sites; only %d may announce", p.MinAnnouncing, n)
	}
	if p.Reach == placement.Local && !b.covered(p.Prefix) {
		d.fail(at, "reach local needs a prefix of reach global which covers it")
	}
}

// covered tells whether a global prefix leads to those that stay local.
func (b *builder) covered(p netip.Prefix) bool {
	return slices.ContainsFunc(b.out.Prefixes, func(o placement.Prefix) bool {
		return o.Reach == placement.Global && o.Prefix.Bits() < p.Bits() && o.Prefix.Contains(p.Addr())
	})
}
