package wire

import "encoding/binary"

// Types whose names in the data may be compressed (RFC 3597 section 4), as far as
// they stand in denials and referrals, and such as hold no name.
const (
	typeA    = 1
	typeNS   = 2
	typeSOA  = 6
	typeAAAA = 28
	typeDS   = 43
	// Names in these are never compressed (RFC 4034 sections 3.1.7 and 4.1.1).
	typeRRSIG = 46
	typeNSEC  = 47
	typeNSEC3 = 50
)

// pointers finds the compression pointers among the records of a reply, which
// begin at an offset. The results count from there. False means that a record
// is of a type whose data are not known here.
func pointers(msg []byte, start int) (at []uint16, ok bool) {
	name := func(off int) int {
		for msg[off] != 0 {
			if msg[off] >= 0xc0 {
				at = append(at, uint16(off-start))
				return off + 2
			}
			off += 1 + int(msg[off])
		}
		return off + 1
	}
	for off := start; off < len(msg); {
		off = name(off)
		typ, end := binary.BigEndian.Uint16(msg[off:]), off+10+int(binary.BigEndian.Uint16(msg[off+8:]))
		switch typ {
		case typeA, typeAAAA, typeDS, typeRRSIG, typeNSEC, typeNSEC3:
		case typeNS:
			name(off + 10)
		case typeSOA:
			name(name(off + 10))
		default:
			return nil, false
		}
		off = end
	}
	return at, true
}

// repoint moves the pointers of a body, which stands in a reply at its place, to
// where their targets are with a question of another length. All targets lie in
// what the two questions have in common, their end, or in the body itself: both
// are as far away as the lengths differ.
func (x *Index) repoint(body []byte, b *Body, question int) {
	delta := uint16(question - int(b.question))
	for _, at := range x.fixes[b.fixes : b.fixes+uint32(b.nfix)] {
		p := body[at : at+2]
		binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)+delta)
	}
}
