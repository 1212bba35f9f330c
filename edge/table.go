package edge

import (
	"slices"
	"sync"
	"time"

	"rhumb/edge/frame"
)

// table holds the sessions of this site, and remembers for a while which
// ones came and went. Safe for concurrent use.
type table struct {
	mu    sync.Mutex
	live  map[frame.Key]*session
	taken map[frame.Key]passage // activated here
	given map[frame.Key]passage // handed to another site
}

// passage is the memory of a hand-off. It outlives the session, since the
// other side may ask again about one that ended right after it came.
type passage struct {
	epoch uint64
	gen   uint32
	at    time.Time
}

// memory is how long a passage is remembered; commits are repeated for less.
const memory = 30 * time.Second

func newTable() *table {
	return &table{live: map[frame.Key]*session{}, taken: map[frame.Key]passage{}, given: map[frame.Key]passage{}}
}

// add enters a session unless there are limit already. A session of the same
// key that is still entered is dead: the kernel has one socket per key.
func (t *table) add(s *session, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.live) >= limit {
		return false
	}
	t.live[s.key] = s
	return true
}

// replace puts a session in the place of another of the same key, unless that
// has left.
func (t *table) replace(old, next *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[old.key] == old {
		t.live[old.key] = next
	}
}

func (t *table) remove(s *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[s.key] == s {
		delete(t.live, s.key)
	}
}

func (t *table) get(k frame.Key) *session {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[k]
}

func (t *table) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

// all lists the sessions in the order of their keys.
func (t *table) all() []*session {
	t.mu.Lock()
	out := make([]*session, 0, len(t.live))
	for _, s := range t.live {
		out = append(out, s)
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b *session) int { return a.key.Compare(b.key) })
	return out
}

// take notes an activation. It fails if that or a later generation was
// activated here before.
func (t *table) take(k frame.Key, epoch uint64, gen uint32, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, ok := t.taken[k]; ok && !newer(epoch, gen, old) {
		return false
	}
	t.taken[k] = passage{epoch, gen, now}
	return true
}

// untake takes back a take whose socket could not be activated.
func (t *table) untake(k frame.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.taken, k)
}

// took reports whether exactly this hand-off was activated here.
func (t *table) took(k frame.Key, epoch uint64, gen uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.taken[k]
	return ok && p.epoch == epoch && p.gen == gen
}

// fresh reports whether an offer is newer than anything known of its key.
func (t *table) fresh(k frame.Key, epoch uint64, gen uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.live[k]; s != nil && epoch <= s.epoch {
		return false
	}
	p, ok := t.taken[k]
	return !ok || newer(epoch, gen, p)
}

func newer(epoch uint64, gen uint32, than passage) bool {
	return epoch > than.epoch || epoch == than.epoch && gen > than.gen
}

func (t *table) gave(k frame.Key, epoch uint64, gen uint32, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.given[k] = passage{epoch, gen, now}
}

// gaveAt is when the key last left this site, zero if not in memory.
func (t *table) gaveAt(k frame.Key) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.given[k].at
}

// forget drops what is older than memory.
func (t *table) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range []map[frame.Key]passage{t.taken, t.given} {
		for k, p := range m {
			if now.Sub(p.at) > memory {
				delete(m, k)
			}
		}
	}
}
