package detect

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"
)

// Kind is the type of a datagram between sites.
type Kind uint8

// The kinds. A KindVector is a beat with a vector behind it, KindVotes carries the
// sender's own votes; KindAsk asks when some subjects were heard last, and KindReply
// says so; KindLeave is sent at a clean stop, so that the stream ends as drained and
// not as failed.
const (
	KindBeat Kind = 1 + iota
	KindVector
	KindVotes
	KindAsk
	KindReply
	KindLeave

	kinds = 7
)

// slotted tells whether a kind's number is its send slot.
func (k Kind) slotted() bool { return k == KindBeat || k == KindVector }

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

// appendTo appends the datagram without its tag.
func (b *Beat) appendTo(buf []byte) []byte {
	buf = append(buf, version, byte(b.Kind))
	buf = binary.BigEndian.AppendUint16(buf, b.Node)
	buf = binary.BigEndian.AppendUint32(buf, b.Incarnation)
	buf = binary.BigEndian.AppendUint32(buf, b.Seq)
	buf = binary.BigEndian.AppendUint16(buf, uint16(b.Interval.Milliseconds()))
	buf = binary.BigEndian.AppendUint16(buf, b.Load)
	buf = binary.BigEndian.AppendUint32(buf, b.Plan)
	return append(buf, b.Body...)
}

// parse reads a datagram without its tag; Body points into it.
func parse(data []byte) (Beat, error) {
	b := Beat{Kind: Kind(data[1]), Node: binary.BigEndian.Uint16(data[2:]),
		Incarnation: binary.BigEndian.Uint32(data[4:]), Seq: binary.BigEndian.Uint32(data[8:]),
		Interval: time.Duration(binary.BigEndian.Uint16(data[12:])) * time.Millisecond,
		Load:     binary.BigEndian.Uint16(data[14:]), Plan: binary.BigEndian.Uint32(data[16:]),
		Body: data[headerSize:]}
	if b.Kind < KindBeat || b.Kind > KindLeave {
		return Beat{}, ErrKind
	}
	return b, nil
}

// Seal appends the datagram with its tag under key to buf.
func (b *Beat) Seal(buf []byte, key *[32]byte) ([]byte, error) {
	if headerSize+len(b.Body)+tagSize > MaxDatagram {
		return nil, fmt.Errorf("detect: seal: body of %d bytes does not fit a datagram", len(b.Body))
	}
	return newSealer(*key).seal(b, buf), nil
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
	if _, err := Sender(data); err != nil {
		return Beat{}, err
	}
	for _, key := range keys {
		if newSealer(key).sealed(data) {
			return parse(data[:len(data)-tagSize])
		}
	}
	return Beat{}, ErrTag
}

// sealer computes tags under one key, without allocating. For one goroutine.
type sealer struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

func newSealer(key [32]byte) *sealer { return &sealer{mac: hmac.New(sha256.New, key[:])} }

func (s *sealer) tag(msg []byte) []byte {
	s.mac.Reset()
	s.mac.Write(msg)
	return s.mac.Sum(s.sum[:0])[:tagSize]
}

// seal appends a datagram and its tag.
func (s *sealer) seal(b *Beat, buf []byte) []byte {
	start := len(buf)
	buf = b.appendTo(buf)
	return append(buf, s.tag(buf[start:])...)
}

// sealed tells whether the tag of a datagram, which is long enough, is right.
func (s *sealer) sealed(data []byte) bool {
	end := len(data) - tagSize
	return hmac.Equal(s.tag(data[:end]), data[end:])
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
	case b.Incarnation < m.incarnation, b.Seq <= m.seq[b.class()], b.Kind == KindLeave && b.Seq < m.seq[KindBeat]:
		return false, false
	}
	m.seq[b.class()] = b.Seq
	return true, restarted
}

// class is the kind with which a datagram shares its numbers.
func (b *Beat) class() Kind {
	if b.Kind.slotted() {
		return KindBeat
	}
	return b.Kind
}
