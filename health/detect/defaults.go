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
	// LeaveFor is how long a subject may stay away at the most after it said goodbye
	// (an upgrade, a restart) before it counts as down, whatever it said itself.
	LeaveFor time.Duration
	// BackWithin is what this node says of itself when it leaves.
	BackWithin time.Duration
}

// Defaults returns the times for a beat interval.
//
// With five paths the timeout is two intervals and a tenth of a second (0.7 s at
// 300 ms, 0.3 s at 100 ms): all five lose two beats in a row only when nothing
// gets through. A single path pauses for a second many times a day, so that it
// gets 2 s, whatever the interval, and never fewer than six beats. Between them
// the timeout falls with each path. Two days of made-up traces at 300 ms with
// twelve targets gave, for a few timeouts (TD: crash to verdict, mean; false and
// wrong: verdicts on a running target a day and target, wrong those while a path
// still worked; the others were true dark moments):
//
//	paths  timeout  TD      false  wrong
//	1      2.0 s    1.77 s  16.7   0.4
//	2      0.7 s    0.61 s  16.8   0.25
//	2      1.0 s    0.91 s  11.4   0.00
//	2      1.22 s   1.15 s   8.4   0.00   default
//	3      0.96 s   0.90 s  11.1   0.00   default
//	4      0.80 s   0.62 s  16.0   0.00   default, without early verdicts
//	5      0.7 s    0.61 s  14.0   0.00   default, without early verdicts
//	5      early    0.28 s  19.5   0.00   default
//
// An early verdict needs four paths whose delays are known, as those of a trace
// are. What a live node knows by the word of relays has no delay of its own, so
// that there the timeout decides.
func Defaults(interval time.Duration) Config {
	many := 2*interval + 100*time.Millisecond
	one := max(2*time.Second, 6*interval)
	between := func(part time.Duration) time.Duration { return many + (one-many)*part/100 }
	return Config{Interval: interval, MaxHold: 25 * time.Second, LeaveFor: 30 * time.Second, BackWithin: 15 * time.Second, Early: 4,
		Timeouts: [manyPaths]time.Duration{one, between(40), between(20), between(8), many}}
}
