package upload

import "time"

// Times of a lease. The owner counts from when it asked, by its own monotonic clock,
// and stops earlier; the Backup counts from when it answered. So the owner's time is
// over before the Backup's, whatever a message took.
const (
	LeaseTime   = 300 * time.Millisecond
	leaseMargin = 50 * time.Millisecond
)

// Lease is an owner's right to publish and answer without asking.
type Lease struct{ until time.Time }

// Granted takes an answer of the Backup to what was asked at a time.
func (l *Lease) Granted(asked time.Time) {
	if until := asked.Add(LeaseTime - leaseMargin); until.After(l.until) {
		l.until = until
	}
}

// Valid reports whether the owner may act.
func (l *Lease) Valid(now time.Time) bool { return now.Before(l.until) }

// Promise is a Backup's, not to take an upload over before its end.
type Promise struct{ until time.Time }

// Give renews the promise: call it before each answer.
func (p *Promise) Give(now time.Time) { p.until = now.Add(LeaseTime) }

// Over reports whether the upload may be taken over.
func (p *Promise) Over(now time.Time) bool { return !now.Before(p.until) }
