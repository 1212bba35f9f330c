package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"rhumb/placement"
)

// How often a Session writes: changes of one key are gathered, and a key is
// written once a second at most, except where a vote changes its mind.
const (
	gatherTime = 100 * time.Millisecond
	keyEvery   = time.Second
)

// Session is the leased presence of one unit: what it says of itself and of
// others for as long as it lives. The setters never block and never fail; the
// latest value of a key wins. After a lost lease everything is put anew.
type Session struct {
	store *Store
	node  string
	ttl   time.Duration
	wake  chan struct{} // holds one token: something is to be written at once

	mu      sync.Mutex
	want    map[string]*wanted
	renewed time.Time // of the lease, by the store's answer
}

// wanted is one key of a session: what should be in the store, and what is.
type wanted struct {
	value   []byte // nil: to be deleted
	stored  []byte // nil: not there, as far as we know
	mod     int64  // revision of the key, as far as we know; 0: absent
	unsure  bool   // a write without an answer may have changed it, or may do so yet
	at      time.Time
	changed time.Time
	urgent  bool
	vote    placement.Vote // of vote keys, to tell a change of mind
}

// Session returns a session which Run brings to life; ttl 0 means ten seconds.
func (s *Store) Session(node string, ttl time.Duration) *Session {
	if ttl == 0 {
		ttl = 10 * time.Second
	}
	return &Session{store: s, node: node, ttl: ttl, wake: make(chan struct{}, 1), want: make(map[string]*wanted)}
}

// set states what a key should hold; nil deletes it.
func (s *Session) set(key string, value []byte, urgent bool) *wanted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setLocked(key, value, urgent)
}

func (s *Session) setLocked(key string, value []byte, urgent bool) *wanted {
	w := s.want[key]
	if w == nil {
		w = &wanted{}
		s.want[key] = w
	}
	if !w.dirty() {
		w.changed = time.Now() // of the first change that waits, not of the last
	}
	w.value, w.urgent = value, w.urgent || urgent
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return w
}

// SetVote casts or renews a vote. A change of state, fault or hold is written
// at once, anything else within a second.
func (s *Session) SetVote(v placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := voteKey(v.Object, v.Vantage)
	old, ok := s.want[key]
	urgent := !ok || old.value == nil || old.vote.State != v.State || old.vote.Fault != v.Fault || old.vote.Hold != v.Hold || old.vote.Without != v.Without || old.vote.Sure != v.Sure
	s.setLocked(key, seal(v), urgent).vote = v
}

// DropVote takes this node's vote on an object back; votes are cast with the
// session's node as their vantage.
func (s *Session) DropVote(id placement.ClusterID) { s.set(voteKey(id, s.node), nil, true) }

// SetNode reports the unit's state.
func (s *Session) SetNode(n placement.Node) { s.set(nodeKey(n.Name, n.Unit), seal(n), false) }

// SetAnnounced says at which step the node announces a prefix; Withdrawn is
// said too, it counts for nobody. Written at once: slots are counted by it.
func (s *Session) SetAnnounced(a placement.Announced) {
	s.set(announceKey(a.Prefix, a.Node), seal(a), true)
}

// DropAnnounced forgets a prefix.
func (s *Session) DropAnnounced(p netip.Prefix) { s.set(announceKey(p, s.node), nil, true) }

// SetLoad reports what a cluster carries as this node sees it; the loads of
// several nodes of a cluster add up.
func (s *Session) SetLoad(l placement.Load) { s.set(loadKey(l.Cluster, s.node), seal(l), false) }

// DropLoad takes the report on a cluster back.
func (s *Session) DropLoad(id placement.ClusterID) { s.set(loadKey(id, s.node), nil, false) }

// SetDemand reports what this node's name server is asked; the reports of all nodes
// add up.
func (s *Session) SetDemand(r placement.DemandReport) { s.set(demandKey(s.node), seal(r), false) }

// Renewed returns when the store last renewed what this session holds; for the time of
// the lease after it others may still count on it. It is zero before the first lease.
func (s *Session) Renewed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewed
}

func (s *Session) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewed = time.Now()
}

// Run keeps the session alive until ctx ends, then gives it up: its keys vanish
// at once.
func (s *Session) Run(ctx context.Context) error {
	for failing := false; ctx.Err() == nil; {
		gctx, cancel := context.WithTimeout(ctx, s.ttl/3)
		lease, err := s.store.kv.grant(gctx, s.ttl)
		cancel()
		if err != nil {
			if !failing && ctx.Err() == nil {
				s.store.log.Warn("store: no lease for the session", "node", s.node, "err", err)
			}
			failing = true
			pause(ctx, retryTime)
			continue
		}
		failing = false
		s.renew()
		s.forget()
		err = s.hold(ctx, lease)
		if ctx.Err() != nil {
			s.store.release(lease)
			break
		}
		s.store.log.Warn("store: session begins anew", "node", s.node, "err", err)
	}
	return nil
}

// forget notes that nothing of ours is stored, as after a lost lease.
func (s *Session) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, w := range s.want {
		w.stored, w.mod, w.unsure, w.at, w.urgent = nil, 0, false, time.Time{}, true
		if w.value == nil {
			delete(s.want, key)
		}
	}
}

// hold writes what changes and renews the lease, until it is lost.
func (s *Session) hold(ctx context.Context, lease int64) error {
	renew := time.NewTicker(s.ttl / 3)
	defer renew.Stop()
	flush := time.NewTimer(0)
	defer flush.Stop()
	for failing := false; ; {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-renew.C:
			kctx, cancel := context.WithTimeout(ctx, s.ttl/3)
			if err = s.store.kv.keep(kctx, lease); err == nil {
				s.renew()
				err = s.audit(kctx)
			}
			cancel()
		case <-s.wake:
		case <-flush.C:
		}
		if err == nil {
			err = s.flush(ctx, lease)
		}
		if errors.Is(err, errLease) {
			return err
		}
		if err != nil && !failing && ctx.Err() == nil {
			s.store.log.Warn("store: session not written", "node", s.node, "err", err)
		}
		failing = err != nil
		flush.Reset(s.next(err))
	}
}

// audit has put again what is gone although nobody here took it away: another session
// of this node wrote the key last, and ended. What another wrote stands while it lasts.
func (s *Session) audit(ctx context.Context) error {
	for keys := range slices.Chunk(s.resting(), 64) {
		queries := make([]query, len(keys))
		for i, key := range keys {
			queries[i] = query{span: only(key), keysOnly: true}
		}
		found, _, err := s.store.read(ctx, queries...)
		if err != nil {
			return err
		}
		s.mu.Lock()
		for i, key := range keys {
			if w := s.want[key]; len(found[i]) == 0 && w != nil && w.value != nil {
				w.unsure, w.mod, w.urgent = true, 0, true
			}
		}
		s.mu.Unlock()
	}
	return nil
}

// resting are the keys which are stored, and wait for nothing, in order.
func (s *Session) resting() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, w := range s.want {
		if w.stored != nil && !w.dirty() {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// retryTime is how soon a failed write is tried again.
const retryTime = 250 * time.Millisecond

// next returns how long to wait for the next write.
func (s *Session) next(err error) time.Duration {
	if err != nil {
		return retryTime
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wait, now := time.Hour, time.Now()
	for _, w := range s.want {
		if w.dirty() {
			wait = min(wait, w.due().Sub(now))
		}
	}
	return max(wait, 0)
}

func (w *wanted) dirty() bool {
	return w.unsure || !bytes.Equal(w.value, w.stored) || (w.value == nil) != (w.stored == nil)
}

// due is when a changed key may be written.
func (w *wanted) due() time.Time {
	if w.urgent {
		return time.Time{}
	}
	t := w.changed.Add(gatherTime)
	if soonest := w.at.Add(keyEvery); soonest.After(t) {
		return soonest
	}
	return t
}

// flush writes the keys that are due, in requests of a permitted size. Each write
// demands the revisions that its keys were last known to have: one that was given up,
// and reaches the store after its successor, must not undo it.
func (s *Session) flush(ctx context.Context, lease int64) error {
	for lost := 0; lost < maxTries; {
		ops, conds := s.dueOps(lease)
		if len(ops) == 0 {
			return nil
		}
		wctx, cancel := context.WithTimeout(ctx, s.ttl/3)
		rev, ok, err := s.store.write(wctx, conds, ops)
		if err == nil && !ok {
			lost++
			err = s.look(wctx, ops)
		}
		cancel()
		switch {
		case err != nil:
			s.doubt(ops)
			return err
		case ok:
			s.wrote(ops, rev)
		}
	}
	return fmt.Errorf("store: session of %s: %w", s.node, ErrConflict)
}

// doubt notes that a write had no answer: also what seems to be there already is
// written again.
func (s *Session) doubt(ops []op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range ops {
		s.want[o.key].unsure = true
	}
}

// look learns the revisions of keys which are not what we took them for: a write of
// ours came through without an answer, or somebody else wrote them.
func (s *Session) look(ctx context.Context, ops []op) error {
	queries := make([]query, len(ops))
	for i, o := range ops {
		queries[i] = query{span: only(o.key), keysOnly: true}
	}
	found, _, err := s.store.read(ctx, queries...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range ops {
		s.want[o.key].mod = 0
		for _, p := range found[i] {
			s.want[o.key].mod = p.mod
		}
	}
	return nil
}

// dueOps gathers what may be written now, in order of key, and what it is to replace.
func (s *Session) dueOps(lease int64) (out []op, conds []cond) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for key, w := range s.want {
		if !w.dirty() || w.due().After(now) {
			continue
		}
		if w.value == nil {
			out = append(out, op{key: key, del: true})
		} else {
			out = append(out, op{key: key, value: w.value, lease: lease})
		}
	}
	slices.SortFunc(out, func(a, b op) int { return strings.Compare(a.key, b.key) })
	size := 0
	for i := range out {
		if size += len(out[i].value); i == 64 || (i > 0 && size > chunkSize) {
			out = out[:i]
			break
		}
	}
	for _, o := range out {
		conds = append(conds, cond{o.key, s.want[o.key].mod})
	}
	return out, conds
}

// wrote notes what is stored now, since a revision; a key that changed meanwhile
// stays due.
func (s *Session) wrote(ops []op, rev int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, o := range ops {
		w := s.want[o.key]
		w.stored, w.mod, w.unsure, w.at = o.value, rev, false, now
		if o.del {
			w.mod = 0
		}
		if w.dirty() {
			continue
		}
		w.urgent = false
		if w.value == nil {
			delete(s.want, o.key)
		}
	}
}
