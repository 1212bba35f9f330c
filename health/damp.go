package health

import (
	"math"
	"time"

	"rhumb/placement"
)

// The flap penalty (after RFC 2439, scaled down to servers): each departure adds
// departure, also one seen while the target is down already, and the sum halves
// each half-life. Leaving is immediate; coming back waits until less than reuse is
// left. So one failure keeps out for 25 s, and whoever flaps faster than that stays
// out for as long as it flaps. The ceiling bounds the wait after the last flap to
// 73 s: with the start of the ramp (30 s at most) and the ramp (60 s), all is as
// before 180 s after a repair.
const (
	departure = 1000
	ceiling   = 1750
	reuse     = 750
	halfLife  = time.Minute
)

// penalty is what is left of departures. The zero value is none; halfLife 0 means
// the default.
type penalty struct {
	value    float64 // at the time at
	at       time.Time
	halfLife time.Duration
}

// add notes a departure.
func (p *penalty) add(now time.Time) {
	p.value, p.at = min(p.left(now)+departure, ceiling), now
}

// left is what remains; it never grows, also when a clock runs back.
func (p *penalty) left(now time.Time) float64 {
	if p.value == 0 {
		return 0
	}
	half := p.halfLife
	if half == 0 {
		half = halfLife
	}
	return p.value * math.Exp2(-float64(max(now.Sub(p.at), 0))/float64(half))
}

// reusable tells whether whoever left may come back.
func (p *penalty) reusable(now time.Time) bool { return p.left(now) < reuse }

// Who came back is on probation for so many looks: so many failed ones among
// them, in whatever order, send it away again. The fall counter alone would let a
// server that fails every third request take its whole load back by ramp.
const (
	probation = 16
	relapse   = 4
)

// damper turns single results into a steady state. It is a value: feed it
// results in order of time.
type damper struct {
	rise, fall int             // results in a row that it takes
	state      placement.State // Unknown, Up, Degraded or Down
	good, bad  int             // results in a row; a degraded one is good
	slow       int             // degraded results in a row
	flaps      penalty
	trial      int // looks left on probation
	failed     int // bad ones among those of the probation so far
}

func newDamper(rise, fall int, halfLife time.Duration) damper {
	return damper{rise: max(rise, 1), fall: max(fall, 1), flaps: penalty{halfLife: halfLife}}
}

// feed takes a result and tells whether the state changed. A look that could not
// see changes nothing. agreed is set when evidence of another kind says down as
// well: one bad look is then as good as fall of them.
func (d *damper) feed(found placement.State, agreed bool, now time.Time) (changed bool) {
	before := d.state
	relapsed := found == placement.Down && d.state == placement.Down && d.good > 0
	d.count(found)
	switch {
	case found == placement.Unknown:
	case relapsed:
		d.flaps.add(now)
	case found == placement.Down:
		if d.state != placement.Down && (d.bad >= d.fall || agreed || d.failed >= relapse) {
			d.leave(now)
		}
	case d.state == placement.Unknown:
		// The first good look suffices: nothing was taken away that must be earned back.
		d.state = found
	case d.state == placement.Down:
		if d.good >= d.rise && d.flaps.reusable(now) {
			d.state, d.trial, d.failed = found, probation, 0
		}
	case d.state == placement.Up && d.slow >= d.fall:
		d.state = placement.Degraded
	case d.state == placement.Degraded && d.slow == 0 && d.good >= d.rise:
		d.state = placement.Up
	}
	return d.state != before
}

// count keeps the results in a row and the probation. The first result that is
// wholly good after degraded ones begins a new row, so that good without slow counts
// those alone.
func (d *damper) count(found placement.State) {
	switch found {
	case placement.Unknown:
		return
	case placement.Up:
		if d.slow > 0 && d.state == placement.Degraded {
			d.good = 0
		}
		d.good, d.bad, d.slow = d.good+1, 0, 0
	case placement.Degraded:
		d.good, d.bad, d.slow = d.good+1, 0, d.slow+1
	case placement.Down:
		d.good, d.bad, d.slow = 0, d.bad+1, 0
	}
	if d.trial == 0 {
		d.failed = 0
		return
	}
	d.trial--
	if found == placement.Down {
		d.failed++
	}
}

// end goes down for a reason that no look has found: the process is gone. It tells
// whether that is a change.
func (d *damper) end(now time.Time) bool {
	if d.state == placement.Down {
		return false
	}
	d.leave(now)
	d.good = 0
	return true
}

// leave goes down. Only a target that was seen working is flapping.
func (d *damper) leave(now time.Time) {
	if d.state == placement.Up || d.state == placement.Degraded {
		d.flaps.add(now)
	}
	d.state, d.trial, d.failed = placement.Down, 0, 0
}

// Damper is the damping of one target for those who simulate it: the same rise
// and fall counters and the same penalty which precede a vote.
type Damper struct{ d damper }

// NewDamper returns a damper which has seen nothing yet.
func NewDamper(rise, fall int) *Damper { return &Damper{newDamper(rise, fall, 0)} }

// Feed takes a result and returns the state after it. Times never run backwards.
func (d *Damper) Feed(found placement.State, now time.Time) placement.State {
	d.d.feed(found, false, now)
	return d.d.state
}
