package config

import (
	"maps"
	"slices"

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

// build checks a catalog. One that we make has no settings for its members, which are
// zones of the fleet, and is of use to those who may copy it alone.
func (c *catalogFile) build(d *document, at []string, z zoneFile) *placement.Catalog {
	if c == nil {
		return nil
	}
	if z.File != "" || z.DNSSEC == "on" || z.NameServers != nil {
		d.fail(at, "a catalog is copied or made: it has no file, no signatures and no name servers of its own")
	}
	made := z.Secondary == nil
	switch {
	case made && z.Transfer == nil:
		d.fail(at, "a catalog that is made here is for others: want transfer")
	case made && (c.Members != membersFile{} || len(c.Groups) > 0):
		d.fail(at, "members of a catalog that is made here are zones of the fleet, with settings of their own")
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
