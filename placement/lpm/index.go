package lpm

import (
	"math/bits"
	"slices"
)

// index finds the range which holds a key: directly by the leading bits of the key,
// and what those leave open by halving (DXR: M. Zec, L. Rizzo, M. Mikuc, "DXR:
// Towards a Billion Routing Lookups per Second in Software", ACM CCR 42(5), 2012).
//
// IPv4 has one table over the ranges. IPv6 is sparse: the upper 16 bits lead to a
// table over the pages that share them, and a page with many ranges has a table over
// those. How many bits a table takes follows how many it divides.
type index struct {
	v4    guide
	roots []guide // by the upper 16 bits, over pages; IPv6
	pages []guide // by page, over ranges; IPv6
	begin []uint32
}

// guide is a table in index.begin. It says for each value of a number's leading bits
// what is the first that has it or a greater one, and behind them how many there are.
type guide struct {
	base  uint32 // of the table, or none
	shift uint8  // behind the leading bits
}

const (
	none = ^uint32(0)

	leastRoots4 = 16 // bits: what shares fewer is of several pages
	mostRoots4  = 19 // 2 MB
	// pageScan is how many ranges of a page are searched without a table, and how
	// many there are to each place of a table.
	pageScan = 16
)

func newIndex(c *column) index {
	x := index{}
	if c.v4 {
		width := min(max(bits.Len(uint(c.len())), leastRoots4), mostRoots4)
		cur := cursor{column: c}
		x.v4 = x.guide(32, width, 0, c.len(), func(i int) uint32 { return uint32(cur.to(i).hi >> 32) })
		return x
	}
	at := 0
	for root := range uint32(1 << 16) {
		first := at
		for at < len(c.upper) && c.upper[at]>>16 == root {
			at++
		}
		if first == at && root > 0 && x.begin[len(x.begin)-2] == uint32(at) {
			x.roots = append(x.roots, guide{uint32(len(x.begin) - 2), 16}) // as the one before: nothing starts here
			continue
		}
		x.roots = append(x.roots, x.guide(16, bits.Len(uint(at-first)), first, at, func(p int) uint32 { return c.upper[p] & 0xffff }))
	}
	for p := range c.upper {
		first, end := int(c.first[p]), int(c.first[p+1])
		if end-first <= pageScan {
			x.pages = append(x.pages, guide{none, 0})
			continue
		}
		x.pages = append(x.pages, x.guide(32, bits.Len(uint((end-first)/pageScan)), first, end, func(i int) uint32 { return c.low32[i] }))
	}
	x.begin = slices.Clone(x.begin) // without the room to grow
	return x
}

// guide makes a table by the given number of leading bits of numbers with that size
// in bits, which rise from the first to the end.
func (x *index) guide(size, width, first, end int, number func(int) uint32) guide {
	g := guide{uint32(len(x.begin)), uint8(size - min(width, size))}
	for i := first; i < end; i++ {
		x.reach(g, number(i)>>g.shift, i)
	}
	x.reach(g, 1<<(size-int(g.shift)), end)
	return g
}

// reach notes that all places up to this one, which have nothing of their own, begin
// with number n.
func (x *index) reach(g guide, place uint32, n int) {
	for uint32(len(x.begin)) <= g.base+place {
		x.begin = append(x.begin, uint32(n))
	}
}

// span is what shares the leading bits of a number: from begin up to end.
func (x *index) span(g guide, number uint32) (begin, end uint32) {
	at := g.base + number>>g.shift
	return x.begin[at], x.begin[at+1]
}

// find4 returns the number of the range which holds the IPv4 address a.
func (x *index) find4(c *column, a uint32) int {
	begin, end := x.span(x.v4, a)
	return int(begin) + upTo(c.low16[begin:end], uint16(a)) - 1
}

// find6 returns the number of the range which holds an IPv6 address.
func (x *index) find6(c *column, k key) int {
	upper, lower := k.halves(false)
	begin, end := x.span(x.roots[upper>>16], upper&0xffff)
	page := int(begin) + upTo(c.upper[begin:end], upper) - 1
	if c.upper[page] != upper {
		return int(c.first[page+1]) - 1
	}
	begin, end = c.first[page], c.first[page+1]
	if g := x.pages[page]; g.base != none {
		begin, end = x.span(g, lower)
	}
	i := int(begin) + upTo(c.low32[begin:end], lower) - 1
	if len(c.deep) > 0 && i >= int(c.first[page]) && c.low32[i] == lower {
		return c.within(i, int(c.first[page]), k)
	}
	return i
}

// within goes back from range i, the last one that starts in the /64 of k, to the one
// which holds k. first is where the page begins.
func (c *column) within(i, first int, k key) int {
	d, deep := slices.BinarySearch(c.deep, uint32(i))
	if !deep {
		return i // it begins with the /64
	}
	start := first
	if lower := uint32(k.hi); lower > 0 {
		start += upTo(c.low32[first:i], lower-1)
	}
	// All in the /64 but the first one are deep, and that may be.
	if at := d - (i - start); at < 0 || c.deep[at] != uint32(start) {
		start++
	}
	return start + upTo(c.lo[d-(i-start):d+1], k.lo) - 1
}

// upTo counts the elements of a rising list that are at most x. The loop has no
// branch that depends on the data.
func upTo[T uint16 | uint32 | uint64](list []T, x T) int {
	at, n := 0, len(list)
	for n > 1 {
		half := n / 2
		if list[at+half-1] <= x {
			at += half
		}
		n -= half
	}
	if n == 1 && list[at] <= x {
		at++
	}
	return at
}
