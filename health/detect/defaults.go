package detect

import "time"

// manyPaths is the number of paths from which one more makes no difference.
const manyPaths = 5

// Config are the times of a Detector.
type Config struct {
	// Interval is the time between two beats of a subject.
	Interval time.Duration
	// Timeouts is the silence after which a path counts as silent, by the number
	// of paths of the subject that worked when the silence began: Timeouts[0] with
	// one path alone, the last with five or more.
	Timeouts [manyPaths]time.Duration
	// Early is the number of working paths from which a verdict need not wait for
	// the timeout, provided that the observer is proven to be well; 0: never.
	Early int
	// MaxHold ends a hold at last, lest the true loss of most sites be hidden.
	MaxHold time.Duration
	// LeaveFor is how long a subject may stay away after it said goodbye (an
	// upgrade, a restart) before it counts as down.
	LeaveFor time.Duration
}

// Defaults returns the times for a beat interval.
//
// With five paths the timeout is two intervals and a tenth of a second (0.7 s at
// 300 ms, 0.3 s at 100 ms): all five lose two beats in a row only when nothing
// gets through. A single path pauses for a second many times a day, so that it
// gets 2 s, whatever the interval, and never fewer than six beats. Between them
// the timeout falls with each path; a replay of some days shows why not faster:
// with two or three paths a spell of loss on one meets an outage of the other.
func Defaults(interval time.Duration) Config {
	many := 2*interval + 100*time.Millisecond
	one := max(2*time.Second, 6*interval)
	between := func(part time.Duration) time.Duration { return many + (one-many)*part/100 }
	return Config{Interval: interval, MaxHold: 25 * time.Second, LeaveFor: 30 * time.Second, Early: 4,
		Timeouts: [manyPaths]time.Duration{one, between(40), between(20), between(8), many}}
}
