package content

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// BlockSize is the unit in which objects are hashed and checked, in octets. It is part
// of an object's name: other blocks, another hash.
const BlockSize = 1 << 20

// ErrMismatch: the bytes on disk are no longer those of the object's hash.
// Nothing of such a block may be sent.
var ErrMismatch = errors.New("block does not have the object's hash")

// Object is an immutable byte string, named by its hash: the SHA-256 over the list of
// the SHA-256 of its blocks. Its file stays open for as long as something refers to the
// object (os.File closes itself when collected), so a file replaced by rename is served
// to its end to those who began with it. Overwritten in place it fails the check.
// Safe for concurrent use.
type Object struct {
	hash   [32]byte
	size   int64
	blocks [][32]byte
	file   io.ReaderAt
	cache  *Cache
}

// NewObject reads all of r, size octets, and hashes it. r is kept, and read again block by
// block through cache. An error says at which offset r could not be read.
func NewObject(r io.ReaderAt, size int64, cache *Cache) (*Object, error) {
	o := &Object{size: size, file: r, cache: cache}
	buf := make([]byte, min(size, BlockSize))
	for off := int64(0); off < size; off += BlockSize {
		b := buf[:min(BlockSize, size-off)]
		if _, err := r.ReadAt(b, off); err != nil && !(err == io.EOF && off+int64(len(b)) == size) {
			return nil, fmt.Errorf("hash at %d of %d: %w", off, size, err)
		}
		o.blocks = append(o.blocks, sha256.Sum256(b))
	}
	h := sha256.New()
	for i := range o.blocks {
		h.Write(o.blocks[i][:])
	}
	o.hash = [32]byte(h.Sum(nil))
	return o, nil
}

// Hash is the object's name.
func (o *Object) Hash() [32]byte { return o.hash }

// Size is its length in octets.
func (o *Object) Size() int64 { return o.size }

func (o *Object) entry() Entry { return Entry{Hash: o.hash, Size: o.size, Known: true, Body: o} }

// At returns the rest of the block in which off lies, checked: at least one octet, read
// only. An error is one of reading, or ErrMismatch.
func (o *Object) At(off int64) ([]byte, error) {
	if off < 0 || off >= o.size {
		return nil, fmt.Errorf("offset %d of %d", off, o.size)
	}
	b, err := o.cache.get(o, off/BlockSize)
	if err != nil {
		return nil, err
	}
	return b[off%BlockSize:], nil
}

// load reads and checks one block.
func (o *Object) load(i int64) ([]byte, error) {
	b := make([]byte, min(BlockSize, o.size-i*BlockSize))
	if _, err := o.file.ReadAt(b, i*BlockSize); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read block %d: %w", i, err)
	}
	if sha256.Sum256(b) != o.blocks[i] {
		return nil, fmt.Errorf("block %d: %w", i, ErrMismatch)
	}
	return b, nil
}

// openObject hashes an open file and takes it over.
func openObject(f *os.File, cache *Cache) (*Object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return NewObject(f, st.Size(), cache)
}
