package detect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Kind is the type of a datagram between sites.
type Kind uint8

// The kinds. Votes carry the sender's own votes behind the header; Leave is
// sent at a clean stop, so that the stream ends as drained and not as failed.
const (
	KindBeat  Kind = 1
	KindVotes Kind = 3
	KindLeave Kind = 6

	kinds = 7
)

// Layout of a datagram, big endian: version, kind, node id, incarnation, send
// number, interval in ms, load in per mille, plan revision (low bits), body, tag.
const (
	version    = 1
	headerSize = 20
	tagSize    = 12 // HMAC-SHA-256 cut to 96 bits
	// MaxDatagram is the largest datagram sent: it passes any path unfragmented.
	MaxDatagram = 1200
)

// Beat is a datagram between two nodes, without its tag.
type Beat struct {
	Kind        Kind
	Node        uint16 // sender, by the number of the fleet's peer set
	Incarnation uint32
	// Seq rises with every datagram of a kind. That of a beat is its send slot: time
	// since the incarnation began / Interval. A goodbye carries the slot in which it
	// is sent; the other kinds are counted.
	Seq      uint32
	Interval time.Duration // whole milliseconds, at most 65,535
	Load     uint16        // used capacity in per mille
	Plan     uint32        // plan revision, low bits
	Body     []byte        // of Votes: the sender's votes
}

// Errors of Open.
var (
	ErrShort   = errors.New("datagram too short")
	ErrVersion = errors.New("unknown version")
	ErrKind    = errors.New("unknown kind")
	ErrTag     = errors.New("wrong tag")
)

// Seal appends the datagram with its tag under key to buf.
func (b *Beat) Seal(buf []byte, key *[32]byte) ([]byte, error) {
	if headerSize+len(b.Body)+tagSize > MaxDatagram {
		return nil, fmt.Errorf("detect: seal: body of %d bytes does not fit a datagram", len(b.Body))
	}
	start := len(buf)
	buf = append(buf, version, byte(b.Kind))
	buf = binary.BigEndian.AppendUint16(buf, b.Node)
	buf = binary.BigEndian.AppendUint32(buf, b.Incarnation)
	buf = binary.BigEndian.AppendUint32(buf, b.Seq)
	buf = binary.BigEndian.AppendUint16(buf, uint16(b.Interval.Milliseconds()))
	buf = binary.BigEndian.AppendUint16(buf, b.Load)
	buf = binary.BigEndian.AppendUint32(buf, b.Plan)
	buf = append(buf, b.Body...)
	t := tag(buf[start:], key)
	return append(buf, t[:tagSize]...), nil
}

// Sender reads the node id of a datagram, so that the key can be looked up. It
// proves nothing before Open.
func Sender(data []byte) (uint16, error) {
	if len(data) < headerSize+tagSize {
		return 0, ErrShort
	}
	if data[0] != version {
		return 0, ErrVersion
	}
	return binary.BigEndian.Uint16(data[2:]), nil
}

// Open checks a datagram against the keys of its sender (two at a roll-over) and
// reads it. Body points into data.
func Open(data []byte, keys ...[32]byte) (Beat, error) {
	node, err := Sender(data)
	if err != nil {
		return Beat{}, err
	}
	end := len(data) - tagSize
	if !sealed(data[:end], data[end:], keys) {
		return Beat{}, ErrTag
	}
	b := Beat{Kind: Kind(data[1]), Node: node,
		Incarnation: binary.BigEndian.Uint32(data[4:]), Seq: binary.BigEndian.Uint32(data[8:]),
		Interval: time.Duration(binary.BigEndian.Uint16(data[12:])) * time.Millisecond,
		Load:     binary.BigEndian.Uint16(data[14:]), Plan: binary.BigEndian.Uint32(data[16:]),
		Body: data[headerSize:end]}
	if b.Kind != KindBeat && b.Kind != KindVotes && b.Kind != KindLeave {
		return Beat{}, ErrKind
	}
	return b, nil
}

func sealed(msg, have []byte, keys [][32]byte) bool {
	for i := range keys {
		want := tag(msg, &keys[i])
		if hmac.Equal(want[:tagSize], have) {
			return true
		}
	}
	return false
}

func tag(msg []byte, key *[32]byte) (out [sha256.Size]byte) {
	m := hmac.New(sha256.New, key[:])
	m.Write(msg)
	m.Sum(out[:0])
	return out
}

// Marks are the newest numbers of a sender. Who sends a copy again, or holds one
// back, keeps no dead subject alive.
type Marks struct {
	incarnation uint32
	known       bool
	seq         [kinds]uint32
}

// Take tells whether a datagram is newer than all of its kind before, and whether
// its sender has started anew; it notes it if so. A goodbye may share its slot
// with a beat.
func (m *Marks) Take(b *Beat) (fresh, restarted bool) {
	switch {
	case !m.known || b.Incarnation > m.incarnation:
		restarted = m.known
		*m = Marks{incarnation: b.Incarnation, known: true}
	case b.Incarnation < m.incarnation, b.Seq <= m.seq[b.Kind], b.Kind == KindLeave && b.Seq < m.seq[KindBeat]:
		return false, false
	}
	m.seq[b.Kind] = b.Seq
	return true, restarted
}
