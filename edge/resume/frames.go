package resume

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"unicode/utf8"
)

// Opcodes of WebSocket frames (RFC 6455, section 5.2).
const (
	opMore  = 0
	opText  = 1
	opBytes = 2
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// maxMessage bounds a message of a WebSocket; see errTooBig.
const maxMessage = 16 << 20

// What ends a WebSocket for good.
var (
	errFrame   = errors.New("resume: malformed frame")
	errTooBig  = errors.New("resume: message of more than 16 MiB")
	errNotText = errors.New("resume: text message that is no UTF-8")
)

// frames reads what a server sends over a WebSocket.
type frames struct {
	in   *bufio.Reader
	op   byte // of the message that has begun; 0: none
	data []byte
}

// step reads one frame. op is that of a message or a control frame that is whole now,
// and opMore if there is none.
func (f *frames) step() (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(f.in, head[:]); err != nil {
		return 0, nil, err
	}
	final, op := head[0]&0x80 != 0, head[0]&15
	size, err := f.size(head[1])
	switch {
	case err != nil:
		return 0, nil, err
	case head[0]&0x70 != 0, head[1]&0x80 != 0, op > opBytes && op < opClose, op > opPong,
		op >= opClose && (!final || size > 125), op < opClose && (op == opMore) != (f.op != 0):
		return 0, nil, errFrame
	case size > maxMessage || op < opClose && size > uint64(maxMessage-len(f.data)):
		return 0, nil, errTooBig
	}
	// Room is made for what comes, not for what was said to come.
	into, err := io.ReadAll(io.LimitReader(f.in, int64(size)))
	if err == nil && uint64(len(into)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, err
	}
	if op >= opClose {
		return op, into, nil
	}
	f.data, f.op = append(f.data, into...), max(f.op, op)
	if !final {
		return opMore, nil, nil
	}
	op, payload = f.op, f.data
	f.op, f.data = 0, nil
	if op == opText && !utf8.Valid(payload) {
		return 0, nil, errNotText
	}
	return op, payload, nil
}

// size reads the length of a payload, whose first octet is known.
func (f *frames) size(first byte) (uint64, error) {
	var b [8]byte
	switch first & 0x7f {
	case 126:
		_, err := io.ReadFull(f.in, b[6:])
		return binary.BigEndian.Uint64(b[:]), err
	case 127:
		_, err := io.ReadFull(f.in, b[:])
		return binary.BigEndian.Uint64(b[:]), err
	}
	return uint64(first & 0x7f), nil
}

// appendFrame writes a whole message or control frame of a client, which is masked
// (RFC 6455, section 5.3).
func appendFrame(out []byte, op byte, payload []byte) []byte {
	out = append(out, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		out = append(out, 0x80|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(n))
	}
	var mask [4]byte
	rand.Read(mask[:]) // never fails (crypto/rand)
	out = append(out, mask[:]...)
	for i, c := range payload {
		out = append(out, c^mask[i%4])
	}
	return out
}
