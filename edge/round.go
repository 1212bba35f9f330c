package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// Pace and patience of a revival.
const (
	probeEvery = 60 * time.Millisecond
	probeBurst = 10 // as often at probeEvery; then each probeSlow
	// probeSlow goes on after the burst: while routes still lead to the dead
	// site every answer is lost, and routing takes seconds.
	probeSlow   = time.Second
	reviveLife  = 14 * time.Second // after the verdict; held packets wait 15 s
	settleFor   = 5 * time.Millisecond
	staleAfter  = 3 * time.Second // a client's retransmission comes sooner
	objectLimit = 3 * time.Second // for the object to be found here
	retryEvery  = 20 * time.Millisecond
	spreadMost  = 300 * time.Millisecond
	heardQueue  = 16
	// unsentFirst is unsentMost for a while after a revival: what its client cannot take
	// yet is not copied before others have had their first octets.
	unsentFirst = 16 << 10
)

// How revivals end.
const (
	reviveOK        = "ok"
	reviveStale     = "stale"        // the client has asked for what the record does not know: reset
	reviveNoAnswer  = "no_answer"    // dropped silently
	reviveGone      = "gone"         // the client has no such connection any more
	reviveHash      = "hash_refused" // the object is not here: reset
	reviveLost      = "claim_lost"   // the owner lives, or somebody was faster
	reviveFull      = "full"         // no room here, or no such service: reset
	reviveFailed    = "failed"       // the kernel refused: reset
	reviveKept      = "kept"         // by the socket, which the store held while the process was away
	reviveAgain     = "again"        // begun anew: the client was further than it had told
	reviveObserve   = "observe"      // would have been revived
	reviveNoRecords = "no_record"    // left by an earlier process, known to no Backup: reset
)

// Steps of a revival, as timed.
const (
	stepAsk     = "ask"     // from the verdict to the first probe,
	stepAnswer  = "answer"  // to the client's word where it stands,
	stepRestore = "restore" // to its socket
)

// round is one session being revived.
type round struct {
	stored                        // the claimed record, its epoch not yet risen
	epoch  uint64                 // of the session to be
	begun  time.Time              // the verdict
	until  time.Time              // no answer after this
	own    bool                   // of an earlier process of this site
	nth    int                    // restore of this session, from 0
	trail                         // how far it came, and when
	state  tcprepair.State        // what the session was restored from
	heard  chan tcprepair.Segment // what the client says; the newest, where not all fits
	wave   *wave                  // nil: it is by itself from its beginning
	taken  bool                   // from the wave; under its lock
	due    time.Time              // its first probe, in a wave
	over   chan struct{}          // closed by end
	done   chan struct{}          // closed when it has ended
	end    func()                 // the owner lives
}

// trail is when a round came to each of its steps; a zero time: not yet. It is the
// round's own goroutine's, like the rest.
type trail struct {
	asked    time.Time // the first probe left
	probes   int
	told     time.Time // its client said where it stands
	restored time.Time // its socket spoke
}

// took is from the first probe to the answer; 0: the client spoke by itself.
func (t *trail) took() time.Duration {
	if t.asked.IsZero() || t.told.IsZero() || t.told.Before(t.asked) {
		return 0
	}
	return t.told.Sub(t.asked)
}

// sight is what is known before the client is heard.
func (r *round) sight() sight { return sight{piece: uint32(len(r.piece))} }

// begin enters a round and claims its flow, unless there is one.
func (v *revival) begin(st stored, epoch uint64, now time.Time, life time.Duration) *round {
	return v.beginIn(nil, st, epoch, now, life)
}

// beginIn is begin of a round of a wave.
func (v *revival) beginIn(w *wave, st stored, epoch uint64, now time.Time, life time.Duration) *round {
	v.a.uploads.position(&st.rec)
	st.rec.RcvNxt += uint32(len(st.piece)) // the client stands behind it
	rd := &round{stored: st, epoch: epoch, begun: now, until: now.Add(life), own: st.from == v.a.cfg.Site, wave: w,
		heard: make(chan tcprepair.Segment, heardQueue), over: make(chan struct{}), done: make(chan struct{})}
	rd.end = sync.OnceFunc(func() { close(rd.over) })
	v.mu.Lock()
	there := v.rounds[st.rec.Key] != nil
	if !there {
		v.rounds[st.rec.Key] = rd
	}
	v.mu.Unlock()
	if there {
		return nil
	}
	// Not under the lock: it tells other sites, and each packet that is heard takes it.
	v.a.strays.Claim(st.rec.Key)
	return rd
}

// run is one round from where it stands to its end, and looks after the session then. The
// next probe leaves after wait.
func (v *revival) run(ctx context.Context, rd *round, seen sight, wait time.Duration) {
	s, result, err := v.attempt(ctx, rd, seen, wait)
	if s = v.conclude(rd, s, result, err); s == nil {
		return
	}
	if first, err := reached(s); err == nil { // else it has ended
		v.watch(ctx, s, rd, first)
	}
}

// conclude ends a round; nil: there is no session.
func (v *revival) conclude(rd *round, s *session, result string, err error) *session {
	a, k := v.a, rd.rec.Key
	defer close(rd.done)
	defer func() { rd.rec.Cover = frame.Cover{} }() // its secrets are the session's now, or nobody's
	v.mu.Lock()
	delete(v.rounds, k)
	v.mu.Unlock()
	a.m.revivals.WithLabelValues(result).Inc()
	if err != nil {
		a.log.Debug("session not revived", "peer", rd.from, "result", result, "err", err)
	}
	if result != reviveOK {
		a.uploads.unclaim(k)
	}
	switch result {
	case reviveOK:
		a.strays.Release(k)
		a.events.revived()
		v.tellOwner(rd)
		v.tellKeepers(rd)
		v.went(s, rd)
		return s
	case reviveLost:
		if rd.from != a.cfg.Site {
			rd.rec.RcvNxt -= uint32(len(rd.piece))
			a.replica.putBack(rd.stored)
			a.strays.Stayed(k, rd.from) // what waits belongs there
			return nil
		}
	}
	// The kernel has no such session and says so to the client.
	a.quiet.remove(flowOf(k))
	a.strays.Release(k)
	return nil
}

// went counts how long a session's silence was, and how much of it each step.
func (v *revival) went(s *session, rd *round) {
	m := v.a.m
	m.stall.Observe(rd.restored.Sub(rd.begun).Seconds())
	first := rd.told // it may speak unasked
	if !rd.asked.IsZero() && rd.asked.Before(first) {
		first = rd.asked
	}
	for step, took := range map[string]time.Duration{stepAsk: first.Sub(rd.begun), stepAnswer: rd.told.Sub(first), stepRestore: rd.restored.Sub(rd.told)} {
		m.steps.WithLabelValues(step).Observe(took.Seconds())
	}
	if v.seen != nil {
		v.seen(s, rd)
	}
}

// tellOwner tells the old owner, if it can be reached after all, that it has the
// session no more. One that cannot hears it when it speaks of the session.
func (v *revival) tellOwner(rd *round) {
	if rd.from == v.a.cfg.Site {
		return
	}
	if l := v.a.links.have(rd.from); l != nil {
		l.try(frame.Frame{Type: frame.Claimed, Key: rd.rec.Key, Epoch: rd.epoch}) // nobody may be there to take it
	}
}

// attempt probes, listens and restores.
func (v *revival) attempt(ctx context.Context, rd *round, seen sight, wait time.Duration) (*session, string, error) {
	// What the dead process left of the connection would take the answers.
	if rd.own {
		if _, err := tcprepair.Destroy(rd.rec.Key.VIP, rd.rec.Key.Client); err != nil {
			return nil, reviveFailed, err
		}
	}
	aheadAt := time.Now() // if it is
	next := time.NewTimer(wait)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, reviveLost, ctx.Err()
		case <-rd.over:
			return nil, reviveLost, nil
		case seg := <-rd.heard:
			was := seen
			seen = v.fold(seen, rd.rec, seg)
			switch {
			case seen.gone:
				return nil, reviveGone, nil
			case seen.ready && !was.ready:
				rd.told = time.Now()
				next.Reset(settleFor) // what is on its way is newer
			case seen.ahead && !was.ahead:
				aheadAt = time.Now()
			}
			continue
		case <-next.C:
			if rd.ended(ctx) {
				continue
			}
		}
		now := time.Now()
		switch {
		case seen.ready:
			s, result, err := v.restore(ctx, rd, seen)
			if result != "" {
				return s, result, err
			}
			next.Reset(retryEvery)
			continue
		case seen.ahead && now.Sub(aheadAt) > staleAfter:
			return nil, reviveStale, nil
		case now.After(rd.until):
			return nil, v.silent(seen), nil
		}
		if rd.probes++; rd.probes == 1 {
			rd.asked = now
		}
		v.ask(rd, now)
		next.Reset(probePause(rd.probes))
	}
}

// ended reports whether there is nothing more to do for it.
func (r *round) ended(ctx context.Context) bool {
	select {
	case <-r.over:
		return true
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// ask sends a probe.
func (v *revival) ask(rd *round, now time.Time) {
	if err := v.wire.Send(probeOf(rd.rec, now)); err != nil {
		v.a.log.Debug("probe", "err", err)
	}
}

// listen folds what the client has said so far.
func (v *revival) listen(rd *round, seen sight) sight {
	for {
		select {
		case seg := <-rd.heard:
			seen = v.fold(seen, rd.rec, seg)
		default:
			return seen
		}
	}
}

// silent names the end of a round whose time is over.
func (v *revival) silent(seen sight) string {
	if seen.ahead {
		return reviveStale
	}
	return reviveNoAnswer
}

// probePause is the time after the nth probe, a sixth of it by chance.
func probePause(n int) time.Duration {
	pause := probeEvery
	if n >= probeBurst {
		pause = probeSlow
	}
	return pause - pause/12 + rand.N(pause/6)
}

func (v *revival) fold(seen sight, rec frame.Record, seg tcprepair.Segment) sight {
	seen, what := seen.fold(rec, seg)
	v.a.m.answers.WithLabelValues(what).Inc()
	return seen
}

// restore makes the socket and serves the session from where its client stands.
// An empty result means: not yet.
func (v *revival) restore(ctx context.Context, rd *round, seen sight) (*session, string, error) {
	a, now := v.a, time.Now()
	rec := rd.rec
	rec.Epoch = rd.epoch
	if at := offsetOf(rec, seen.best.Ack); at < 0 {
		return nil, reviveStale, errEarlier // bytes that no record tells of
	}
	mine := v.a.uploads.claim(&rec, now)
	switch {
	case mine.none:
		return nil, reviveStale, errUnknown
	case mine.wait:
		return nil, "", nil
	}
	o := seen.offer(rec, now)
	o.Record.RcvNxt, o.Input = rec.RcvNxt-uint32(len(rd.piece)), bytes.Clone(rd.piece)
	if len(mine.tail) > 0 {
		o.Record.RcvNxt, o.Input = rec.RcvNxt-uint32(len(mine.tail)), mine.tail
	}
	o.Name = v.nameFor(objectOf{rec.Service, rec.Object}, now)
	s, err := a.admit(o)
	if result, final := refusal(err, now.Sub(rd.begun)); err != nil {
		if !final || errors.Is(err, errObject) && now.Before(rd.until) && v.coming(rec) {
			return nil, "", nil
		}
		return nil, result, err
	}
	o.RTT = tripFrom(tripOf(rec.Options), rd.took())
	rd.state = stateOf(o)
	r, err := tcprepair.Restore(rd.state, nil, 0)
	if err != nil {
		return nil, reviveFailed, err
	}
	if err := r.Learn(v.wire); err != nil {
		return nil, reviveFailed, errors.Join(err, r.Close())
	}
	if !a.tab.take(s.key, s.epoch, s.gen.Load(), now) {
		return nil, reviveLost, errors.Join(errStale, r.Close())
	}
	if t := s.turn.Load(); t.off.Load() < t.wire.size() && rd.state.Window.SndWnd >= uint32(rd.state.Options.MSS) {
		r.Heard()
	}
	a.uploads.adopt(s, mine, r)
	a.uploads.readmit(s, r)
	if s.conn, err = r.Activate(); err != nil {
		a.tab.untake(s.key)
		a.uploads.dismiss(s)
		return nil, reviveFailed, fmt.Errorf("edge: revive: %w", err)
	}
	rd.restored = time.Now()
	v.notice(s, rd.state)
	limitUnsent(s.conn, unsentFirst)
	time.AfterFunc(settleAfter, func() { // it may have ended
		_ = tcprepair.Calm(s.conn)
		limitUnsent(s.conn, unsentMost)
	})
	s.heirOf = rd.from
	a.run(ctx, s)
	return s, reviveOK, nil
}

// notice tells a client that is sent nothing now the time of its session. What the dead owner's host
// says when nobody keeps that back any longer is older then; else a client at rest would hear
// the end of a session that goes on here.
func (v *revival) notice(s *session, st tcprepair.State) {
	if t := s.turn.Load(); !st.Options.Timestamps || t.off.Load() < t.wire.size() {
		return
	}
	n, err := tcprepair.Notice(s.conn, st)
	if err == nil {
		err = v.wire.Send(n)
	}
	if err != nil {
		v.a.log.Debug("tell a client the time", "err", err)
	}
}

// refusal tells how a round ends by an error of admit, and whether it does:
// objects are found and rates fall while it lasts.
func refusal(err error, after time.Duration) (result string, final bool) {
	switch {
	case errors.Is(err, errRate):
		return reviveFull, after > reviveLife
	case errors.Is(err, errObject):
		return reviveHash, after > objectLimit
	case errors.Is(err, errStale):
		return reviveLost, true
	case errors.Is(err, errPositions):
		return reviveStale, true
	case errors.Is(err, errTemplate):
		return reviveHash, true
	}
	return reviveFull, true
}
