package guard

import (
	"time"

	"rhumb/placement"
)

// Timing is how long the rungs last.
type Timing struct {
	// Dwell is the least time on a rung on the way down (250 ms).
	Dwell time.Duration
	// WarmUp is how long the cause must be gone before each rung up (1 s); each
	// fall doubles it up to MaxWarmUp (5 min).
	WarmUp    time.Duration
	MaxWarmUp time.Duration
}

// Or fills what is not set with the defaults.
func (t Timing) Or() Timing {
	if t.Dwell == 0 {
		t.Dwell = 250 * time.Millisecond
	}
	if t.WarmUp == 0 {
		t.WarmUp = time.Second
	}
	if t.MaxWarmUp == 0 {
		t.MaxWarmUp = 5 * time.Minute
	}
	return t
}

// Wish is what is asked of a Ladder.
type Wish struct {
	Step placement.Step
	// Jump allows to go from announce to gshut + prepend at once: a fault of the
	// site itself needs nobody's consent up to there.
	Jump bool
	// Now sets the dwell aside: the site's own listener is gone, so waiting
	// only loses queries.
	Now bool
}

// Ladder is where one Prefix stands at one Node. It is a value; its methods
// return the next one and never look at a clock.
type Ladder struct {
	At    placement.Step
	Since time.Time // At entered
	// Calm is when the last cause went; zero while there is one.
	Calm time.Time
	// Falls counts departures from announce; it halves for each MaxWarmUp spent there.
	Falls   int
	Settled time.Time // announce entered
}

// Start returns the ladder of a prefix which is not announced.
func Start(now time.Time) Ladder {
	return Ladder{At: placement.Withdrawn, Since: now}
}

// Next returns the rung to go to now, or the time at which to ask again. The
// zero time means: not before something changes. The Ladder returned carries
// the memory of calm; the step is taken by To, once it is permitted and done.
func (l Ladder) Next(w Wish, t Timing, now time.Time) (Ladder, placement.Step, time.Time) {
	switch {
	case w.Step > l.At:
		l.Calm = time.Time{}
		return l.down(w, t, now)
	case w.Step < l.At:
		if l.Calm.IsZero() {
			l.Calm = now
		}
		return l.up(w, t, now)
	}
	l.Calm = time.Time{}
	return l, l.At, time.Time{}
}

// down goes one rung, after its dwell, or jumps where the site itself is at fault.
func (l Ladder) down(w Wish, t Timing, now time.Time) (Ladder, placement.Step, time.Time) {
	if l.At < placement.GShut && w.Jump {
		return l, min(w.Step, placement.GShut), time.Time{}
	}
	if l.At > placement.Announce && !w.Now {
		if due := l.Since.Add(t.Dwell); now.Before(due) {
			return l, l.At, due
		}
	}
	return l, l.At + 1, time.Time{}
}

// up goes one rung at a time, and from silence to prepend: a site which has
// just come back is everybody's last choice first.
func (l Ladder) up(w Wish, t Timing, now time.Time) (Ladder, placement.Step, time.Time) {
	from := l.Calm
	if l.Since.After(from) {
		from = l.Since
	}
	if due := from.Add(l.WarmUp(t)); now.Before(due) {
		return l, l.At, due
	}
	if l.At == placement.Withdrawn {
		return l, max(w.Step, placement.Prepend), time.Time{}
	}
	return l, l.At - 1, time.Time{}
}

// WarmUp returns how long the cause must be gone before the next rung up: each
// fall doubles it, so that a flapping site does not flap the routes.
func (l Ladder) WarmUp(t Timing) time.Duration {
	d := t.WarmUp
	for range l.Falls - 1 {
		if d >= t.MaxWarmUp/2 {
			return t.MaxWarmUp
		}
		d *= 2
	}
	return d
}

// To returns the ladder after the rung was reached.
func (l Ladder) To(s placement.Step, t Timing, now time.Time) Ladder {
	if s == l.At {
		return l
	}
	if l.At == placement.Announce {
		for quiet := now.Sub(l.Settled); quiet >= t.MaxWarmUp && l.Falls > 0; quiet -= t.MaxWarmUp {
			l.Falls /= 2
		}
		l.Falls++
	}
	l.At, l.Since = s, now
	if s == placement.Announce {
		l.Settled, l.Calm = now, time.Time{}
	}
	return l
}
