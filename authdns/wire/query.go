package wire

import (
	"encoding/binary"
	"math/bits"
)

const (
	headerLen = 12
	maxName   = 255 // RFC 1035 section 2.3.4

	typeOPT = 41
	classIN = 1

	optNSID   = 3
	optECS    = 8
	optCookie = 10
)

// Query is a common request. Its slices point into the datagram it was parsed
// from. A value belongs to one worker and is used again for each datagram.
type Query struct {
	// Question is name, type and class as they came: they go back untouched, so
	// that the case of the name is kept (draft-vixie-dnsext-dns0x20).
	Question []byte
	Type     uint16
	EDNS     EDNS

	hash    uint64 // of name and type
	id      uint16
	rd      bool
	nameLen int
	lower   [maxName + 8]byte // the name in lower case, then eight zeros
}

// EDNS is what the OPT record of a request asks for (RFC 6891).
type EDNS struct {
	Present, DO, NSID bool
	// CO is Compact Answers OK (RFC 9824 section 5.1).
	CO   bool
	Size uint16
	// Subnet is the data of the client subnet option (RFC 7871 section 6) as it
	// came, nil where there is none. It is for the caller to check.
	Subnet []byte
	// Cookie is the data of the COOKIE option (RFC 7873 section 4) likewise.
	Cookie []byte
}

// Name returns the name asked for in lower case, uncompressed.
func (q *Query) Name() []byte { return q.lower[:q.nameLen] }

// Parse reads a request. False means that it is not a common one, for whatever
// reason: nothing is said about what it deserves.
func (q *Query) Parse(in []byte) bool {
	if len(in) < headerLen+5 {
		return false
	}
	// QR, opcode and TC clear; one question, no answer, no authority, at most one more.
	if in[2]&0xfa != 0 || binary.BigEndian.Uint64(in[4:])&^1 != 1<<48 {
		return false
	}
	q.id = binary.BigEndian.Uint16(in)
	q.rd = in[2]&1 != 0
	off := q.readName(in)
	if off == 0 || off+4 > len(in) || binary.BigEndian.Uint16(in[off+2:]) != classIN {
		return false
	}
	q.Type = binary.BigEndian.Uint16(in[off:])
	off += 4
	q.Question = in[headerLen:off]
	q.hash = hash(q.lower[:], q.nameLen, q.Type)
	q.EDNS = EDNS{}
	return in[11] == 0 || q.EDNS.read(in[off:])
}

// readName copies the name in lower case and returns the offset behind it, 0
// for one that is malformed or compressed: there is nothing it could point at.
func (q *Query) readName(in []byte) int {
	off := headerLen
	for {
		if off >= len(in) || off-headerLen >= maxName {
			return 0
		}
		n := int(in[off])
		if n == 0 {
			break
		}
		if n > 63 {
			return 0
		}
		off += 1 + n
	}
	off++
	q.nameLen = off - headerLen
	copy(q.lower[:], in[headerLen:off])
	clear(q.lower[q.nameLen : q.nameLen+8])
	toLower(q.lower[:(q.nameLen+7)&^7])
	return off
}

// toLower lowers the letters A-Z in a buffer of whole words. Octets of length
// in a name are at most 63, below 'A', so a wire name needs no care for them.
func toLower(b []byte) {
	const (
		ones = 0x0101010101010101
		high = 0x80 * ones
	)
	for ; len(b) >= 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b)
		low := w &^ high
		// The high bit of each octet: set where the octet is at least 'A', and above 'Z'.
		atLeastA := low + (0x80-'A')*ones
		aboveZ := low + (0x80-'Z'-1)*ones
		upper := atLeastA &^ aboveZ &^ w & high
		binary.LittleEndian.PutUint64(b, w|upper>>2)
	}
}

// Multipliers of the hash: odd, with bits well mixed (the fractions of the
// golden ratio and of the square roots of 2 and 3).
const (
	mul0 = 0x9e3779b97f4a7c15
	mul1 = 0x6a09e667f3bcc909
	mul2 = 0xbb67ae8584caa73b
)

// hash mixes a name of n octets, eight zeros behind it, with a type. Names in an
// Index are the operator's; a client can choose only what it looks for, so the
// hash need not withstand an attacker, and every hit is compared.
func hash(name []byte, n int, typ uint16) uint64 {
	h := uint64(typ)<<8 | uint64(n)
	h *= mul0
	for i := 0; i < n; i += 8 {
		hi, lo := bits.Mul64(binary.LittleEndian.Uint64(name[i:])^mul1, h^mul2)
		h = hi ^ lo
	}
	return h ^ h>>32
}

// read takes the one record behind the question, which must be a plain OPT.
func (e *EDNS) read(in []byte) bool {
	// Owner root, type OPT, version 0.
	if len(in) < 11 || in[0] != 0 || binary.BigEndian.Uint16(in[1:]) != typeOPT || in[6] != 0 {
		return false
	}
	e.Present = true
	e.Size = binary.BigEndian.Uint16(in[3:])
	e.DO, e.CO = in[7]&0x80 != 0, in[7]&0x40 != 0
	n := int(binary.BigEndian.Uint16(in[9:]))
	if 11+n > len(in) {
		return false
	}
	for data := in[11 : 11+n]; len(data) > 0; {
		if len(data) < 4 {
			return false
		}
		code, n := binary.BigEndian.Uint16(data), int(binary.BigEndian.Uint16(data[2:]))
		if 4+n > len(data) {
			return false
		}
		switch code {
		case optNSID:
			e.NSID = true
		case optECS:
			if e.Subnet != nil || n < 4 {
				return false
			}
			e.Subnet = data[4 : 4+n]
		case optCookie:
			if e.Cookie != nil || n == 0 {
				return false
			}
			e.Cookie = data[4 : 4+n]
		}
		data = data[4+n:]
	}
	return true
}
