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

// space is one address family: its entries as they were given, the ranges they
// make, and the index over those.
type space struct {
	entries, ranges column
	index           index
}

// find returns the space in which a lies, its key, and its range. a must be
// valid.
func (t *Table) find(a netip.Addr) (s *space, k key, at int) {
	k, v4 := keyOf(a)
	if v4 {
		return &t.v4, k, t.v4.index.find4(&t.v4.ranges, k.hi)
	}
	return &t.v6, k, t.v6.index.find(&t.v6.ranges, k)
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
	word := s.ranges.word[at]
	if word == 0 {
		return 0, netip.Prefix{}, false
	}
	n, value := unpack(word)
	return value, k.block(s == &t.v4, n), true
}

// Len is the number of entries with different prefixes.
func (t *Table) Len() int { return t.v4.entries.len() + t.v6.entries.len() }

// All yields the entries in address order: IPv4 before IPv6, an outer prefix
// before those inside it.
func (t *Table) All() iter.Seq2[netip.Prefix, uint16] {
	return func(yield func(netip.Prefix, uint16) bool) {
		_ = t.v4.entries.each(true, yield) && t.v6.entries.each(false, yield)
	}
}

// each yields the entries of a column until yield has enough, which it reports.
func (c *column) each(v4 bool, yield func(netip.Prefix, uint16) bool) bool {
	for i := range c.hi {
		n, value := unpack(c.word[i])
		if !yield(netip.PrefixFrom(c.at(i).addr(v4), int(n)), value) {
			return false
		}
	}
	return true
}

// Digest names the content of the table: the SHA-256 of its entries in address
// order, each as family (4 or 6), prefix length, 4 or 16 bytes of address, and
// value, all in network byte order. Equal entries give equal digests whatever
// order Build got them in and whatever machine computes it. It costs a pass
// over all entries; keep the result.
func (t *Table) Digest() [32]byte {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 64<<10)
	t.v4.entries.canonical(w, 4, 4)
	t.v6.entries.canonical(w, 6, 16)
	_ = w.Flush() // a hash never fails
	return [32]byte(h.Sum(nil))
}

func (c *column) canonical(w *bufio.Writer, family byte, size int) {
	var rec [20]byte
	for i := range c.hi {
		k, word := c.at(i), c.word[i]
		n, value := unpack(word)
		rec[0], rec[1] = family, n
		binary.BigEndian.PutUint64(rec[2:], k.hi)
		binary.BigEndian.PutUint64(rec[10:], k.lo)
		binary.BigEndian.PutUint16(rec[2+size:], value)
		_, _ = w.Write(rec[:2+size+2])
	}
}
