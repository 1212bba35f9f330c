package authdns

import (
	"encoding/binary"

	"github.com/miekg/dns"

	"rhumb/authdns/zone"
)

const (
	headerLen = 12
	// silence is parse's verdict on what must not be answered: too short to be
	// a message, or a reply, which two servers would bounce for ever.
	silence = -1
)

// EDNS option codes that are read; all others are passed over (RFC 6891 section 6.1.2).
const (
	optNSID      = 3
	optECS       = 8
	optCookie    = 10
	optKeepalive = 11
	optPadding   = 12
	optEDE       = 15
)

// query is a request, as far as it could be read.
type query struct {
	id     uint16
	opcode int
	rd     bool

	// question is set once the whole question was read; its octets go into the
	// reply untouched, so that the case of the name is kept.
	question []byte
	name     string // as asked
	canon    string // as compared
	qtype    uint16
	qclass   uint16

	edns edns
}

// edns is what the OPT record asks for.
type edns struct {
	present   bool
	version   uint8
	do, co    bool // co: Compact Answers OK (RFC 9824 section 5.1)
	size      uint16
	nsid      bool
	keepalive bool
	padding   bool
	ecs       *subnet
	cookie    []byte // as it came; nil where none did
}

// parse reads a request and tells with which RCODE it is already decided:
// silence, an error, or NOERROR for "go on".
func parse(in []byte, tcp bool) (q query, rcode int) {
	if len(in) < headerLen {
		return q, silence
	}
	flags := binary.BigEndian.Uint16(in[2:])
	if flags&0x8000 != 0 {
		return q, silence
	}
	q.id = binary.BigEndian.Uint16(in)
	q.opcode = int(flags>>11) & 0xf
	q.rd = flags&0x0100 != 0
	if q.opcode != dns.OpcodeQuery {
		return q, q.readOther(in, tcp)
	}
	switch binary.BigEndian.Uint16(in[4:]) { // RFC 9619
	case 0:
		return q, q.readCookieOnly(in, tcp)
	case 1:
	default:
		return q, dns.RcodeFormatError
	}
	off, ok := q.readQuestion(in)
	if !ok {
		return q, dns.RcodeFormatError
	}
	return q, q.readRecords(in, off, tcp)
}

// readOther reads a request of another opcode as far as it looks like a query, since
// an OPT record is answered by one whatever the rest may mean (RFC 6891 section 7).
func (q *query) readOther(in []byte, tcp bool) int {
	off, ok := headerLen, true
	if binary.BigEndian.Uint16(in[4:]) == 1 {
		off, ok = q.readQuestion(in)
	}
	rcode := dns.RcodeFormatError
	if ok && binary.BigEndian.Uint16(in[4:]) <= 1 {
		rcode = q.readRecords(in, off, tcp)
	}
	switch rcode {
	case dns.RcodeBadVers:
		return rcode
	case dns.RcodeFormatError: // of our reading: it may well be right in its own way
		q.question, q.edns = nil, edns{}
	}
	return dns.RcodeNotImplemented
}

// readCookieOnly reads a request without a question, by which a client asks for a
// cookie and nothing else (RFC 7873 section 5.4).
func (q *query) readCookieOnly(in []byte, tcp bool) int {
	rcode := q.readRecords(in, headerLen, tcp)
	if rcode == dns.RcodeSuccess && q.edns.cookie == nil {
		return dns.RcodeFormatError
	}
	return rcode
}

// readQuestion reads the one question. A name there cannot be compressed: there
// is nothing before it to point at.
func (q *query) readQuestion(in []byte) (int, bool) {
	off := headerLen
	for {
		if off >= len(in) {
			return 0, false
		}
		n := int(in[off])
		off++
		if n == 0 {
			break
		}
		if n > 63 || off+n > len(in) || off+n-headerLen > 254 {
			return 0, false
		}
		off += n
	}
	if off+4 > len(in) {
		return 0, false
	}
	name, _, err := dns.UnpackDomainName(in[:off], headerLen)
	if err != nil {
		return 0, false
	}
	q.name, q.canon = name, zone.Canonical(name)
	q.qtype = binary.BigEndian.Uint16(in[off:])
	q.qclass = binary.BigEndian.Uint16(in[off+2:])
	q.question = in[headerLen : off+4]
	return off + 4, true
}

// readRecords walks what follows the question, for the OPT record alone. Other
// records of a request have no meaning, and neither has anything after them.
func (q *query) readRecords(in []byte, off int, tcp bool) int {
	counts := [3]int{}
	for i := range counts {
		counts[i] = int(binary.BigEndian.Uint16(in[6+2*i:]))
	}
	rcode := dns.RcodeSuccess
	for section, n := range counts {
		for range n {
			owner := off
			var ok bool
			if off, ok = skipName(in, off); !ok || off+10 > len(in) {
				return dns.RcodeFormatError
			}
			h, rdlen := in[off:off+8], int(binary.BigEndian.Uint16(in[off+8:]))
			off += 10
			if off+rdlen > len(in) {
				return dns.RcodeFormatError
			}
			if binary.BigEndian.Uint16(h) == dns.TypeOPT {
				// RFC 6891 section 6.1.1: one OPT, of the root, in the additional section.
				if section != 2 || in[owner] != 0 || q.edns.present {
					return dns.RcodeFormatError
				}
				rcode = q.edns.read(h, in[off:off+rdlen], tcp)
			}
			off += rdlen
		}
	}
	return rcode
}

// skipName steps over a name, which may end in a pointer; where that points is
// nobody's business.
func skipName(in []byte, off int) (int, bool) {
	for off < len(in) {
		switch n := int(in[off]); {
		case n == 0:
			return off + 1, true
		case n >= 0xc0:
			return off + 2, off+2 <= len(in)
		case n > 63:
			return 0, false
		default:
			off += 1 + n
		}
	}
	return 0, false
}

// read takes an OPT record apart. A version that we do not speak is told before
// anything inside is judged, since only its own version says how to read it.
func (e *edns) read(h, rdata []byte, tcp bool) int {
	e.present = true
	e.size = binary.BigEndian.Uint16(h[2:])
	e.version = h[5]
	e.do, e.co = h[6]&0x80 != 0, h[6]&0x40 != 0
	if e.version != 0 {
		return dns.RcodeBadVers
	}
	for len(rdata) > 0 {
		if len(rdata) < 4 {
			return dns.RcodeFormatError
		}
		code, n := binary.BigEndian.Uint16(rdata), int(binary.BigEndian.Uint16(rdata[2:]))
		if 4+n > len(rdata) {
			return dns.RcodeFormatError
		}
		if !e.option(code, rdata[4:4+n], tcp) {
			return dns.RcodeFormatError
		}
		rdata = rdata[4+n:]
	}
	return dns.RcodeSuccess
}

// option reads one option; false means that it is malformed.
func (e *edns) option(code uint16, data []byte, tcp bool) bool {
	switch code {
	case optNSID:
		e.nsid = true // whatever its payload (RFC 5001 section 2.1)
	case optPadding:
		e.padding = true // of any length and content (RFC 7830 section 3)
	case optKeepalive:
		// RFC 7828 section 3.2.2: ignored over UDP, empty from a client over TCP.
		e.keepalive = tcp
		return !tcp || len(data) == 0
	case optECS:
		s, ok := parseSubnet(data)
		if ok && e.ecs == nil {
			e.ecs = &s // of two, the first counts
		}
		return ok
	case optCookie:
		ok := wellFormed(data)
		if ok && e.cookie == nil {
			e.cookie = data // of two, the first counts
		}
		return ok
	}
	return true
}
