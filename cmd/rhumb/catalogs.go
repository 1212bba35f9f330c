package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"

	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// catalogs are the lists of zones that a node follows, and those that it makes. All but
// told is owned by a zoneKeeper's run.
type catalogs struct {
	// lists are the last good ones of those that are followed, by name. A list stays as
	// long as the catalog is configured, whatever becomes of the copy on disk.
	lists map[string]heldList
	// claims say who lists a zone, by zone.
	claims map[string]transfer.Claim
	// made are those that are made here, by name.
	made map[string]madeList
	// conflicts are listed zones that somebody else has.
	conflicts []transfer.Conflict
	// told is the same for whoever looks from outside; nil where there are no catalogs.
	told atomic.Pointer[catalogsTold]
}

// heldList is a list as it was read from a version of its zone.
type heldList struct {
	sha  string
	list *transfer.Catalog
}

// madeList is the text of a catalog of ours.
type madeList struct {
	text    []byte
	sha     string
	serial  uint32
	members int
}

// follow expands an inventory and asks for what is to be copied under it. A catalog that
// is held from before is there only once it is asked for, and what it lists with it: so
// the inventory is expanded twice.
func (z *zoneKeeper) follow(given *placement.Inventory) *placement.Inventory {
	inv := z.expand(given)
	z.want(inv)
	if more := z.expand(given); !reflect.DeepEqual(more.Zones, inv.Zones) {
		z.want(more)
		inv = more
	}
	return inv
}

// expand returns an inventory with the zones that its catalogs list, and the digests of
// those that are made here. A catalog which was never received lists nothing; one that
// has expired, or whose newest version is broken, goes on with the last good list (RFC
// 9432 section 5.1).
func (z *zoneKeeper) expand(inv *placement.Inventory) *placement.Inventory {
	c := &z.catalogs
	if !slices.ContainsFunc(inv.Zones, func(m placement.Zone) bool { return m.Catalog != nil }) {
		c.lists, c.claims, c.made, c.conflicts = nil, nil, nil, nil
		c.told.Store(nil)
		return inv
	}
	out := *inv
	out.Zones = slices.Clone(inv.Zones)
	c.make(out.Zones, uint32(inv.Revision))
	z.readLists(inv.Zones)
	var lists []*transfer.Catalog
	for _, l := range c.lists {
		lists = append(lists, l.list) // Assign puts them in order
	}
	claims, conflicts := transfer.Assign(lists, z.owner, func(name string) bool { return zoneNamed(inv, name) != nil })
	for i := range claims {
		out.Zones = append(out.Zones, member(zoneNamed(inv, claims[i].Catalog), &claims[i].Member))
	}
	z.settle(claims, conflicts)
	return &out
}

// readLists takes in the versions of the catalogs that are copied, as they are held now.
func (z *zoneKeeper) readLists(zones []placement.Zone) {
	next := make(map[string]heldList)
	for i := range zones {
		if zones[i].Catalog == nil || zones[i].Secondary == nil {
			continue
		}
		name := zones[i].Name
		was, known := z.catalogs.lists[name]
		if known {
			next[name] = was
		}
		h, _ := z.copyOf(name)
		if h.Data == nil || h.SHA256 == was.sha {
			continue
		}
		list, err := transfer.ReadCatalog(name, h.Data)
		if err != nil {
			z.log.Error("catalog: what is held cannot be read, the last list stays", "zone", name, "err", err)
			continue
		}
		next[name] = heldList{h.SHA256, list}
	}
	z.catalogs.lists = next
}

// owner is the catalog that a zone belongs to so far, "" for none. After a start the
// copy on disk knows.
func (z *zoneKeeper) owner(zone string) string {
	if c, ok := z.catalogs.claims[zone]; ok {
		return c.Catalog
	}
	if z.copies == nil {
		return ""
	}
	return z.copies.Listed(zone).Catalog
}

// settle puts claims in force, and tells what has changed.
func (z *zoneKeeper) settle(claims []transfer.Claim, conflicts []transfer.Conflict) {
	c, next := &z.catalogs, make(map[string]transfer.Claim, len(claims))
	var added, moved []string
	for _, claim := range claims {
		next[claim.Zone] = claim
		switch was, ok := c.claims[claim.Zone]; {
		case !ok:
			added = append(added, claim.Zone)
		case was.Catalog != claim.Catalog:
			moved = append(moved, claim.Zone)
		}
	}
	var removed []string
	for _, zone := range slices.Sorted(maps.Keys(c.claims)) {
		if _, ok := next[zone]; !ok {
			removed = append(removed, zone)
		}
	}
	if len(added)+len(moved)+len(removed) > 0 {
		z.log.Info("catalogs: what they list has changed", "listed", len(next), "added", some(added, " "), "removed", some(removed, " "), "moved", some(moved, " "))
	}
	if !slices.Equal(conflicts, c.conflicts) {
		for _, what := range conflicts {
			z.log.Error("catalog: a zone that somebody else has is not taken", "zone", what.Zone, "err", what)
		}
	}
	c.claims, c.conflicts = next, conflicts
	c.tell()
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

// make writes the catalogs that are made here. The serial is the revision of the
// inventory with which the list has changed, as far as this node has seen it: of two
// lists the later one has the later serial on every node, and a revision that changes no
// list tells nobody anything.
func (c *catalogs) make(zones []placement.Zone, revision uint32) {
	next := make(map[string]madeList)
	for i := range zones {
		meta := &zones[i]
		if meta.Catalog == nil || meta.Secondary != nil {
			continue
		}
		list := ownList(meta.Name, zones)
		made, ok := c.made[meta.Name]
		if !ok || !bytes.Equal(made.text, list.Text(made.serial)) {
			text := list.Text(revision)
			sum := sha256.Sum256(text)
			made = madeList{text, hex.EncodeToString(sum[:]), revision, len(list.Members)}
		}
		next[meta.Name] = made
		meta.SHA256, meta.Size, meta.Serial = made.sha, len(made.text), made.serial
	}
	c.made = next
}

// ownList lists the zones of the fleet which others may copy. One that moves is first
// said to, then in both catalogs, then in the new one: who hears of the new one before
// he has heard that the zone moves there takes it for a clash.
func ownList(name string, zones []placement.Zone) *transfer.Catalog {
	out := &transfer.Catalog{Name: name}
	for i := range zones {
		z := &zones[i]
		if z.Transfer == nil || z.Catalog != nil {
			continue
		}
		say := placement.Listed{}
		if z.Listed != nil {
			say = *z.Listed
		}
		if say.Off {
			continue
		}
		m := transfer.Member{Zone: z.Name}
		switch name {
		case say.In:
			m.Coo = say.Coo
		case say.From:
			m.Coo = say.In
		default:
			if say.In != "" {
				continue
			}
		}
		if say.Group != "" {
			m.Groups = []string{say.Group}
		}
		out.Members = append(out.Members, m)
	}
	return out
}
