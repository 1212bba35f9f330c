package edge

import (
	"container/list"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// blockSize is the unit in which objects are hashed and checked. It is part
// of an object's name.
const blockSize = 1 << 20

// errMismatch: the bytes on disk are no longer those of the object's hash.
// Nothing of such a block may be sent.
var errMismatch = errors.New("block does not have the object's hash")

// object is an immutable byte string. Its file stays open for as long as
// something refers to the object (os.File closes itself when collected), so a
// file replaced by rename is served to its end to those who began with it.
// Overwritten in place it fails the check.
type object struct {
	hash   [32]byte
	size   int64
	blocks [][32]byte
	file   io.ReaderAt
	cache  *blockCache
}

// newObject reads all of r, size bytes, and hashes it.
func newObject(r io.ReaderAt, size int64, cache *blockCache) (*object, error) {
	o := &object{size: size, file: r, cache: cache}
	buf := make([]byte, min(size, blockSize))
	for off := int64(0); off < size; off += blockSize {
		b := buf[:min(blockSize, size-off)]
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

func (o *object) at(off int64) ([]byte, error) {
	if off < 0 || off >= o.size {
		return nil, fmt.Errorf("offset %d of %d", off, o.size)
	}
	b, err := o.cache.get(o, off/blockSize)
	if err != nil {
		return nil, err
	}
	return b[off%blockSize:], nil
}

// load reads and checks one block.
func (o *object) load(i int64) ([]byte, error) {
	b := make([]byte, min(blockSize, o.size-i*blockSize))
	if _, err := o.file.ReadAt(b, i*blockSize); err != nil && err != io.EOF {
		return nil, fmt.Errorf("read block %d: %w", i, err)
	}
	if sha256.Sum256(b) != o.blocks[i] {
		return nil, fmt.Errorf("block %d: %w", i, errMismatch)
	}
	return b, nil
}

// blockCache keeps checked blocks, the least recently used go first. A block
// in use by a session outlives its place here, so memory is bounded by room
// and by one block a session that is blocked in a write. Safe for concurrent
// use; one load per block at a time.
type blockCache struct {
	mu    sync.Mutex
	room  int // blocks
	order *list.List
	by    map[blockKey]*list.Element
}

type blockKey struct {
	hash  [32]byte
	index int64
}

type blockEntry struct {
	key  blockKey
	load func() ([]byte, error) // once
}

func newBlockCache(bytes int64) *blockCache {
	return &blockCache{room: max(int(bytes/blockSize), 1), order: list.New(), by: map[blockKey]*list.Element{}}
}

func (c *blockCache) get(o *object, i int64) ([]byte, error) {
	key := blockKey{o.hash, i}
	c.mu.Lock()
	el, ok := c.by[key]
	if ok {
		c.order.MoveToFront(el)
	} else {
		el = c.order.PushFront(&blockEntry{key, sync.OnceValues(func() ([]byte, error) { return o.load(i) })})
		c.by[key] = el
		for c.order.Len() > c.room {
			old := c.order.Remove(c.order.Back()).(*blockEntry)
			delete(c.by, old.key)
		}
	}
	c.mu.Unlock()
	b, err := el.Value.(*blockEntry).load()
	if err != nil {
		c.forget(key, el) // the next one tries again
	}
	return b, err
}

func (c *blockCache) forget(key blockKey, el *list.Element) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[key] == el {
		c.order.Remove(el)
		delete(c.by, key)
	}
}

// openObject hashes an open file and takes it over.
func openObject(f *os.File, cache *blockCache) (*object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return newObject(f, st.Size(), cache)
}
