package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"rhumb/placement"
	"rhumb/placement/geo"
)

// keptTables is how many class tables are kept. Usually one is in use; while a
// configuration spreads it is two, the plan's inventory and the newest one, and
// an apply that is judged at that moment brings a third.
const keptTables = 4

// classes makes the class table of an inventory: the data set of this node with
// the operator's overrides laid over it. Tables are kept by content, because the
// loop asks at every vote and a table takes about 0.1 s. Safe for concurrent use;
// whoever asks for a table that is just being made waits for it.
type classes struct {
	source *geo.Source

	mu   sync.Mutex
	kept []*placement.ClassTable // the last used one first
}

// of returns the class table for an inventory.
func (c *classes) of(inv *placement.Inventory) (*placement.ClassTable, error) {
	data := c.source.Table()
	key, err := overrideKey(data.Digest(), inv.Overrides)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.kept, func(t *placement.ClassTable) bool { return t.Digest == key })
	if i == 0 {
		return c.kept[0], nil
	}
	var table *placement.ClassTable
	if i > 0 {
		table = c.kept[i]
		c.kept = slices.Delete(c.kept, i, i+1)
	} else if table, err = classTable(data, inv.Overrides, key); err != nil {
		return nil, err
	}
	c.kept = slices.Insert(c.kept, 0, table)
	if len(c.kept) > keptTables {
		c.kept = slices.Delete(c.kept, keptTables, len(c.kept))
	}
	return table, nil
}

// overrideKey names a table by what it is made of; it is the digest by which a
// Plan names it.
func overrideKey(digest string, overrides []placement.Override) (string, error) {
	b, err := json.Marshal(overrides)
	if err != nil {
		return "", fmt.Errorf("class table: %w", err)
	}
	sum := sha256.Sum256(append([]byte(digest+"\n"), b...))
	return hex.EncodeToString(sum[:]), nil
}

// classTable lays the overrides over a data set.
func classTable(data *geo.Table, overrides []placement.Override, digest string) (*placement.ClassTable, error) {
	laid := make([]geo.Override, 0, len(overrides))
	for _, o := range overrides {
		loc, ok := geo.Locate(o.Location.At.Lat(), o.Location.At.Lon(), o.Location.Country)
		if !ok {
			return nil, fmt.Errorf("class table: override %s: no location at %v", o.Name(), o.Location.At)
		}
		if o.Location.Continent != "" {
			loc.Continent = o.Location.Continent
		}
		laid = append(laid, geo.Override{Prefix: o.Prefix, AS: o.AS, Location: withRegion(loc, o.Location.Region)})
	}
	table, err := data.With(laid)
	if err != nil {
		return nil, fmt.Errorf("class table: %w", err)
	}
	out := &placement.ClassTable{Prefixes: table.Prefixes(), Digest: digest, Source: data.Info().Name}
	for _, l := range table.Locations() {
		l, region := splitRegion(l)
		out.Locations = append(out.Locations, placement.Location{Country: l.Country, Continent: l.Continent,
			Region: region, At: placement.Position{l.Lat, l.Lon}})
	}
	return out, nil
}

// regionMark stands between continent and region. A data set has no region, and a
// region is the operator's word on one prefix: two overrides in one half-degree
// cell may name two regions, and the data set's own clients in that cell belong
// to neither. So the region must be a part of what tells classes apart, and it
// rides behind the continent, in which no data set has a NUL.
const regionMark = "\x00"

func withRegion(l geo.Location, region string) geo.Location {
	if region != "" {
		l.Continent += regionMark + region
	}
	return l
}

func splitRegion(l geo.Location) (geo.Location, string) {
	continent, region, _ := strings.Cut(l.Continent, regionMark)
	l.Continent = continent
	return l, region
}
