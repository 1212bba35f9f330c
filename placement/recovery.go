package placement

import "time"

// Recovery says how what failed comes back: not at once with all others, not at
// full load, and not while it flaps.
type Recovery struct {
	// Delay is the span within which the start lies at random.
	Delay Duration `json:"delay"`
	// Ramp is how long the part of its clients grows, in equal steps from Floor.
	Ramp  Duration `json:"ramp"`
	Floor int      `json:"floor"` // per mille
	// HalfLife is in which time the penalty of a departure halves.
	HalfLife Duration `json:"half_life"`
}

// Comeback returns how what failed comes back in this fleet. The defaults have
// all as before 180 s after a repair, whatever was before.
func (f *Fleet) Comeback() Recovery {
	if f.Recovery != nil {
		return *f.Recovery
	}
	return DefaultRecovery()
}

// DefaultRecovery is the recovery of a fleet that says nothing of it.
func DefaultRecovery() Recovery {
	return Recovery{Delay: Duration(30 * time.Second), Ramp: Duration(60 * time.Second), Floor: 100, HalfLife: Duration(time.Minute)}
}
