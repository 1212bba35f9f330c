package bfd

import (
	"fmt"
	"time"
)

// Timing is what we offer a neighbour: a beat each Interval, and how many of
// ours it may miss.
type Timing struct {
	Interval   time.Duration
	Multiplier uint8
}

// The defaults notice a death in 900 ms. Shorter ones work and ask for a
// machine which never loses the CPU for that long.
const (
	DefaultInterval   = 300 * time.Millisecond
	DefaultMultiplier = 3
)

// The limits of an interval. Below the lower one a busy machine is taken for a
// dead one.
const (
	minInterval = 10 * time.Millisecond
	maxInterval = time.Minute
)

// slow is the least interval of a session which is not Up (RFC 5880 section 6.8.3).
const slow = time.Second

// Or fills in the defaults.
func (t Timing) Or() Timing {
	if t.Interval == 0 {
		t.Interval = DefaultInterval
	}
	if t.Multiplier == 0 {
		t.Multiplier = DefaultMultiplier
	}
	return t
}

// Check tells whether a session may run on it.
func (t Timing) Check() error {
	if t.Interval < minInterval || t.Interval > maxInterval {
		return fmt.Errorf("bfd: interval %s: want %s to %s", t.Interval, minInterval, maxInterval)
	}
	if t.Multiplier == 0 {
		return fmt.Errorf("bfd: multiplier 0: want 1 to 255 (RFC 5880 section 4.1)")
	}
	return nil
}

// Jitter shortens an interval by a random part, so that the packets of many
// systems do not fall into step: by up to 25 %, and by at least 10 % where one
// lost packet ends the session (RFC 5880 section 6.8.7). chance is anything.
func Jitter(interval time.Duration, multiplier uint8, chance uint32) time.Duration {
	least, span := interval*3/4, interval/4
	if multiplier == 1 {
		span = interval * 15 / 100
	}
	// In microseconds, where the longest interval of the wire does not overflow.
	return least + time.Duration(uint64(span/time.Microsecond)*uint64(chance)>>32)*time.Microsecond
}

// micros turns a duration into what the wire carries, and fits it there.
func micros(d time.Duration) uint32 { return uint32(min(d.Microseconds(), 1<<32-1)) }

// fromMicros turns it back.
func fromMicros(us uint32) time.Duration { return time.Duration(us) * time.Microsecond }
