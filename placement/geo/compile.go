package geo

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"rhumb/placement/lpm"
)

// maxClasses is bound by the width of a class id; the last id stays unused, so
// that a caller has one to say "none" with.
const maxClasses = 65_535

// Compile makes a table of networks and their Locations. Each source must yield
// its networks in address order, an outer one before those inside it, and
// Locations as Locate or Country give them. Where sources overlap the longer
// prefix wins, and of equal ones the later source. Class ids follow the content,
// not the order of arrival; more than 65,535 different Locations are an error.
func Compile(info Info, sources ...iter.Seq2[netip.Prefix, Location]) (*Table, error) {
	c := compiler{ids: map[Location]uint16{}}
	for _, networks := range sources {
		c.begin()
		for p, l := range networks {
			if err := c.add(p, l); err != nil {
				return nil, err
			}
		}
	}
	return newTable(info, c.entries, c.renumber())
}

// compiler gathers entries; ids are provisional until renumber.
type compiler struct {
	entries []lpm.Entry
	ids     map[Location]uint16
	classes []class
	start   int          // first entry of the present source
	last    netip.Prefix // as it came from the present source
}

// begin starts a source: its order is its own, and nothing of it merges with the
// end of the one before.
func (c *compiler) begin() { c.start, c.last = len(c.entries), netip.Prefix{} }

// add takes the next network of the present source and its class, which gets an id
// when it is new.
func (c *compiler) add(p netip.Prefix, l Location) error {
	if !p.IsValid() || c.last.IsValid() && comparePrefixes(c.last, p) >= 0 {
		return fmt.Errorf("geo: compile: %s after %s: not in address order", p, c.last)
	}
	c.last = p
	id, known := c.ids[l]
	if !known {
		if len(c.classes) == maxClasses {
			return fmt.Errorf("geo: compile: more than %d locations", maxClasses)
		}
		id = uint16(len(c.classes))
		c.ids[l], c.classes = id, append(c.classes, classOf(l))
	}
	c.entries = append(c.entries, lpm.Entry{Prefix: p, Value: id})
	for c.mergeLast() {
	}
	return nil
}

// mergeLast joins the last two entries when they are the halves of one block and
// of one class. What lies inside the lower half would stand between the two, and
// what lies inside the upper one comes later and is longer, so no match changes.
func (c *compiler) mergeLast() bool {
	n := len(c.entries)
	if n < c.start+2 {
		return false
	}
	low, high := c.entries[n-2], c.entries[n-1]
	bits := low.Prefix.Bits()
	if low.Value != high.Value || bits != high.Prefix.Bits() || bits == 0 {
		return false
	}
	both := netip.PrefixFrom(low.Prefix.Addr(), bits-1)
	if both.Masked() != both || !both.Contains(high.Prefix.Addr()) {
		return false
	}
	c.entries = c.entries[:n-1]
	c.entries[n-2].Prefix = both
	return true
}

// renumber sorts the classes by content and gives the entries their final ids.
func (c *compiler) renumber() []class {
	sorted := slices.SortedFunc(slices.Values(c.classes), compareClasses)
	final := make([]uint16, len(sorted))
	for i, cl := range c.classes {
		at, _ := slices.BinarySearchFunc(sorted, cl, compareClasses)
		final[i] = uint16(at)
	}
	for i := range c.entries {
		c.entries[i].Value = final[c.entries[i].Value]
	}
	return sorted
}
