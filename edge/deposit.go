package edge

import (
	"context"
	"time"

	"rhumb/edge/frame"
)

// A session that no site has room for is without a Backup, and the loss of its site ends it.
// Its process may die all the same while the site lives, and the next one there goes on
// with whatever it can recall; that takes a site nothing but the memory for a record. So
// one of those that have refused keeps it as a deposit, which it never acts upon itself,
// until some site has room for the session.

// settle is for how long a deposit outlives the word to a Backup, which may refuse.
const settle = sweepEvery / 2

// deposit lets a site keep the record of a session without any Backup. The pledge is kept
// when that has it, or at once where nobody takes it.
func (r *replica) deposit(ctx context.Context, s *session, now time.Time, part *pledge) {
	t := s.turn.Load()
	switch {
	case len(s.backups()) > 0:
		part.waive()
		return
	case t.rec.Flags&frame.Upload != 0: // without what was uploaded it is of no use
		r.redeem(s)
		part.waive()
		return
	}
	sh := r.own[copyOf{s, tierDeposit}]
	if sh == nil {
		sh = &shadow{}
		r.own[copyOf{s, tierDeposit}] = sh
	}
	peer, l := r.vault(ctx, s, sh, now)
	if sh.link != nil && sh.Backup != peer {
		r.withdraw(s, sh)
		sh.link = nil
	}
	sh.Move(&r.spread[tierDeposit], peer)
	if l == nil {
		sh.link, sh.turn = nil, nil
		s.deposit.Store(nil)
		part.waive()
		return
	}
	if sh.due(s, r.leaves, now) {
		rec := s.record(t)
		l.tellName(rec, t.name, now)
		r.out.put(l, frame.Deposit, &rec, t.piece, part)
		sh.link, sh.turn, sh.off, sh.at, sh.part = l, t, int64(rec.Offset), now, part
	} else if sh.part != part {
		part.waive()
	}
	s.deposit.Store(&peer)
	r.a.hush(s)
}

// vault is who shall have a session's deposit, "" if nobody takes one.
func (r *replica) vault(ctx context.Context, s *session, sh *shadow, now time.Time) (string, *link) {
	for {
		peer := r.aim(s.key, sh, tierDeposit, now)
		l := r.a.links.have(peer)
		switch {
		case peer == "":
			return "", nil
		case l == nil:
			r.dial(ctx, peer, now)
			return "", nil
		case l.deposits.Load():
			return peer, l
		}
		r.vaults.Refused(peer, now) // an earlier version
		sh.Refused(&r.spread[tierDeposit], peer)
	}
}

// promoted notes that a Backup has been told of a session's turn. A deposit elsewhere says
// what is over if that turn is a new one; else it stays until the Backup may be trusted.
func (r *replica) promoted(s *session, peer string, t *turn) {
	if s.deposit.Load() == nil {
		return
	}
	switch sh := r.own[copyOf{s, tierDeposit}]; {
	case sh.Backup == peer:
		sh.turn = nil // it is told as a deposit again if this one refuses
	case sh.turn != t:
		r.redeem(s)
	}
}

// deposited names who has the deposit of a session without a Backup, "" if nobody has.
func (r *replica) deposited(s *session, now time.Time) string {
	at := s.deposit.Load()
	if at == nil {
		return ""
	}
	for tier := range tierCount {
		b := s.backup[tier].Load()
		if b == nil {
			continue
		}
		if now.Sub(r.own[copyOf{s, tier}].at) >= settle {
			if sh := r.own[copyOf{s, tierDeposit}]; *b == *at {
				sh.link = nil // the same record, which it is the Backup of now
			}
			r.redeem(s)
		}
		return ""
	}
	return *at
}

// redeem takes a deposit back.
func (r *replica) redeem(s *session) {
	sh := r.own[copyOf{s, tierDeposit}]
	if sh == nil {
		return
	}
	r.withdraw(s, sh)
	delete(r.own, copyOf{s, tierDeposit})
	sh.Move(&r.spread[tierDeposit], "")
	s.deposit.Store(nil)
}

// notDeposited goes on to another site with a deposit that one does not take.
func (r *replica) notDeposited(ctx context.Context, s *session, no noRoom, now time.Time) {
	sh := r.own[copyOf{s, tierDeposit}]
	if sh == nil || no.reason == refuseRoom || no.reason == refuseGrown || !sh.Refused(&r.spread[tierDeposit], no.peer) {
		return
	}
	r.vaults.Refused(no.peer, now)
	sh.turn, sh.link = nil, nil
	for tier := range tierCount {
		if at := r.own[copyOf{s, tier}]; at != nil && at.bare {
			r.tellTier(ctx, s, tier, now)
			return
		}
	}
}
