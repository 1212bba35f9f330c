package lpm

import (
	"net/netip"
	"slices"
)

// SplitBase is the least label of a split class: a label at or above it marks
// addresses whose clients are divided among several answers by a hash of their
// aligned block. Such a block must not be larger than the unit that is hashed,
// and should not be smaller.
const SplitBase = 1 << 31

// The unit that is hashed: finer cuts would make every ECS scope a /24.
const (
	splitBits4 = 20
	splitBits6 = 40
)

// Blocks is a table whose address space is coloured with labels. It is
// immutable and safe for concurrent use.
type Blocks struct {
	table  *Table
	v4, v6 runs
}

// runs are stretches of neighbouring ranges with equal labels; neighbouring
// runs have different ones.
type runs struct {
	of    []uint32 // range → run
	last  []uint32 // run → its last range
	label []uint32 // run → label
}

// Fold colours the address space: label[value] is the label of clients with
// this value, none that of clients without a match or with a value beyond the
// end of label. The table is shared, not copied; Fold is one pass over its
// ranges, cheap enough for every change of health.
func (t *Table) Fold(label []uint32, none uint32) *Blocks {
	lut := make([]uint32, noMatch+1)
	for i := copy(lut[:noMatch], label); i < len(lut); i++ {
		lut[i] = none
	}
	return &Blocks{table: t, v4: t.v4.ranges.fold(lut), v6: t.v6.ranges.fold(lut)}
}

// noMatch is the place of the label of "no match", behind those of all values.
const noMatch = 1 << 16

// fold has no branch that depends on the data, since whether neighbours differ is
// what no processor can predict: a run is written again until it has ended.
func (c *column) fold(lut []uint32) runs {
	n := c.len()
	r := runs{make([]uint32, n), make([]uint32, n), make([]uint32, n)}
	run, before := uint32(0), lut[valueOf(c.word[0])]
	for i, word := range c.word {
		l := lut[valueOf(word)]
		d := l ^ before
		run += (d | -d) >> 31 // 1 if they differ
		r.of[i], r.last[run], r.label[run] = run, uint32(i), l
		before = l
	}
	r.last, r.label = slices.Clone(r.last[:run+1]), slices.Clone(r.label[:run+1])
	return r
}

// valueOf is the value of a word, or noMatch.
func valueOf(word uint32) uint32 { return word&0xffff | (word>>31^1)<<16 }

// Block returns the largest aligned block around a in which every address has
// the same label; for a split label it is no larger than a /20 (IPv4) or /40
// (IPv6). Blocks of two addresses are equal or do not overlap. An IPv4-mapped
// IPv6 address gets an IPv4 block, the zero Addr the zero Prefix. Block does not
// allocate.
func (b *Blocks) Block(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	s, k, at := b.table.find(a)
	r, split := &b.v6, splitBits6
	if s.v4 {
		r, split = &b.v4, splitBits4
	}
	run := r.of[at]
	n := r.length(&s.ranges, run, k)
	if r.label[run] >= SplitBase {
		n = max(n, split)
	}
	return k.block(s.v4, uint8(n)) // n fits the family, since the edges of runs do
}

// length is that of the largest aligned block around k inside the run: one bit
// more than k shares with the nearer of the keys just outside.
func (r *runs) length(ranges *column, run uint32, k key) int {
	n := 0
	if run > 0 {
		n = k.common(ranges.at(int(r.last[run-1])+1).prev()) + 1
	}
	if int(run)+1 < len(r.last) {
		n = max(n, k.common(ranges.at(int(r.last[run])+1))+1)
	}
	return n
}
