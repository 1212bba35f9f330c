package netlab

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// rank is the trustworthiness of cached data, RFC 2181 section 5.4.1, ascending.
type rank uint8

const (
	rankGlue      rank = iota + 1 // additional section
	rankReferral                  // authority section without AA: the parent's NS set
	rankAnswer                    // answer section without AA
	rankAuthority                 // authority section with AA: the child's own NS set
	rankAuthentic                 // answer section with AA
)

// cacheKey names an RRset; NXDOMAIN is kept under type ANY since it denies all.
type cacheKey struct {
	name   string // canonical
	rtype  uint16
	failed bool // stands for a failure to resolve, beside whatever is cached
}

// failureKey is where it is noted that a resolution failed a moment ago.
func failureKey(name string, rtype uint16) cacheKey {
	return cacheKey{name: name, rtype: rtype, failed: true}
}

const denyAll = dns.TypeANY

// cacheEntry is one RRset, or the proof that there is none.
type cacheEntry struct {
	key     cacheKey
	rrs     []dns.RR // empty: negative
	soa     dns.RR   // of a negative entry, nil when the server sent none
	rcode   int
	rank    rank
	expires time.Time
	scope   netip.Prefix // clients for whom it holds, RFC 7871; invalid: all
}

// covers reports whether the entry holds for a client; an entry without scope
// holds for all, also when no client is known.
func (e *cacheEntry) covers(client netip.Addr) bool {
	return !e.scope.IsValid() || e.scope.Contains(client)
}

// ttl is what is left at now in whole seconds, rounded up so that an answer with
// TTL 1 does not leave as 0.
func (e *cacheEntry) ttl(now time.Time) uint32 {
	return uint32((e.expires.Sub(now) + time.Second - 1) / time.Second)
}

// aged returns copies of the records with the TTL that is left.
func (e *cacheEntry) aged(now time.Time) []dns.RR {
	rrs := make([]dns.RR, len(e.rrs))
	for i, rr := range e.rrs {
		rrs[i] = dns.Copy(rr)
		rrs[i].Header().Ttl = e.ttl(now)
	}
	return rrs
}

// cache keeps RRsets by name, type and client scope, the least recently used
// falling out when it is full. Safe for concurrent use.
type cache struct {
	mu    sync.Mutex
	limit int
	byKey map[cacheKey][]*list.Element
	used  *list.List // of *cacheEntry, most recently used first
}

// newCache returns a cache that keeps at most limit entries, every client scope
// of a name counted.
func newCache(limit int) *cache {
	return &cache{limit: limit, byKey: map[cacheKey][]*list.Element{}, used: list.New()}
}

// get returns the entry for the client that is still alive, the narrowest scope
// first (RFC 7871 section 7.3.1).
func (c *cache) get(key cacheKey, client netip.Addr, now time.Time) *cacheEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *list.Element
	for _, el := range slices.Clone(c.byKey[key]) {
		e := el.Value.(*cacheEntry)
		switch {
		case !now.Before(e.expires):
			c.remove(el)
		case e.covers(client) && (best == nil || e.scope.Bits() > best.Value.(*cacheEntry).scope.Bits()):
			best = el
		}
	}
	if best == nil {
		return nil
	}
	c.used.MoveToFront(best)
	return best.Value.(*cacheEntry)
}

// put stores an entry unless a more trustworthy one for the same clients lives.
// Data of equal rank replaces: it is fresher. A referral is the exception: the
// same parent's NS set seen again does not prolong the life of the first, or a
// delegation which the parent withdrew would never be noticed.
func (c *cache) put(e *cacheEntry, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, el := range c.byKey[e.key] {
		old := el.Value.(*cacheEntry)
		if old.scope != e.scope {
			continue
		}
		if now.Before(old.expires) && (old.rank > e.rank || (old.rank == e.rank && e.rank == rankReferral)) {
			return
		}
		c.remove(el)
		break
	}
	c.byKey[e.key] = append(c.byKey[e.key], c.used.PushFront(e))
	for c.used.Len() > c.limit {
		c.remove(c.used.Back())
	}
}

// remove takes an element out of both indexes. Callers hold the lock.
func (c *cache) remove(el *list.Element) {
	key := el.Value.(*cacheEntry).key
	c.used.Remove(el)
	rest := slices.DeleteFunc(c.byKey[key], func(other *list.Element) bool { return other == el })
	if len(rest) == 0 {
		delete(c.byKey, key)
		return
	}
	c.byKey[key] = rest
}

// len counts the entries, expired ones that nobody asked for again included.
func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used.Len()
}

// flush forgets everything.
func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey = map[cacheKey][]*list.Element{}
	c.used.Init()
}
