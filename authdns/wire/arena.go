package wire

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"slices"
)

// Body is a packed answer: everything between question and OPT record. It is a
// value; the octets lie in the arena of the Index it came from.
type Body struct {
	off   uint32
	fixes uint32 // where its pointers stand, in Index.fixes
	len   uint16
	// question is the length of the one it was made with.
	question uint16
	nfix     uint16
	flags    uint16 // AA and RCODE, as in the header
	counts   [3]uint16
}

// Rcode is the RCODE of the reply.
func (b *Body) Rcode() int { return int(b.flags & 0xf) }

// Entry is what an Index knows of a name and type.
type Entry struct {
	hash uint64
	name uint32 // offset in the arena
	// First and Count name the bodies among which the caller chooses.
	First, Count uint32
	typ          uint16
	nameLen      uint8
	// Whole is set for a name all of whose types have entries.
	Whole bool
	// Tag belongs to the caller.
	Tag uint16
}

// Index finds bodies by name and type. It is immutable and safe for concurrent use.
type Index struct {
	arena   []byte
	slots   []uint32 // entry + 1, open addressing; a power of two
	entries []Entry
	bodies  []Body
	fixes   []uint16 // offsets of pointers within a body
}

// Len is the number of names and types.
func (x *Index) Len() int { return len(x.entries) }

// Find returns the entry of a query, or nil; a nil Index holds none.
func (x *Index) Find(q *Query) *Entry {
	if q.Type == typeSuffix {
		return nil
	}
	return x.find(q.lower[:q.nameLen], q.Type, q.hash)
}

// Suffix returns the entry made with AddSuffix for the name asked without its
// first octets, or nil. The octets are whole labels.
func (x *Index) Suffix(q *Query, without int) *Entry {
	if x == nil {
		return nil
	}
	return x.find(q.lower[without:q.nameLen], typeSuffix, hash(q.lower[without:], q.nameLen-without, typeSuffix))
}

// typeSuffix stands where a type does for entries of suffixes: 0 is reserved (RFC
// 6895 section 3.1).
const typeSuffix = 0

func (x *Index) find(name []byte, typ uint16, hash uint64) *Entry {
	if x == nil || len(x.slots) == 0 {
		return nil
	}
	mask := uint64(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 {
			return nil
		}
		e := &x.entries[s-1]
		if e.hash == hash && e.typ == typ && bytes.Equal(x.nameOf(e), name) {
			return e
		}
	}
}

func (x *Index) nameOf(e *Entry) []byte { return x.arena[e.name : e.name+uint32(e.nameLen)] }

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
	x Index
	// same finds bodies by what they are made of, apart from those of suffixes; what has
	// the same hash is compared.
	same, sameSuffix map[uint64]uint32
	seed             maphash.Seed
	key              []byte // room for one
}

// Grow makes room for so many entries more, of a body each.
func (b *Builder) Grow(entries int) {
	b.x.entries = slices.Grow(b.x.entries, entries)
	b.x.bodies = slices.Grow(b.x.bodies, entries)
}

// Add begins the entry of a name, in wire format and lower case, and a type.
// Bodies added from now on belong to it. A name and type must be added once only.
// The entry's place is for AddSame.
func (b *Builder) Add(name []byte, typ, tag uint16) (entry int) {
	var padded [maxName + 8]byte
	copy(padded[:], name)
	b.x.entries = append(b.x.entries, Entry{
		hash: hash(padded[:], len(name), typ), name: b.name(name), nameLen: uint8(len(name)), typ: typ, Tag: tag,
		First: uint32(len(b.x.bodies)),
	})
	return len(b.x.entries) - 1
}

// name keeps a name, once for entries of it that follow one another.
func (b *Builder) name(name []byte) (at uint32) {
	if n := len(b.x.entries); n > 0 {
		if last := &b.x.entries[n-1]; bytes.Equal(b.x.nameOf(last), name) {
			return last.name
		}
	}
	at = uint32(len(b.x.arena))
	b.x.arena = append(b.x.arena, name...)
	return at
}

// AddSame makes an entry with the bodies of another one, which must hold the same
// whatever the name: those of answers do, whose owners point at the question.
func (b *Builder) AddSame(name []byte, typ, tag uint16, as int) {
	e := &b.x.entries[b.Add(name, typ, tag)]
	e.First, e.Count = b.x.entries[as].First, b.x.entries[as].Count
}

// AddSuffix begins the entry of a name for questions at or below it. A whole one has, or
// gets, an entry of each type that there is at the name.
func (b *Builder) AddSuffix(name []byte, tag uint16, whole bool) {
	b.x.entries[b.Add(name, typeSuffix, tag)].Whole = whole
}

// Reply adds a body to the entry begun last, taken from a reply to its question
// without an OPT record: header, question, records. Nil leaves it out. The body
// of a suffix is made with a question one label longer than the suffix, and goes
// with questions of any length; one whose pointers are not known is left out.
func (b *Builder) Reply(msg []byte) {
	e := &b.x.entries[len(b.x.entries)-1]
	e.Count++
	b.x.bodies = append(b.x.bodies, b.body(msg, e.typ == typeSuffix))
}

// Spare adds a body like that of a suffix to no entry, and returns its number.
func (b *Builder) Spare(msg []byte) uint32 {
	b.x.bodies = append(b.x.bodies, b.body(msg, true))
	return uint32(len(b.x.bodies) - 1)
}

// body keeps the records of a reply, once: many names have the same answer.
func (b *Builder) body(msg []byte, suffix bool) Body {
	if msg == nil {
		return Body{off: none}
	}
	question := headerLen
	for msg[question] != 0 {
		question += 1 + int(msg[question])
	}
	question += 5
	body := Body{off: uint32(len(b.x.arena)), len: uint16(len(msg) - question), question: uint16(question - headerLen),
		flags: binary.BigEndian.Uint16(msg[2:]) & 0x040f}
	for i := range body.counts {
		body.counts[i] = binary.BigEndian.Uint16(msg[6+2*i:])
	}
	if found := b.find(&body, msg, question, suffix); found != nil {
		return *found
	}
	if suffix {
		fixes, ok := pointers(msg, question)
		if !ok {
			return Body{off: none}
		}
		body.fixes, body.nfix = uint32(len(b.x.fixes)), uint16(len(fixes))
		b.x.fixes = append(b.x.fixes, fixes...)
	}
	b.x.arena = append(b.x.arena, msg[question:]...)
	return body
}

// find returns a body of the same octets, or notes that the next one will have them.
func (b *Builder) find(body *Body, msg []byte, question int, suffix bool) *Body {
	if b.same == nil {
		b.same, b.sameSuffix, b.seed = make(map[uint64]uint32), make(map[uint64]uint32), maphash.MakeSeed()
	}
	same := b.same
	b.key = append(append(b.key[:0], msg[2:headerLen]...), msg[question:]...)
	if suffix {
		same = b.sameSuffix
		b.key = append(b.key, byte(question)) // pointers count from the start of the message
	}
	sum := maphash.Bytes(b.seed, b.key)
	at, ok := same[sum]
	if !ok {
		same[sum] = uint32(len(b.x.bodies))
		return nil
	}
	was := &b.x.bodies[at]
	if was.off == none || was.flags != body.flags || was.counts != body.counts || suffix && was.question != body.question ||
		!bytes.Equal(b.x.arena[was.off:was.off+uint32(was.len)], msg[question:]) {
		return nil
	}
	return was
}

// Index freezes what was added. The Builder is empty afterwards.
func (b *Builder) Index() *Index {
	x := b.x
	x.arena, x.entries, x.bodies = fitting(x.arena), fitting(x.entries), fitting(x.bodies)
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

// fitting returns a slice in an array that has little room to spare: it stays for long.
func fitting[T any](s []T) []T {
	if cap(s)-len(s) <= len(s)/16 {
		return s
	}
	return append(make([]T, 0, len(s)), s...)
}
