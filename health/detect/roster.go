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
	// Watches are the nodes which it watches itself, by the same fleet: of those which we
	// watch, too, each tells the other. Nil: it watches everybody, as we do.
	Watches []uint16
}

// peer is what the loop keeps of one peer.
type peer struct {
	Peer
	to    *address
	about subjects
	seal  *sealer
	open  []*sealer
	marks Marks
	asked time.Duration // when others were asked about it last
	doubt

	heard     atomic.Int64 // nanoseconds since started; 0: never
	suspicion atomic.Uint64
	in, out   [results]atomic.Uint64
	octets    atomic.Uint64 // sent
	doubts    atomic.Uint64 // how often it was suspected
}

// subjects are those of whom two nodes tell each other, rising, and a checksum by which
// they agree on that; everybody but the two where there is no list.
type subjects struct {
	some  bool
	ids   []uint16
	check uint16
}

// roster is who there is. It belongs to the loop; looks alone is for others.
type roster struct {
	self   uint16
	peers  []*peer
	byNode map[uint16]*peer
	order  []uint16 // node ids of everybody, ourselves too, rising
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
	all := checksum(r.order)
	for _, p := range r.peers {
		p.about = r.common(&p.Peer, all)
	}
	looks := r.byNode
	r.looks.Store(&looks)
	return ids
}

// common returns of whom we and a peer tell each other. In a full mesh no list is kept:
// a thousand peers would have a thousand of a thousand.
func (r *roster) common(p *Peer, all uint16) subjects {
	if p.Watches == nil {
		return subjects{check: all}
	}
	out := subjects{some: true}
	for _, id := range r.order {
		if id != r.self && id != p.Node && slices.Contains(p.Watches, id) {
			out.ids = append(out.ids, id)
		}
	}
	both := append(slices.Clone(out.ids), r.self, p.Node)
	slices.Sort(both)
	out.check = checksum(both)
	return out
}

// nth is the subject at a place in what a peer and we tell each other.
func (r *roster) nth(i int, p *peer) uint16 {
	if p.about.some {
		return p.about.ids[i]
	}
	a, b := min(r.self, p.Node), max(r.self, p.Node)
	for _, skip := range [2]uint16{a, b} {
		if r.order[i] >= skip {
			i++
		}
	}
	return r.order[i]
}

// others is how many subjects a peer and we tell each other of.
func (r *roster) others(p *peer) int {
	if p.about.some {
		return len(p.about.ids)
	}
	return len(r.order) - 2
}

// tells tells whether a peer has a word on a node.
func (r *roster) tells(p *peer, id uint16) bool {
	if !p.about.some {
		return id != p.Node
	}
	_, ok := slices.BinarySearch(p.about.ids, id)
	return ok
}
