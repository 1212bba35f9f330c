package config

import (
	"maps"
	"slices"
	"strings"

	"rhumb/placement"
)

// catalogFile makes a zone a list of zones (RFC 9432).
type catalogFile struct {
	Members membersFile            `yaml:"members"`
	Groups  map[string]membersFile `yaml:"groups"`
}

// membersFile are the settings of zones that a catalog lists.
type membersFile struct {
	Level     placement.Level `yaml:"level"`
	Secondary *secondaryFile  `yaml:"secondary"`
	Transfer  *transferFile   `yaml:"transfer"`
}

// maxCatalogName leaves room for the labels of a member and of its properties below the
// name of a catalog (RFC 1035 section 3.1).
const maxCatalogName = 200

// build checks a catalog. One that we make has no settings for its members, which are
// zones of the fleet, and is of use to those who may copy it alone.
func (c *catalogFile) build(d *document, at []string, name string, z zoneFile) *placement.Catalog {
	if c == nil {
		return nil
	}
	if z.File != "" || z.DNSSEC == "on" || z.NameServers != nil {
		d.fail(at, "a catalog is copied or made: it has no file, no signatures and no name servers of its own")
	}
	made := z.Secondary == nil
	switch {
	case made && z.Transfer == nil:
		d.fail(at, "a catalog that is made here is for others: want transfer beside it")
	case made && (c.Members != membersFile{} || len(c.Groups) > 0):
		d.fail(at, "members of a catalog that is made here are zones of the fleet, with settings of their own")
	case len(name) > maxCatalogName || !plainName(name):
		d.fail(at, "%q cannot be a catalog: want a domain name of at most %d characters", name, maxCatalogName)
	}
	if z.Listed != nil {
		d.fail(at, "a catalog is listed in none")
	}
	out := &placement.Catalog{Members: c.Members.build(d, append(slices.Clone(at), "members"))}
	for _, g := range slices.Sorted(maps.Keys(c.Groups)) {
		if out.Groups == nil {
			out.Groups = make(map[string]placement.CatalogMembers)
		}
		m := c.Groups[g]
		out.Groups[g] = m.build(d, append(slices.Clone(at), "groups", g))
	}
	return out
}

func (m *membersFile) build(d *document, at []string) placement.CatalogMembers {
	out := placement.CatalogMembers{Level: or(m.Level, placement.LowLevel),
		Secondary: m.Secondary.build(d, append(slices.Clone(at), "secondary")), Transfer: m.Transfer.build(d, append(slices.Clone(at), "transfer"))}
	if out.Level != placement.TopLevel && out.Level != placement.LowLevel {
		d.fail(append(slices.Clone(at), "level"), "%q: want top or low", m.Level)
	}
	return out
}

// listedFile says what catalogs that we make say of a zone.
type listedFile struct {
	Off   bool   `yaml:"off"`
	In    string `yaml:"in"`
	Coo   string `yaml:"coo"`
	From  string `yaml:"from"`
	Group string `yaml:"group"`
}

// build checks it. Whether there is such a catalog is known later.
func (l *listedFile) build(d *document, at []string, z zoneFile) *placement.Listed {
	if l == nil {
		return nil
	}
	out := &placement.Listed{Off: l.Off, Group: l.Group}
	if l.Off && *l != (listedFile{Off: true}) {
		d.fail(append(slices.Clone(at), "off"), "the zone is in no catalog, and something is said for one")
	}
	if z.Transfer == nil {
		d.fail(at, "who is told of a zone has to be able to copy it: want transfer beside it")
	}
	if len(l.Group) > 255 { // RFC 1035 section 3.3
		d.fail(append(slices.Clone(at), "group"), "is longer than the 255 octets of a character string")
	}
	for _, name := range []struct {
		key, text string
		to        *string
	}{{"in", l.In, &out.In}, {"coo", l.Coo, &out.Coo}, {"from", l.From, &out.From}} {
		if name.text == "" {
			continue
		}
		if *name.to = fqdn(name.text); !plainName(*name.to) {
			d.fail(append(slices.Clone(at), name.key), "%q is not a domain name", name.text)
		}
	}
	switch {
	case l.Coo != "" && (l.In == "" || out.Coo == out.In):
		d.fail(append(slices.Clone(at), "coo"), "want in beside it, another catalog: that from which the zone moves")
	case l.From != "" && (l.In == "" || out.From == out.In || l.Coo != ""):
		d.fail(append(slices.Clone(at), "from"), "want in beside it, another catalog: that to which the zone has moved; and no coo")
	}
	return out
}

// plainName tells whether a name needs no escapes in a master file (RFC 1035 section
// 5.1), and is none too long.
func plainName(name string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"\;()@$`, r) }) {
			return false
		}
	}
	return len(name) <= 254
}

// referCatalogs checks that catalogs which zones name are made here, and that the zones
// can stand in one.
func (b *builder) referCatalogs() {
	made := func(name string) bool {
		c := b.out.Zone(name)
		return c != nil && c.Catalog != nil && c.Secondary == nil
	}
	any := slices.ContainsFunc(b.out.Zones, func(z placement.Zone) bool { return made(z.Name) })
	for i := range b.out.Zones {
		z := &b.out.Zones[i]
		if z.Transfer == nil || z.Catalog != nil {
			continue
		}
		d, at := b.where("zones", "serve", strings.TrimSuffix(z.Name, "."))
		switch l := deref(z.Listed, placement.Listed{}); {
		case l.In != "" && !made(l.In):
			d.fail(append(slices.Clone(at), "listed", "in"), "%s is no catalog that is made here", l.In)
		case l.From != "" && !made(l.From):
			d.fail(append(slices.Clone(at), "listed", "from"), "%s is no catalog that is made here", l.From)
		case any && z.Name != "." && !plainName(z.Name):
			d.fail(at, "%q cannot stand in a catalog", z.Name)
		}
	}
}
