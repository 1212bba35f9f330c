package lpm

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// key is an address as a number of 128 bits. IPv4 stands in the uppermost 32 of
// them, so that both families are searched by the same code.
type key struct{ hi, lo uint64 }

// keyOf returns the key of a and whether a is IPv4; an IPv4-mapped IPv6 address
// is IPv4 (RFC 4291 section 2.5.5.2). a must be valid.
func keyOf(a netip.Addr) (k key, v4 bool) {
	if a.Is4() || a.Is4In6() {
		b := a.As4()
		return key{hi: uint64(binary.BigEndian.Uint32(b[:])) << 32}, true
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}, false
}

// addr is the inverse of keyOf.
func (k key) addr(v4 bool) netip.Addr {
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(k.hi>>32))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	return netip.AddrFrom16(b)
}

// block is the prefix of length n around k. (Addr.Prefix would do the same work
// on the address, at a third of the cost of a whole look-up.)
func (k key) block(v4 bool, n uint8) netip.Prefix {
	if n <= 64 {
		k = key{hi: k.hi &^ (^uint64(0) >> n)}
	} else {
		k.lo &^= ^uint64(0) >> (n - 64)
	}
	return netip.PrefixFrom(k.addr(v4), int(n))
}

// less orders keys as addresses are ordered.
func (k key) less(o key) bool {
	return k.hi < o.hi || k.hi == o.hi && k.lo < o.lo
}

// prev is the key before k; the key before zero does not exist and must not be
// asked for.
func (k key) prev() key {
	lo, borrow := bits.Sub64(k.lo, 1, 0)
	hi, _ := bits.Sub64(k.hi, 0, borrow)
	return key{hi, lo}
}

// after is the first key behind the block of k with length n. ok is false when
// the block ends the space.
func (k key) after(n uint8) (next key, ok bool) {
	if n == 0 {
		return key{}, false
	}
	var step key
	if n > 64 {
		step.lo = 1 << (128 - n)
	} else {
		step.hi = 1 << (64 - n)
	}
	lo, carry := bits.Add64(k.lo, step.lo, 0)
	hi, over := bits.Add64(k.hi, step.hi, carry)
	return key{hi, lo}, over == 0
}

// roundUp is the first key at or after k where a block of length n starts; past
// the end of the space it wraps around to zero.
func (k key) roundUp(n uint8) key {
	down := k
	if n <= 64 {
		down = key{hi: k.hi &^ (^uint64(0) >> n)}
	} else {
		down.lo &^= ^uint64(0) >> (n - 64)
	}
	if down == k {
		return k
	}
	next, _ := down.after(n)
	return next
}

// common counts the leading bits which k and o share.
func (k key) common(o key) int {
	if x := k.hi ^ o.hi; x != 0 {
		return bits.LeadingZeros64(x)
	}
	return 64 + bits.LeadingZeros64(k.lo^o.lo)
}

// inside reports whether k lies in the block of length n which starts at first.
func (k key) inside(first key, n uint8) bool { return k.common(first) >= int(n) }

// A word packs a prefix length and a value; bit 31 tells it from "no match".
const matched = 1 << 31

func pack(n uint8, value uint16) uint32 { return matched | uint32(n)<<16 | uint32(value) }

func unpack(word uint32) (n uint8, value uint16) { return uint8(word >> 16), uint16(word) }
