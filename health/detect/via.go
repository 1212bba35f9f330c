package detect

import (
	"math"
	"time"
)

// via is one path by which a subject is heard: 0 is the direct one, others lead
// through a relay. All times are of the observer's clock.
type via struct {
	id   uint32
	slot uint64        // newest send slot heard
	odd  uint64        // newest slot that was reported and not believed
	at   time.Duration // when the path last gave evidence; silence counts from here
	// first is the delay of the first beat: arrival less slot x interval. Clocks of
	// two machines have no common zero, so only differences to it mean anything.
	first time.Duration
	// mean and dev describe the delay, less first, in nanoseconds: moving averages.
	mean, dev float64
}

const (
	delayWeight = 1.0 / 16
	minDev      = float64(2 * time.Millisecond) // no path is steadier than schedulers are
)

// hear takes a beat which is newer than the newest and tells whether it came
// about when it was expected. A beat that waited in a queue proves that the
// subject lived when it was sent, not that it lives: silence counts from where it
// was due, but never by more than half an interval, lest a path that has become
// slow look dead.
func (v *via) hear(slot uint64, at, interval time.Duration) (normal bool) {
	delay := at - time.Duration(slot)*interval
	if v.dev == 0 {
		v.first, v.mean, v.dev = delay, 0, float64(interval)/8
		v.slot, v.at = slot, at
		return true
	}
	err := float64(delay-v.first) - v.mean
	normal = math.Abs(err) <= v.margin()
	limit := max(4*v.dev, float64(interval)/8) // a single outlier must not blind us
	err = max(-limit, min(err, limit))
	late := min(max(float64(delay-v.first)-v.mean, 0), float64(interval)/2)
	v.mean += delayWeight * err
	v.dev = max(v.dev+delayWeight*(math.Abs(err)-v.dev), minDev)
	v.slot, v.at = slot, at-time.Duration(late)
	return normal
}

// report takes the word of a relay that it has heard the subject at a time. Such
// words come when the relay speaks and not when the subject does, so they tell
// nothing about delays.
func (v *via) report(slot uint64, at time.Duration) {
	v.slot, v.at, v.odd = slot, max(v.at, at), 0
}

// timed tells whether the delays of the path are known: it carries beats, not words.
func (v *via) timed() bool { return v.dev != 0 }

// expected is when the next beat is due on this path.
func (v *via) expected(interval time.Duration) time.Duration {
	return v.first + time.Duration(v.slot+1)*interval + time.Duration(v.mean)
}

// deviations is how far beyond its mean delay a beat must be to be missed for
// good: the phi of a normal distribution reaches 8 there. The mean deviation of a
// normal distribution is 0.8 of its standard deviation.
const deviations = 5.6 / 0.8

// margin is how late a beat may be and still be nothing special, in nanoseconds.
func (v *via) margin() float64 { return deviations * v.dev }

// phi is the suspicion that the next beat will never come: minus the logarithm to
// base 10 of the chance that it is later than now.
func (v *via) phi(now, interval time.Duration) float64 {
	sigma := v.dev / 0.8
	tail := math.Erfc(float64(now-v.expected(interval))/sigma/math.Sqrt2) / 2
	return min(-math.Log10(max(tail, 1e-300)), maxPhi)
}

// maxPhi is as sure as suspicion gets.
const maxPhi = 99
