package edge

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/reserve"
)

// aims is what an owner knows of its Backups' room. It belongs to replica.Run, but for
// bare.
type aims struct {
	chooser reserve.Chooser
	sites   [tierDeposit + 1][]reserve.Site // as of tiered.known
	spread  [tierDeposit + 1]reserve.Spread
	doors   reserve.Doors // to Backups, and
	vaults  reserve.Doors // to those who keep deposits
	scratch struct {
		key   []byte
		order []int
	}
	followed known        // what the sites are as of
	bare     atomic.Int64 // sessions without a Backup that they should have, for want of room
	recalled atomic.Int64 // of these, who have a deposit
}

// follow takes who may be Backups by now.
func (r *replica) follow() {
	if r.followed == r.known {
		return
	}
	r.followed = r.known
	own := r.known.view.own
	for tier, peers := range r.peers {
		var domains []string
		if tier == tierFar {
			domains = own.Domains
		}
		r.sites[tier] = candidates(peers, domains)
		r.spread[tier].Follow(r.sites[tier])
	}
	r.sites[tierDeposit] = slices.Concat(r.sites[tierNear], r.sites[tierFar])
	r.spread[tierDeposit].Follow(r.sites[tierDeposit])
}

// order is where a session's Backup of one tier may be, and what that follows from.
type order struct {
	reserve.Place
	known
}

// aim is the Backup that a session shall have in one tier by what is known now, "" where
// nobody has room.
func (r *replica) aim(k frame.Key, sh *shadow, tier int, now time.Time) string {
	r.tiers(r.a)
	if sh.known != r.known {
		r.follow()
		s := &r.scratch
		s.key = appendKey(s.key[:0], k)
		s.order = r.chooser.Order(s.order[:0], s.key, r.sites[tier])
		names := make([]string, len(s.order))
		for i, n := range s.order {
			names[i] = r.sites[tier][n].Name
		}
		sh.known = r.known
		sh.Follow(names)
	}
	doors := &r.doors
	if tier == tierDeposit {
		doors = &r.vaults
	}
	return sh.Aim(&r.spread[tier], doors, now)
}

// without lets a session go on without a Backup in a tier, since nobody has room.
func (r *replica) without(s *session, sh *shadow, tier int) {
	if sh.link != nil { // its Backup has gone from the order
		r.withdraw(s, sh)
	}
	sh.Move(&r.spread[tier], "")
	sh.bare, sh.link, sh.turn = len(sh.Order) > 0, nil, nil
	s.bare[tier].Store(sh.bare)
	s.backup[tier].Store(nil)
}

// noRoom is the word of a Backup that it does not keep a session's record.
type noRoom struct {
	key    frame.Key
	peer   string
	reason string
}

// refusedBy takes that word, on the link's reader.
func (r *replica) refusedBy(l *link, f frame.Frame) {
	reason := refusalReason(f)
	r.a.m.reserve.refusals.WithLabelValues(l.peer, reason).Inc()
	select {
	case r.full <- noRoom{f.Key, l.peer, reason}:
		l.refused(f.Seq)
	default: // the next word of the session is refused again
	}
}

// refusalReason is why a record was refused.
func refusalReason(f frame.Frame) string {
	switch s := string(f.Payload); s {
	case refuseRecords, refuseRoom, refuseGrown:
		return s
	}
	return refuseOther
}

// refused takes back what waits for the acknowledgement of a frame: it will come, and the
// frame was of no effect. An earlier version's refusal names no frame.
func (l *link) refused(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits = slices.DeleteFunc(l.waits, func(w wait) bool { return w.seq == seq })
}

// next moves a session's record to the next Backup that has room.
func (r *replica) next(ctx context.Context, no noRoom) {
	now := time.Now()
	r.doors.Refused(no.peer, now)
	s, found := r.a.tab.get(no.key), false
	for tier := range tierCount {
		sh := r.own[copyOf{s, tier}]
		if sh == nil || !sh.Refused(&r.spread[tier], no.peer) {
			continue
		}
		found = true
		sh.turn, sh.link = nil, nil
		r.tellTier(ctx, s, tier, now)
	}
	if !found {
		r.notDeposited(ctx, s, no, now)
	}
}
