package main

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// catalogs follow lists of zones, and make one; they are owned by a zoneKeeper's run.
type catalogs struct {
	// owners are the catalogs that zones belong to, by zone.
	owners map[string]string
	// ids are the labels that members are listed under, by zone.
	ids map[string]string
	// made are the texts of catalogs that are made here, by name.
	made map[string][]byte
	// conflicts is what was told last of zones that two want.
	conflicts []string
}

// keepMembers is the part of its members that a new version of a catalog must keep: one
// that loses more waits for allow_shrink.
const keepMembers = 0.5

// follow expands an inventory and asks for what is to be copied under it. A catalog that
// is held from before is there at once, with what it lists.
func (z *zoneKeeper) follow(given *placement.Inventory) *placement.Inventory {
	inv := z.expand(given)
	z.want(inv)
	if more := z.expand(given); len(more.Zones) != len(inv.Zones) {
		z.want(more)
		inv = more
	}
	return inv
}

// expand returns an inventory with the zones that its catalogs list, and the digests of
// those that are made here. A catalog which was never received lists nothing; one that
// has expired, or whose newest version is broken, goes on with the last good list.
func (z *zoneKeeper) expand(inv *placement.Inventory) *placement.Inventory {
	if !slices.ContainsFunc(inv.Zones, func(m placement.Zone) bool { return m.Catalog != nil }) {
		z.catalogs = catalogs{}
		return inv
	}
	out := *inv
	out.Zones = slices.Clone(inv.Zones)
	z.catalogs.make(out.Zones, inv.Revision)
	var read []*transfer.Catalog
	for i := range inv.Zones {
		if c := z.read(&inv.Zones[i]); c != nil {
			read = append(read, c)
		}
	}
	slices.SortFunc(read, func(a, b *transfer.Catalog) int { return strings.Compare(a.Name, b.Name) })
	claims, conflicts := transfer.Assign(read, z.owner, func(name string) bool { return zoneNamed(inv, name) != nil })
	z.catalogs.owners, z.catalogs.ids = make(map[string]string), make(map[string]string)
	for _, c := range claims {
		z.catalogs.owners[c.Zone], z.catalogs.ids[c.Zone] = c.Catalog, c.ID
		out.Zones = append(out.Zones, member(zoneNamed(inv, c.Catalog), &c.Member))
	}
	if !slices.Equal(conflicts, z.catalogs.conflicts) {
		for _, what := range conflicts {
			z.log.Error("catalog: a zone that somebody else has is not taken", "err", what)
		}
		z.catalogs.conflicts = conflicts
	}
	return &out
}

// owner is the catalog that a zone belongs to so far, "" for none.
func (z *zoneKeeper) owner(zone string) string { return z.catalogs.owners[zone] }

// read returns the last good list of a catalog that is copied.
func (z *zoneKeeper) read(meta *placement.Zone) *transfer.Catalog {
	if meta.Catalog == nil || meta.Secondary == nil {
		return nil
	}
	h, ok := z.copyOf(meta.Name)
	if !ok || h.Data == nil {
		return nil
	}
	c, err := transfer.ReadCatalog(meta.Name, h.Data)
	if err != nil {
		z.log.Error("catalog: what is held cannot be read", "zone", meta.Name, "err", err)
		return nil
	}
	return c
}

// member is a zone as its catalog's settings have it: those of its first group that has
// some, else those of all members.
func member(catalog *placement.Zone, m *transfer.Member) placement.Zone {
	set := catalog.Catalog.Members
	for _, g := range m.Groups {
		if own, ok := catalog.Catalog.Groups[g]; ok {
			set = own
			break
		}
	}
	out := placement.Zone{Name: m.Zone, Level: set.Level, Transfer: set.Transfer, Secondary: set.Secondary}
	if out.Secondary == nil {
		own := *catalog.Secondary
		own.AllowShrink = false // that is said of the list
		out.Secondary = &own
	}
	return out
}

// make writes the catalogs that are made here. The serial is the inventory's revision,
// which all nodes agree on.
func (c *catalogs) make(zones []placement.Zone, revision int64) {
	c.made = make(map[string][]byte)
	for i := range zones {
		meta := &zones[i]
		if meta.Catalog == nil || meta.Secondary != nil {
			continue
		}
		list := transfer.Catalog{Name: meta.Name}
		for _, z := range zones {
			if z.Transfer == nil || z.Catalog != nil {
				continue
			}
			m := transfer.Member{Zone: z.Name}
			if g := z.Transfer.Group; g != "" {
				m.Groups = []string{g}
			}
			list.Members = append(list.Members, m)
		}
		text := list.Text(uint32(revision))
		sum := sha256.Sum256(text)
		c.made[meta.Name] = text
		meta.SHA256, meta.Size, meta.Serial = hex.EncodeToString(sum[:]), len(text), uint32(revision)
	}
}
