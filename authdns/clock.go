package authdns

import (
	"fmt"
	"time"

	"rhumb/placement"
)

// A signature holds from an hour to days: whoever signs with a wrong clock serves what
// nobody believes, and notices nothing of it himself. So two things are looked at that do
// not depend on the clock: a timer of this machine, and the clock of another one.

// How often the clock is looked at, and how far it may be off: the inception of
// a signature lies an hour back, and validators allow for some minutes more.
const (
	clockEvery = 30 * time.Second
	clockSlack = 5 * time.Minute
)

// stepped is by how much a clock was set between two readings, of which both carry the
// monotonic clock.
func stepped(before, now time.Time) time.Duration {
	if before.IsZero() {
		return 0
	}
	return now.Round(0).Sub(before.Round(0)) - now.Sub(before)
}

// clockFault says why a clock cannot be right, or "": a plan is never made ahead of
// the time at which it is in force.
func clockFault(now, made time.Time) string {
	if ahead := made.Sub(now); !made.IsZero() && ahead > clockSlack {
		return fmt.Sprintf("the plan in force was made %s ahead of this clock", ahead.Round(time.Second))
	}
	return ""
}

// clock is what is remembered of the clock; owned by resign.
type clock struct {
	read  time.Time
	fault string
}

// checkClock raises or lowers the alarm of a clock that cannot be right. Whichever
// clock is wrong, ours or the director's, somebody has to look.
func (s *Server) checkClock() {
	now, c := s.now(), &s.signs.clock
	if d := stepped(c.read, now); d.Abs() > clockSlack {
		s.log.Error("the clock was set: signatures made before may not have been valid", "step", d.Round(time.Second))
		s.signs.metrics.steps.Inc()
	}
	s.mu.Lock()
	fault := clockFault(now.Round(0), planMade(s.snap))
	s.mu.Unlock()
	switch {
	case fault == c.fault:
	case fault != "":
		s.log.Error("clock cannot be right: signatures may not be valid", "err", fault)
	default:
		s.log.Info("clock is right again")
	}
	c.read, c.fault = now, fault
	s.signs.metrics.suspect.Set(0)
	if fault != "" {
		s.signs.metrics.suspect.Set(1)
	}
}

// planMade is when the plan of a Snapshot was made; zero when nobody says so.
func planMade(s *placement.Snapshot) time.Time {
	if s == nil || s.Plan == nil {
		return time.Time{}
	}
	return s.Plan.Made
}
