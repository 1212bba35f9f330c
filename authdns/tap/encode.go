package tap

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// The fields of dnstap.proto (dnstap.info) that are written here, and their wire types.
// The messages are few and flat, so that a library would cost more than it saves.
const (
	fieldIdentity = 1
	fieldVersion  = 2
	fieldMessage  = 14
	fieldType     = 15

	messageType      = 1
	messageFamily    = 2
	messageProtocol  = 3
	messageQueryAddr = 4
	messageReplyAddr = 5
	messageQueryPort = 6
	messageReplyPort = 7
	messageQuerySec  = 8
	messageQueryNsec = 9
	messageQuery     = 10
	messageReplySec  = 12
	messageReplyNsec = 13
	messageReply     = 14

	typeMessage   = 1 // Dnstap.Type
	typeAuthQuery = 1 // Message.Type
	typeAuthReply = 2

	wireVarint = 0
	wireBytes  = 2
	wireFixed  = 5 // 32 bits
)

func tag(b []byte, field, wire uint64) []byte { return binary.AppendUvarint(b, field<<3|wire) }

func number(b []byte, field, v uint64) []byte {
	return binary.AppendUvarint(tag(b, field, wireVarint), v)
}

func octets(b []byte, field uint64, data []byte) []byte {
	return append(binary.AppendUvarint(tag(b, field, wireBytes), uint64(len(data))), data...)
}

// moment writes a time as dnstap does: seconds, and nanoseconds of a fixed size.
func moment(b []byte, sec, nsec uint64, t time.Time) []byte {
	b = number(b, sec, uint64(t.Unix()))
	return binary.LittleEndian.AppendUint32(tag(b, nsec, wireFixed), uint32(t.Nanosecond()))
}

func address(b []byte, field uint64, a netip.Addr) []byte {
	if a.Is4() {
		four := a.As4()
		return octets(b, field, four[:])
	}
	six := a.As16()
	return octets(b, field, six[:])
}

// frames appends the frames of an exchange: its query, and its reply if it has one.
// scratch is room for a message.
func (w *writer) frames(b []byte, e *Exchange) []byte {
	b = w.frame(b, e, typeAuthQuery)
	if len(e.Reply) > 0 {
		b = w.frame(b, e, typeAuthReply)
	}
	return b
}

// frame appends one message behind its length (Frame Streams: big endian, 32 bits).
func (w *writer) frame(b []byte, e *Exchange, kind uint64) []byte {
	m := number(w.scratch[:0], messageType, kind)
	family := uint64(2) // INET6
	if e.Client.Addr().Is4() {
		family = 1
	}
	m = number(m, messageFamily, family)
	m = number(m, messageProtocol, uint64(e.Protocol))
	m = address(m, messageQueryAddr, e.Client.Addr())
	if e.Server.IsValid() {
		m = address(m, messageReplyAddr, e.Server.Addr())
	}
	m = number(m, messageQueryPort, uint64(e.Client.Port()))
	if e.Server.IsValid() {
		m = number(m, messageReplyPort, uint64(e.Server.Port()))
	}
	m = moment(m, messageQuerySec, messageQueryNsec, e.Asked)
	if kind == typeAuthQuery {
		m = octets(m, messageQuery, e.Query)
	} else {
		m = moment(m, messageReplySec, messageReplyNsec, e.Told)
		m = octets(m, messageReply, e.Reply)
	}
	w.scratch = m
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	if w.identity != "" {
		b = append(binary.AppendUvarint(tag(b, fieldIdentity, wireBytes), uint64(len(w.identity))), w.identity...)
	}
	if w.version != "" {
		b = append(binary.AppendUvarint(tag(b, fieldVersion, wireBytes), uint64(len(w.version))), w.version...)
	}
	b = octets(b, fieldMessage, m)
	b = number(b, fieldType, typeMessage)
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}
