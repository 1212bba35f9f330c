package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"

	"rhumb/placement"
	"rhumb/placement/geo"
)

// classes makes the class table of an inventory: the data set of this node with
// the operator's overrides laid over it. Tables are kept by content, because the
// loop asks at every vote. Safe for concurrent use.
type classes struct {
	source *geo.Source

	mu    sync.Mutex
	key   string
	table *placement.ClassTable
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
	if c.key == key {
		return c.table, nil
	}
	table, err := classTable(data, inv.Overrides, key)
	if err != nil {
		return nil, err
	}
	c.key, c.table = key, table
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

func classTable(data *geo.Table, overrides []placement.Override, digest string) (*placement.ClassTable, error) {
	regions := make(map[geo.Location]string)
	laid := make([]geo.Override, 0, len(overrides))
	for _, o := range overrides {
		loc, ok := geo.Locate(o.Location.At.Lat(), o.Location.At.Lon(), o.Location.Country)
		if !ok {
			return nil, fmt.Errorf("class table: override %s: no location at %v", o.Prefix, o.Location.At)
		}
		if o.Location.Continent != "" {
			loc.Continent = o.Location.Continent
		}
		regions[loc] = o.Location.Region
		laid = append(laid, geo.Override{Prefix: o.Prefix, Location: loc})
	}
	table, err := data.With(laid)
	if err != nil {
		return nil, fmt.Errorf("class table: %w", err)
	}
	out := &placement.ClassTable{Prefixes: table.Prefixes(), Digest: digest, Source: data.Info().Name}
	for _, l := range table.Locations() {
		out.Locations = append(out.Locations, placement.Location{Country: l.Country, Continent: l.Continent,
			Region: regions[l], At: placement.Position{l.Lat, l.Lon}})
	}
	return out, nil
}
