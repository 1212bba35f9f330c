package edge

import (
	"context"
	"time"

	"rhumb/edge/frame"
)

// copyOf is a session's record at the Backup of one tier, or a deposit.
type copyOf struct {
	s    *session
	tier int
}

// shadow is what the Backup of a session was told last.
type shadow struct {
	link  *link
	turn  *turn
	off   int64
	at    time.Time
	bare  bool    // no Backup has room
	part  *pledge // of a deposit: what its acknowledgement keeps
	order         // as of the last word
}

// tell puts a session's record into the outbox for each of its Backups.
func (r *replica) tell(ctx context.Context, s *session, now time.Time) {
	tiers := r.tiers(r.a)
	if len(tiers[tierNear])+len(tiers[tierFar]) == 0 {
		s.turn.Load().waive()
	}
	for tier := range tiers {
		r.tellTier(ctx, s, tier, now)
	}
}

// tellTier does so for one of them, if there is a link to it.
func (r *replica) tellTier(ctx context.Context, s *session, tier int, now time.Time) {
	if r.a.tab.get(s.key) != s {
		return // ended meanwhile, or was never entered
	}
	if State(s.state.Load()) == Moving {
		return // it is the taker's: our word of it, coming late, would replace the taker's
	}
	t := s.turn.Load()
	tiers := t.wanted(r.tiers(r.a))
	if len(tiers[tier]) == 0 {
		r.retract(s, tier) // what it says of the session is over
		return
	}
	sh := r.own[copyOf{s, tier}]
	if sh == nil {
		sh = &shadow{}
		r.own[copyOf{s, tier}] = sh
	}
	part := t.fresh.divide(tiers)[tier]
	peer := r.aim(s.key, sh, tier, now)
	if peer == "" {
		was := s.kept()
		r.without(s, sh, tier)
		r.deposit(ctx, s, now, part)
		if was && !s.kept() {
			r.a.quiet.remove(flowOf(s.key)) // nobody would go on with it
		}
		return
	}
	sh.bare = false
	s.bare[tier].Store(false)
	l := r.a.links.have(peer)
	if l == nil {
		r.dial(ctx, peer, now) // the sweep sends then
		part.waive()           // a client's wait would help nobody
		return
	}
	if sh.Backup != peer && sh.link != nil {
		r.withdraw(s, sh) // or two would revive it
	}
	if t.rec.Flags&frame.Upload != 0 && !l.takes(s.cover != nil) {
		part.waive() // it would end the link
		return
	}
	rec := s.record(t)
	l.tellName(rec, t.name, now)
	r.out.put(l, frame.RecordSet, &rec, t.piece, part)
	if sh.Backup != peer || s.backup[tier].Load() == nil {
		backup := peer
		s.backup[tier].Store(&backup)
	}
	sh.Move(&r.spread[tier], peer)
	sh.link, sh.turn, sh.off, sh.at = l, t, int64(rec.Offset), now
	r.a.hush(s)
	r.promoted(s, peer, t)
}

// dial asks for a link to a Backup, at most once a sweep.
func (r *replica) dial(ctx context.Context, peer string, now time.Time) {
	if now.Sub(r.dialled[peer]) < sweepEvery {
		return
	}
	r.dialled[peer] = now
	r.a.wg.Go(func() {
		if _, err := r.a.links.to(ctx, peer); err != nil {
			return // what is wrong shows in the records' count
		}
		select {
		case r.linked <- struct{}{}:
		default:
		}
	})
}

// record is the session's soft state at this moment.
func (s *session) record(t *turn) frame.Record {
	rec := t.rec
	rec.Key, rec.Epoch, rec.Generation = s.key, s.epoch, s.gen.Load()
	rec.Base, rec.RcvNxt, rec.Offset = t.base, t.rcv, uint64(t.off.Load())
	describe(&rec, s.reg, s.regAt)
	s.cover.describe(&rec, t)
	return rec
}

// retire tells the Backup that a session ended here.
func (r *replica) retire(s *session) {
	for tier := range tierCount {
		r.retract(s, tier)
	}
	r.redeem(s)
}

// retract does so at the Backup of one tier.
func (r *replica) retract(s *session, tier int) {
	sh := r.own[copyOf{s, tier}]
	if sh == nil {
		return
	}
	r.withdraw(s, sh)
	delete(r.own, copyOf{s, tier})
	sh.Move(&r.spread[tier], "")
	s.backup[tier].Store(nil)
	s.bare[tier].Store(false)
}

// withdraw lets a Backup forget what it was told, if it was.
func (r *replica) withdraw(s *session, sh *shadow) {
	if sh.link != nil {
		// If the link is gone the Backup lets the record expire.
		r.out.retire(sh.link, s)
	}
}

// sweep refreshes what is due, finds what the queues missed, and counts.
func (r *replica) sweep(ctx context.Context, now time.Time) {
	live, bare := map[*session]bool{}, map[*session]bool{}
	counts := map[string]int{}
	anew := 0
	deposits := map[string]int{}
	r.balance(now)
	for _, s := range r.a.tab.all() {
		if s.changed == nil {
			continue
		}
		live[s] = true
		for tier := range tierCount {
			if r.own[copyOf{s, tier}].due(s, r.leaves, now) {
				anew += r.anew(ctx, s, tier, now, anew < anewMost)
			}
			if sh := r.own[copyOf{s, tier}]; sh != nil && sh.link != nil {
				counts[sh.Backup]++
			} else if sh != nil && sh.bare {
				bare[s] = true
			}
		}
		if at := r.deposited(s, now); at != "" {
			deposits[at]++
		}
	}
	for c := range r.own {
		if !live[c.s] {
			r.retire(c.s)
		}
	}
	recall := 0
	for s := range bare {
		if s.deposit.Load() != nil {
			recall++
		}
	}
	r.bare.Store(int64(len(bare)))
	r.recalled.Store(int64(recall))
	r.a.m.reserve.bare.Set(float64(len(bare)))
	r.a.m.reserve.recall.Set(float64(recall))
	r.a.m.records.Reset()
	for peer, n := range counts {
		r.a.m.records.WithLabelValues(peer, "owner").Set(float64(n))
	}
	for peer, n := range deposits {
		r.a.m.records.WithLabelValues(peer, "deposit").Set(float64(n))
	}
	for c, n := range r.expire(now) {
		r.a.m.records.WithLabelValues(c.site, c.role()).Set(float64(n))
	}
}

// anew tells what is due, and returns 1 if the record went to another Backup because the one it
// had is none any more. Those wait for the next sweep unless they may go now: all of a site's
// are due at once, when its loss keeps everybody busy.
func (r *replica) anew(ctx context.Context, s *session, tier int, now time.Time, may bool) int {
	sh := r.own[copyOf{s, tier}]
	if sh == nil || sh.Backup == "" || !r.leaves(sh.Backup) {
		r.tellTier(ctx, s, tier, now)
		return 0
	}
	was := sh.Backup
	if !may && sh.turn == s.turn.Load() {
		return 0
	}
	r.tellTier(ctx, s, tier, now)
	if sh.Backup == was {
		return 0
	}
	return 1
}

// due reports whether the Backup's knowledge is too old.
func (sh *shadow) due(s *session, leaving func(site string) bool, now time.Time) bool {
	if sh == nil || sh.link == nil || sh.turn != s.turn.Load() || leaving(sh.Backup) {
		return true
	}
	select {
	case <-sh.link.done:
		return true // what it had not acknowledged is lost: tell anew
	default:
	}
	return now.Sub(sh.at) >= refreshTime || s.turn.Load().off.Load()-sh.off >= refreshBytes
}
