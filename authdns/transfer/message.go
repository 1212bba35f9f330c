package transfer

import (
	"encoding/binary"
	"fmt"

	"github.com/miekg/dns"
)

const headerLen = 12

// Sections of a message behind the question.
const (
	answer = iota
	authority
	additional
)

// record is where a record stands in a message.
type record struct {
	section          int
	start            int // of its owner
	typ, class       uint16
	ttl              uint32
	data, size, next int // rdata
}

// walk visits the records of a message in order. It reads nothing of their data
// and follows no pointer, so it is cheap for whoever only looks for one kind.
func walk(msg []byte, visit func(record) error) error {
	if len(msg) < headerLen {
		return errMalformed
	}
	off := headerLen
	for range binary.BigEndian.Uint16(msg[4:]) {
		var ok bool
		if off, ok = skipName(msg, off); !ok || off+4 > len(msg) {
			return errMalformed
		}
		off += 4
	}
	for section := range 3 {
		for range binary.BigEndian.Uint16(msg[6+2*section:]) {
			r, ok := readRecord(msg, off)
			if !ok {
				return errMalformed
			}
			r.section, off = section, r.next
			if err := visit(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// readRecord reads what stands before a record's data.
func readRecord(msg []byte, off int) (record, bool) {
	r := record{start: off}
	off, ok := skipName(msg, off)
	if !ok || off+10 > len(msg) {
		return r, false
	}
	r.typ, r.class = binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	r.ttl, r.size = binary.BigEndian.Uint32(msg[off+4:]), int(binary.BigEndian.Uint16(msg[off+8:]))
	r.data = off + 10
	r.next = r.data + r.size
	return r, r.next <= len(msg)
}

// skipName steps over a name, which may end in a pointer.
func skipName(msg []byte, off int) (int, bool) {
	for off < len(msg) {
		switch n := int(msg[off]); {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+2 <= len(msg)
		case n > 63:
			return 0, false
		default:
			off += 1 + n
		}
	}
	return 0, false
}

// serialOf returns the serial in a SOA record: whatever its names, the last 20
// octets are five numbers, and it is the first (RFC 1035 section 3.3.13).
func serialOf(msg []byte, r record) (uint32, bool) {
	if r.typ != dns.TypeSOA || r.size < 22 {
		return 0, false
	}
	return binary.BigEndian.Uint32(msg[r.next-20:]), true
}

// question is the one question of a message.
type question struct {
	name       string // canonical
	typ, class uint16
	end        int // offset behind it
}

// readQuestion reads the question; false where there is not exactly one.
func readQuestion(msg []byte) (q question, ok bool) {
	if len(msg) < headerLen || binary.BigEndian.Uint16(msg[4:]) != 1 {
		return q, false
	}
	name, off, err := dns.UnpackDomainName(msg, headerLen)
	if err != nil || off+4 > len(msg) {
		return q, false
	}
	q.name = dns.CanonicalName(name)
	q.typ, q.class = binary.BigEndian.Uint16(msg[off:]), binary.BigEndian.Uint16(msg[off+2:])
	q.end = off + 4
	return q, true
}

// opcodeOf returns the opcode of a message that has a header.
func opcodeOf(msg []byte) int { return int(msg[2]>>3) & 0xf }

// rcodeOf returns the RCODE of a message that has a header.
func rcodeOf(msg []byte) int { return int(msg[3] & 0xf) }

// later tells whether serial a is later than b (RFC 1982 section 3.2).
func later(a, b uint32) bool { return int32(a-b) > 0 && a-b != 1<<31 }

// answerTo writes the header of a reply and the question that it repeats, and
// returns its length.
func answerTo(out, in []byte, q question, rcode int, aa bool) int {
	n := copy(out, in[:q.end])
	out[2] = 0x80 | in[2]&0x79 // QR; opcode and RD as asked
	if aa {
		out[2] |= 0x04
	}
	out[3] = byte(rcode)
	clear(out[6:headerLen])
	return n
}

// rcodeName names an RCODE for people.
func rcodeName(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE %d", rcode)
}
