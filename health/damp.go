package health

import (
	"math"
	"time"

	"rhumb/placement"
)

// The flap penalty (after RFC 2439, scaled down to servers): leaving adds
// leavePenalty, which halves each halfLife; leaving is immediate, coming back
// waits until what is left is below reuse. One failure alone never waits; a
// second within 20 s or so of coming back does. Nobody comes back above reuse, so
// the penalty never exceeds reuse + leavePenalty, and the wait 45 s.
const (
	leavePenalty = 500
	halfLife     = time.Minute
	reuse        = 750
)

// damper turns single results into a steady state. It is a value: feed it
// results in order of time.
type damper struct {
	rise, fall int             // results in a row that it takes
	state      placement.State // Unknown, Up or Down
	good, bad  int             // results in a row
	penalty    float64         // at the time at
	at         time.Time       // when penalty was computed
}

func newDamper(rise, fall int) damper { return damper{rise: max(rise, 1), fall: max(fall, 1)} }

// feed takes a result and tells whether the state changed.
func (d *damper) feed(ok bool, now time.Time) (changed bool) {
	if ok {
		d.good, d.bad = d.good+1, 0
	} else {
		d.good, d.bad = 0, d.bad+1
	}
	switch {
	case !ok && d.state != placement.Down && d.bad >= d.fall:
		d.leave(now)
		return true
	case ok && d.state == placement.Unknown && d.good >= 1:
		// The first good look suffices: nothing was taken away that must be earned back.
		d.state = placement.Up
		return true
	case ok && d.state == placement.Down && d.good >= d.rise && d.decayed(now) < reuse:
		d.state = placement.Up
		return true
	}
	return false
}

// leave goes down. Only a service that was seen working is flapping.
func (d *damper) leave(now time.Time) {
	p := d.decayed(now)
	if d.state == placement.Up {
		p += leavePenalty
	}
	d.state, d.penalty, d.at = placement.Down, p, now
}

// decayed is the penalty that is left; it never grows, also when a clock runs back.
func (d *damper) decayed(now time.Time) float64 {
	if d.penalty == 0 {
		return 0
	}
	return d.penalty * math.Exp2(-float64(max(now.Sub(d.at), 0))/float64(halfLife))
}
