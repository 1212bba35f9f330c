package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"rhumb/placement"
)

// foreign mirrors placement.Site's.
func (s *siteFile) foreign() bool {
	for _, c := range s.Clusters {
		if c.CNAME == "" {
			return false
		}
	}
	return len(s.Clusters) > 0
}

// checkAlias checks a cluster of others, which is a name and nothing else.
func (d *document) checkAlias(at []string, c clusterFile) {
	switch {
	case len(c.Addresses) > 0:
		d.fail(at, "stands in for addresses: want one of the two")
	case c.Check != "":
		d.fail(at, "is not looked at: a check needs addresses")
	case !isHostName(c.CNAME):
		d.fail(at, "%q is no domain name of two labels or more", c.CNAME)
	}
}

// isHostName tells whether a text is a name that clients can look up, not an address.
func isHostName(text string) bool {
	labels := strings.Split(strings.TrimSuffix(strings.ToLower(text), "."), ".")
	_, err := netip.ParseAddr(text)
	return len(text) < 254 && len(labels) > 1 && err != nil && !slices.ContainsFunc(labels, func(l string) bool {
		return l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != ""
	})
}

// referAliases checks where names of others may stand in for addresses: not for name
// servers (RFC 2181, 10.3), not at an apex, where more than an alias is (RFC 1034,
// 3.6.2), and not for the name itself.
func (b *builder) referAliases(d *document, at []string, s *placement.Service) {
	f := &b.out.Fleet
	for _, id := range f.Eligible(s) {
		alias := f.CNAME(id)
		if alias == "" {
			continue
		}
		if s.IsNameServer() {
			d.fail(append(slices.Clone(at), "clusters"), "%s is a CNAME: a name server has addresses (RFC 2181, 10.3)", id)
		}
		for _, n := range s.Names {
			switch {
			case f.Zone(n) != nil:
				d.fail(append(slices.Clone(at), "names"), "%s is the apex of a zone, and cluster %s a CNAME, which stands alone (RFC 1034, 3.6.2)", n, id)
			case n == alias:
				d.fail(append(slices.Clone(at), "names"), "%s is an alias of itself by cluster %s", n, id)
			}
		}
	}
}

// aliases takes the names of a zone which have the addresses of others.
func (d *document) aliases(at []string, list map[string]string) (out []placement.Alias) {
	for _, name := range slices.Sorted(maps.Keys(list)) {
		a := placement.Alias{Name: fqdn(name), Target: fqdn(list[name])}
		at := append(slices.Clone(at), name)
		switch {
		case !isHostName(list[name]):
			d.fail(at, "%q is no domain name of two labels or more", list[name])
		case a.Name == a.Target:
			d.fail(at, "is an alias of itself")
		case slices.ContainsFunc(out, func(o placement.Alias) bool { return o.Name == a.Name }):
			d.fail(at, "stands twice, in two spellings")
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(x, y placement.Alias) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// referZoneAliases checks that an alias lies in its zone, and that nobody else answers for
// it; steered are the names of services.
func (b *builder) referZoneAliases(steered map[string]string) {
	for i := range b.out.Zones {
		z := &b.out.Zones[i]
		if len(z.Aliases) == 0 {
			continue
		}
		d, at := b.where("zones", "serve", strings.TrimSuffix(z.Name, "."))
		at = append(slices.Clone(at), "aliases")
		for _, a := range z.Aliases {
			taken := b.taken[z.Name]
			switch {
			case z.Catalog != nil:
				d.fail(at, "a catalog answers for no name")
			case b.signedAt[z.Name] != "":
				d.fail(at, "%s lies in a zone which its owner has signed (%s): what is looked up cannot be signed", a.Name, b.signedAt[z.Name])
			case b.closest(a.Name) != z.Name:
				d.fail(at, "%s does not lie in zone %s", a.Name, z.Name)
			case steered[a.Name] != "":
				d.fail(at, "%s is a name of service %s too", a.Name, steered[a.Name])
			case taken != nil && taken(a.Name):
				d.fail(at, "%s has addresses of its own in the file, or is a CNAME there", a.Name)
			}
		}
	}
}
