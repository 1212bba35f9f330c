package forward

import "encoding/binary"

// A hello tells a peer what this version can do and whether we hear it, and times the
// way there and back. One is sent to each peer every helloEvery; more while a path is
// broken. A site of an earlier version counts it as unknown and says nothing.
//
//	0 flags
//	1 number of the question, asked or answered, 4
//
// What stands behind is for later versions.
const (
	helloSize = 5

	helloAsk    = 1 // answer me
	helloAnswer = 2 // this is one
	helloDeaf   = 4 // what you send me directly doesn't come
	helloRelays = 8 // I pass on what is for others
)

// hello is the body of one.
type hello struct {
	flags  byte
	number uint32
}

func (h hello) has(flag byte) bool { return h.flags&flag != 0 }

// appendTo writes the wire form behind b.
func (h hello) appendTo(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, h.flags), h.number)
}

// readHello reads it.
func readHello(b []byte) (hello, error) {
	if len(b) < helloSize {
		return hello{}, errShort
	}
	return hello{flags: b[0], number: binary.BigEndian.Uint32(b[1:])}, nil
}
