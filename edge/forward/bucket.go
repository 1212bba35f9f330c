package forward

import "time"

// bucket allows rate takes a second, and as many at once. It begins full. A
// clock that runs backwards takes nothing away.
type bucket struct {
	rate, left float64
	last       time.Time
}

// take takes one, if there is one.
func (b *bucket) take(now time.Time) bool { return b.takeMany(now, 1) }

// takeMany takes n, if there are so many.
func (b *bucket) takeMany(now time.Time, n float64) bool {
	if !b.last.IsZero() {
		b.left = min(b.rate, b.left+b.rate*max(0, now.Sub(b.last).Seconds()))
	}
	b.last = now
	if b.left < n {
		return false
	}
	b.left -= n
	return true
}
