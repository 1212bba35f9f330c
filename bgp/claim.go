package bgp

import (
	"context"
	"errors"
	"time"

	"rhumb/placement"
)

// slotDeadline is how long the store may take to grant a Slot: a transaction is
// some round trips between members, which may lie on different continents (370 ms
// were seen with 110 ms one way). Meanwhile the prefix stays at gshut, which
// harms nobody. Later the store counts as away, until a witness was seen long enough.
const slotDeadline = 2 * time.Second

// freeDeadline is how long giving a Slot back may take before it is tried again.
const freeDeadline = 2 * time.Second

// claim is what a route has asked of the store for its last step.
type claim struct {
	slot    *placement.Slot
	refusal *placement.Refusal // the store's no
	left    bool               // this node left its siblings
	// silent is set while the right to be silent stands: by Slot, by leaving,
	// or by a witness.
	silent bool
	asking bool
	asked  time.Time // last answer; zero before the first
	// owed is set while a Slot of ours may stand in the store: from the first
	// question on, and from the start, since Slots outlive the process.
	owed bool
}

// answer is what the store said of one route.
type answer struct {
	route *route
	slot  *placement.Slot
	left  bool
	tried bool // to leave: the key may be gone
	freed bool
	err   error
}

// granted tells whether the right to be silent is at hand. Once silent, a Slot stands,
// and so does a sibling while it announces. But as long as the route is announced, what
// the store counted for it grows old: after a second it is asked again.
func (s *Speaker) granted(r *route, now time.Time) bool {
	c := &r.claim
	switch {
	case c.slot == nil && !c.left:
		return false
	case r.ladder.At < placement.Withdrawn:
		return now.Sub(c.asked) < retryEvery
	}
	return s.holds(r)
}

// ask begins to ask the store and tells whether an answer is awaited. A no is asked
// again each second.
func (s *Speaker) ask(ctx context.Context, r *route, now time.Time) (pending bool) {
	c := &r.claim
	switch {
	case c.asking:
		return true
	case s.cfg.Slots == nil && s.cfg.Announcer == nil, s.granted(r, now):
		return false
	case !c.asked.IsZero() && now.Sub(c.asked) < retryEvery:
		return false
	}
	c.asking, c.owed = true, true
	own, prefix, cause := s.own(r), r.prefix, r.want.Cause
	seen := s.loop.now.others(r, s.cfg.Site)
	siblings, alone := s.loop.now.siblings(r.prefix.Prefix, s.cfg.Site, s.cfg.Node), r.alone
	go func() {
		ctx, cancel := context.WithTimeout(ctx, slotDeadline)
		defer cancel()
		a := answer{route: r}
		if len(siblings) > 0 && s.cfg.Announcer != nil {
			a.err = s.cfg.Announcer.LeaveNode(ctx, own, siblings)
			a.left, a.tried = a.err == nil, true
		}
		if !a.left && s.cfg.Slots != nil && !alone { // a Slot is the site's silence
			var slot placement.Slot
			if slot, a.err = s.cfg.Slots.TakeSlot(ctx, prefix, own.Site, cause, seen); a.err == nil {
				a.slot = &slot
			}
		}
		s.reply(ctx, a)
	}()
	return true
}

// others returns what other sites announce of a prefix: the condition under
// which the store grants a Slot.
func (in *input) others(r *route, site string) []placement.Announced {
	var out []placement.Announced
	for _, a := range in.live {
		if a.Prefix == r.prefix.Prefix && a.Site != site && a.Step < placement.Withdrawn && !a.Twin {
			out = append(out, a)
		}
	}
	return out
}

// reply hands an answer to the loop. The loop may have ended meanwhile; the
// deadline of the question, with a little for the way, bounds the wait.
func (s *Speaker) reply(ctx context.Context, a answer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), freeDeadline)
	defer cancel()
	select {
	case s.answers <- a:
	case <-ctx.Done():
	}
}

// answered notes what the store said.
func (s *Speaker) answered(a answer) {
	c := &a.route.claim
	c.asking, c.asked, c.refusal = false, time.Now(), nil
	if a.freed {
		s.failed("store", a.err)
		if a.err == nil {
			*c = claim{}
		}
		return
	}
	if c.slot, c.left = a.slot, a.left; a.tried {
		a.route.published = placement.Announced{}
	}
	if a.tried && !a.left {
		s.tellFleet(a.route) // still announced, and the key may be gone
	}
	if errors.As(a.err, &c.refusal) {
		return
	}
	if a.err != nil {
		s.fail("store", a.err)
		return
	}
	s.recovered("store")
}

// release gives the Slot back once the route is announced again and means to
// stay so; not before, lest the site be counted as present while it is silent.
func (s *Speaker) release(r *route) {
	c := &r.claim
	if !c.owed || c.asking || r.mode != placement.Act || r.told == placement.Withdrawn || r.want.Want == placement.Withdrawn || r.missing != "" {
		return
	}
	c.left, c.refusal = false, nil
	s.tellFleet(r)
	if s.cfg.Announcer == nil {
		*c = claim{}
		return
	}
	if !c.asked.IsZero() && time.Since(c.asked) < retryEvery {
		return // the store has just been away
	}
	c.asking = true
	prefix := r.prefix.Prefix
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), freeDeadline)
		defer cancel()
		s.reply(ctx, answer{route: r, freed: true, err: s.cfg.Announcer.FreeSlot(ctx, prefix, s.cfg.Site)})
	}()
}
