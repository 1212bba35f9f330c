package detect

import (
	"slices"
	"time"
)

// State is what the observer sees of a subject.
type State uint8

// The states. A subject that was never heard is Unknown: start-up is not down.
const (
	Unknown State = iota
	Up
	Down
	Left // it said goodbye
)

func (s State) String() string { return [...]string{"unknown", "up", "down", "left"}[s] }

// Change is a subject's new state and when it began.
type Change struct {
	Subject uint16
	State   State
	At      time.Time
	// Silent is how long nothing was heard, for a Down.
	Silent time.Duration
}

// Config are the times of a Detector.
type Config struct {
	Interval time.Duration // between two beats of a subject
	Timeout  time.Duration // silence after which a subject is down
	// MaxHold ends a hold at last, lest the true loss of most sites be hidden.
	MaxHold time.Duration
	// LeaveFor is how long a subject may stay away after it said goodbye (an
	// upgrade, a restart) before it counts as down.
	LeaveFor time.Duration
}

// Defaults returns the times for a beat interval on one path: 2 s at 300 ms, 1 s at
// 100 ms, since outages of a path of up to a second come many times a day, and
// never fewer than six intervals, since single beats get lost all the time.
func Defaults(interval time.Duration) Config {
	timeout := max(2*time.Second, 6*interval)
	if interval <= 100*time.Millisecond {
		timeout = max(10*interval, 500*time.Millisecond)
	}
	return Config{Interval: interval, Timeout: timeout, MaxHold: 25 * time.Second, LeaveFor: 30 * time.Second}
}

// Detector judges subjects by the age of their newest beat. It is a value for
// one goroutine; times come from the caller and never run backwards.
type Detector struct {
	cfg      Config
	subjects map[uint16]*subject
	order    []uint16  // ids by number: changes come in this order, not the map's
	last     time.Time // the newest time seen
	hold     hold
}

// subject is one site that is watched.
type subject struct {
	state State           // as last reported
	heard time.Time       // arrival of the newest beat; zero: never
	inc   map[uint16]mark // by sending node
}

// mark orders the beats of one node.
type mark struct{ incarnation, seq uint32 }

// hold is how long the observer has doubted itself.
type hold struct {
	since time.Time // zero: not held
	calm  time.Time // when the majority was heard again
}

// New returns a detector which watches nobody.
func New(cfg Config) *Detector {
	return &Detector{cfg: cfg, subjects: make(map[uint16]*subject)}
}

// Watch sets the subjects; known ones keep what was heard of them.
func (d *Detector) Watch(ids []uint16) {
	next := make(map[uint16]*subject, len(ids))
	for _, id := range ids {
		next[id] = d.subjects[id]
		if next[id] == nil {
			next[id] = &subject{inc: make(map[uint16]mark)}
		}
	}
	d.subjects, d.order = next, slices.Clone(ids)
	slices.Sort(d.order)
}

// Hear takes a datagram of a subject's node. Old ones (a lower incarnation, a
// number not above the newest) are no evidence and return false: whoever sends a
// copy again, or holds one back, keeps no dead subject alive.
func (d *Detector) Hear(id uint16, b Beat, at time.Time) (changes []Change, fresh bool) {
	s := d.subjects[id]
	if s == nil {
		return nil, false
	}
	m, known := s.inc[b.Node]
	if known && (b.Incarnation < m.incarnation || b.Incarnation == m.incarnation && b.Seq <= m.seq) {
		return nil, false
	}
	s.inc[b.Node] = mark{b.Incarnation, b.Seq}
	d.tick(at)
	if at.After(s.heard) {
		s.heard = at // of a goodbye too: the time to stay away begins with it
	}
	state := Up
	if b.Kind == KindLeave {
		state = Left
	}
	return s.set(Change{Subject: id, State: state, At: at}), true
}

// set moves a subject and returns the change, or none: what is steady is no news.
func (s *subject) set(c Change) []Change {
	if s.state == c.State {
		return nil
	}
	s.state = c.State
	return []Change{c}
}

// Due judges what is due at now. A loop that was late by more than an interval
// must first hand over what waits in its socket: the deadlines inside a pause
// of the observer prove nothing about the subjects, so such a gap moves them.
func (d *Detector) Due(now time.Time) []Change {
	d.tick(now)
	d.judgeHold(now)
	if d.Held() {
		return nil
	}
	var out []Change
	for _, id := range d.order {
		s := d.subjects[id]
		limit := d.cfg.Timeout
		switch s.state {
		case Left:
			limit = d.cfg.LeaveFor
		case Unknown, Down:
			continue
		}
		if age := now.Sub(s.heard); age >= limit {
			out = append(out, s.set(Change{Subject: id, State: Down, At: s.heard.Add(limit), Silent: age})...)
		}
	}
	return out
}

// tick moves the time on. When the observer itself stood still, every subject
// gets the missing time credited.
func (d *Detector) tick(now time.Time) {
	if gap := now.Sub(d.last); !d.last.IsZero() && gap > 3*d.cfg.Interval {
		for _, s := range d.subjects {
			if !s.heard.IsZero() {
				s.heard = s.heard.Add(gap)
			}
		}
	}
	if now.After(d.last) {
		d.last = now
	}
}

// judgeHold begins a hold when more than half of two or more subjects fell
// silent for 1.6 intervals: then the observer is the likelier fault. It ends two
// intervals after the majority is heard again, or after MaxHold.
func (d *Detector) judgeHold(now time.Time) {
	limit := d.cfg.Interval * 16 / 10
	watched, silent := 0, 0
	for _, s := range d.subjects {
		if s.state == Up {
			watched++
			if now.Sub(s.heard) > limit {
				silent++
			}
		}
	}
	sick := watched >= 2 && 2*silent > watched
	switch {
	case d.hold.since.IsZero() && sick:
		d.hold = hold{since: now}
	case d.hold.since.IsZero():
	case sick:
		d.hold.calm = time.Time{}
		if now.Sub(d.hold.since) > d.cfg.MaxHold {
			d.hold = hold{}
			d.release(now)
		}
	case d.hold.calm.IsZero():
		d.hold.calm = now
	case now.Sub(d.hold.calm) >= 2*d.cfg.Interval:
		d.hold = hold{}
	}
}

// release lets what was silent through the whole hold be judged now.
func (d *Detector) release(now time.Time) {
	for _, s := range d.subjects {
		if s.state == Up && now.Sub(s.heard) < d.cfg.Timeout {
			s.heard = now
		}
	}
}

// Held tells whether the observer doubts itself.
func (d *Detector) Held() bool { return !d.hold.since.IsZero() }

// State returns a subject's state.
func (d *Detector) State(id uint16) State {
	if s := d.subjects[id]; s != nil {
		return s.state
	}
	return Unknown
}
