package bgp

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"rhumb/bgp/guard"
	"rhumb/placement"
)

// retryEvery is how soon a refused or failed step is tried again.
const retryEvery = time.Second

// advance moves each route as far as it may go now, and returns how long
// nothing will happen by itself.
func (s *Speaker) advance(ctx context.Context, now time.Time) time.Duration {
	next := now.Add(time.Hour)
	for _, r := range s.loop.routes {
		for range placement.Withdrawn + 1 { // a route has that many rungs to pass at most
			moved, due := s.move(ctx, r, now)
			if !due.IsZero() && due.Before(next) {
				next = due
			}
			if !moved {
				break
			}
		}
		if due := s.tidy(r, now); !due.IsZero() && due.Before(next) {
			next = due
		}
	}
	return max(next.Sub(now), time.Millisecond)
}

// move takes one step of the ladder. The time is when to ask again.
func (s *Speaker) move(ctx context.Context, r *route, now time.Time) (bool, time.Time) {
	if s.loop.now == nil || s.frozen(r) {
		return false, time.Time{}
	}
	w, pending := s.wish(ctx, r, now)
	if pending {
		return false, now.Add(retryEvery)
	}
	l, rung, due := r.ladder.Next(w, s.cfg.Timing, now)
	r.ladder = l
	switch {
	case rung > l.At:
		return s.lower(ctx, r, rung, now)
	case rung < l.At:
		return s.raise(ctx, r, rung, now)
	case w.Step == l.At && w.Step == r.want.Want:
		s.settle(r)
	case w.Step == l.At:
		due = s.waits(r, now)
	}
	return false, due
}

// frozen tells whether automatic changes are stopped here. What was never
// reached since the start may still be reached: a restart under freeze must not
// leave the prefix silent.
func (s *Speaker) frozen(r *route) bool {
	return s.loop.now.snapshot.Inventory.Frozen() && !r.want.Intent && r.settled
}

// wish turns what is wanted into a wish for the ladder. The own listener gone
// is a wish of its own while the prefix is announced. A route which has never
// been announced since the start, and is not wanted, needs the same right to be
// silent as one which goes: else a fleet restarted in a bad hour is gone. So
// does one whose site was named an anchor meanwhile, and one which went without the
// store or left a sibling behind: what it relied on is asked for again.
func (s *Speaker) wish(ctx context.Context, r *route, now time.Time) (w guard.Wish, pending bool) {
	own := r.missing != "" && r.ladder.At < placement.Withdrawn
	w = guard.Wish{Step: r.want.Want, Jump: !r.want.Intent && r.want.Fault == placement.LocalFault}
	if own {
		return guard.Wish{Step: placement.Withdrawn, Jump: true, Now: true}, false
	}
	if r.alone && (r.ladder.At < placement.GShut || !s.waits(r, now).IsZero()) {
		w.Step = placement.GShut
		return w, false
	}
	if r.ladder.At == placement.Withdrawn && w.Step == placement.Withdrawn && (!r.claim.silent || s.anchor(r) || s.unproven(r)) {
		to, no, wait := s.judge(ctx, r, placement.GShut, placement.Withdrawn, now)
		if wait {
			return w, true
		}
		if to < placement.Withdrawn && s.stands(r, no) {
			return w, false
		}
		if to < placement.Withdrawn {
			s.refuse(r, no)
			w.Step = placement.GShut
			return w, false
		}
		r.claim.silent = true
		s.hold(r, false)
	}
	return w, false
}

// judge asks the guard, after fetching what the last step needs. pending means
// that the store was asked and has not answered yet.
func (s *Speaker) judge(ctx context.Context, r *route, at, to placement.Step, now time.Time) (placement.Step, *placement.Refusal, bool) {
	req := s.request(r, at, to, now)
	if to == placement.Withdrawn && req.Order != guard.Retired { // whose silence no Slot bounds
		if step, no := guard.Lower(hopeful(req)); no != nil {
			return step, no, false // not even a Slot would help, so none is taken
		}
		if r.mode == placement.Observe {
			return to, nil, false
		}
		if s.ask(ctx, r, now) {
			return at, nil, true
		}
		req.Slot, req.SlotRefusal, req.Left = r.claim.slot, r.claim.refusal, r.claim.left
	}
	step, no := guard.Lower(req)
	return step, no, false
}

// hopeful returns the request with the best evidence that could be had.
func hopeful(r guard.Request) guard.Request {
	r.Slot, r.Left, r.Seen = &placement.Slot{Site: r.Site}, true, true
	return r
}

// request gathers what the guard weighs, but for what the store must be asked.
func (s *Speaker) request(r *route, at, to placement.Step, now time.Time) guard.Request {
	in := s.loop.now
	inv := in.snapshot.Inventory
	req := guard.Request{Prefix: r.prefix, Site: s.cfg.Site, Node: s.cfg.Node, At: at, Want: to,
		Fault: r.want.Fault, Intent: r.want.Intent,
		Anchors: in.anchors(r), Sites: inv.AnnouncingSites(&r.prefix),
		Prefixes: len(inv.Prefixes)}
	if req.Order = in.order(r); r.missing != "" && req.Order != guard.Retired {
		req.Fault, req.Intent = placement.LocalFault, false // whoever retires may stop his servers first
	}
	req.MinSites, req.Overrides = inv.Safety.MinSites, s.setAside(r)
	req.Others = len(in.siblings(r.prefix.Prefix, s.cfg.Site, s.cfg.Node))
	if req.Alone = r.alone && req.Intent; req.Alone {
		req.Others = len(in.staying(r, s.cfg.Node, r.loud))
	}
	req.Seen = guard.Seen(s.loop.markers.sightings(), r.prefix.Prefix, uint32(s.cfg.SiteNumber))
	if r.ladder.At == placement.GShut {
		req.AtGShut = now.Sub(r.ladder.Since)
	}
	s.presence(&req, r, now)
	return req
}

// siblings returns the live nodes of this site, other than this one, which announce the prefix.
func (in *input) siblings(p netip.Prefix, site, node string) []placement.Announced {
	var out []placement.Announced
	for _, a := range in.live {
		if a.Prefix == p && a.Site == site && a.Node != node && a.Step < placement.Withdrawn && !a.Twin {
			out = append(out, a)
		}
	}
	return out
}

// lower asks the guard and goes as far down as it permits.
func (s *Speaker) lower(ctx context.Context, r *route, rung placement.Step, now time.Time) (bool, time.Time) {
	to, no, pending := s.judge(ctx, r, r.ladder.At, rung, now)
	if pending {
		return false, now.Add(retryEvery)
	}
	s.refuse(r, no)
	if to <= r.ladder.At {
		return false, now.Add(retryEvery)
	}
	return s.set(ctx, r, to, now)
}

// raise brings the addresses up before the first announcement and then goes one rung up.
func (s *Speaker) raise(ctx context.Context, r *route, rung placement.Step, now time.Time) (bool, time.Time) {
	if r.ladder.At == placement.Withdrawn {
		r.missing = s.prepare(r)
		if no := guard.Raise(s.ascent(r, now)); no != nil {
			s.refuse(r, no)
			return false, now.Add(retryEvery)
		}
	}
	return s.set(ctx, r, rung, now)
}

// announced counts the prefixes of this node which are not silent, observed ones included.
func (s *Speaker) announced() (n int) {
	for _, r := range s.loop.routes {
		if r.ladder.At < placement.Withdrawn {
			n++
		}
	}
	return n
}

// set makes the step true at the engine, then in the ladder, then known.
func (s *Speaker) set(ctx context.Context, r *route, to placement.Step, now time.Time) (bool, time.Time) {
	from, began := r.ladder.At, time.Now()
	if r.mode == placement.Act {
		if err := s.tell(ctx, r, to); err != nil {
			s.fail(r.prefix.Prefix.String(), err)
			return false, now.Add(retryEvery)
		}
		s.recovered(r.prefix.Prefix.String())
		r.told = to
		s.hold(r, to < placement.Withdrawn)
	}
	r.ladder = r.ladder.To(to, s.cfg.Timing, now)
	switch {
	case to == placement.Withdrawn:
		r.unbind, r.claim.silent = now.Add(s.cfg.FIBWait), true
	case from == placement.Withdrawn:
		// A Slot is the right to be silent, not to fall silent again: by then those
		// whom the store counted may be dead.
		r.unbind, r.claim = time.Time{}, claim{owed: r.claim.owed || s.cfg.Slots != nil, asking: r.claim.asking}
		s.remember(r)
	}
	s.tellFleet(r)
	s.report(r, from, to, time.Since(began))
	return true, time.Time{}
}

// own is what this node says of a route.
func (s *Speaker) own(r *route) placement.Announced {
	return placement.Announced{Prefix: r.prefix.Prefix, Site: s.cfg.Site, Node: s.cfg.Node, Step: r.told, Anchor: s.anchor(r), Twin: s.cfg.Twin}
}

// tell gives the engine a step; only set, after the guard, and leaveTo call it.
func (s *Speaker) tell(ctx context.Context, r *route, to placement.Step) error {
	switch {
	case to == placement.Withdrawn:
		return s.engine.Withdraw(ctx, r.prefix.Prefix)
	case r.told == placement.Withdrawn:
		return s.engine.Announce(ctx, s.at(r, to))
	}
	return s.engine.SetAttrs(ctx, s.at(r, to))
}

// at is the route on a rung.
func (s *Speaker) at(r *route, step placement.Step) Route {
	return Route{Prefix: r.prefix.Prefix, Attrs: s.attrs(r, step), Step: step}
}

// attrs returns the attributes of a step; each keeps those of the one before.
func (s *Speaker) attrs(r *route, step placement.Step) Attrs {
	a := Attrs{NoExport: r.prefix.Reach == placement.Local, NextHop: s.cfg.NextHop4,
		LargeCommunities: []LargeCommunity{marker(s.cfg.MarkerASN, s.cfg.SiteNumber)}}
	if r.prefix.Prefix.Addr().Is6() {
		a.NextHop = s.cfg.NextHop6
	}
	if step >= placement.Prepend {
		a.Prepend, a.MED = r.prefix.Prepend, r.prefix.MED
	}
	if step >= placement.GShut {
		a.Communities = []uint32{GracefulShutdown}
	}
	return a
}

// settle is called where the wish is reached: nothing is refused any more, and
// a Slot which is not needed goes back.
func (s *Speaker) settle(r *route) {
	r.settled = true
	if r.stays != nil {
		s.refuse(r, r.stays)
		return
	}
	if r.refusal != nil && r.refusal.Rule != placement.RuleAddress || r.missing == "" {
		r.refusal = nil
	}
}

// audit compares what the engine holds with what it was told, and repairs the
// difference: what we remember is never believed alone. It also asks again
// whether each announced address is served.
func (s *Speaker) audit(ctx context.Context) {
	st, err := s.engine.PeerState(ctx)
	if err != nil {
		s.fail("engine", err)
		return
	}
	s.recovered("engine")
	s.loop.peers = st.Peers
	s.origins(time.Now())
	for _, r := range s.loop.routes {
		if r.ladder.At < placement.Withdrawn && s.loop.now != nil {
			r.missing = s.lacking(r)
		}
		if r.told < placement.Withdrawn {
			s.repair(ctx, r, st.Routes)
		}
	}
	for _, have := range st.Routes {
		if !s.announces(have.Prefix) {
			s.log.Warn("bgp: withdraw a route nobody wants", "prefix", have.Prefix)
			s.metrics.repairs.WithLabelValues("withdraw").Inc()
			s.failed(have.Prefix.String(), s.engine.Withdraw(ctx, have.Prefix))
		}
	}
}

// announces tells whether a prefix is meant to be announced by this node.
func (s *Speaker) announces(p netip.Prefix) bool {
	return slices.ContainsFunc(s.loop.routes, func(r *route) bool {
		return r.prefix.Prefix == p && r.told < placement.Withdrawn
	})
}

// asTold tells whether the engine has a route as it was told. Where a daemon
// makes the attributes, the step is all there is to compare.
func (s *Speaker) asTold(have, want Route) bool {
	if outlives(s.engine) {
		return have.Step == want.Step
	}
	return have.Attrs.Equal(want.Attrs)
}

// repair makes one route of the engine what it was told to be. A route lost is
// announced as it was; whether it should be is the ladder's matter.
func (s *Speaker) repair(ctx context.Context, r *route, have []Route) {
	want := s.at(r, r.told)
	i := slices.IndexFunc(have, func(h Route) bool { return h.Prefix == want.Prefix })
	if i >= 0 && s.asTold(have[i], want) {
		return
	}
	if i < 0 {
		s.log.Warn("bgp: announce a route which was lost", "prefix", want.Prefix)
		s.metrics.repairs.WithLabelValues("announce").Inc()
		s.failed(want.Prefix.String(), s.engine.Announce(ctx, want))
		return
	}
	s.metrics.repairs.WithLabelValues("attributes").Inc()
	s.failed(want.Prefix.String(), s.engine.SetAttrs(ctx, want))
}
