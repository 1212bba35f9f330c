package store

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Memory is a store in the memory of one process, for tests and the like: the
// twin of etcd, revisions, leases and compaction included. Several Stores may
// share one. Safe for concurrent use.
type Memory struct {
	mu     sync.Mutex
	m      *machine
	timers map[int64]*time.Timer
	last   int64         // last lease id
	cut    chan struct{} // not nil while cut off; closed by Heal
}

// NewMemory returns an empty memory store.
func NewMemory() *Memory {
	return &Memory{m: newMachine(), timers: make(map[int64]*time.Timer)}
}

// Cut makes the store as silent as an etcd that is gone: calls wait for their
// context to end, watchers hear nothing, leases go on running out.
func (m *Memory) Cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut == nil {
		m.cut = make(chan struct{})
	}
}

// Heal ends a Cut; watchers then hear what they missed.
func (m *Memory) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cut != nil {
		close(m.cut)
		m.cut = nil
	}
}

// Compact forgets the history: a watcher which lags behind must list again.
func (m *Memory) Compact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.m.compact()
}

// Revision returns the store's revision.
func (m *Memory) Revision() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m.rev
}

// enter locks the store once it is not cut off.
func (m *Memory) enter(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		m.mu.Lock()
		gate := m.cut
		if gate == nil {
			return nil
		}
		m.mu.Unlock()
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
}

func (m *Memory) read(ctx context.Context, queries ...query) ([][]pair, int64, error) {
	if err := m.enter(ctx); err != nil {
		return nil, 0, err
	}
	defer m.mu.Unlock()
	return m.m.read(queries), m.m.rev, nil
}

func (m *Memory) readAt(ctx context.Context, rev int64, s span) ([]pair, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	return m.m.readAt(rev, s)
}

func (m *Memory) write(ctx context.Context, conds []cond, ops []op) (int64, bool, error) {
	if err := checkSize(ops); err != nil {
		return 0, false, err
	}
	if err := m.enter(ctx); err != nil {
		return 0, false, err
	}
	defer m.mu.Unlock()
	if !m.m.holds(conds) {
		return m.m.rev, false, nil
	}
	if !m.m.leased(ops) {
		return m.m.rev, false, errLease
	}
	m.m.commit(m.m.plan(ops))
	return m.m.rev, true, nil
}

// The limits of an etcd server (1.5 MiB a request, 128 operations), so that what
// passes in a test passes in production.
const (
	maxRequest = 1536*1024 - 64
	maxOps     = 128
)

var errTooLarge = errors.New("request is too large")

func checkSize(ops []op) error {
	size := 0
	for _, o := range ops {
		size += len(o.key) + len(o.value) + 16
	}
	if size > maxRequest || len(ops) > maxOps {
		return errTooLarge
	}
	return nil
}

func (m *Memory) watch(ctx context.Context, from int64, spans ...span) <-chan batch {
	return watchMachine(ctx, from, spans, func(from int64) ([]batch, int64, bool, <-chan struct{}) {
		if m.enter(ctx) != nil {
			return nil, from, true, nil // ctx ended; the watch looks at it next
		}
		defer m.mu.Unlock()
		out, next, ok := m.m.since(from, spans)
		return out, next, ok, m.m.wake
	})
}

// watchMachine runs one watch of a machine; step reads it under its owner's lock
// and returns what is new, where to go on, and what to wait for.
func watchMachine(ctx context.Context, from int64, spans []span,
	step func(from int64) ([]batch, int64, bool, <-chan struct{})) <-chan batch {
	ch := make(chan batch)
	go func() {
		defer close(ch)
		for ctx.Err() == nil {
			out, next, ok, wake := step(from)
			if !ok {
				out = []batch{{err: errCompacted}}
			}
			for _, b := range out {
				select {
				case ch <- b:
				case <-ctx.Done():
					return
				}
			}
			if !ok {
				return
			}
			from = next
			select {
			case <-wake:
			case <-ctx.Done():
			}
		}
	}()
	return ch
}

func (m *Memory) grant(ctx context.Context, ttl time.Duration) (int64, error) {
	if err := m.enter(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	m.last++
	id := m.last
	m.m.leases[id] = leaseTerm{ttl: ttl, until: time.Now().Add(ttl)}
	m.timers[id] = time.AfterFunc(ttl, func() { m.expire(id) })
	return id, nil
}

// expire ends a lease whose timer ran out; a cut does not stop time.
func (m *Memory) expire(id int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := m.m.leases[id]; ok && !time.Now().Before(l.until) {
		m.end(id)
	}
}

func (m *Memory) end(id int64) {
	m.timers[id].Stop()
	delete(m.timers, id)
	delete(m.m.leases, id)
	m.m.commit(m.m.plan(m.m.orphans(id)))
}

func (m *Memory) keep(ctx context.Context, id int64) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	l, ok := m.m.leases[id]
	if !ok {
		return errLease
	}
	l.until = time.Now().Add(l.ttl)
	m.m.leases[id] = l
	m.timers[id].Reset(l.ttl)
	return nil
}

func (m *Memory) revoke(ctx context.Context, id int64) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if _, ok := m.m.leases[id]; !ok {
		return errLease
	}
	m.end(id)
	return nil
}

// close leaves the content alone: other Stores may share it.
func (m *Memory) close() error { return nil }
