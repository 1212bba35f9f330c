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
	state      placement.State // Unknown, Up, Degraded or Down
	good, bad  int             // results in a row; a degraded one is good
	slow       int             // degraded results in a row
	penalty    float64         // at the time at
	at         time.Time       // when penalty was computed
}

func newDamper(rise, fall int) damper { return damper{rise: max(rise, 1), fall: max(fall, 1)} }

// feed takes a result and tells whether the state changed. A look that could not
// see changes nothing. agreed is set when evidence of another kind says down as
// well: one bad look is then as good as fall of them.
func (d *damper) feed(found placement.State, agreed bool, now time.Time) (changed bool) {
	before := d.state
	d.count(found)
	switch {
	case found == placement.Unknown:
	case found == placement.Down:
		if d.state != placement.Down && (d.bad >= d.fall || agreed) {
			d.leave(now)
		}
	case d.state == placement.Unknown:
		// The first good look suffices: nothing was taken away that must be earned back.
		d.state = found
	case d.state == placement.Down:
		if d.good >= d.rise && d.decayed(now) < reuse {
			d.state = found
		}
	case d.state == placement.Up && d.slow >= d.fall:
		d.state = placement.Degraded
	case d.state == placement.Degraded && d.slow == 0 && d.good >= d.rise:
		d.state = placement.Up
	}
	return d.state != before
}

// count keeps the results in a row. The first result that is wholly good after
// degraded ones begins a new row, so that good without slow counts those alone.
func (d *damper) count(found placement.State) {
	switch found {
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
}

// leave goes down. Only a service that was seen working is flapping.
func (d *damper) leave(now time.Time) {
	p := d.decayed(now)
	if d.state == placement.Up || d.state == placement.Degraded {
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
