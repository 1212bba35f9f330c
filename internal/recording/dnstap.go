package recording

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// Frame Streams: a frame of length 0 announces a control frame, which begins with
// its type and ends, if it is the first, with the type of the content.
const (
	controlStart    = 2
	controlStop     = 3
	maxControl      = 512
	fieldContent    = 1
	contentOfDnstap = "protobuf:dnstap.Dnstap"
)

// Fields of dnstap.proto, and its types of messages as a server of ours sees them.
const (
	tapMessage     = 14
	tapKind        = 1
	tapProtocol    = 3
	tapQueryAddr   = 4
	tapReplyAddr   = 5
	tapQueryPort   = 6
	tapReplyPort   = 7
	tapQuery       = 10
	tapReply       = 14
	kindAuthQuery  = 1
	kindAuthReply  = 2
	kindClientQ    = 5
	kindClientR    = 6
	tapProtocolUDP = 1
)

// openDnstap reads the first control frame.
func (r *Reader) openDnstap() error {
	if _, err := r.take(4); err != nil {
		return err
	}
	kind, rest, err := r.control()
	if err != nil {
		return err
	}
	if kind != controlStart {
		return ErrFormat
	}
	for len(rest) >= 8 {
		field, size := binary.BigEndian.Uint32(rest), int(binary.BigEndian.Uint32(rest[4:]))
		if size < 0 || size > len(rest)-8 {
			return ErrFormat
		}
		if content := string(rest[8 : 8+size]); field == fieldContent && content != contentOfDnstap {
			return fmt.Errorf("holds %q: %w", content, ErrFormat)
		}
		rest = rest[8+size:]
	}
	r.next = r.nextTap
	return nil
}

// control reads the rest of a control frame, behind its escape.
func (r *Reader) control() (kind uint32, rest []byte, err error) {
	b, err := r.take(4)
	if err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(b)
	if size < 4 || size > maxControl {
		return 0, nil, fmt.Errorf("a control frame of %d octets: %w", size, ErrFormat)
	}
	if b, err = r.take(int(size)); err != nil {
		return 0, nil, err
	}
	return binary.BigEndian.Uint32(b), b[4:], nil
}

// nextTap reads a frame of the stream.
func (r *Reader) nextTap() (p Packet, ok bool, err error) {
	if err := r.begins(); err != nil {
		return p, false, err
	}
	b, err := r.take(4)
	if err != nil {
		return p, false, err
	}
	size := binary.BigEndian.Uint32(b)
	if size == 0 {
		kind, _, err := r.control()
		if err == nil && kind == controlStop {
			err = io.EOF
		} else if err == nil {
			err = fmt.Errorf("a control frame of type %d within the stream", kind)
		}
		return p, false, err
	}
	if b, err = r.take(int(min(size, maxRecord+1))); err != nil {
		return p, false, err
	}
	p, ok = tapped(b)
	return p, ok, nil
}

// tapped reads one event; false where it is none of a query or reply over UDP.
func tapped(b []byte) (p Packet, ok bool) {
	var message []byte
	err := fields(b, func(number uint64, v uint64, data []byte) {
		if number == tapMessage {
			message = data
		}
	})
	if err != nil || message == nil {
		return p, false
	}
	var kind, protocol, queryPort, replyPort uint64
	var queryAddr, replyAddr netip.Addr
	var query, reply []byte
	err = fields(message, func(number uint64, v uint64, data []byte) {
		switch number {
		case tapKind:
			kind = v
		case tapProtocol:
			protocol = v
		case tapQueryAddr:
			queryAddr, _ = netip.AddrFromSlice(data)
		case tapReplyAddr:
			replyAddr, _ = netip.AddrFromSlice(data)
		case tapQueryPort:
			queryPort = v
		case tapReplyPort:
			replyPort = v
		case tapQuery:
			query = data
		case tapReply:
			reply = data
		}
	})
	if err != nil || protocol != tapProtocolUDP || !queryAddr.IsValid() {
		return p, false
	}
	client, server := netip.AddrPortFrom(queryAddr, uint16(queryPort)), netip.AddrPortFrom(replyAddr, uint16(replyPort))
	switch kind {
	case kindAuthQuery, kindClientQ:
		p = Packet{From: client, To: server, Data: query}
	case kindAuthReply, kindClientR:
		p = Packet{From: server, To: client, Data: reply}
	}
	return p, len(p.Data) >= headerDNS && (p.Data[2]&0x80 != 0) == (kind == kindAuthReply || kind == kindClientR)
}

var errProtobuf = errors.New("is no protocol buffer")

// fields walks through a protocol buffer (protobuf.dev/programming-guides/encoding):
// numbers with a value or with octets. Whatever else stands there is passed over.
func fields(b []byte, each func(number, value uint64, data []byte)) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return errProtobuf
		}
		b = b[n:]
		switch tag & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return errProtobuf
			}
			each(tag>>3, v, nil)
			b = b[n:]
		case 1, 5:
			size := map[uint64]int{1: 8, 5: 4}[tag&7]
			if len(b) < size {
				return errProtobuf
			}
			b = b[size:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return errProtobuf
			}
			each(tag>>3, 0, b[n:n+int(size)])
			b = b[n+int(size):]
		default:
			return errProtobuf
		}
	}
	return nil
}
