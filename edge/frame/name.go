package frame

import (
	"encoding/binary"
	"fmt"
)

// ReadsNames is said by the Generation of a Hello: the sender reads frames of type
// ObjectName. Who says nothing is not sent any: it would end the link.
const ReadsNames = 1

// ReadsUploads is said there by who reads frames of type Uploads and records with the
// flag Upload.
const ReadsUploads = 4

// ReadsSealed is said there by who reads places of uploads over TLS, and goes on with such
// records. To one who does not say it none are sent.
const ReadsSealed = 32

// Name says by which name a service has an object. Records hold hashes alone; a
// site that lacks the object has to know what to ask its origin for. It is told once
// for each object and link, so that it costs sessions nothing.
type Name struct {
	Service uint32 // as in a Record
	Object  [32]byte
	Name    string
}

// AppendName encodes n behind b.
func AppendName(b []byte, n Name) []byte {
	b = binary.BigEndian.AppendUint32(b, n.Service)
	b = append(b, n.Object[:]...)
	return append(b, n.Name...)
}

// DecodeName reads what AppendName wrote. The result shares no memory with b.
func DecodeName(b []byte) (Name, error) {
	r := reader{b: b}
	n := Name{Service: r.u32()}
	copy(n.Object[:], r.bytes(len(n.Object)))
	if r.err == nil {
		n.Name = string(r.bytes(r.count(len(r.b), MaxName)))
	}
	switch {
	case n.Name == "":
		r.fail(errShort)
	case n.Object == [32]byte{}:
		r.fail(fmt.Errorf("name of no object"))
	}
	if err := r.end(); err != nil {
		return Name{}, fmt.Errorf("frame: name of %d bytes: %w", len(b), err)
	}
	return n, nil
}
