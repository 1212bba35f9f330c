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
	starts ranks    // the ranges with which a run starts
	short  []uint32 // run → key of its start, in its upper 32 bits; IPv4
	hi, lo []uint64 // run → key of its start; IPv6, and no lo where all are zero
	label  []uint32 // run → label
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

// fold looks for the starts first, with no branch that depends on the data, since
// whether neighbours differ is what no processor can predict; and then at the starts.
func (c *column) fold(lut []uint32) runs {
	r := runs{starts: makeRanks(c.len())}
	before := ^lut[c.words[0].value()]
	for at, words := 0, c.words; len(words) > 0; at++ {
		some := words[:min(64, len(words))]
		words = words[len(some):]
		mask := uint64(0)
		for i, w := range some {
			l := lut[w.value()]
			d := l ^ before
			mask |= uint64((d|-d)>>31) << (i & 63) // 1 if they differ
			before = l
		}
		r.starts.bits[at] = mask
	}
	n := r.starts.count()
	r.label = make([]uint32, 0, n)
	if c.v4 {
		r.short = make([]uint32, 0, n)
	} else {
		r.hi = make([]uint64, 0, n)
	}
	if len(c.deep) > 0 {
		r.lo = make([]uint64, 0, n)
	}
	cur := cursor{column: c}
	for i := range r.starts.all() {
		r.push(cur.to(i), lut[c.words[i].value()])
	}
	return r
}

// push appends a run, to the lists that there are.
func (r *runs) push(k key, label uint32) {
	r.label = append(r.label, label)
	if r.short != nil {
		r.short = append(r.short, uint32(k.hi>>32))
		return
	}
	r.hi = append(r.hi, k.hi)
	if r.lo != nil {
		r.lo = append(r.lo, k.lo)
	}
}

// at is the key with which a run starts.
func (r *runs) at(run int) key {
	switch {
	case r.short != nil:
		return key{hi: uint64(r.short[run]) << 32}
	case r.lo == nil:
		return key{hi: r.hi[run]}
	}
	return key{r.hi[run], r.lo[run]}
}

// Lookup is Table.Lookup and Block in one search.
func (b *Blocks) Lookup(a netip.Addr) (value uint16, match, block netip.Prefix, ok bool) {
	if !a.IsValid() {
		return 0, netip.Prefix{}, netip.Prefix{}, false
	}
	s, k, at := b.table.find(a)
	value, match, ok = s.match(k, at)
	return value, match, b.around(s, k, at), ok
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
	return b.around(s, k, at)
}

// around is the block around k, which lies in range at.
func (b *Blocks) around(s *space, k key, at int) netip.Prefix {
	r, split := &b.v6, splitBits6
	if s.v4 {
		r, split = &b.v4, splitBits4
	}
	run := r.starts.upTo(at) - 1
	n := r.length(run, k)
	if r.label[run] >= SplitBase {
		n = max(n, split)
	}
	return k.block(s.v4, uint8(n)) // n fits the family, since the edges of runs do
}

// length is that of the largest aligned block around k inside the run: one bit
// more than k shares with the nearer of the keys just outside.
func (r *runs) length(run int, k key) int {
	n := 0
	if run > 0 {
		n = k.common(r.at(run).prev()) + 1
	}
	if run+1 < len(r.label) {
		n = max(n, k.common(r.at(run+1))+1)
	}
	return n
}
