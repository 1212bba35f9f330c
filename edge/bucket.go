package edge

import (
	"sync"
	"time"
)

// bucket is a token bucket: rate tokens a second, at most one tenth of a
// second's worth at once. Safe for concurrent use.
type bucket struct {
	mu   sync.Mutex
	rate float64
	have float64
	last time.Time
}

func newBucket(rate int) *bucket {
	return &bucket{rate: float64(rate), have: max(float64(rate)/10, 1)}
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() {
		b.have = min(b.have+now.Sub(b.last).Seconds()*b.rate, max(b.rate/10, 1))
	}
	b.last = now
	if b.have < 1 {
		return false
	}
	b.have--
	return true
}
