package lpm

import "net/netip"

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
	first []uint32 // run → its first range
	label []uint32 // run → label
}

// Fold colours the address space: label[value] is the label of clients with
// this value, none that of clients without a match or with a value beyond the
// end of label. The table is shared, not copied; Fold is one pass over its
// ranges, cheap enough for every change of health.
func (t *Table) Fold(label []uint32, none uint32) *Blocks {
	return &Blocks{
		table: t,
		v4:    t.v4.ranges.fold(label, none),
		v6:    t.v6.ranges.fold(label, none),
	}
}

func (c *column) fold(label []uint32, none uint32) runs {
	guess := c.len()/4 + 1 // most neighbours differ in value, few in label
	r := runs{make([]uint32, c.len()), make([]uint32, 0, guess), make([]uint32, 0, guess)}
	for i, word := range c.word {
		l := none
		if v := int(uint16(word)); word != 0 && v < len(label) {
			l = label[v]
		}
		if last := len(r.label) - 1; last < 0 || r.label[last] != l {
			r.first, r.label = append(r.first, uint32(i)), append(r.label, l)
		}
		r.of[i] = uint32(len(r.label) - 1)
	}
	return r
}

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
	v4 := s == &b.table.v4
	r, split := &b.v6, splitBits6
	if v4 {
		r, split = &b.v4, splitBits4
	}
	run := r.of[at]
	n := r.length(&s.ranges, run, k)
	if r.label[run] >= SplitBase {
		n = max(n, split)
	}
	return k.block(v4, uint8(n)) // n fits the family, since the edges of runs do
}

// length is that of the largest aligned block around k inside the run: one bit
// more than k shares with the nearer of the keys just outside.
func (r *runs) length(ranges *column, run uint32, k key) int {
	n := 0
	if run > 0 {
		n = k.common(ranges.at(int(r.first[run])).prev()) + 1
	}
	if int(run)+1 < len(r.first) {
		n = max(n, k.common(ranges.at(int(r.first[run+1])))+1)
	}
	return n
}
