package lpm

import (
	"iter"
	"math/bits"
)

// ranks is a set of small numbers that says how many of its members are at most i by
// counting ones in one word (G. Jacobson, "Space-efficient static trees and graphs",
// FOCS 1989).
type ranks struct {
	bits   []uint64
	before []uint32 // members in the words before
}

// makeRanks makes a set for numbers below n, to be filled by way of bits, and counted.
func makeRanks(n int) ranks {
	words := (n + 63) / 64
	return ranks{make([]uint64, words), make([]uint32, words)}
}

// count ends filling; it returns the number of members.
func (r *ranks) count() int {
	n := uint32(0)
	for i, w := range r.bits {
		r.before[i] = n
		n += uint32(bits.OnesCount64(w))
	}
	return int(n)
}

// upTo is the number of members that are at most i.
func (r *ranks) upTo(i int) int {
	return int(r.before[i>>6]) + bits.OnesCount64(r.bits[i>>6]&(2<<(i&63)-1))
}

// all yields the members in order.
func (r *ranks) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range r.bits {
			for ; w != 0; w &= w - 1 {
				if !yield(i<<6 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}
