package handsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unicode/utf8"
)

// Version of the protocol, named in each message.
const Version = 1

// Bounds of a message.
const (
	// MaxRecord bounds a record.
	MaxRecord = 512
	// MaxText bounds a service's name and a reason.
	MaxText = 255
	// MaxMessage is the longest message.
	MaxMessage = headSize + keySize + MaxRecord

	headSize = 12
	keySize  = 36
)

// Type says what a message means.
type Type uint8

const (
	// Offer asks the giver for a connection; the giver's answer, and what the taker is
	// given, have a descriptor and a record.
	Offer Type = 1 + iota
	// Ready answers the taker's offer. With ID 0 it opens a connection to the agent, Text
	// names the service, and the agent answers with the same.
	Ready
	// Commit gives the connection to the taker for good. Text is a ticket, if the agent
	// has one: by that its next process can tell what became of the hand-off, and a giver
	// who lost the agent asks by a Commit of the same number and text.
	Commit
	// Active tells that it is served by the taker.
	Active
	// Abort calls a hand-off off; Text says why.
	Abort
	// Again answers a giver who asked: the taker never had the connection, it is yours
	// again, once the agent has waken it.
	Again
)

func (t Type) String() string {
	if t < Offer || t > Again {
		return fmt.Sprintf("type %d", uint8(t))
	}
	return [...]string{"offer", "ready", "commit", "active", "abort", "again"}[t-1]
}

// Key names a connection by its ends. IPv4 addresses are plain, not mapped into IPv6.
type Key struct {
	Client netip.AddrPort
	VIP    netip.AddrPort // the server's end
}

func (k Key) String() string { return k.Client.String() + ">" + k.VIP.String() }

// Message is one of the six.
type Message struct {
	Type Type
	// ID names the hand-off; 0 stands for the connection to the agent itself.
	ID uint64
	// Key and Record are an Offer's.
	Key    Key
	Record []byte
	// Text is an Abort's reason, a Commit's ticket, and the service's name in a Ready of ID 0.
	Text string
	// Attached tells that a descriptor comes with it.
	Attached bool
}

// Errors of Decode that a caller tells the other side.
var (
	ErrVersion = errors.New("handsock: version is not spoken here")
	errShort   = errors.New("handsock: message is cut short")
)

const flagAttached = 1

// Append encodes m behind b.
func Append(b []byte, m Message) ([]byte, error) {
	if len(m.Record) > MaxRecord || len(m.Text) > MaxText {
		return b, fmt.Errorf("handsock: %s: record of %d octets, text of %d: at most %d and %d", m.Type, len(m.Record), len(m.Text), MaxRecord, MaxText)
	}
	var flags byte
	if m.Attached {
		flags = flagAttached
	}
	b = append(b, Version, byte(m.Type), flags, 0)
	b = binary.BigEndian.AppendUint64(b, m.ID)
	if m.Type != Offer {
		return append(b, m.Text...), nil
	}
	if m.Key.Client.Addr().Is4() != m.Key.VIP.Addr().Is4() || !m.Key.Client.IsValid() || !m.Key.VIP.IsValid() {
		return nil, fmt.Errorf("handsock: offer of %s: no connection has such ends", m.Key)
	}
	b = appendEnd(appendEnd(b, m.Key.Client), m.Key.VIP)
	return append(b, m.Record...), nil
}

// appendEnd writes an address as 16 octets, IPv4 mapped (RFC 4291 section 2.5.5.2).
func appendEnd(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, ip[:]...), a.Port())
}

// Decode reads one message. The result shares no memory with b.
func Decode(b []byte) (Message, error) {
	if len(b) < 1 {
		return Message{}, errShort
	}
	if b[0] != Version {
		return Message{}, fmt.Errorf("%w: %d, %d is", ErrVersion, b[0], Version)
	}
	if len(b) < headSize {
		return Message{}, errShort
	}
	m := Message{Type: Type(b[1]), ID: binary.BigEndian.Uint64(b[4:]), Attached: b[2] == flagAttached}
	if m.Type < Offer || m.Type > Again || b[2] > flagAttached || b[3] != 0 {
		return Message{}, fmt.Errorf("handsock: message begins with % x", b[:4])
	}
	if m.Attached && m.Type != Offer && m.Type != Abort {
		return Message{}, fmt.Errorf("handsock: a descriptor in %s", m.Type)
	}
	body := b[headSize:]
	if m.Type != Offer {
		if len(body) > MaxText || !utf8.Valid(body) {
			return Message{}, fmt.Errorf("handsock: %s with %d octets that are no text", m.Type, len(body))
		}
		m.Text = string(body)
		return m, nil
	}
	return m, m.offer(body)
}

func (m *Message) offer(body []byte) error {
	if len(body) < keySize {
		return errShort
	}
	if len(body) > keySize+MaxRecord {
		return fmt.Errorf("handsock: record of %d octets, at most %d", len(body)-keySize, MaxRecord)
	}
	m.Key = Key{Client: end(body), VIP: end(body[keySize/2:])}
	if m.Key.Client.Addr().Is4() != m.Key.VIP.Addr().Is4() {
		return fmt.Errorf("handsock: offer of %s: no connection has such ends", m.Key)
	}
	m.Record = append([]byte(nil), body[keySize:]...)
	return nil
}

func end(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:]))
}
