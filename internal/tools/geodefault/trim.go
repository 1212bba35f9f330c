package main

import (
	"iter"
	"net/netip"

	"rhumb/placement/geo"
)

// The finest client block that a steered answer tells apart. A default table need
// not know more, and half of the data set's prefixes are longer than that.
const (
	finest4 = 24
	finest6 = 48
)

// trim yields the networks of a table of disjoint prefixes, with those longer
// than the finest block replaced by that block, located where most of its
// addresses are.
func trim(t *geo.Table) iter.Seq2[netip.Prefix, geo.Location] {
	at := t.Locations()
	return func(yield func(netip.Prefix, geo.Location) bool) {
		var v vote
		for p, id := range t.Entries() {
			block := blockOf(p)
			if block != v.block && v.block.IsValid() && !yield(v.block, at[v.winner()]) {
				return
			}
			if block != v.block {
				v = vote{block: block}
			}
			v.add(id, p.Bits())
		}
		if v.block.IsValid() {
			yield(v.block, at[v.winner()])
		}
	}
}

func blockOf(p netip.Prefix) netip.Prefix {
	finest := finest6
	if p.Addr().Is4() {
		finest = finest4
	}
	b, _ := p.Addr().Prefix(min(p.Bits(), finest))
	return b
}

// vote gathers the shares of the classes of one block.
type vote struct {
	block netip.Prefix
	ids   []uint16
	share []float64 // of the block; sums of powers of two, so exact
}

func (v *vote) add(id uint16, bits int) {
	share := 1.0
	for range bits - v.block.Bits() {
		share /= 2
	}
	for i := range v.ids {
		if v.ids[i] == id {
			v.share[i] += share
			return
		}
	}
	v.ids, v.share = append(v.ids, id), append(v.share, share)
}

// winner has the largest share; of equal ones the first in address order.
func (v *vote) winner() uint16 {
	best := 0
	for i := range v.share {
		if v.share[i] > v.share[best] {
			best = i
		}
	}
	return v.ids[best]
}
