package lpm

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"net/netip"
)

// Table maps addresses to values by their longest matching prefix. It is
// immutable and safe for concurrent use. Build makes it; there is no useful
// zero value.
type Table struct {
	v4, v6 space
}

// space is one address family: the ranges, the index over them, and what is
// needed to tell the entries again. An entry with nothing inside is one block of
// a range, so only the broken ones are kept, in address order; in the usual
// table there are none.
type space struct {
	v4      bool
	entries int
	broken  []item
	ranges  column
	index   index
}

// find returns the space in which a lies, its key, and its range. a must be
// valid.
func (t *Table) find(a netip.Addr) (s *space, k key, at int) {
	k, v4 := keyOf(a)
	if v4 {
		return &t.v4, k, t.v4.index.find4(&t.v4.ranges, uint32(k.hi>>32))
	}
	return &t.v6, k, t.v6.index.find6(&t.v6.ranges, k)
}

// Lookup returns the value and the prefix of the longest match for a. An
// IPv4-mapped IPv6 address is looked up as IPv4 and matches an IPv4 prefix; a
// zone is ignored. ok is false without a match and for the zero Addr. Lookup
// does not allocate.
func (t *Table) Lookup(a netip.Addr) (value uint16, match netip.Prefix, ok bool) {
	if !a.IsValid() {
		return 0, netip.Prefix{}, false
	}
	s, k, at := t.find(a)
	return s.match(k, at)
}

// match is what range at says of k, which lies in it.
func (s *space) match(k key, at int) (value uint16, match netip.Prefix, ok bool) {
	word := s.ranges.word(at)
	if word == 0 {
		return 0, netip.Prefix{}, false
	}
	n, value := unpack(word)
	return value, k.block(s.v4, n), true
}

// Len is the number of entries with different prefixes.
func (t *Table) Len() int { return t.v4.entries + t.v6.entries }

// All yields the entries in address order: IPv4 before IPv6, an outer prefix
// before those inside it.
func (t *Table) All() iter.Seq2[netip.Prefix, uint16] {
	return func(yield func(netip.Prefix, uint16) bool) {
		prefixes := func(it item) bool {
			n, value := unpack(it.word)
			return yield(netip.PrefixFrom(it.first.addr(it.v4), int(n)), value)
		}
		_ = t.v4.each(prefixes) && t.v6.each(prefixes)
	}
}

// each yields the entries in address order until yield has enough; it reports
// whether yield wanted all.
func (s *space) each(yield func(item) bool) bool {
	broken := s.broken
	cur := cursor{column: &s.ranges}
	for i := range s.ranges.len() {
		word := s.ranges.word(i)
		if word == 0 {
			continue
		}
		from, behind, last := cur.to(i), key{}, i+1 == s.ranges.len()
		if !last {
			behind = cur.to(i + 1)
		}
		for it := (item{from.roundUp(uint8(word >> 16)), word, s.v4}); it.whole(from, behind, last); {
			for ; len(broken) > 0 && compareItems(broken[0], it) < 0; broken = broken[1:] {
				if !yield(broken[0]) {
					return false
				}
			}
			if !yield(it) {
				return false
			}
			next, ok := it.first.after(uint8(word >> 16))
			if !ok {
				break
			}
			it.first = next
		}
	}
	for _, it := range broken {
		if !yield(it) {
			return false
		}
	}
	return true
}

// whole reports whether the block of it lies from end to end in the range between
// from and behind, or between from and the end of the space. One that does not is
// what is left of a broken entry.
func (it item) whole(from, behind key, last bool) bool {
	if it.first.less(from) {
		return false // rounding up went past the end of the space
	}
	if last {
		return true
	}
	next, ok := it.first.after(uint8(it.word >> 16))
	return ok && !behind.less(next)
}

// Digest names the content of the table: the SHA-256 of its entries in address
// order, each as family (4 or 6), prefix length, 4 or 16 bytes of address, and
// value, all in network byte order. Equal entries give equal digests whatever
// order Build got them in and whatever machine computes it. It costs a pass
// over all entries; keep the result.
func (t *Table) Digest() [32]byte {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 64<<10)
	var rec [20]byte
	record := func(it item) bool {
		family, size := byte(6), 16
		if it.v4 {
			family, size = 4, 4
		}
		rec[0], rec[1] = family, byte(it.word>>16)
		binary.BigEndian.PutUint64(rec[2:], it.first.hi)
		binary.BigEndian.PutUint64(rec[10:], it.first.lo)
		binary.BigEndian.PutUint16(rec[2+size:], uint16(it.word))
		_, err := w.Write(rec[:2+size+2])
		return err == nil // a hash never fails
	}
	_ = t.v4.each(record) && t.v6.each(record) && w.Flush() == nil
	return [32]byte(h.Sum(nil))
}
