package frame

import (
	"encoding/binary"
	"errors"
)

var errShort = errors.New("too short")

// reader takes big-endian values off a slice. The first error sticks, later
// reads return zeros; so a decoder reads all its fields and checks once.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// bytes returns the next n bytes, not copied; nil after an error.
func (r *reader) bytes(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// end is the decoder's verdict: the sticky error, or one about what is left.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		return errors.New("trailing bytes")
	}
	return r.err
}
