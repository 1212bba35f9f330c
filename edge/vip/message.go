package vip

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// kind is what a message says.
type kind uint8

const (
	kindAsk     kind = 1 // grant me the lease
	kindGrant   kind = 2 // it is yours for its length, from when this question came
	kindDeny    kind = 3 // it is another's for some time
	kindRelease kind = 4 // I have it no longer
)

// message is what members tell each other. Answers carry the question's boot and
// seq, so that no answer counts for another question.
type message struct {
	kind  kind
	lease uint64 // named by the hash of its name
	boot  uint64 // a random name of the asking process
	seq   uint64
	left  time.Duration // deny: how long the other grant will be in force
}

// The layout, big endian: version 1, kind 1, zero 2, left 4 (microseconds), sender 8,
// lease 8, boot 8, seq 8, tag 16. Members are named by the hash of their names: members of
// a site that grows do not have the same list at the same moment.
const (
	wireVersion = 1
	bodySize    = 40
	tagSize     = 16
	wireSize    = bodySize + tagSize
)

var (
	errWire = errors.New("vip: not a message of this version")
	errTag  = errors.New("vip: wrong tag")
)

// encode writes a message of a sender, with a tag that only members can make.
func encode(m message, sender uint64, key []byte) []byte {
	b := make([]byte, bodySize, wireSize)
	b[0], b[1] = wireVersion, byte(m.kind)
	binary.BigEndian.PutUint32(b[4:], uint32(min(m.left, time.Minute).Microseconds()))
	for i, v := range [...]uint64{sender, m.lease, m.boot, m.seq} {
		binary.BigEndian.PutUint64(b[8+8*i:], v)
	}
	return append(b, tag(b, key)...)
}

// decode reads a message and its sender, and checks the tag.
func decode(b, key []byte) (m message, sender uint64, err error) {
	if len(b) != wireSize || b[0] != wireVersion || b[2] != 0 || b[3] != 0 ||
		b[1] < byte(kindAsk) || b[1] > byte(kindRelease) {
		return m, 0, errWire
	}
	if !hmac.Equal(b[bodySize:], tag(b[:bodySize], key)) {
		return m, 0, errTag
	}
	word := func(i int) uint64 { return binary.BigEndian.Uint64(b[8+8*i:]) }
	m = message{kind: kind(b[1]), lease: word(1), boot: word(2), seq: word(3),
		left: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Microsecond}
	return m, word(0), nil
}

// tag is HMAC-SHA-256 (RFC 2104), cut to 16 octets.
func tag(b, key []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(nil)[:tagSize]
}

// nameHash names a member or a lease on the wire.
func nameHash(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}
