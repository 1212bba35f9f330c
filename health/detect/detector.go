package detect

import "time"

// Silence is a path by which nothing is heard, and since when.
type Silence struct {
	Via   uint32
	Since time.Duration
}

// Change is a subject's new state and when it began.
type Change struct {
	Subject uint32
	State   State
	At      time.Duration
	// Heard is when the subject was last heard by any path.
	Heard time.Duration
	// Silent are the paths that led to a Path or Down.
	Silent []Silence
}

// Detector judges subjects by the age of their newest beat on each path. It is a
// value for one goroutine; times come from the caller, as durations since a
// moment of its choice, and never run backwards.
type Detector struct {
	cfg      Config
	subjects map[uint32]*subject
	queue    queue
	now      time.Duration // everything up to here is judged
	tick     time.Duration // when the observer checks itself next
	check    selfcheck
	changes  []Change
}

// New returns a detector which watches nobody.
func New(cfg Config) *Detector {
	return &Detector{cfg: cfg, subjects: make(map[uint32]*subject)}
}

// Watch sets the subjects; known ones keep what was heard of them.
func (d *Detector) Watch(ids []uint32) {
	known := d.subjects
	d.subjects, d.queue = make(map[uint32]*subject, len(ids)), d.queue[:0]
	for _, id := range ids {
		switch s := known[id]; {
		case d.subjects[id] != nil: // named twice
		case s != nil:
			d.subjects[id] = s
			d.queue.add(s)
		default:
			d.Add(id)
		}
	}
}

// Add watches one more subject.
func (d *Detector) Add(id uint32) {
	if d.subjects[id] == nil {
		s := &subject{id: id, key: never}
		d.subjects[id] = s
		d.queue.add(s)
	}
}

// Hear takes a beat of a subject: the path by which it came, the slot in which
// it was sent, and its arrival. A beat that is not newer than the newest on its
// path proves nothing and returns false. What was due before the arrival is
// judged first, what is due at the very moment is not: the beat is there.
func (d *Detector) Hear(id, by uint32, slot uint64, at time.Duration) (fresh bool) {
	s := d.subjects[id]
	if s == nil {
		return false
	}
	at = max(at, d.now)
	d.advance(at - 1)
	v := s.via(by, at)
	if v.timed() && slot <= v.slot || s.state == Left && slot <= s.slot {
		return false
	}
	if v.hear(slot, at, d.cfg.Interval) {
		s.fresh = at
	}
	d.heard(s, v, at)
	return true
}

// Report takes the word of a relay that it last heard a subject at a time, and in
// which slot that beat was sent. It proves nothing unless the slot rises: no relay
// keeps a dead subject alive by saying the same again.
func (d *Detector) Report(id, by uint32, slot uint64, heard, at time.Duration) (fresh bool) {
	s := d.subjects[id]
	if s == nil || by == 0 {
		return false
	}
	at = max(at, d.now)
	d.advance(at - 1)
	v := s.via(by, at)
	switch {
	case v.slot > 0 && slot == v.slot, s.state == Left && slot <= s.slot, heard < s.reborn:
		return false
	case v.slot > 0 && slot < v.slot, s.implausible(slot, at, d.cfg.Interval):
		again := v.odd > 0 && slot > v.odd && slot-v.odd <= restartSlots
		if v.odd = slot; !again {
			return false
		}
		d.Restart(id, heard) // it has begun to count anew, and we did not hear it say so
	}
	v.report(slot, min(heard, at))
	d.heard(s, v, at)
	return true
}

// restartSlots is by how much the slots of a relay's words may rise that are below
// what it said before and still be taken for those of a subject that started anew.
const restartSlots = 64

// Sighting is when a subject was last heard directly, and in which slot; ok is
// false if it never was.
func (d *Detector) Sighting(id uint32) (at time.Duration, slot uint64, ok bool) {
	s := d.subjects[id]
	if s == nil || len(s.vias) == 0 || !s.vias[0].timed() {
		return 0, 0, false
	}
	return s.vias[0].at, s.vias[0].slot, true
}

// Slot is the newest slot of a subject, heard by whatever path.
func (d *Detector) Slot(id uint32) uint64 {
	if s := d.subjects[id]; s != nil {
		return s.slot
	}
	return 0
}

// Suspect tells whether it is time to ask others about a subject: its direct path
// owes a beat, or is known to be broken.
func (d *Detector) Suspect(id uint32, now time.Duration) bool {
	s := d.subjects[id]
	if s == nil || !s.alive() || !s.vias[0].timed() {
		return false
	}
	v := &s.vias[0]
	return now > v.expected(d.cfg.Interval)+max(time.Duration(v.margin()), d.cfg.Interval/3)
}

// Next is when Due should be called again, if nothing is heard until then.
func (d *Detector) Next() time.Duration {
	if len(d.queue) == 0 {
		return never
	}
	return min(d.queue[0].key, d.nextTick())
}

// Restart forgets the slots of a subject: it has begun to count anew. What relays have
// heard of it before is of another life; taken for news of this one, it would be old
// enough to look like its end.
func (d *Detector) Restart(id uint32, at time.Duration) {
	if s := d.subjects[id]; s != nil {
		s.slot, s.reborn = 0, at
		for i := range s.vias {
			v := &s.vias[i]
			*v = via{id: v.id, at: v.at}
		}
	}
}

// Leave takes a goodbye: the subject expects to be back within a time (0: it does not
// say), and is no failure until then, or until LeaveFor. Whoever says so again and again
// is not believed: a process which ends in order at each start serves nobody.
func (d *Detector) Leave(id uint32, slot uint64, within, at time.Duration) {
	s := d.subjects[id]
	if s == nil {
		return
	}
	at = max(at, d.now)
	d.advance(at - 1)
	if s.state != Left && !s.goodbye(at) {
		return
	}
	if within <= 0 || within > d.cfg.LeaveFor {
		within = d.cfg.LeaveFor
	}
	if s.state != Left {
		s.till = at + within
	}
	s.slot, s.heard = max(s.slot, slot), at
	d.set(s, Left, at)
}

// heard notes evidence of life, and what follows from it.
func (d *Detector) heard(s *subject, v *via, at time.Duration) {
	if v.slot > s.slot+1 || at > s.quiet(&d.cfg) {
		s.run = at
	}
	news := v.slot > s.slot && at-v.at < s.timeout(&d.cfg)
	s.slot, s.heard, s.retry = max(s.slot, v.slot), max(s.heard, v.at), 0
	switch {
	case s.state == Down && !news: // a straggler: it lived before, as we know
	case v.id == 0 && at-v.at < s.timeout(&d.cfg), s.state == Unknown:
		d.set(s, Up, at)
	case s.state == Down, s.state == Left:
		d.set(s, Path, at)
	}
	// What is learned now may say that a verdict was due before; it is given now. Time
	// which was judged is not judged again.
	if due := max(s.due(&d.cfg), at); due < s.key {
		d.queue.set(s, due)
	}
}

// Due judges what is due up to now, each at its own time.
func (d *Detector) Due(now time.Duration) { d.advance(max(now, d.now)) }

// Changes returns what has changed since the last call, in order of time. They
// are overwritten by the next judgement.
func (d *Detector) Changes() []Change {
	out := d.changes
	d.changes = d.changes[:0]
	return out
}

// advance runs the clock to a time: due subjects and self-checks in their order,
// so that it makes no difference in how many steps the time passes.
func (d *Detector) advance(to time.Duration) {
	for len(d.queue) > 0 {
		due := d.queue[0].key
		if next := min(due, d.nextTick()); next > to {
			break
		}
		if d.tick <= due {
			d.selfCheck(d.tick)
			d.tick += d.cfg.Interval / ticksPerInterval
			continue
		}
		d.judge(d.queue[0], due)
	}
	d.now = max(d.now, to)
	if d.idle() {
		d.tick = max(d.tick, (d.now/d.cfg.Interval+1)*d.cfg.Interval)
	}
}

// idle tells whether nothing can happen before somebody is heard.
func (d *Detector) idle() bool {
	return len(d.queue) == 0 || d.queue[0].key == never && !d.Held()
}

// nextTick is when the observer checks itself next; not while nothing can happen.
func (d *Detector) nextTick() time.Duration {
	if d.idle() {
		return never
	}
	return d.tick
}

// judge looks at a subject whose time has come, or seems to have.
func (d *Detector) judge(s *subject, at time.Duration) {
	due := s.due(&d.cfg)
	switch {
	case due > at:
		d.queue.set(s, due)
	case s.state == Left:
		d.set(s, Down, max(at, due))
	case d.Held() || !d.check.sure && d.mostSilent(at):
		d.begin(at)
		d.queue.set(s, never) // until the hold ends
	case s.downDue(&d.cfg) <= at || d.early(s, at):
		d.set(s, Down, at)
	case s.state == Up && s.pathDue(&d.cfg) <= at:
		d.set(s, Path, at)
	default: // an early verdict without proof
		s.retry = at + d.cfg.Interval/16
		d.queue.set(s, s.due(&d.cfg))
	}
}

// set moves a subject to a state and notes the change, or nothing: what is steady
// is no news. Two states of one subject never begin at the same time.
func (d *Detector) set(s *subject, to State, at time.Duration) {
	if s.state == to {
		if due := s.due(&d.cfg); due > s.key {
			d.queue.set(s, due)
		}
		return
	}
	if s.state != Unknown {
		at = max(at, wholeMs(s.since+1))
	}
	first := s.state == Unknown
	s.state, s.since = to, at
	c := Change{Subject: s.id, State: to, At: at, Heard: s.heard}
	if !first && (to == Down || to == Path) {
		for i := range s.vias {
			if v := &s.vias[i]; to == Down || v.id == 0 {
				c.Silent = append(c.Silent, Silence{v.id, v.at})
			}
		}
	}
	d.changes = append(d.changes, c)
	d.queue.set(s, s.due(&d.cfg))
}

// State returns a subject's state.
func (d *Detector) State(id uint32) State {
	if s := d.subjects[id]; s != nil {
		return s.state
	}
	return Unknown
}

// Suspicion is how sure the observer is, by the delays seen so far, that the next
// beat of a subject will come by no path: phi of a normal distribution, 0 to 99.
// It rises long before a verdict, for what costs nothing: asking others, warming
// a backup.
func (d *Detector) Suspicion(id uint32, now time.Duration) float64 {
	s := d.subjects[id]
	if s == nil || s.state == Unknown || s.state == Left {
		return 0
	}
	phi := float64(maxPhi)
	for i := range s.vias {
		if v := &s.vias[i]; s.works(v) && v.timed() {
			phi = min(phi, v.phi(now, d.cfg.Interval))
		}
	}
	return phi
}
