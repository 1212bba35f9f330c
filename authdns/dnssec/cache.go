package dnssec

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// ID names what a signature is of: records, original TTL, keys and window. What
// has one ID has one set of signatures, whoever makes it.
type ID [sha256.Size]byte

// Identify returns the ID of the signatures that Sign would make. It costs a hash where a
// signature costs a hundred of them, and knows nothing of zones or versions: a record
// that did not change keeps its signature through every reload, Snapshot and hour.
func (r *Ring) Identify(rrset []dns.RR, ttl uint32) (ID, error) {
	h := rrset[0].Header()
	var all [][]byte // the records, each uncompressed with the original TTL in place of its own
	for _, rr := range rrset {
		buf := make([]byte, dns.Len(rr)+1)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			return ID{}, err
		}
		binary.BigEndian.PutUint32(buf[wireLen(buf)+4:], ttl)
		all = append(all, buf[:n])
	}
	slices.SortFunc(all, slices.Compare[[]byte]) // turned addresses are the same RRset
	w := WindowAt(r.At, h.Name, h.Rrtype)
	sum := sha256.New()
	for _, b := range all {
		sum.Write(b)
	}
	sum.Write(binary.BigEndian.AppendUint64(nil, uint64(w.Expiration.Unix())))
	for _, k := range r.signers(h.Rrtype) {
		sum.Write([]byte(k.Public.PublicKey))
		sum.Write([]byte(k.Zone()))
		sum.Write([]byte{byte(k.Public.Flags >> 8), byte(k.Public.Flags), k.Public.Algorithm})
	}
	return ID(sum.Sum(nil)), nil
}

// wireLen is the length, its last octet included, of the uncompressed name that a buffer begins with.
func wireLen(b []byte) int {
	n := 0
	for b[n] != 0 {
		n += 1 + int(b[n])
	}
	return n + 1
}

// Cache holds signatures. It is safe for concurrent use. The lock is held for a look into
// a map; what is answered most never comes here, since whole replies are kept elsewhere.
type Cache struct {
	mu sync.Mutex
	// pinned are of what exists; the value tells the last round that wanted them.
	pinned map[ID]*pinned
	round  int
	// young and old hold the others: when young is full it becomes old, and what
	// is still asked for by then moves back.
	young, old map[ID][]dns.RR
	limit      int
}

// pinned are signatures which stay, and the last round in which they were wanted.
type pinned struct {
	sigs  []dns.RR
	round int
}

// NewCache makes a Cache that holds up to limit signatures of what does not exist,
// twice over.
func NewCache(limit int) *Cache {
	return &Cache{pinned: make(map[ID]*pinned), young: make(map[ID][]dns.RR), limit: limit}
}

// Get returns signatures, which must not be changed.
func (c *Cache) Get(id ID) ([]dns.RR, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pinned[id]; p != nil {
		p.round = c.round
		return p.sigs, true
	}
	if sigs, ok := c.young[id]; ok {
		return sigs, true
	}
	sigs, ok := c.old[id]
	if ok {
		c.put(id, sigs)
	}
	return sigs, ok
}

// Put keeps signatures: pinned ones until a whole round passes in which nobody wants
// them, the others until there are too many.
func (c *Cache) Put(id ID, sigs []dns.RR, pin bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pin {
		c.pinned[id] = &pinned{sigs, c.round}
		return
	}
	c.put(id, sigs)
}

// put adds to the young ones; mu is held. Two generations forget the least used half at
// once, which needs no list and no clock, and an attacker's names push out each other
// before they push out what is asked for again.
func (c *Cache) put(id ID, sigs []dns.RR) {
	if len(c.young) >= c.limit {
		c.old, c.young = c.young, make(map[ID][]dns.RR)
	}
	c.young[id] = sigs
}

// Turn begins a round and forgets what nobody wanted in the one before.
func (c *Cache) Turn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, p := range c.pinned {
		if p.round < c.round {
			delete(c.pinned, id)
		}
	}
	c.round++
}

// Len tells how many signatures are held, pinned and not.
func (c *Cache) Len() (kept, passing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pinned), len(c.young) + len(c.old)
}

// Budget allows so many signatures in each second. It is safe for concurrent use. Seconds
// are those of the clock: a burst across two of them may take twice the rate, which is
// cheaper to allow than to prevent.
type Budget struct {
	rate  int64 // below 1<<24
	now   func() time.Time
	state atomic.Uint64 // second << 24 | spent
}

// NewBudget makes a Budget of rate a second, below 1<<24.
func NewBudget(rate int, now func() time.Time) *Budget {
	return &Budget{rate: int64(min(rate, 1<<24-1)), now: now}
}

// Take takes one; false says that this second's are spent.
func (b *Budget) Take() bool {
	for {
		second, was := uint64(b.now().Unix())&(1<<40-1), b.state.Load()
		spent := was & (1<<24 - 1)
		if was>>24 != second {
			spent = 0
		}
		if int64(spent) >= b.rate {
			return false
		}
		if b.state.CompareAndSwap(was, second<<24|(spent+1)) {
			return true
		}
	}
}
