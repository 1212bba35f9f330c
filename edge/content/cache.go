package content

import (
	"container/list"
	"slices"
	"sync"
)

// Cache keeps checked blocks, the least recently used go first. A block in use outlives
// its place here, so memory is bounded by room and by one block for each reader that is
// slow with one. Safe for concurrent use; one load per block at a time.
type Cache struct {
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

// NewCache makes a cache with room for so many octets, in whole blocks: one at least.
func NewCache(bytes int64) *Cache {
	return &Cache{room: max(int(bytes/BlockSize), 1), order: list.New(), by: map[blockKey]*list.Element{}}
}

func (c *Cache) get(o *Object, i int64) ([]byte, error) {
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

func (c *Cache) forget(key blockKey, el *list.Element) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by[key] == el {
		c.order.Remove(el)
		delete(c.by, key)
	}
}

// Room is how many blocks are kept, one at least.
func (c *Cache) Room() int { return c.room }

// Blocks lists the numbers of the blocks of an object that are here or being read, rising.
func (c *Cache) Blocks(hash [32]byte) []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []int64
	for k := range c.by {
		if k.hash == hash {
			out = append(out, k.index)
		}
	}
	slices.Sort(out)
	return out
}
