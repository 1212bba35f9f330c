package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

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
	settleFor   = 10 * time.Millisecond
	staleAfter  = 3 * time.Second // a client's retransmission comes sooner
	objectLimit = 3 * time.Second // for the object to be found here
	retryEvery  = 20 * time.Millisecond
	spreadMost  = 300 * time.Millisecond
	heardQueue  = 16
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
	reviveAgain     = "again"        // begun anew: the client was further than it had told
	reviveObserve   = "observe"      // would have been revived
	reviveNoRecords = "no_record"    // left by an earlier process, known to no Backup: reset
)

// revival brings back the sessions of sites and processes that died. Safe for
// concurrent use.
type revival struct {
	a    *Agent
	wire *tcprepair.Wire // nil: nothing can be probed, nothing is revived
	// ready tells that there is a wire. It is set once, by who opens it.
	ready atomic.Bool
	// opened tells that the kernel was asked once; it is Agent.Run's, then Run's.
	opened bool
	woken  chan struct{} // down was replaced, or the services were
	down   atomic.Pointer[[]string]

	mu     sync.Mutex
	rounds map[frame.Key]*round
	// orphans are sessions that an earlier process of this site left, until
	// their record comes or their time is over.
	orphans map[frame.Key]bool
	// fetched is when an object was last looked for by its name.
	fetched map[objectOf]time.Time
}

// round is one session being revived.
type round struct {
	stored                        // the claimed record, its epoch not yet risen
	epoch  uint64                 // of the session to be
	begun  time.Time              // the verdict
	until  time.Time              // no answer after this
	own    bool                   // of an earlier process of this site
	nth    int                    // restore of this session, from 0
	took   time.Duration          // from the first probe to the answer; 0: it spoke by itself
	state  tcprepair.State        // what the session was restored from
	heard  chan tcprepair.Segment // what the client says; what does not fit is lost
	over   chan struct{}          // closed by end
	done   chan struct{}          // closed when it has ended
	end    func()                 // the owner lives
}

func newRevival(a *Agent) *revival {
	v := &revival{a: a, woken: make(chan struct{}, 1), rounds: map[frame.Key]*round{}, orphans: map[frame.Key]bool{}, fetched: map[objectOf]time.Time{}}
	v.down.Store(&[]string{})
	return v
}

// on reports whether the kernel lets us send segments of sessions: those of lost
// sites can be revived, and clients of moved ones be asked. Where it does not,
// sessions move and end as without all that.
func (v *revival) on() bool { return v.ready.Load() }

func (v *revival) close() error {
	if v.wire == nil {
		return nil
	}
	return v.wire.Close()
}

// SetDown tells which sites are down by the verdict of several vantages. The
// sessions of a site that falls, whose records are here, go on here; no site
// of the list is chosen as a Backup. It does not block.
func (a *Agent) SetDown(sites []string) {
	sites = slices.DeleteFunc(slices.Clone(sites), func(s string) bool { return s == a.cfg.Site })
	a.revival.down.Store(&sites)
	a.revival.wake()
	a.prep.wake()
}

func (v *revival) wake() {
	select {
	case v.woken <- struct{}{}:
	default:
	}
}

// mayAsk reports whether the client of a moved session is asked where it stands.
func (a *Agent) mayAsk(s *session) bool { return a.revival.on() && s.svc.revives() }

func (a *Agent) isDown(site string) bool { return slices.Contains(*a.revival.down.Load(), site) }

// alive are the members that are not down.
func (a *Agent) alive() []Peer {
	return slices.DeleteFunc(slices.Clone(a.view.Load().peers), func(p Peer) bool { return a.isDown(p.Name) })
}

// Shadowed reports whether there is a record of a session here: its packets are
// worth keeping while its owner is silent.
func (a *Agent) Shadowed(k frame.Key) bool {
	svc := a.view.Load().vips[k.VIP]
	return a.revival.on() && svc != nil && svc.revives() && a.replica.has(k)
}

// KeptFor names the site whose session would be revived here after its loss, "" for
// none. Sites that get its packets wait for that.
func (a *Agent) KeptFor(k frame.Key) string {
	if !a.Shadowed(k) {
		return ""
	}
	return a.replica.owner(k)
}

// Heard is told of a packet of a claimed flow. It does not block and keeps
// nothing of packet.
func (a *Agent) Heard(k frame.Key, packet []byte) {
	seg, err := tcprepair.ParseSegment(packet)
	if err != nil || seg.Src != k.Client || seg.Dst != k.VIP {
		return
	}
	a.revival.mu.Lock()
	rd := a.revival.rounds[k]
	a.revival.mu.Unlock()
	if rd == nil {
		return
	}
	select {
	case rd.heard <- seg:
	default:
	}
}

// Run follows the verdicts until the context ends. left are the sessions of an
// earlier process of this site.
func (v *revival) Run(ctx context.Context, g *errgroup.Group, left []frame.Key) error {
	v.followUp(ctx, left)
	var known []string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.woken:
		}
		v.followUp(ctx, v.a.openRevival(ctx, g))
		now := *v.down.Load()
		for _, site := range known {
			if !slices.Contains(now, site) {
				v.rose(site)
			}
		}
		for _, site := range now {
			if !slices.Contains(known, site) {
				v.lost(ctx, site)
			}
		}
		known = now
	}
}

// followUp goes on with what an earlier process left.
func (v *revival) followUp(ctx context.Context, left []frame.Key) {
	if len(left) > 0 {
		v.a.wg.Go(func() { v.recall(ctx, left) })
	}
}

// lost begins the revival of a site's sessions. All their packets are held from
// here on; the probes leave over a moment, in proportion to their number.
func (v *revival) lost(ctx context.Context, site string) {
	now, a := time.Now(), v.a
	claimed := a.replica.take(site, a.mayRevive)
	if len(claimed) == 0 {
		return
	}
	spread := min(time.Second*time.Duration(len(claimed))/time.Duration(a.moves.RestoreRate), spreadMost)
	a.log.Info("reviving sessions", "peer", site, "sessions", len(claimed))
	for i, st := range claimed {
		if a.tab.get(st.rec.Key) != nil {
			continue // it came here before its owner was lost
		}
		rd := v.begin(st, st.rec.Epoch+1, now, reviveLife)
		if rd == nil {
			continue
		}
		wait := spread*time.Duration(i)/time.Duration(len(claimed)) + rand.N(retryEvery)
		a.wg.Go(func() { v.run(ctx, rd, wait) })
	}
}

// mayRevive leaves the records of services that are not revived, or are only
// counted, where they are.
func (a *Agent) mayRevive(rec frame.Record) bool {
	svc := a.view.Load().vips[rec.Key.VIP]
	if !svc.couldRevive(&rec) {
		return false
	}
	if !svc.revives() && (svc.Revival == ModeAct || svc.Revival == ModeObserve) {
		a.m.revivals.WithLabelValues(reviveObserve).Inc()
	}
	return svc.revives() && a.revival.on() && a.uploads.knows(&rec)
}

// couldRevive reports whether a record is one of a session that a service with
// revival goes on with.
func (s *service) couldRevive(rec *frame.Record) bool {
	return s != nil && rec.Flags&frame.Pinned == 0
}

// begin enters a round and claims its flow, unless there is one.
func (v *revival) begin(st stored, epoch uint64, now time.Time, life time.Duration) *round {
	v.a.uploads.position(&st.rec)
	st.rec.RcvNxt += uint32(len(st.piece)) // the client stands behind it
	rd := &round{stored: st, epoch: epoch, begun: now, until: now.Add(life), own: st.from == v.a.cfg.Site,
		heard: make(chan tcprepair.Segment, heardQueue), over: make(chan struct{}), done: make(chan struct{})}
	rd.end = sync.OnceFunc(func() { close(rd.over) })
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.rounds[st.rec.Key] != nil {
		return nil
	}
	v.rounds[st.rec.Key] = rd
	v.a.strays.Claim(st.rec.Key)
	return rd
}

// rose ends what was begun for a site that is not down after all.
func (v *revival) rose(site string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, rd := range v.rounds {
		if rd.from == site {
			rd.end()
		}
	}
}

// spare ends the round of one session: its owner has just spoken of it.
func (v *revival) spare(k frame.Key, from string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if rd := v.rounds[k]; rd != nil && rd.from == from {
		rd.end()
	}
}

// run is one round from its first probe to its end.
func (v *revival) run(ctx context.Context, rd *round, wait time.Duration) {
	a, k := v.a, rd.rec.Key
	defer close(rd.done)
	defer func() { rd.rec.Cover = frame.Cover{} }() // its secrets are the session's now, or nobody's
	s, result, err := v.attempt(ctx, rd, wait)
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
		a.m.stall.Observe(time.Since(rd.begun).Seconds())
		a.wg.Go(func() { v.watch(ctx, s, rd) })
		return
	case reviveLost:
		if rd.from != a.cfg.Site {
			rd.rec.RcvNxt -= uint32(len(rd.piece))
			a.replica.putBack(rd.stored)
			a.strays.Stayed(k, rd.from) // what waits belongs there
			return
		}
	}
	// The kernel has no such session and says so to the client.
	a.quiet.remove(flowOf(k))
	a.strays.Release(k)
}

// tellOwner tells the old owner, if it can be reached after all, that it has the
// session no more. One that cannot hears it when it speaks of the session.
func (v *revival) tellOwner(rd *round) {
	if rd.from == v.a.cfg.Site {
		return
	}
	if l := v.a.links.have(rd.from); l != nil {
		_ = l.send(frame.Frame{Type: frame.Claimed, Key: rd.rec.Key, Epoch: rd.epoch})
	}
}

// attempt probes, listens and restores.
func (v *revival) attempt(ctx context.Context, rd *round, wait time.Duration) (*session, string, error) {
	// What the dead process left of the connection would take the answers.
	if rd.own {
		if _, err := tcprepair.Destroy(rd.rec.Key.VIP, rd.rec.Key.Client); err != nil {
			return nil, reviveFailed, err
		}
	}
	seen := sight{piece: uint32(len(rd.piece))}
	var aheadAt, asked time.Time
	probes, next := 0, time.NewTimer(wait)
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
				if probes > 0 { // else it spoke by itself
					rd.took = time.Since(asked)
				}
				next.Reset(settleFor) // what is on its way is newer
			case seen.ahead && !was.ahead:
				aheadAt = time.Now()
			}
			continue
		case <-next.C:
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
		if err := v.wire.Send(probeOf(rd.rec, now)); err != nil {
			v.a.log.Debug("probe", "err", err)
		}
		if probes++; probes == 1 {
			asked = now
		}
		next.Reset(probePause(probes))
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
	if mine.wait {
		return nil, "", nil
	}
	o := seen.offer(rec, now)
	o.Record.RcvNxt, o.Input = rec.RcvNxt-uint32(len(rd.piece)), bytes.Clone(rd.piece)
	o.Name = v.nameFor(objectOf{rec.Service, rec.Object}, now)
	s, err := a.admit(o)
	if result, final := refusal(err, now.Sub(rd.begun)); err != nil {
		if !final || errors.Is(err, errObject) && now.Before(rd.until) && v.coming(rec) {
			return nil, "", nil
		}
		return nil, result, err
	}
	o.RTT = rd.took
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
	a.uploads.adopt(s, mine, r)
	a.uploads.readmit(s, r)
	if s.conn, err = r.Activate(); err != nil {
		a.tab.untake(s.key)
		a.uploads.dismiss(s)
		return nil, reviveFailed, fmt.Errorf("edge: revive: %w", err)
	}
	limitUnsent(s.conn)
	time.AfterFunc(settleAfter, func() { _ = tcprepair.Calm(s.conn) }) // it may have ended
	s.heirOf = rd.from
	a.run(ctx, s)
	return s, reviveOK, nil
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
