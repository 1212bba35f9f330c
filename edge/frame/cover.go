package frame

import (
	"encoding/binary"
	"fmt"
)

// Suites of a Cover, by number; of the second the secrets are those of SHA-384.
const (
	suiteNone   = 0
	suiteSHA384 = 2
	lastSuite   = 3
)

// Cover is what another site needs of a session's TLS 1.3: the application
// traffic secrets of both directions and where the records stand. Who has it
// reads the session and writes as its server, so it goes only to sites that the
// service's export_secrets allows, and is wiped with whatever held it. It never
// prints its secrets.
type Cover struct {
	Suite  uint8  // number in package edge/seal; 0: the session is in clear
	Client uint32 // number of the client's record which begins at RcvNxt
	Server uint32 // number of the first record of the response in progress
	// Text begins a digest of everything the records of the response depend on. A
	// site that would seal another text under the same numbers gives the secrets away.
	Text  [8]byte
	Write [48]byte
	Read  [48]byte
}

// String tells that there are secrets, and not which.
func (c Cover) String() string {
	if c.Suite == suiteNone {
		return "in clear"
	}
	return fmt.Sprintf("suite %d, records %d and %d, secrets hidden", c.Suite, c.Client, c.Server)
}

// GoString is String: %#v hides the secrets too.
func (c Cover) GoString() string { return c.String() }

// secretLen is the length of a suite's secrets on the wire.
func (c *Cover) secretLen() int {
	if c.Suite == suiteSHA384 {
		return 48
	}
	return 32
}

// appendCover encodes c behind b, nothing for a session in clear. The suite
// stands in the record's head.
func appendCover(b []byte, c *Cover) []byte {
	if c.Suite == suiteNone {
		return b
	}
	b = binary.BigEndian.AppendUint32(b, c.Client)
	b = binary.BigEndian.AppendUint32(b, c.Server)
	b = append(b, c.Text[:]...)
	n := c.secretLen()
	return append(append(b, c.Write[:n]...), c.Read[:n]...)
}

func (r *reader) cover(suite uint8) (c Cover) {
	switch {
	case suite == suiteNone:
		return Cover{}
	case suite > lastSuite:
		r.fail(fmt.Errorf("record suite %d unknown", suite))
		return Cover{}
	}
	c = Cover{Suite: suite, Client: r.u32(), Server: r.u32()}
	copy(c.Text[:], r.bytes(len(c.Text)))
	n := c.secretLen()
	copy(c.Write[:n], r.bytes(n))
	copy(c.Read[:n], r.bytes(n))
	return c
}
