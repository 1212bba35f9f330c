package seal

import (
	"fmt"
	"io"
)

// Size is the text of a full record. Every site must use the same: with
// another size the same numbers would seal other texts. 8 KiB costs 0.3 % of
// the line and leaves a whole record within the first flight of a connection
// (RFC 6928), so a client need not wait a round trip for its first byte.
const Size = 8 << 10

// recordLen is a full record on the wire.
const recordLen = Size + Overhead

// Source yields a text: from off on, as many bytes as lie together, at least
// one. What it returns is read before it is called again.
type Source func(off int64) ([]byte, error)

// Stream is a text as records, addressable by wire offset. Made twice of the
// same secret, number and text, anywhere, it has the same bytes. It is not safe
// for concurrent use.
type Stream struct {
	sealer *Sealer
	source Source
	text   int64
	first  uint64
	bye    bool
	pool   *Buffers
	buf    *[bufferLen]byte
}

// NewStream seals text bytes of source as the records from number first on,
// and a close_notify behind them if bye. The sealer may be wiped while the
// Stream lives; then nothing more is read of it.
func NewStream(s *Sealer, first uint64, text int64, source Source, bye bool, pool *Buffers) (*Stream, error) {
	st := &Stream{sealer: s, source: source, text: text, first: first, bye: bye, pool: pool}
	if text < 0 || st.Next() > s.limit || st.Next() < first {
		return nil, fmt.Errorf("seal: %d bytes from record %d on, at most %d records under one secret", text, first, s.limit)
	}
	return st, nil
}

// First is the number of the first record.
func (s *Stream) First() uint64 { return s.first }

// Next is the number of the first record behind the Stream.
func (s *Stream) Next() uint64 {
	n := s.first + uint64((s.text+Size-1)/Size)
	if s.bye {
		n++
	}
	return n
}

// Len is the length on the wire.
func (s *Stream) Len() int64 {
	n := s.body()
	if s.bye {
		n += alertRecord
	}
	return n
}

// body is the length of the text's records.
func (s *Stream) body() int64 { return s.text + (s.text+Size-1)/Size*Overhead }

// At returns wire bytes from offset off on, at least one and at most a
// buffer's, io.EOF behind the last. They are good until the next call. At
// io.EOF the buffer goes back to the pool.
func (s *Stream) At(off int64) ([]byte, error) {
	switch {
	case off < 0:
		return nil, fmt.Errorf("seal: wire offset %d", off)
	case off >= s.Len():
		s.pool.put(s.buf)
		s.buf = nil
		return nil, io.EOF
	}
	if s.buf == nil {
		s.buf = s.pool.get()
	}
	skip := off % recordLen
	if off >= s.body() {
		skip = off - s.body()
		if err := s.goodbye(); err != nil {
			return nil, err
		}
		return s.buf[skip:alertRecord], nil
	}
	n := 0
	for i := off / recordLen; n+recordLen <= bufferLen && i*Size < s.text; i++ {
		m, err := s.record(s.buf[n:n+recordLen], i)
		if err != nil {
			if int64(n) > skip {
				break // what is made goes out; the next call says the same again
			}
			return nil, err
		}
		n += m
	}
	return s.buf[skip:n], nil
}

// record makes the i-th record in b and returns its length.
func (s *Stream) record(b []byte, i int64) (int, error) {
	n := int(min(Size, s.text-i*Size))
	for have := 0; have < n; {
		p, err := s.source(i*Size + int64(have))
		if err != nil {
			return 0, err
		}
		have += copy(b[headerLen+have:headerLen+n], p)
	}
	return n + Overhead, s.sealer.seal(b[:n+Overhead], s.first+uint64(i), typeData)
}

// goodbye makes the close_notify, the record behind the text.
func (s *Stream) goodbye() error {
	copy(s.buf[headerLen:], CloseNotify.text())
	return s.sealer.seal(s.buf[:alertRecord], s.Next()-1, typeAlert)
}
