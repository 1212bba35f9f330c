package token

import (
	"encoding/binary"
	"errors"
	"strings"
)

// Opcodes of WebSocket frames (RFC 6455, section 5.2).
const (
	opMore  = 0
	opText  = 1
	opBytes = 2
	opClose = 8
	opPong  = 10
)

// What is said in text messages of their own, each in one frame, where a
// WebSocket's subprotocol is SubProtocol.
const (
	// SubProtocol is chosen by an origin which says where it stands.
	SubProtocol = "rhumb.resume.1"
	// ProtocolToken is how a token is shown, behind SubProtocol: browsers
	// can say nothing else in a handshake.
	ProtocolToken = "rhumb.token."

	// wordAny begins all words: no message of an application does.
	wordAny = "rhumb:"
	// wordNext, from the origin, names the position behind the next message; to
	// the client, its token.
	wordNext = "rhumb:next "
	// wordToken, to the client, is the token of where it stands now.
	wordToken = "rhumb:token "
)

// Codes with which a site closes a WebSocket (RFC 6455, section 7.4).
const (
	CloseAway   = 1001 // the site leaves: come again
	CloseFailed = 1011 // the origin sends what it must not
	CloseStale  = 4409 // the session goes on elsewhere: do not come again
)

// Why an origin's frames are not passed on.
var (
	errFrame = errors.New("token: origin's frame is malformed or masked, or needs an extension")
	errWord  = errors.New("token: origin says a word that is not its own")
)

// Marks puts tokens into the messages which an origin sends over a WebSocket
// (RFC 6455), as they pass, in pieces of any size. The origin says where it
// stands before a message, so that the client has either both or neither. All
// else stays as it is.
type Marks struct {
	// seal makes the token of a position; false leaves the mark out.
	seal func(position string) (string, bool)

	head    []byte // of the frame
	inside  bool   // head is whole, the frame is not
	left    uint64 // octets of the payload which are to come
	state   lineState
	word    []byte // beginning of a payload that may be a word
	message bool   // one has begun and not ended
	last    string
	next    *string // position behind the message to come; nil: not marked
	err     error
}

// NewMarks begins a connection of a client that stands at a position.
func NewMarks(last string, seal func(position string) (string, bool)) *Marks {
	return &Marks{seal: seal, last: last}
}

// Last is where the client stands that has all messages up to now.
func (m *Marks) Last() string { return m.last }

// Between tells whether the connection is between two messages.
func (m *Marks) Between() bool {
	return len(m.head) == 0 && !m.message && m.next == nil && m.err == nil
}

// Err tells why nothing is passed on any more; nil: it is.
func (m *Marks) Err() error { return m.err }

// Append appends what becomes of a piece of the connection.
func (m *Marks) Append(out, in []byte) []byte {
	for len(in) > 0 && m.err == nil {
		if !m.inside {
			m.head, in = append(m.head, in[0]), in[1:]
			if m.begin(); !m.inside {
				continue
			}
			if m.state == copying {
				out = append(out, m.head...)
			}
		}
		n := min(uint64(len(in)), m.left)
		m.left -= n
		out, in = m.more(out, in[:n]), in[n:]
		if m.left == 0 {
			out = m.end(out)
		}
	}
	return out
}

// begin looks at the head of a frame, which may not be whole.
func (m *Marks) begin() {
	b, be := m.head, binary.BigEndian
	if len(b) < 2 {
		return
	}
	final, op, size := b[0]&0x80 != 0, b[0]&15, b[1]
	switch {
	case b[0]&0x70 != 0, size > 127, op > opBytes && op < opClose, op > opPong,
		op >= opClose && (!final || size > 125), op < opClose && (op == opMore) != m.message:
		m.err = errFrame
		return
	case size == 126 && len(b) < 4, size == 127 && len(b) < 10:
		return
	case size == 126:
		m.left = uint64(be.Uint16(b[2:]))
	case size == 127:
		m.left = be.Uint64(b[2:])
	default:
		m.left = uint64(size)
	}
	m.inside, m.state, m.word = true, copying, m.word[:0]
	if final && op == opText {
		m.state = starting
	}
}

// more takes a piece of a payload.
func (m *Marks) more(out, in []byte) []byte {
	if m.state == copying {
		return append(out, in...)
	}
	// One octet more than a word may have tells that it is too long.
	n := min(len(in), len(wordNext)+MaxPosition+1-len(m.word))
	m.word = append(m.word, in[:n]...)
	if have := string(m.word); !strings.HasPrefix(have, wordAny) && !strings.HasPrefix(wordAny, have) {
		m.state = copying
		out = append(append(append(out, m.head...), m.word...), in[n:]...)
	}
	return out
}

// end ends a frame.
func (m *Marks) end(out []byte) []byte {
	head, word := m.head, string(m.word)
	m.head, m.inside = m.head[:0], false
	if m.state == starting && strings.HasPrefix(word, wordAny) {
		return m.mark(out, word)
	}
	if m.state == starting { // too short to be one
		out = append(append(out, head...), word...)
	}
	if op := head[0] & 15; op >= opClose {
		return out
	}
	m.message = head[0]&0x80 == 0
	if !m.message && m.next != nil {
		m.last, m.next = *m.next, nil
	}
	return out
}

// mark takes a word of the origin. What it says is never passed on.
func (m *Marks) mark(out []byte, word string) []byte {
	position, ok := strings.CutPrefix(word, wordNext)
	m.next = nil
	if !ok {
		m.err = errWord
		return out
	}
	if len(position) > MaxPosition {
		return out
	}
	if text, ok := m.seal(position); ok {
		m.next = &position
		out = appendFrame(out, opText, wordNext+text)
	}
	return out
}

// AppendToken appends the message which tells the token of where the client
// stands, for between two others.
func AppendToken(out []byte, text string) []byte { return appendFrame(out, opText, wordToken+text) }

// AppendBeat appends what tells that the connection lives: a Pong that nobody
// asked for, and nobody answers (RFC 6455, section 5.5.3).
func AppendBeat(out []byte) []byte { return appendFrame(out, opPong, "") }

// AppendClose appends the end of a connection.
func AppendClose(out []byte, code uint16) []byte {
	return appendFrame(out, opClose, string(binary.BigEndian.AppendUint16(nil, code)))
}

// appendFrame writes a frame of a server, of less than 64 KiB.
func appendFrame(out []byte, op byte, payload string) []byte {
	out = append(out, 0x80|op)
	if n := len(payload); n < 126 {
		out = append(out, byte(n))
	} else {
		out = binary.BigEndian.AppendUint16(append(out, 126), uint16(n))
	}
	return append(out, payload...)
}
