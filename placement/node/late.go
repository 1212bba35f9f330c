package node

import (
	"slices"
	"time"
)

// Late is a value, and when it was in force at those who take everything at once.
type Late[T any] struct {
	At    time.Time
	Value T
}

// Queue lets values pass after a time: an input-delayed twin answers by what was in
// force then, so that an input which ends its siblings has not come to it yet (Schomp
// et al., Akamai DNS, SIGCOMM 2020). What comes out is a function of the time and of
// what went in; clocks and files are its owner's. Of values that come within a grain
// the last one stands for all, so that a queue has Lag/Grain values at most and a
// value comes out up to a grain later, never sooner.
type Queue[T any] struct {
	Lag, Grain time.Duration
	// Current is in force; its At is zero before the first value.
	Current Late[T]
	// Waiting are those to come, oldest first.
	Waiting []Late[T]
	// Fed is until when time has passed for the queue: while it is held none does.
	Fed time.Time
	// known is until when it was seen what was in force, and unknown the last time in
	// which it was not, as the store or this node was away.
	known   time.Time
	unknown [2]time.Time
}

// knownGap is how far apart two looks may be with nothing missed between them.
const knownGap = 10 * time.Second

// Know says that at now everything that is in force has been put in.
func (q *Queue[T]) Know(now time.Time) {
	if !q.known.IsZero() && now.Sub(q.known) > knownGap {
		q.unknown = [2]time.Time{q.known, now}
	}
	q.known = now
}

// Put takes a value in. What was in force nowhere long enough to count is dropped and
// returned: replaced tells whether there was any. The very first value is in force at
// once, since there is none from before.
func (q *Queue[T]) Put(at time.Time, v T) (dropped Late[T], replaced bool) {
	next := Late[T]{at, v}
	if q.Current.At.IsZero() {
		q.Current, q.Fed = next, at
		return dropped, false
	}
	if n := len(q.Waiting); n > 0 && q.Waiting[n-1].At.Truncate(q.Grain).Equal(at.Truncate(q.Grain)) {
		dropped, q.Waiting[n-1] = q.Waiting[n-1], next
		return dropped, true
	}
	q.Waiting = append(q.Waiting, next)
	return dropped, false
}

// Newest is the value that came last.
func (q *Queue[T]) Newest() Late[T] {
	if n := len(q.Waiting); n > 0 {
		return q.Waiting[n-1]
	}
	return q.Current
}

// Pass lets the time come to now, and puts the newest value in force that has waited
// long enough. It returns the values that are over, oldest first.
func (q *Queue[T]) Pass(now time.Time) (over []Late[T]) {
	if now.After(q.Fed) {
		q.Fed = now
	}
	due := 0
	for due < len(q.Waiting) && !q.Waiting[due].At.Add(q.Lag).After(now) {
		due++
	}
	if due == 0 {
		return nil
	}
	over = append([]Late[T]{q.Current}, q.Waiting[:due-1]...)
	q.Current = q.Waiting[due-1]
	q.Waiting = slices.Clone(q.Waiting[due:])
	return over
}

// Forget drops all that waits and returns it: what is in force stays.
func (q *Queue[T]) Forget() []Late[T] {
	over := q.Waiting
	q.Waiting = nil
	return over
}

// AsOf is the moment of which the inputs in force are: Lag before the time that has
// passed, but for a queue which has not existed for so long, or has seen nothing then.
func (q *Queue[T]) AsOf() time.Time {
	at := q.Fed.Add(-q.Lag)
	if at.After(q.unknown[0]) && at.Before(q.unknown[1]) {
		at = q.unknown[0]
	}
	if at.After(q.Current.At) {
		return at
	}
	return q.Current.At
}
