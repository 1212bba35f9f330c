package detect

import "time"

// State is what the observer sees of a subject.
type State uint8

// The states. A subject that was never heard is Unknown: start-up is not down.
// Path means that it lives and only our own path to it is broken.
const (
	Unknown State = iota
	Up
	Path
	Down
	Left // it said goodbye
)

func (s State) String() string { return [...]string{"unknown", "up", "path", "down", "left"}[s] }

// subject is one site that is watched.
type subject struct {
	id    uint32
	state State         // as last reported
	since time.Duration // when it began
	vias  []via         // as they were heard first, the direct one at the front
	slot  uint64        // newest of all vias
	heard time.Duration // newest evidence of all vias
	// fresh is when a beat last came as expected; run is since when no slot was
	// missed. Both say something about the observer, too.
	fresh, run time.Duration
	retry      time.Duration // an early verdict lacked proof: look again then
	life
	key   time.Duration // when to look at it next, at the latest
	place int           // in the queue
}

// life is when a subject came and went, by its own word.
type life struct {
	reborn time.Duration          // when it was first known to have started anew
	till   time.Duration          // having left, until when it is expected back
	byes   [maxByes]time.Duration // its last goodbyes, by turns
	said   int                    // how many there were
}

// maxByes goodbyes within byesIn are believed. Two restarts in a row happen to any
// operator; whoever leaves at once after each start is broken.
const (
	maxByes = 3
	byesIn  = time.Minute
)

// goodbye notes one and tells whether it is believed.
func (l *life) goodbye(at time.Duration) bool {
	oldest := l.byes[l.said%maxByes]
	if l.said >= maxByes && at-oldest < byesIn {
		return false
	}
	l.byes[l.said%maxByes] = at
	l.said++
	return true
}

// alive tells whether the observer takes the subject for living.
func (s *subject) alive() bool { return s.state == Up || s.state == Path }

// via returns the path with an id; it is made when it is heard for the first time.
func (s *subject) via(id uint32, now time.Duration) *via {
	for i := range s.vias {
		if s.vias[i].id == id {
			return &s.vias[i]
		}
	}
	if len(s.vias) == 0 && id != 0 { // a relay was faster: the direct path has its time from now on
		s.vias = append(s.vias, via{at: now})
	}
	s.vias = append(s.vias, via{id: id})
	return &s.vias[len(s.vias)-1]
}

// workingLag is how many slots a path may be behind the best one and still count
// as working: single beats get lost all the time, and relays report each second slot.
const workingLag = 4

// works tells whether a path worked when the subject was heard last. A path that
// had been broken before says nothing about the subject: its silence is no news.
func (s *subject) works(v *via) bool { return (v.timed() || v.slot > 0) && v.slot+workingLag >= s.slot }

// implausible tells whether a slot is further ahead than time allows.
func (s *subject) implausible(slot uint64, now, interval time.Duration) bool {
	return s.slot > 0 && slot > s.slot+uint64((now-s.heard)/interval)+restartSlots
}

// working counts the paths that worked when the subject was heard last.
func (s *subject) working() int {
	n := 0
	for i := range s.vias {
		if s.works(&s.vias[i]) {
			n++
		}
	}
	return max(n, 1)
}

// timeout is the silence that this subject is allowed.
func (s *subject) timeout(c *Config) time.Duration {
	return c.Timeouts[min(s.working(), manyPaths)-1]
}

// due is when the subject must be judged if nothing more is heard of it.
func (s *subject) due(c *Config) time.Duration {
	switch s.state {
	case Left:
		return wholeMs(s.till)
	case Up, Path:
	default:
		return never
	}
	at := s.downDue(c)
	if s.state == Up {
		at = min(at, s.pathDue(c))
	}
	if _, early := s.missed(c); early > 0 {
		at = min(at, max(early, s.retry))
	}
	return wholeMs(at)
}

// pathDue is when the direct path is silent.
func (s *subject) pathDue(c *Config) time.Duration { return s.vias[0].at + s.timeout(c) }

// downDue is when all paths are silent. Beats come one by one, so that nothing is
// learnt between the moment when the last whole beat within the timeout is overdue
// and its end: where it is known when beats come, the former is enough.
func (s *subject) downDue(c *Config) time.Duration {
	timeout := s.timeout(c)
	whole := timeout / c.Interval * c.Interval
	var overdue time.Duration
	for i := range s.vias {
		v := &s.vias[i]
		if s.works(v) && !v.timed() {
			return s.heard + timeout
		}
		if s.works(v) {
			next := max(s.nextOn(v, c), v.at+c.Interval)
			overdue = max(overdue, next-c.Interval+whole+max(time.Duration(v.margin()), c.Interval/4))
		}
	}
	if overdue == 0 {
		return s.heard + timeout
	}
	return min(s.heard+timeout, overdue)
}

// missed tells when the last copy of the beat that is next was expected, and when
// it is overdue on all paths; zero where too few paths work to say so. On the
// path with the widest margin, of more than Early, a fifth of it suffices: a single
// jittery path must not blind the others.
func (s *subject) missed(c *Config) (expected, overdue time.Duration) {
	if c.Early == 0 || len(s.vias) < c.Early {
		return 0, 0
	}
	n := 0
	var last, least time.Duration // the latest margin to end, and a fifth of each
	for i := range s.vias {
		v := &s.vias[i]
		if !s.works(v) {
			continue
		}
		if !v.timed() {
			return 0, 0
		}
		n++
		at, margin := s.nextOn(v, c), time.Duration(v.margin())
		expected = max(expected, at)
		least = max(least, at+max(margin/5, c.Interval/16))
		if end := at + margin; end > last {
			last, overdue = end, last
		} else {
			overdue = max(overdue, end)
		}
	}
	switch {
	case n < c.Early:
		return 0, 0
	case n == c.Early:
		return expected, last
	}
	return expected, max(overdue, least)
}

// nextOn is when a path should bring the first beat that has come by none, which
// is not the path's own next when it has lost some that others brought.
func (s *subject) nextOn(v *via, c *Config) time.Duration {
	return v.expected(c.Interval) + time.Duration(s.slot-v.slot)*c.Interval
}

// next is when the first copy of the next beat is expected, by any path, and by how
// much it may be late; never where nobody can say.
func (s *subject) next(c *Config) (at, margin time.Duration) {
	at = never
	for i := range s.vias {
		if v := &s.vias[i]; s.works(v) && v.timed() && s.nextOn(v, c) < at {
			at, margin = s.nextOn(v, c), time.Duration(v.margin())
		}
	}
	return at, margin
}

// quiet is when the subject counts as silent for the self-check: when the next
// beat is overdue by every path, before any verdict on a subject whose last beat
// came an interval earlier. What is known by the word of relays alone is a few
// intervals old at best.
func (s *subject) quiet(c *Config) time.Duration {
	at, margin := s.next(c)
	if at == never {
		return s.heard + 3*c.Interval
	}
	return at + max(c.Interval/8, min(margin, 2*c.Interval/5))
}

// wholeMs rounds up to whole milliseconds, the grain of a trace.
func wholeMs(t time.Duration) time.Duration {
	if part := t % time.Millisecond; part > 0 {
		return t + time.Millisecond - part
	}
	return t
}
