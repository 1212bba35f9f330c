package wire

import (
	"bytes"
	"encoding/binary"
)

// Body is a packed answer: everything between question and OPT record. It is a
// value; the octets lie in the arena of the Index it came from.
type Body struct {
	off    uint32
	len    uint16
	flags  uint16 // AA and RCODE, as in the header
	counts [3]uint16
}

// Entry is what an Index knows of a name and type.
type Entry struct {
	hash uint64
	name uint32 // offset in the arena
	// First and Count name the bodies among which the caller chooses.
	First, Count uint32
	typ          uint16
	nameLen      uint8
	// Tag belongs to the caller.
	Tag uint16
}

// Index finds bodies by name and type. It is immutable and safe for concurrent use.
type Index struct {
	arena   []byte
	slots   []uint32 // entry + 1, open addressing; a power of two
	entries []Entry
	bodies  []Body
}

// Len is the number of names and types.
func (x *Index) Len() int { return len(x.entries) }

// Find returns the entry of a query, or nil; a nil Index holds none.
func (x *Index) Find(q *Query) *Entry {
	if x == nil || len(x.slots) == 0 {
		return nil
	}
	mask := uint64(len(x.slots) - 1)
	for i := q.Hash & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 {
			return nil
		}
		e := &x.entries[s-1]
		if e.hash == q.Hash && e.typ == q.Type && int(e.nameLen) == q.nameLen &&
			bytes.Equal(x.arena[e.name:e.name+uint32(e.nameLen)], q.lower[:q.nameLen]) {
			return e
		}
	}
}

// Body returns a body by its number, or nil for one that was left out: the
// caller's slow path answers then.
func (x *Index) Body(n uint32) *Body {
	b := &x.bodies[n]
	if b.off == none {
		return nil
	}
	return b
}

// none is the offset of a body that is left to the slow path.
const none = 1<<32 - 1

// Builder makes an Index. The zero value is ready; it is for one goroutine.
type Builder struct {
	x     Index
	names map[string]uint32
	same  map[string]uint32 // bodies by content, as far as they are short
}

// Add begins the entry of a name, in wire format and lower case, and a type.
// Bodies added from now on belong to it. A name and type must be added once only.
func (b *Builder) Add(name []byte, typ, tag uint16) {
	if b.names == nil {
		b.names, b.same = make(map[string]uint32), make(map[string]uint32)
	}
	at, ok := b.names[string(name)]
	if !ok {
		at = uint32(len(b.x.arena))
		b.x.arena = append(b.x.arena, name...)
		b.names[string(name)] = at
	}
	var padded [maxName + 7]byte
	copy(padded[:], name)
	b.x.entries = append(b.x.entries, Entry{
		hash: hash(padded[:], len(name), typ), name: at, nameLen: uint8(len(name)), typ: typ, Tag: tag,
		First: uint32(len(b.x.bodies)),
	})
}

// Reply adds a body to the entry begun last, taken from a reply to its question
// without an OPT record: header, question, records. Nil leaves it out.
func (b *Builder) Reply(msg []byte) {
	e := &b.x.entries[len(b.x.entries)-1]
	e.Count++
	if msg == nil {
		b.x.bodies = append(b.x.bodies, Body{off: none})
		return
	}
	records := msg[headerLen+int(e.nameLen)+4:]
	body := Body{off: b.keep(records), len: uint16(len(records)), flags: binary.BigEndian.Uint16(msg[2:]) & 0x040f}
	for i := range body.counts {
		body.counts[i] = binary.BigEndian.Uint16(msg[6+2*i:])
	}
	b.x.bodies = append(b.x.bodies, body)
}

// keep puts octets into the arena, once: many names have the same answer.
func (b *Builder) keep(data []byte) uint32 {
	if at, ok := b.same[string(data)]; ok {
		return at
	}
	at := uint32(len(b.x.arena))
	b.x.arena = append(b.x.arena, data...)
	b.same[string(data)] = at
	return at
}

// Index freezes what was added. The Builder is empty afterwards.
func (b *Builder) Index() *Index {
	x := b.x
	*b = Builder{}
	size := 8
	for size < 2*len(x.entries) {
		size *= 2
	}
	x.slots = make([]uint32, size)
	for i := range x.entries {
		at := x.entries[i].hash & uint64(size-1)
		for x.slots[at] != 0 {
			at = (at + 1) & uint64(size-1)
		}
		x.slots[at] = uint32(i + 1)
	}
	return &x
}
