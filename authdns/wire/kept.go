package wire

import (
	"sync/atomic"
)

// Kept holds replies that were made at their first query, up to a bound. It is for
// what cannot be made ahead, since there is no end to it: signed denials, and signed
// answers that depend on the client. It is safe for concurrent use; finding a reply
// costs no allocation and no lock.
type Kept struct {
	slots []atomic.Pointer[KeptReply] // keptWays to a set
	turn  atomic.Uint32
}

// KeptReply is one of them.
type KeptReply struct {
	hash    uint64
	name    string
	typ     uint16
	variant uint32
	index   Index // of this one body
	Mark
}

// Mark is what the caller remembers of a kept reply.
type Mark struct {
	Tag uint16
	// Many is set for the reply of one of very many names, Absent where the name
	// does not exist.
	Many, Absent bool
}

// keptWays is in how many places a reply may stand.
const keptWays = 4

// NewKept makes a Kept for so many replies, a power of two.
func NewKept(size int) *Kept { return &Kept{slots: make([]atomic.Pointer[KeptReply], size)} }

// set is the first of the places for a query.
func (k *Kept) set(q *Query, variant uint32) (first, hash uint64) {
	hash = q.hash ^ uint64(variant)*mul1
	return (hash ^ hash>>29) & uint64(len(k.slots)-1) &^ (keptWays - 1), hash
}

// Find returns the reply to a query, or nil. A nil Kept holds none.
func (k *Kept) Find(q *Query, variant uint32) *KeptReply {
	if k == nil {
		return nil
	}
	first, hash := k.set(q, variant)
	for i := range uint64(keptWays) {
		r := k.slots[first+i].Load()
		if r != nil && r.hash == hash && r.typ == q.Type && r.variant == variant && r.name == string(q.lower[:q.nameLen]) {
			return r
		}
	}
	return nil
}

// Keep adds the reply to a query, from the message without an OPT record. It takes
// a free place, else another's: whose does not matter, as it can be made again.
func (k *Kept) Keep(q *Query, variant uint32, msg []byte, m Mark) *KeptReply {
	first, hash := k.set(q, variant)
	var b Builder
	b.Add(q.lower[:q.nameLen], q.Type, m.Tag)
	b.Reply(msg)
	r := &KeptReply{hash: hash, name: string(q.lower[:q.nameLen]), typ: q.Type, variant: variant, Mark: m, index: Index{arena: b.x.arena, bodies: b.x.bodies}}
	for i := range uint64(keptWays) {
		if k.slots[first+i].CompareAndSwap(nil, r) {
			return r
		}
	}
	k.slots[first+uint64(k.turn.Add(1)%keptWays)].Store(r)
	return r
}

// Body returns the reply and the index that it is to be written from.
func (r *KeptReply) Body() (*Index, *Body) { return &r.index, &r.index.bodies[0] }
