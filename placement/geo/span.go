package geo

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// point is an address as a number of 128 bits; IPv4 stands in the uppermost 32,
// so that both families are swept by the same code.
type point struct{ hi, lo uint64 }

// pointOf is the point of an address, which must not be an IPv4-mapped one.
func pointOf(a netip.Addr) point {
	hi, lo := numbers(a)
	if a.Is4() {
		return point{hi: hi << 32}
	}
	return point{hi, lo}
}

// prefix is the block of length n around p.
func (p point) prefix(n int, v4 bool) netip.Prefix {
	p = p.masked(n)
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(p.hi>>32))
		return netip.PrefixFrom(netip.AddrFrom4(b), n)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], p.hi)
	binary.BigEndian.PutUint64(b[8:], p.lo)
	return netip.PrefixFrom(netip.AddrFrom16(b), n)
}

// hostMask has a one for each bit behind the first n.
func hostMask(n int) point {
	if n < 64 {
		return point{^uint64(0) >> n, ^uint64(0)}
	}
	return point{0, ^uint64(0) >> (n - 64)}
}

func (p point) masked(n int) point { m := hostMask(n); return point{p.hi &^ m.hi, p.lo &^ m.lo} }

// last is the last point of the block of length n that starts at p.
func (p point) last(n int) point { m := hostMask(n); return point{p.hi | m.hi, p.lo | m.lo} }

func (p point) less(o point) bool { return p.hi < o.hi || p.hi == o.hi && p.lo < o.lo }

// next is the point behind p; behind the last one of all comes zero.
func (p point) next() point {
	lo, carry := bits.Add64(p.lo, 1, 0)
	return point{p.hi + carry, lo}
}

// prev is the point before p, which must not be zero.
func (p point) prev() point {
	lo, borrow := bits.Sub64(p.lo, 1, 0)
	return point{p.hi - borrow, lo}
}

// inside says whether p lies in the block of length n that starts at first.
func (p point) inside(first point, n int) bool { return p.masked(n) == first }

// end is the last point of all.
func end() point { return point{^uint64(0), ^uint64(0)} }

// sweep turns prefixes in address order, an outer one before those inside it, into
// where the longest match changes. The stack holds the prefixes that it stands in,
// at most 129, since each is longer than the one below it.
type sweep struct {
	// note is told each start of a stretch and what matches there from now on, 0
	// for nothing. Starts rise; of two equal ones the later word counts.
	note  func(at point, word uint32)
	stack []opened
}

type opened struct {
	first point
	bits  int
	word  uint32
}

// enter takes the next prefix.
func (s *sweep) enter(first point, bits int, word uint32) {
	for n := len(s.stack); n > 0 && !first.inside(s.stack[n-1].first, s.stack[n-1].bits); n = len(s.stack) {
		s.leave()
	}
	s.stack = append(s.stack, opened{first, bits, word})
	s.note(first, word)
}

// leave ends the innermost prefix: behind it the one around it matches again.
func (s *sweep) leave() {
	n := len(s.stack) - 1
	top := s.stack[n]
	s.stack = s.stack[:n]
	next, word := top.first.last(top.bits).next(), uint32(0)
	if next == (point{}) {
		return // it ended the space
	}
	if n > 0 {
		word = s.stack[n-1].word
	}
	s.note(next, word)
}

// finish leaves all that is open.
func (s *sweep) finish() {
	for len(s.stack) > 0 {
		s.leave()
	}
}

// blocks yields the prefixes which make up the stretch from first to last, both
// in it, largest possible ones.
func blocks(first, last point, v4 bool, yield func(netip.Prefix)) {
	for {
		n := first.alignment()
		for last.less(first.last(n)) {
			n++
		}
		yield(first.prefix(n, v4))
		if first = first.last(n).next(); first == (point{}) || last.less(first) {
			return
		}
	}
}

// alignment is the length of the largest block that may start at p.
func (p point) alignment() int {
	if p.lo != 0 {
		return 128 - bits.TrailingZeros64(p.lo)
	}
	return 64 - bits.TrailingZeros64(p.hi) // 0 for zero: the whole space
}
