package detect

import "time"

// selfcheck is what the observer knows about itself. When most of what it watches
// falls silent at once, it is the likelier fault.
type selfcheck struct {
	since time.Duration // when the hold began; -1 would be a time, so on tells
	on    bool
	calm  time.Duration // when the majority was heard again
	quiet bool          // calm counts
	// sure is set when a hold ended although most are silent still: there will be no
	// other before the majority was heard.
	sure bool
}

const (
	ticksPerInterval = 4
	// proofs is how many subjects prove, by being heard without a gap, that the
	// observer works.
	proofs = 2
)

// Held tells whether the observer doubts itself.
func (d *Detector) Held() bool { return d.check.on }

// mostSilent tells whether more than half of two or more living subjects are silent
// on every path.
func (d *Detector) mostSilent(now time.Duration) bool {
	watched, silent := 0, 0
	for _, s := range d.queue {
		if s.alive() {
			watched++
			if s.quiet(&d.cfg) < now {
				silent++
			}
		}
	}
	return watched >= 2 && 2*silent > watched
}

// begin starts a hold, if there is none.
func (d *Detector) begin(now time.Duration) {
	if !d.check.on {
		d.check.on, d.check.since, d.check.quiet = true, now, false
	}
}

// selfCheck begins and ends the hold. It ends two intervals after the majority is
// heard again; or when others, heard in every slot since it began, prove that the
// observer works and the rest is truly lost; or after MaxHold.
func (d *Detector) selfCheck(now time.Duration) {
	c := &d.check
	sick := d.mostSilent(now)
	c.sure = c.sure && sick
	switch {
	case !c.on && sick && !c.sure:
		d.begin(now)
	case !c.on:
	case sick && (now-c.since >= d.cfg.MaxHold || d.proven(now)):
		c.sure = true
		d.release(now, 0)
	case sick:
		c.quiet = false
	case !c.quiet:
		c.quiet, c.calm = true, now
	case now-c.calm >= 2*d.cfg.Interval:
		d.release(now, c.calm-c.since)
	}
}

// proven tells whether two subjects were heard in every slot for two intervals of
// the hold and more: a broken edge or a loop that stands still lets none through,
// and one that loses much does not let through all.
func (d *Detector) proven(now time.Duration) bool {
	if now-d.check.since < 2*d.cfg.Interval {
		return false
	}
	n := 0
	for _, s := range d.queue {
		if s.alive() && s.run <= d.check.since && s.quiet(&d.cfg) >= now {
			n++
		}
	}
	return n >= proofs
}

// release ends a hold. Silence in the time when the observer was sick is not
// held against anybody.
func (d *Detector) release(now, credit time.Duration) {
	d.check.on = false
	for _, s := range d.queue {
		d.credit(s, credit, now)
	}
	d.rekey(now)
}

// rekey sorts everybody in anew: what waited for the end of a hold is due now.
func (d *Detector) rekey(now time.Duration) {
	for _, s := range append(queue(nil), d.queue...) {
		if due := s.due(&d.cfg); due != s.key {
			d.queue.set(s, max(due, now))
		}
	}
}

func (d *Detector) credit(s *subject, time, now time.Duration) {
	if time == 0 || !s.alive() {
		return
	}
	for i := range s.vias {
		s.vias[i].at = min(s.vias[i].at+time, now)
	}
	s.heard = min(s.heard+time, now)
}

// Skip tells that the observer itself stood still for a while up to now, and has
// heard since all that waited for it. Deadlines inside the pause prove nothing.
func (d *Detector) Skip(pause, now time.Duration) {
	for _, s := range d.queue {
		d.credit(s, pause, now)
	}
	d.rekey(now)
	d.now = max(d.now, now)
}

// early tells whether a verdict is sure before the timeout: the beat that is due
// has come by none of the many paths that worked, and after its last copy should
// have come those of others did, as expected, so that it is not the observer.
func (d *Detector) early(s *subject, now time.Duration) bool {
	expected, overdue := s.missed(&d.cfg)
	if overdue == 0 || overdue > now {
		return false
	}
	punctual, late := 0, 0
	for _, o := range d.queue {
		if o == s || !o.alive() {
			continue
		}
		if o.fresh > expected {
			punctual++
		}
		if next, _ := o.next(&d.cfg); next+d.cfg.Interval/8 < now {
			late++
		}
	}
	return punctual >= proofs && 4*late <= punctual
}
