package edge

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"rhumb/edge/frame"
)

// rendezvous orders peers for one session: weighted highest-random-weight
// hashing. Every site computes the same order, and a change of one peer moves
// only the sessions it had or gets. Peers without weight are left out.
func rendezvous(k frame.Key, peers []Peer) []Peer {
	type scored struct {
		peer  Peer
		score float64
	}
	all := make([]scored, 0, len(peers))
	for _, p := range peers {
		if p.Weight > 0 {
			all = append(all, scored{p, score(k, p)})
		}
	}
	slices.SortFunc(all, func(a, b scored) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.peer.Name, b.peer.Name))
	})
	out := make([]Peer, len(all))
	for i := range all {
		out[i] = all[i].peer
	}
	return out
}

// score is -w / ln(h) with h uniform in (0, 1): a peer wins in proportion to
// its weight.
func score(k frame.Key, p Peer) float64 {
	sum := sha256.Sum256([]byte(p.Name + "|" + k.String()))
	h := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53)
	return -float64(p.Weight) / math.Log(h)
}

// rank is a site's place in the order, from 0; -1 if it is not in it.
func rank(k frame.Key, site string, peers []Peer) int {
	return slices.IndexFunc(rendezvous(k, peers), func(p Peer) bool { return p.Name == site })
}
