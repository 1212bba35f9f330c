package lpm

import (
	"slices"
	"sort"
)

// column is the ranges of one family in address order: where each starts, and its
// word. A city database has millions of ranges, so they are kept in five bytes each
// for IPv4 and seven for IPv6: ranges whose keys have the upper half in common (of
// 32 bits, or of 64) are a page, which has it once, and beside a range stands the
// lower half only.
//
// IPv6 ranges that start inside a /64 are deep: they have 64 bits more, in a list of
// their own, since there are few of them.
type column struct {
	v4    bool
	upper []uint32 // page → upper half of its keys; rising
	first []uint32 // page → its first range; after fit, one more: the number of ranges
	low16 []uint16 // range → lower half of its key; IPv4
	low32 []uint32 // and IPv6
	deep  []uint32 // ranges with further bits, rising
	lo    []uint64 // and these, beside
	words []narrow
}

// narrow is a word in three bytes: the value, and the prefix length or noLength.
type narrow [3]byte

const noLength = 255 // of "no match"

func makeColumn(n int, v4 bool) column {
	c := column{v4: v4, words: make([]narrow, 0, n)}
	if v4 {
		c.low16 = make([]uint16, 0, n)
	} else {
		c.low32 = make([]uint32, 0, n)
	}
	return c
}

// halves are the two halves of a key's upper 32 or 64 bits.
func (k key) halves(v4 bool) (upper, lower uint32) {
	if v4 {
		return uint32(k.hi >> 48), uint32(k.hi>>32) & 0xffff
	}
	return uint32(k.hi >> 32), uint32(k.hi)
}

func (c *column) len() int { return len(c.words) }

// word is that of range i, 0 for no match.
func (c *column) word(i int) uint32 {
	w := c.words[i]
	if w[2] == noLength {
		return 0
	}
	return pack(w[2], uint16(w[0])|uint16(w[1])<<8)
}

// value is that of a range, or noMatch, without a branch.
func (w narrow) value() uint32 {
	return uint32(w[0]) | uint32(w[1])<<8 | (uint32(w[2])+1)>>8<<16
}

func narrowed(word uint32) narrow {
	if word == 0 {
		return narrow{2: noLength}
	}
	return narrow{byte(word), byte(word >> 8), byte(word >> 16)}
}

// push appends a range behind all others.
func (c *column) push(k key, word uint32) {
	upper, lower := k.halves(c.v4)
	if n := len(c.upper); n == 0 || c.upper[n-1] != upper {
		c.upper, c.first = append(c.upper, upper), append(c.first, uint32(c.len()))
	}
	if k.lo != 0 {
		c.deep, c.lo = append(c.deep, uint32(c.len())), append(c.lo, k.lo)
	}
	if c.v4 {
		c.low16 = append(c.low16, uint16(lower))
	} else {
		c.low32 = append(c.low32, lower)
	}
	c.words = append(c.words, narrowed(word))
}

// pop takes the last range back.
func (c *column) pop() {
	last := c.len() - 1
	if p := len(c.first) - 1; c.first[p] == uint32(last) {
		c.upper, c.first = c.upper[:p], c.first[:p]
	}
	if d := len(c.deep) - 1; d >= 0 && c.deep[d] == uint32(last) {
		c.deep, c.lo = c.deep[:d], c.lo[:d]
	}
	if c.v4 {
		c.low16 = c.low16[:last]
	} else {
		c.low32 = c.low32[:last]
	}
	c.words = c.words[:last]
}

// fit ends growing: it gives back what was reserved ahead, and ends the last page.
func (c *column) fit() {
	c.first = append(c.first, uint32(c.len()))
	c.upper, c.first = slices.Clone(c.upper), slices.Clone(c.first)
	c.low16, c.low32 = slices.Clone(c.low16), slices.Clone(c.low32)
	c.deep, c.lo = slices.Clone(c.deep), slices.Clone(c.lo)
	c.words = slices.Clone(c.words)
}

// key joins the halves of range i in page p.
func (c *column) key(i, p int) key {
	if c.v4 {
		return key{hi: uint64(c.upper[p])<<48 | uint64(c.low16[i])<<32}
	}
	return key{uint64(c.upper[p])<<32 | uint64(c.low32[i]), c.further(i)}
}

// further is what a range's key has behind its upper 64 bits.
func (c *column) further(i int) uint64 {
	if len(c.deep) == 0 {
		return 0
	}
	if d, ok := slices.BinarySearch(c.deep, uint32(i)); ok {
		return c.lo[d]
	}
	return 0
}

// at is the key of range i. It searches; whoever goes over all has a cursor.
func (c *column) at(i int) key {
	return c.key(i, sort.Search(len(c.upper), func(p int) bool { return c.first[p] > uint32(i) })-1)
}

// tail is the key of the last range, also before fit.
func (c *column) tail() key { return c.key(c.len()-1, len(c.upper)-1) }

// cursor goes over a column that is fit, forward.
type cursor struct {
	*column
	page int
}

// to is the key of range i, which must not be before the last one asked for.
func (c *cursor) to(i int) key {
	for c.first[c.page+1] <= uint32(i) {
		c.page++
	}
	return c.key(i, c.page)
}
