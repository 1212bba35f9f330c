package edge

import (
	"math"
	"time"
)

// A record carries the round trip that its session's owner measured, in the bits of
// Record.Options which sites that know nothing of it leave alone: 0 for unknown, then from
// one millisecond on in steps of a third of an octave, rounded up.
const (
	recTripShift   = 3
	recTripSteps   = 3 // an octave
	recTripLongest = 1<<(8-recTripShift) - 1
)

// tripBits writes a round trip.
func tripBits(rtt time.Duration) uint8 {
	if rtt <= 0 {
		return 0
	}
	steps := math.Ceil(recTripSteps * math.Log2(max(rtt.Seconds()*1000, 1)))
	return uint8(min(steps+1, recTripLongest)) << recTripShift
}

// tripOf reads it.
func tripOf(options uint8) time.Duration {
	n := options >> recTripShift
	if n == 0 {
		return 0
	}
	return time.Duration(math.Exp2(float64(n-1)/recTripSteps) * float64(time.Millisecond))
}

// tripSlack is how much longer, beyond half as long, the way from another site may be.
const tripSlack = 10 * time.Millisecond

// tripFrom is the round trip that a revived session's kernel is told, of what the owner knew
// and of what the answer to the first probe took; 0: nothing is known of it. That probe may
// have been lost and a later one answered, and where all sessions of a site come at once it
// stands in queues. A kernel that takes that for the path waits several times as long
// before it repeats what is lost; one that is told too little repeats something too early,
// and has measured the path by then.
func tripFrom(known, took time.Duration) time.Duration {
	switch {
	case known == 0:
		return took
	case took == 0:
		return known
	}
	return min(took, known+known/2+tripSlack)
}
