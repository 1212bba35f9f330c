package upload

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// ID names one upload, everywhere and for ever. It is random.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Request is what of an HTTP request decides the outcome of an upload.
type Request struct {
	Name        string // of the object, an absolute path
	Size        int64
	IfMatch     string // as in the request, empty if absent
	IfNoneMatch string
}

// Kind says what a Message asks or tells.
type Kind uint8

const (
	// Open begins an upload at its Backup, or asks how far one is there.
	Open Kind = 1 + iota
	// Data carries octets from an offset on.
	Data
	// At answers both: the Backup has everything before the offset.
	At
	// Publish asks the Backup to publish a whole object.
	Publish
	// Done answers it by an HTTP status.
	Done
	// Refused ends an upload at its Backup, by an HTTP status.
	Refused
	// OpenSealed is Open for an upload over TLS: First is the sequence number of the record
	// behind those of the request. It is told by Data, which are text, and Places, and
	// answered by Placed.
	OpenSealed
	// Place says how far the client's records are that the text before came of.
	Place
	// Placed answers: the Backup has the text before an offset, and could go on behind the
	// client's octets before another one.
	Placed
	// Drop asks a Backup to let an upload go. Who answers by Dropped will never go on with it.
	Drop
	Dropped

	lastKind = Dropped
)

// Message is one word between the owner of an upload and its Backup.
type Message struct {
	Kind    Kind
	ID      ID
	Offset  uint64   // Data, At; Place, Placed: octets of text
	Wire    uint64   // Place: octets of whole records from First on; Placed: octets, whole or not
	Number  uint32   // Place: of the record that begins there
	Updates uint8    // Place: of the client's key since the record of the session
	Tail    uint16   // Place: where in that record Data begin, ciphertext
	Data    []byte   // Data, Place; shares memory with what it was decoded of
	Service uint32   // Open, OpenSealed: digest of the service's name
	First   uint32   // Open: sequence number of the object's first octet
	Request Request  // Open
	Sum     [32]byte // Publish: as File.Sum
	Date    uint32   // Publish: Unix second of the answer
	Status  uint16   // Done, Refused
}

// MaxData bounds the octets of one Message.
const MaxData = 64 << 10

// Append encodes m behind b.
func Append(b []byte, m Message) []byte {
	be := binary.BigEndian
	b = append(append(b, byte(m.Kind)), m.ID[:]...)
	switch m.Kind {
	case Open, OpenSealed:
		b = be.AppendUint32(be.AppendUint32(b, m.Service), m.First)
		b = be.AppendUint64(b, uint64(m.Request.Size))
		for _, s := range [...]string{m.Request.Name, m.Request.IfMatch, m.Request.IfNoneMatch} {
			b = append(be.AppendUint16(b, uint16(len(s))), s...)
		}
	case Data:
		b = append(be.AppendUint64(b, m.Offset), m.Data...)
	case At:
		b = be.AppendUint64(b, m.Offset)
	case Place:
		b = be.AppendUint64(be.AppendUint64(b, m.Offset), m.Wire)
		b = append(be.AppendUint32(b, m.Number), m.Updates)
		b = append(be.AppendUint16(b, m.Tail), m.Data...)
	case Placed:
		b = be.AppendUint64(be.AppendUint64(b, m.Offset), m.Wire)
	case Publish:
		b = be.AppendUint32(append(b, m.Sum[:]...), m.Date)
	case Done, Refused:
		b = be.AppendUint16(b, m.Status)
	}
	return b
}

var errShort = errors.New("too short")

// Decode reads what Append wrote, and nothing else.
func Decode(b []byte) (m Message, err error) {
	size := len(b)
	take := func(n int) []byte {
		if n > len(b) {
			err = errShort
			return make([]byte, n)
		}
		out := b[:n:n]
		b = b[n:]
		return out
	}
	be := binary.BigEndian
	m.Kind = Kind(take(1)[0])
	m.ID = ID(take(len(m.ID)))
	switch m.Kind {
	case Open, OpenSealed:
		m.Service, m.First = be.Uint32(take(4)), be.Uint32(take(4))
		m.Request.Size = int64(be.Uint64(take(8)))
		for _, s := range [...]*string{&m.Request.Name, &m.Request.IfMatch, &m.Request.IfNoneMatch} {
			*s = string(take(int(be.Uint16(take(2)))))
		}
		if m.Request.Size < 0 {
			err = errors.New("size below zero")
		}
	case Data:
		m.Offset = be.Uint64(take(8))
		m.Data = take(len(b))
	case At:
		m.Offset = be.Uint64(take(8))
	case Place:
		m.Offset, m.Wire, m.Number = be.Uint64(take(8)), be.Uint64(take(8)), be.Uint32(take(4))
		m.Updates, m.Tail = take(1)[0], be.Uint16(take(2))
		m.Data = take(len(b))
	case Placed:
		m.Offset, m.Wire = be.Uint64(take(8)), be.Uint64(take(8))
	case Drop, Dropped:
	case Publish:
		m.Sum = [32]byte(take(32))
		m.Date = be.Uint32(take(4))
	case Done, Refused:
		m.Status = be.Uint16(take(2))
	default:
		err = fmt.Errorf("kind %d is none of 1 to %d", m.Kind, lastKind)
	}
	if err == nil && len(b) > 0 {
		err = errors.New("trailing octets")
	}
	if err != nil {
		return Message{}, fmt.Errorf("upload: message of %d octets: %w", size, err)
	}
	return m, nil
}
