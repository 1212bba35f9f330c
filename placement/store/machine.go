package store

import (
	"slices"
	"strings"
	"time"
)

// historyLen is how many revisions the memory and the file store keep for
// watchers; one that lags further behind lists again.
const historyLen = 4096

// term of a lease in a machine.
type leaseTerm struct {
	ttl   time.Duration
	until time.Time
}

// machine is the content of a memory or file store: values in, values out. Its
// owner holds a lock around every call.
type machine struct {
	rev    int64
	floor  int64 // history begins at floor+1
	pairs  map[string]pair
	leases map[int64]leaseTerm
	recent []batch // revisions floor+1 .. rev
	wake   chan struct{}
}

func newMachine() *machine {
	return &machine{pairs: make(map[string]pair), leases: make(map[int64]leaseTerm), wake: make(chan struct{})}
}

func (m *machine) read(queries []query) [][]pair {
	out := make([][]pair, len(queries))
	for i, q := range queries {
		out[i] = m.query(q)
	}
	return out
}

func (m *machine) query(q query) []pair {
	var out []pair
	if p, ok := m.pairs[q.from]; ok && q.span == only(q.from) {
		out = append(out, p) // the common case needs no walk
	} else {
		for k, p := range m.pairs {
			if q.holds(k) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b pair) int {
		if q.desc {
			a, b = b, a
		}
		return strings.Compare(a.key, b.key)
	})
	if q.limit > 0 && len(out) > q.limit {
		out = out[:q.limit]
	}
	if q.keysOnly {
		for i := range out {
			out[i].value = nil
		}
	}
	return out
}

// readAt is what a span held at a past revision: what has not changed since, and
// of the rest the last change until then. A key that changed since, and before
// that only in the forgotten part, cannot be told.
func (m *machine) readAt(rev int64, s span) ([]pair, error) {
	if rev > m.rev {
		return nil, ErrNotFound
	}
	then, since := make(map[string]change), make(map[string]bool)
	for _, b := range m.recent {
		for _, c := range b.changes {
			switch {
			case !s.holds(c.key):
			case b.rev <= rev:
				then[c.key] = c
			default:
				since[c.key] = true
			}
		}
	}
	var out []pair
	for key := range since {
		if c, known := then[key]; known && !c.deleted {
			out = append(out, c.pair)
		} else if !known && m.floor > 0 {
			return nil, errCompacted
		}
	}
	for _, p := range m.query(query{span: s}) {
		if !since[p.key] {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	return out, nil
}

// holds tells whether every condition is met.
func (m *machine) holds(conds []cond) bool {
	for _, c := range conds {
		if m.pairs[c.key].mod != c.mod {
			return false
		}
	}
	return true
}

// leased tells whether every lease that ops name lives.
func (m *machine) leased(ops []op) bool {
	for _, o := range ops {
		if _, ok := m.leases[o.lease]; o.lease != 0 && !ok {
			return false
		}
	}
	return true
}

// plan turns ops into the changes of the next revision; nothing is changed yet.
func (m *machine) plan(ops []op) []change {
	var out []change
	rev := m.rev + 1
	for _, o := range ops {
		if !o.del {
			out = append(out, change{pair: pair{o.key, o.value, rev, o.lease}})
			continue
		}
		s := only(o.key)
		if o.to != "" {
			s.to = o.to
		}
		for _, p := range m.query(query{span: s, keysOnly: true}) {
			out = append(out, change{pair: pair{key: p.key, mod: rev}, deleted: true})
		}
	}
	return out
}

// orphans are the deletions due when a lease ends.
func (m *machine) orphans(lease int64) []op {
	var out []op
	for k, p := range m.pairs {
		if p.lease == lease {
			out = append(out, op{key: k, del: true})
		}
	}
	slices.SortFunc(out, func(a, b op) int { return strings.Compare(a.key, b.key) })
	return out
}

// expired returns the leases whose time has run out, in order of id.
func (m *machine) expired(now time.Time) []int64 {
	var out []int64
	for id, l := range m.leases {
		if !now.Before(l.until) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// commit makes changes the next revision. No change, no revision.
func (m *machine) commit(changes []change) {
	if len(changes) == 0 {
		return
	}
	m.rev++
	for _, c := range changes {
		if c.deleted {
			delete(m.pairs, c.key)
		} else {
			m.pairs[c.key] = c.pair
		}
	}
	m.recent = append(m.recent, batch{rev: m.rev, changes: changes})
	if n := len(m.recent) - historyLen; n > 0 {
		m.recent = slices.Delete(m.recent, 0, n)
		m.floor += int64(n)
	}
	m.stir()
}

// compact forgets the history.
func (m *machine) compact() {
	m.recent, m.floor = nil, m.rev
	m.stir()
}

// stir wakes the watchers.
func (m *machine) stir() {
	close(m.wake)
	m.wake = make(chan struct{})
}

// since returns what happened in spans from a revision on, and the revision to
// go on from; ok is false when a part of it is forgotten.
func (m *machine) since(from int64, spans []span) (out []batch, next int64, ok bool) {
	if from <= m.floor {
		return nil, from, false
	}
	for _, b := range m.recent[min(from-m.floor-1, int64(len(m.recent))):] {
		var seen []change
		for _, c := range b.changes {
			if slices.ContainsFunc(spans, func(s span) bool { return s.holds(c.key) }) {
				seen = append(seen, c)
			}
		}
		if len(seen) > 0 {
			out = append(out, batch{rev: b.rev, changes: seen})
		}
	}
	return out, max(from, m.rev+1), true
}
