package upload

import (
	"crypto/sha256"
	"hash"
	"io"
)

// blockSize is the unit in which objects are hashed, the same as where they are served:
// what an upload sums up to is the entity tag of its object.
const blockSize = 1 << 20

// summer sums a stream up: SHA-256 over the list of its blocks' SHA-256.
type summer struct {
	all   hash.Hash
	block hash.Hash
	in    int // octets in block
}

func newSummer() *summer { return &summer{all: sha256.New(), block: sha256.New()} }

func (s *summer) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		part := b[:min(len(b), blockSize-s.in)]
		s.block.Write(part)
		if s.in += len(part); s.in == blockSize {
			s.close()
		}
		b = b[len(part):]
	}
	return n, nil
}

func (s *summer) close() {
	s.all.Write(s.block.Sum(nil))
	s.block.Reset()
	s.in = 0
}

// sum ends the stream.
func (s *summer) sum() [32]byte {
	if s.in > 0 {
		s.close()
	}
	return [32]byte(s.all.Sum(nil))
}

// sumOf reads a whole stream.
func sumOf(r io.Reader) ([32]byte, error) {
	s := newSummer()
	if _, err := io.Copy(s, r); err != nil {
		return [32]byte{}, err
	}
	return s.sum(), nil
}
