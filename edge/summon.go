package edge

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"rhumb/edge/frame"
)

// A site may be down by the word of several vantages and be kept in service all the same,
// since others are thought to be down already: perhaps it is the monitor that is broken. Its
// sessions are not revived all at once then. But where a client's packets come to another site,
// which asks for the session and asks again, its owner has not answered: that one goes on.
const (
	summonAfter  = 500 * time.Millisecond // from the first question; a living owner answers sooner
	summonWithin = 6 * time.Second        // then a question is a first one; packets wait no longer for the claim
	summonsMost  = 1 << 16
)

// summons tell which sessions are asked for in vain. It is a plain value; revival.mu.
type summons struct {
	first map[frame.Key]time.Time // question, by session
	swept time.Time               // when they were looked through last for old ones
}

// asked takes a question for a session and reports whether it is in vain for long enough.
func (m *summons) asked(k frame.Key, now time.Time) bool {
	first, ok := m.first[k]
	if since := now.Sub(first); ok && since <= summonWithin {
		return since >= summonAfter
	}
	if len(m.first) >= summonsMost && now.Sub(m.swept) > summonWithin {
		m.swept = now
		maps.DeleteFunc(m.first, func(_ frame.Key, first time.Time) bool { return now.Sub(first) > summonWithin })
	}
	if m.first == nil {
		m.first = map[frame.Key]time.Time{}
	}
	if ok || len(m.first) < summonsMost {
		m.first[k] = now
	}
	return false
}

// doubtful is what a revival knows of sites whose verdict is held back.
type doubtful struct {
	doubted  atomic.Pointer[[]string]
	calls    summons // revival.mu
	summoned chan frame.Key
}

func newDoubtful() *doubtful {
	d := &doubtful{summoned: make(chan frame.Key, returnedQueue)}
	d.doubted.Store(&[]string{})
	return d
}

func (d *doubtful) has(site string) bool { return slices.Contains(*d.doubted.Load(), site) }

// SetDoubted tells which sites are down by the verdict of several vantages, and kept in service
// since measurement would remove too much at once. A session of theirs whose record is
// here goes on here when it is asked for in vain. It does not block.
func (a *Agent) SetDoubted(sites []string) {
	v := a.revival
	sites = slices.Clone(sites)
	v.mu.Lock()
	v.calls = summons{}
	v.mu.Unlock()
	v.doubted.Store(&sites)
	v.wake()
}

// asked is told of a question for a session whose record is here. It does not block: packets wait.
func (v *revival) asked(k frame.Key) {
	if len(*v.doubted.Load()) == 0 || !v.has(v.a.replica.owner(k)) {
		return
	}
	v.mu.Lock()
	now := v.calls.asked(k, time.Now())
	v.mu.Unlock()
	if !now {
		return
	}
	select {
	case v.summoned <- k:
	default: // it is asked for again
	}
}

// summon begins the revival of one session, unless its site is in no doubt by now.
func (v *revival) summon(ctx context.Context, k frame.Key) {
	if v.a.tab.get(k) != nil {
		return
	}
	st, ok := v.a.replica.takeOne(k, func(st stored) bool { return v.has(st.from) && v.a.mayRevive(st.rec) })
	if !ok {
		return
	}
	if rd := v.begin(st, st.rec.Epoch+1, time.Now(), reviveLife); rd != nil {
		v.a.log.Info("reviving a session that is asked for in vain", "peer", st.from)
		v.a.wg.Go(func() { v.run(ctx, rd, rd.sight(), 0) })
	}
}

// takeOne is take for one session.
func (r *replica) takeOne(k frame.Key, may func(stored) bool) (stored, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, ok := r.store[k]
	if !ok || st.deposit || !may(st) {
		return stored{}, false
	}
	r.release(k)
	return st, true
}
