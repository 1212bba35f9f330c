package bgp

import (
	"context"
	"time"

	"rhumb/placement"
)

// exitGShut is how long routes stand at gshut before a clean exit withdraws
// them: routers choose another path first, so nothing is lost between.
const exitGShut = 200 * time.Millisecond

// exitDeadline bounds what the engine may take at exit.
const exitDeadline = 500 * time.Millisecond

// keepLimit is how long a withdrawn prefix's addresses wait for the sessions on
// them. A session on an address that is gone from lo hangs.
const keepLimit = time.Hour

// tidy does what follows a step: the address leaves lo after the routers' FIBs
// had time to forget the route and the last session on it has ended, and a Slot
// goes back when it is not needed. A fault leaves the address where it is: health
// must see its own servers come back there, not those of another site; so does a retirement,
// until no cluster has it any more; and so does the drain of a node alone, whose sessions are
// still found there, until its site is drained as well.
func (s *Speaker) tidy(r *route, now time.Time) time.Time {
	s.release(r)
	if r.unbind.IsZero() {
		return time.Time{}
	}
	if now.Before(r.unbind) {
		return r.unbind
	}
	if r.alone {
		r.unbind = now.Add(retryEvery)
		return r.unbind
	}
	r.unbind = time.Time{}
	if !r.want.Intent || s.retired(r) && len(s.addresses(r)) > 0 {
		return r.unbind
	}
	if r.mode == placement.Act && s.unbind(r, now.Sub(r.ladder.Since) < keepLimit) {
		r.unbind = now.Add(retryEvery)
	}
	return r.unbind
}

// leave is the order at exit: avoided, withdrawn while the sessions are still
// up, a wait for the routers' FIBs, the addresses off lo. The guard is asked as for any
// intent, but the process goes whatever it says, and a withdrawn route beats a dead one:
// a refusal is told, so that an upgrade which goes too fast is seen at its first step.
// The Slot of a drain stays held, and so does its silence.
func (s *Speaker) leave() {
	var out []*route
	for _, r := range s.loop.routes {
		if r.told < placement.Withdrawn {
			out = append(out, r)
			s.protest(r, time.Now())
		}
	}
	if outlives(s.engine) && len(out) > 0 {
		// Routes and addresses stay: a restart must not show, and after a stop
		// the watchdog moves the routes to gshut. Silence is asked for by a drain.
		s.log.Info("bgp: routes stay in the kernel", "prefixes", len(out))
		return
	}
	if len(out) == 0 {
		s.unbindAll()
		return
	}
	s.bfd.Alive(exitGShut + s.cfg.FIBWait + 4*exitDeadline) // the way out has its own deadlines
	s.leaveTo(out, placement.GShut)
	time.Sleep(exitGShut)
	s.leaveTo(out, placement.Withdrawn)
	time.Sleep(s.cfg.FIBWait)
	s.unbindAll()
}

// leaveTo takes routes down one rung at exit; one that fails dies with its session.
func (s *Speaker) leaveTo(routes []*route, to placement.Step) {
	ctx, cancel := context.WithTimeout(context.Background(), exitDeadline)
	defer cancel()
	for _, r := range routes {
		from, began := r.told, time.Now()
		if from >= to {
			continue
		}
		if err := s.tell(ctx, r, to); err != nil {
			s.fail(r.prefix.Prefix.String(), err)
			continue
		}
		r.told = to
		r.want.Cause, r.want.Fault = "exit", placement.NoFault
		if s.cfg.Announcer != nil {
			s.cfg.Announcer.SetAnnounced(s.own(r))
		}
		s.report(r, from, to, time.Since(began))
	}
}
