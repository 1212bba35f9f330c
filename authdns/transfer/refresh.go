package transfer

import (
	"time"

	"github.com/miekg/dns"
)

// timers are the three of a SOA record, within sense (RFC 1035 section 3.3.13).
type timers struct{ refresh, retry, expire time.Duration }

// Bounds of the timers. A primary that sets them to seconds would be asked by
// every node all the time, one that sets them to years never again.
const (
	minTimer   = 2 * time.Second
	maxRefresh = 28 * 24 * time.Hour
	maxRetry   = 14 * 24 * time.Hour
)

// timersOf reads the timers. Expire is never shorter than a refresh and a retry
// together: a zone would end although nothing is wrong (RFC 1912 section 2.2).
func timersOf(soa *dns.SOA) timers {
	t := timers{
		refresh: min(max(time.Duration(soa.Refresh)*time.Second, minTimer), maxRefresh),
		retry:   min(max(time.Duration(soa.Retry)*time.Second, minTimer), maxRetry),
	}
	t.expire = max(time.Duration(soa.Expire)*time.Second, t.refresh+t.retry)
	return t
}

// firstRetry and lastRetry bound how soon a zone that was never received is tried
// again: there is no SOA yet to say it, and nobody is served until then.
const (
	firstRetry = 2 * time.Second
	lastRetry  = 2 * time.Minute
)

// refresh decides when a primary is asked. It is a value: every method returns the
// state after an event, with the time of the event handed in.
type refresh struct {
	primaries int // how many there are
	held      bool
	serial    uint32
	timers    timers
	// confirmed is when a primary last showed that the held version is its newest.
	confirmed time.Time
	due       time.Time // when to ask next
	primary   int       // whom
	failed    int       // primaries in a row; all of them are a round
	// again is set by a NOTIFY that came while a primary was being asked: what it
	// was about may be newer than the answer.
	again bool
}

// restored is the state at a start: with a version from disk, or with none. It is
// asked at once, since nobody knows what was missed.
func restored(primaries int, soa *dns.SOA, confirmed, now time.Time) refresh {
	r := refresh{primaries: primaries, due: now}
	if soa != nil {
		// A clock that was set back must not make the version young for ever.
		r.held, r.serial, r.timers, r.confirmed = true, soa.Serial, timersOf(soa), earlier(confirmed, now)
	}
	return r
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// expiry is when the held version may no longer be served.
func (r refresh) expiry() time.Time { return r.confirmed.Add(r.timers.expire) }

// expired tells whether it is so far.
func (r refresh) expired(now time.Time) bool { return r.held && !now.Before(r.expiry()) }

// next is when to look again: to ask, or because the version expires before.
func (r refresh) next(now time.Time) time.Time {
	if r.held && !r.expired(now) && r.expiry().Before(r.due) {
		return r.expiry()
	}
	return r.due
}

// confirm takes in that the primary asked has no newer version than soa, which is
// held from now on. Spread, from 0 to 1, brings the next time forward by up to a
// tenth, so that the nodes of a fleet do not all ask at once.
func (r refresh) confirm(now time.Time, soa *dns.SOA, spread float64) refresh {
	r.held, r.serial, r.timers, r.confirmed, r.failed = true, soa.Serial, timersOf(soa), now, 0
	r.due = now.Add(r.timers.refresh - time.Duration(spread*float64(r.timers.refresh)/10))
	return r.caughtUp(now)
}

// fail takes in that the primary asked did not help. The next one is asked at
// once; when all have failed it is time to wait.
func (r refresh) fail(now time.Time) refresh {
	r.primary = (r.primary + 1) % r.primaries
	r.failed++
	r.due = now
	if r.failed%r.primaries == 0 {
		r.due = now.Add(r.wait())
	}
	return r.caughtUp(now)
}

// wait is the time between two rounds.
func (r refresh) wait() time.Duration {
	if r.held {
		return r.timers.retry
	}
	round := min(r.failed/r.primaries-1, 10)
	return min(firstRetry<<round, lastRetry)
}

// caughtUp asks once more where a NOTIFY came in the meantime.
func (r refresh) caughtUp(now time.Time) refresh {
	if r.again {
		r.again, r.due = false, now
	}
	return r
}

// notified takes in that a primary tells of a version; known says whether it told
// which. What is held already is no news.
func (r refresh) notified(now time.Time, serial uint32, known, asking bool) refresh {
	switch {
	case known && r.held && !later(serial, r.serial):
	case asking:
		r.again = true
	default:
		r.due = now
	}
	return r
}
