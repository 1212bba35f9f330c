package authdns

import (
	"encoding/binary"

	"github.com/miekg/dns"
)

// Sizes of replies in octets. 1232 fits the smallest IPv6 path unfragmented,
// whatever the client offers.
const (
	minUDP = 512
	maxUDP = 1232
	maxTCP = dns.MaxMsgSize
)

// reply is an answer in the making.
type reply struct {
	q     *query
	rcode int
	aa    bool

	answer    []dns.RR
	authority []dns.RR
	// glue must be there or the reply is truncated (RFC 9471); extra may be
	// left out, an RRset at a time.
	glue, extra []dns.RR

	scope  int // of the ECS option
	ede    *extended
	cookie []byte // the client's and ours; nil where none was sent
	opts   options
	padded bool
	proof  proof
	// names are where the message has which, for compression; nil: made when it is packed.
	names map[string]int
}

// extended is an extended error (RFC 8914).
type extended struct {
	code uint16
	text string
}

// Extended error codes in use.
const (
	edeOther            = 0
	edeNotReady         = 14
	edeBlocked          = 15
	edeProhibited       = 18
	edeNotAuthoritative = 20
	edeInvalidData      = 24
)

// options are the parts of the reply's OPT record which are the server's own.
type options struct {
	nsid      string
	keepalive uint16 // in units of 100 ms
	ecsOff    bool
}

// records returns records under another owner, in canonical form, and
// with their TTL no higher than given. They are copies: packing writes to a
// record, and those of a zone are shared.
func (r *reply) records(owner string, rrs []dns.RR, ttl uint32) []dns.RR {
	out := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		out[i] = dns.Copy(rr)
		h := out[i].Header()
		h.Name, h.Ttl = owner, min(h.Ttl, ttl)
	}
	return out
}

const noTTL = 1<<32 - 1 // as a limit: the record's own TTL

// limit is how long the reply may be.
func (r *reply) limit(tcp bool) int {
	switch {
	case tcp:
		return maxTCP
	case r.q.edns.present:
		return min(max(int(r.q.edns.size), minUDP), maxUDP)
	}
	return minUDP
}

// pack writes the reply into out, which must hold limit octets. What does not
// fit makes it truncated: question and OPT alone, so that nobody takes a part
// for the whole.
func (r *reply) pack(out []byte, limit int) (n int, truncated bool) {
	opt := r.opt()
	if r.padded {
		opt = appendOption(opt, optPadding, nil)
	}
	end, counts, fits := r.packSections(out[:limit-len(opt)])
	fits = fits && r.proof != proofLater
	if !fits {
		end, counts = headerLen+len(r.q.question), [4]uint16{counts[0]}
	}
	if opt != nil {
		at := end
		end += copy(out[end:], opt)
		if r.padded {
			end = pad(out[:limit], at, end)
		}
		counts[3]++
	}
	r.packHeader(out, counts, !fits)
	return end, !fits
}

// padBlock is what lengths of padded replies are multiples of (RFC 8467 section 4.1).
const padBlock = 468

// pad fills a message of end octets up to whole blocks, as far as there is room.
// The OPT record at opt ends with an empty padding option.
func pad(out []byte, opt, end int) int {
	n := min((padBlock-end%padBlock)%padBlock, len(out)-end)
	clear(out[end : end+n])
	binary.BigEndian.PutUint16(out[end-2:], uint16(n))
	end += n
	binary.BigEndian.PutUint16(out[opt+9:], uint16(end-opt-11))
	return end
}

// packHeader comes last, when the counts are known. RA, Z, AD and CD stay 0:
// nothing here recurses or validates.
func (r *reply) packHeader(out []byte, counts [4]uint16, truncated bool) {
	flags := uint16(0x8000) | uint16(r.q.opcode)<<11 | uint16(r.rcode&0xf)
	if r.aa {
		flags |= 0x0400
	}
	if truncated {
		flags |= 0x0200
	}
	if r.q.rd {
		flags |= 0x0100
	}
	binary.BigEndian.PutUint16(out, r.q.id)
	binary.BigEndian.PutUint16(out[2:], flags)
	for i, c := range counts {
		binary.BigEndian.PutUint16(out[4+2*i:], c)
	}
}

// packSections writes question and records; fits is false when something that
// must not be missing found no room.
func (r *reply) packSections(out []byte) (end int, counts [4]uint16, fits bool) {
	end = headerLen
	names := r.names
	if names == nil {
		names = make(map[string]int)
	}
	if r.q.question != nil {
		counts[0] = 1
		// The library learns the offsets of the name in canonical form, as all records
		// have it; the octets are the question's own. So names that point at it show
		// the case in which it was asked, and the rest is the same for every spelling.
		if _, err := dns.PackDomainName(r.q.canon, out, headerLen, names, true); err != nil {
			return end, counts, false
		}
		end += copy(out[end:], r.q.question)
	}
	for i, section := range [][]dns.RR{r.answer, r.authority, r.glue} {
		for _, rr := range section {
			n, err := dns.PackRR(rr, out, end, names, true)
			if err != nil {
				return end, counts, false
			}
			end = n
			counts[i+1]++
		}
	}
	end, n := packExtra(r.extra, out, end, names)
	counts[3] += n
	return end, counts, true
}

// packExtra writes whole RRsets as long as there is room. It is the last to
// write: a name that was given back must not be pointed at.
func packExtra(rrs []dns.RR, out []byte, end int, names map[string]int) (int, uint16) {
	var count, whole uint16
	last := end
	for i, rr := range rrs {
		n, err := dns.PackRR(rr, out, end, names, true)
		if err != nil {
			return last, whole
		}
		end = n
		count++
		if i+1 == len(rrs) || !sameSet(rr, rrs[i+1]) {
			last, whole = end, count
		}
	}
	return last, whole
}

// sameSet tells whether two neighbours belong to one RRset.
func sameSet(a, b dns.RR) bool {
	return a.Header().Rrtype == b.Header().Rrtype && a.Header().Name == b.Header().Name
}

// opt returns the OPT record of the reply, or nil when none was in the request.
func (r *reply) opt() []byte {
	e := &r.q.edns
	if !e.present {
		return nil
	}
	b := make([]byte, 11, 64)
	b[2] = byte(dns.TypeOPT)
	binary.BigEndian.PutUint16(b[3:], maxUDP)
	b[5] = byte(r.rcode >> 4)
	if e.do {
		b[7] = 0x80
	}
	if e.co && r.proof == proofCompact {
		b[7] |= 0x40
	}
	if e.nsid && r.opts.nsid != "" {
		b = appendOption(b, optNSID, []byte(r.opts.nsid))
	}
	if s := e.ecs; s != nil && !r.opts.ecsOff && r.rcode != dns.RcodeFormatError {
		d := binary.BigEndian.AppendUint16(nil, s.family)
		d = append(d, byte(s.source), byte(r.scope))
		b = appendOption(b, optECS, append(d, s.octets...))
	}
	if r.cookie != nil && r.rcode != dns.RcodeFormatError {
		b = appendOption(b, optCookie, r.cookie)
	}
	if e.keepalive && r.rcode != dns.RcodeFormatError {
		b = appendOption(b, optKeepalive, binary.BigEndian.AppendUint16(nil, r.opts.keepalive))
	}
	if r.ede != nil {
		d := binary.BigEndian.AppendUint16(nil, r.ede.code)
		b = appendOption(b, optEDE, append(d, r.ede.text...))
	}
	binary.BigEndian.PutUint16(b[9:], uint16(len(b)-11))
	return b
}

// appendOption writes code, length and data (RFC 6891 section 6.1.2).
func appendOption(b []byte, code uint16, data []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// cutShort makes a finished reply a truncated one: question and OPT alone. It
// returns the length that is left.
func cutShort(out []byte) int {
	end := headerLen
	if binary.BigEndian.Uint16(out[4:]) == 1 {
		end, _ = skipName(out, end)
		end += 4
	}
	off, extra := end, 0
	for range following(out) {
		at := off
		off, _ = skipName(out, off)
		off += 10 + int(binary.BigEndian.Uint16(out[off+8:]))
		if binary.BigEndian.Uint16(out[at+1:]) == dns.TypeOPT && out[at] == 0 {
			end, extra = end+copy(out[end:], out[at:off]), 1
			break // of ours it is the last
		}
	}
	out[2] |= 0x02
	clear(out[6:headerLen])
	out[11] = byte(extra)
	return end
}

// following is how many follow the question of a message.
func following(msg []byte) int {
	n := 0
	for at := 6; at < headerLen; at += 2 {
		n += int(binary.BigEndian.Uint16(msg[at:]))
	}
	return n
}
