package lpm

import (
	"math/bits"
	"slices"
)

// A slot says where the search goes on: it holds a number and, in the two top
// bits, what the number is.
const (
	slotRange = 0       // this range, nothing to search
	slotScan  = 1 << 30 // this range or one of the few behind it
	slotNode  = 1 << 31 // this node
	slotMask  = slotScan - 1
)

// maxScan is the number of ranges in a slot up to which they are tried one by
// one: eight upper halves of keys are one cache line, a node more than one.
const maxScan = 8

// node divides a block by the next eight bits. Only slots that differ from the
// slot before them are stored; start marks those, rank counts the marks in the
// words before, base is where the node's slots begin in index.slots.
type node struct {
	start [4]uint64
	base  uint32
	rank  [4]uint8
}

// index finds the range which holds a key: roots by the first 16 bits, below
// them nodes by eight bits each.
type index struct {
	roots []uint32 // 1<<16 slots
	nodes []node
	slots []uint32
}

func newIndex(ranges *column, v4 bool) index {
	x := index{roots: make([]uint32, 1<<16)}
	b := indexer{index: &x, ranges: ranges}
	if v4 {
		b.scanFrom = 24 // one node decides nearly all of IPv4, no mispredicted scan
	}
	at := 0
	for i := 0; i < len(x.roots); {
		first := key{hi: uint64(i) << 48}
		at = b.advance(at, first)
		next := len(x.roots)
		if at+1 < ranges.len() {
			next = int(ranges.hi[at+1] >> 48)
		}
		if next == i {
			x.roots[i], at = b.slot(first, 16, at)
			i++
			continue
		}
		for ; i < next; i++ {
			x.roots[i] = slotRange | uint32(at)
		}
	}
	x.nodes, x.slots = slices.Clone(x.nodes), slices.Clone(x.slots) // without the room to grow
	return x
}

// indexer fills an index from the ranges, in address order and depth first.
type indexer struct {
	*index
	ranges   *column
	scanFrom uint8 // least block length whose ranges may be scanned
}

// slot makes the slot of the block of length n at first. at is a range that
// starts at or before first and reaches into the block; the range that reaches
// into the block behind this one is returned beside the slot.
func (b *indexer) slot(first key, n uint8, at int) (slot uint32, next int) {
	at = b.advance(at, first)
	end, last := at, true
	if behind, ok := first.after(n); ok {
		limit := min(at+maxScan, b.ranges.len()-1)
		for end < limit && b.ranges.at(end+1).less(behind) {
			end++
		}
		last = end == b.ranges.len()-1 || !b.ranges.at(end+1).less(behind)
	} else {
		end = b.ranges.len() - 1
		last = end-at < maxScan
	}
	switch {
	case at == end:
		return slotRange | uint32(at), at
	case last && end-at < maxScan && n >= b.scanFrom:
		return slotScan | uint32(at), end
	}
	return b.node(first, n, at)
}

// advance moves from range at to the range which holds k.
func (b *indexer) advance(at int, k key) int {
	for at+1 < b.ranges.len() && !k.less(b.ranges.at(at+1)) {
		at++
	}
	return at
}

// node makes a node for the block of length n at first, and all below it. It
// goes from one start of a range to the next, since most slots hold none.
func (b *indexer) node(first key, n uint8, at int) (slot uint32, last int) {
	var nd node
	list := make([]uint32, 0, 256)
	for i := 0; i < 256; {
		child := first.child(n, uint8(i))
		at = b.advance(at, child)
		s, next := slotRange|uint32(at), b.nextStart(first, n, at)
		if next == i {
			s, at = b.slot(child, n+8, at)
			next++
		}
		if len(list) == 0 || list[len(list)-1] != s {
			nd.start[i>>6] |= 1 << (i & 63)
			list = append(list, s)
		}
		i = next
	}
	for w := 1; w < 4; w++ {
		nd.rank[w] = nd.rank[w-1] + uint8(bits.OnesCount64(nd.start[w-1]))
	}
	nd.base = uint32(len(b.slots))
	b.slots = append(b.slots, list...)
	b.nodes = append(b.nodes, nd)
	return slotNode | uint32(len(b.nodes)-1), at
}

// nextStart is the slot, in the block of length n at first, in which the range
// behind at starts; 256 if it starts behind the block.
func (b *indexer) nextStart(first key, n uint8, at int) int {
	if at+1 == b.ranges.len() {
		return 256
	}
	k := b.ranges.at(at + 1)
	switch {
	case !k.inside(first, n):
		return 256
	case n >= 64:
		return int(uint8(k.lo >> (120 - n)))
	}
	return int(uint8(k.hi >> (56 - n)))
}

// child is the first key of the i-th of 256 parts of the block of length n.
func (k key) child(n uint8, i uint8) key {
	if n >= 64 {
		k.lo |= uint64(i) << (120 - n)
	} else {
		k.hi |= uint64(i) << (56 - n)
	}
	return k
}

// find returns the number of the range which holds k.
func (x *index) find(ranges *column, k key) int {
	slot := x.roots[k.hi>>48]
	hi, lo := k.hi<<16|k.lo>>48, k.lo<<16
	for slot&slotNode != 0 {
		slot = x.slots[x.nodes[slot&slotMask].slot(hi>>56)]
		hi, lo = hi<<8|lo>>56, lo<<8
	}
	i := int(slot & slotMask)
	if slot&slotScan == 0 {
		return i
	}
	for i++; i < ranges.len() && !k.less(ranges.at(i)); i++ {
	}
	return i - 1
}

// find4 is find for a space whose keys have their upper 32 bits only.
func (x *index) find4(ranges *column, hi uint64) int {
	slot := x.roots[hi>>48]
	for rest := hi << 16; slot&slotNode != 0; rest <<= 8 {
		slot = x.slots[x.nodes[slot&slotMask].slot(rest>>56)]
	}
	i := int(slot & slotMask)
	if slot&slotScan == 0 {
		return i
	}
	for i++; i < len(ranges.hi) && ranges.hi[i] <= hi; i++ {
	}
	return i - 1
}

// slot is where in index.slots the b-th of the node's 256 slots is kept.
func (n *node) slot(b uint64) uint32 {
	w := b >> 6 & 3
	below := n.start[w] & (2<<(b&63) - 1)
	return n.base + uint32(n.rank[w]) + uint32(bits.OnesCount64(below)) - 1
}
