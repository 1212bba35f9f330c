package detect

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Peer is a node of another site: it is heard, hears us, and is asked about others.
type Peer struct {
	Name string // for counts
	Node uint16 // unique in the fleet
	Addr netip.AddrPort
	// Keys of the pair of sites, the first is used to send; two at a roll-over.
	Keys [][32]byte
}

// peer is what the loop keeps of one peer.
type peer struct {
	Peer
	to    *address
	seal  *sealer
	open  []*sealer
	marks Marks
	asked time.Duration // when others were asked about it last

	heard     atomic.Int64 // nanoseconds since started; 0: never
	suspicion atomic.Uint64
	in, out   [results]atomic.Uint64
	octets    atomic.Uint64 // sent
}

// roster is who there is. It belongs to the loop; looks alone is for others.
type roster struct {
	self   uint16
	peers  []*peer
	byNode map[uint16]*peer
	order  []uint16 // node ids of everybody, ourselves too, rising
	check  uint16   // checksum of order
	looks  atomic.Pointer[map[uint16]*peer]
}

// set replaces the peers and returns their ids; those that stay keep what was heard
// of them. One without a key could neither be believed nor spoken to; it is left out.
func (r *roster) set(peers []Peer) (ids []uint32) {
	before := r.byNode
	r.byNode, r.peers, r.order = make(map[uint16]*peer, len(peers)), nil, []uint16{r.self}
	for _, p := range peers {
		if len(p.Keys) == 0 || r.byNode[p.Node] != nil || p.Node == r.self {
			continue
		}
		k := before[p.Node]
		if k == nil {
			k = &peer{}
		}
		k.Peer, k.to, k.seal, k.open = p, newAddress(p.Addr), newSealer(p.Keys[0]), nil
		for _, key := range p.Keys {
			k.open = append(k.open, newSealer(key))
		}
		r.byNode[p.Node], r.peers = k, append(r.peers, k)
		r.order, ids = append(r.order, p.Node), append(ids, uint32(p.Node))
	}
	slices.Sort(r.order)
	r.check = checksum(r.order)
	looks := r.byNode
	r.looks.Store(&looks)
	return ids
}

// nth is the node at a place in the order of all but two.
func (r *roster) nth(i int, a, b uint16) uint16 {
	if a > b {
		a, b = b, a
	}
	for _, skip := range [2]uint16{a, b} {
		if r.order[i] >= skip {
			i++
		}
	}
	return r.order[i]
}

// others is how many entries a vector about all but two has.
func (r *roster) others() int { return len(r.order) - 2 }
