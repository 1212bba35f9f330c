package wire

import "encoding/binary"

// Sizes of replies over UDP in octets (RFC 6891 section 6.2.3, RFC 9715).
const (
	MinUDP = 512
	MaxUDP = 1232
)

// Flags of a short reply, as in the header.
const (
	AA = 0x0400
	TC = 0x0200
)

// Options are the parts of a reply's OPT record that are not the query's.
type Options struct {
	// NSID is the identity to give where it was asked for; empty gives none.
	NSID string
	// Subnet tells whether the client subnet option is answered, with Scope bits.
	Subnet bool
	Scope  uint8
	// Compact tells that the reply is of a zone with compact denial, so that CO is
	// returned where it was sent.
	Compact bool
	// Cookie is the client's cookie with ours behind it (RFC 7873 section 4); empty
	// gives none.
	Cookie []byte
}

// Reply writes the reply to a query into out, which holds MaxUDP octets, and
// returns its length; 0 means that it does not fit into what the client takes,
// and is left to the slow path.
func (x *Index) Reply(out []byte, q *Query, b *Body, o *Options) int {
	limit := MinUDP
	if q.EDNS.Present {
		limit = min(max(int(q.EDNS.Size), MinUDP), MaxUDP)
	}
	size := headerLen + len(q.Question) + int(b.len) + q.EDNS.replyLen(o)
	if size > limit {
		return 0
	}
	out = out[:size]
	flags := 0x8000 | b.flags
	if q.rd {
		flags |= 0x0100
	}
	binary.BigEndian.PutUint16(out, q.id)
	binary.BigEndian.PutUint16(out[2:], flags)
	binary.BigEndian.PutUint16(out[4:], 1)
	binary.BigEndian.PutUint16(out[6:], b.counts[0])
	binary.BigEndian.PutUint16(out[8:], b.counts[1])
	extra := b.counts[2]
	if q.EDNS.Present {
		extra++
	}
	binary.BigEndian.PutUint16(out[10:], extra)
	n := headerLen + copy(out[headerLen:], q.Question)
	body := out[n : n+int(b.len)]
	copy(body, x.arena[b.off:]) // which may end sooner, where a body stands for several (Replies)
	n += len(body)
	if b.nfix > 0 {
		x.repoint(body, b, len(q.Question))
	}
	if q.EDNS.Present {
		q.EDNS.reply(out[n:], o)
	}
	return size
}

// Short writes a reply without records into out: header, question, OPT. It says no
// more than its flags and RCODE, of which those above 15 take an OPT record in
// the query. The length is 0 where it would not fit into MinUDP octets.
func Short(out []byte, q *Query, flags uint16, rcode int, o *Options) int {
	n := headerLen + len(q.Question)
	size := n + q.EDNS.replyLen(o)
	if size > MinUDP || rcode > 15 && !q.EDNS.Present {
		return 0
	}
	flags |= 0x8000 | uint16(rcode&15)
	if q.rd {
		flags |= 0x0100
	}
	clear(out[:headerLen])
	binary.BigEndian.PutUint16(out, q.id)
	binary.BigEndian.PutUint16(out[2:], flags)
	out[5] = 1
	copy(out[headerLen:], q.Question)
	if q.EDNS.Present {
		out[11] = 1
		q.EDNS.reply(out[n:size], o)
		out[n+5] = byte(rcode >> 4)
	}
	return size
}

// replyLen is the length of the reply's OPT record.
func (e *EDNS) replyLen(o *Options) int {
	if !e.Present {
		return 0
	}
	n := 11
	if e.NSID && o.NSID != "" {
		n += 4 + len(o.NSID)
	}
	if e.Subnet != nil && o.Subnet {
		n += 4 + len(e.Subnet)
	}
	if len(o.Cookie) > 0 {
		n += 4 + len(o.Cookie)
	}
	return n
}

// reply writes the OPT record; out has exactly its length.
func (e *EDNS) reply(out []byte, o *Options) {
	_ = out[10]
	out[0], out[1], out[2] = 0, 0, typeOPT
	binary.BigEndian.PutUint16(out[3:], MaxUDP)
	out[5], out[6], out[7], out[8] = 0, 0, 0, 0
	if e.DO {
		out[7] = 0x80
	}
	if e.CO && o.Compact {
		out[7] |= 0x40
	}
	binary.BigEndian.PutUint16(out[9:], uint16(len(out)-11))
	out = out[11:]
	if e.NSID && o.NSID != "" {
		binary.BigEndian.PutUint16(out, optNSID)
		binary.BigEndian.PutUint16(out[2:], uint16(len(o.NSID)))
		out = out[4+copy(out[4:], o.NSID):]
	}
	if e.Subnet != nil && o.Subnet {
		binary.BigEndian.PutUint16(out, optECS)
		binary.BigEndian.PutUint16(out[2:], uint16(len(e.Subnet)))
		copy(out[4:], e.Subnet)
		out[4+3] = o.Scope // family, source length, scope length, address
		out = out[4+len(e.Subnet):]
	}
	if len(o.Cookie) > 0 {
		binary.BigEndian.PutUint16(out, optCookie)
		binary.BigEndian.PutUint16(out[2:], uint16(len(o.Cookie)))
		copy(out[4:], o.Cookie)
	}
}
