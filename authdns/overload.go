package authdns

import (
	"math"
	"sync/atomic"
	"time"
)

// What happens when more work is asked for than there is: replies that were made
// ahead, or kept, are given to everybody as long as the socket is read at all. What has
// to be made costs twenty times as much, a signature among it, and there is a limit to
// how many are made in a second. This file says who gets them. It decides on values
// alone; counting and sending are the worker's.

// rank is how much speaks for whoever asks, best first.
type rank uint8

const (
	classCookie rank = iota // shows a cookie that we gave to this very address
	classKnown              // of a network that asked in calm times, mostly for what exists
	classOther
	// classAttack are the others who ask for a name below one that is asked for far too
	// many which do not exist. Those who ask for other names do not suffer with them.
	classAttack
)

var classLabels = [...]string{"cookie", "known", "other", "attack"}

// fate is what becomes of a query.
type fate uint8

const (
	fateServe     fate = iota
	fateTruncate       // question and TC: whoever is real comes back over TCP
	fateBadCookie      // whoever speaks cookies comes back with a good one (RFC 7873 section 5.2.3)
	fateDrop
)

var (
	fateLabels = [...]string{"answered", "truncated", "badcookie", "dropped"}
	wouldDo    = [...]string{fateTruncate: "overload_truncate", fateBadCookie: "overload_badcookie", fateDrop: "overload_drop"}
)

// plea is a query whose reply has to be made.
type plea struct {
	class  rank
	cookie cookieUse
	// absent is set where the reply takes a signature of its own, since the name does
	// not exist: there is no end to those.
	absent bool
}

// speaks tells whether the asker speaks cookies and has none of ours yet.
func (p *plea) speaks() bool { return p.cookie == cookieClient || p.cookie == cookieBad }

// supply is what there is for a plea when it comes.
type supply struct {
	signatures, returns *purse
	now                 int64 // nanoseconds of Unix
	// pressure says for how many steps the socket has not run dry.
	pressure int
	// made counts what was made, less what each read of the socket has made up for.
	made int
}

// signLimits say how much debt a purse may have for a class to draw on it: the lower
// ones leave the rest to those above them. So the best have the whole rate when they
// need it, and the others what is left of it.
var signLimits = [...]int64{classCookie: whole, classKnown: whole * 7 / 8, classOther: whole / 2, classAttack: whole / 4}

// makeLimits say up to what count a class and those above it have replies made between
// reads of a socket that does not run dry. Each step of pressure after the first halves
// it, down to an eighth, for those of whom nothing good is known: what is left goes to
// reading. The good ones keep theirs whole, which is some milliseconds' work, for they
// come in bursts, and are held to what the reads make up for.
var makeLimits = [...]int{classCookie: 4 * batchSize, classKnown: 3 * batchSize, classOther: batchSize / 4, classAttack: batchSize / 16}

// read is told of each read of the socket: it makes up for as many replies as one may
// lead to in the long run, fewer the longer the socket has not run dry.
func (s *supply) read() { s.made = max(s.made-batchSize>>steps(s.pressure), 0) }

// steps is how often pressure halves what may be made.
func steps(pressure int) int { return min(max(pressure-1, 0), 3) }

// sign takes a signature for a name that does not exist.
func (s *supply) sign() bool { return s.signatures.take(s.now) }

// makes is up to what count replies of a class are made.
func makes(c rank, pressure int) int {
	switch {
	case pressure <= 0:
		return math.MaxInt
	case c < classOther:
		return makeLimits[c]
	}
	return makeLimits[c] >> steps(pressure)
}

// fate decides about a plea.
func (s *supply) fate(p plea) fate {
	switch {
	case s.made < makes(p.class, s.pressure) && (!p.absent || s.signatures.holds(s.now, signLimits[p.class])):
		return fateServe
	case p.speaks():
		return fateBadCookie
	case s.returns.holds(s.now, signLimits[p.class]):
		return fateTruncate
	}
	return fateDrop
}

// purse holds a second's worth of something that comes back at a steady rate (the
// generic cell rate algorithm). It counts in time: what was taken is a debt to the
// clock. All workers share one, whichever of them a flood hits. Between a look into it
// and taking from it others may have taken: a few more than there are, once.
type purse struct {
	step int64        // nanoseconds that one costs
	paid atomic.Int64 // when all that was taken will be paid
}

// whole is the debt that empties a purse.
const whole = int64(time.Second)

// newPurse makes one of rate a second, one at least.
func newPurse(rate int) *purse { return &purse{step: whole / int64(min(max(rate, 1), int(whole)))} }

// debt is what has been taken and not come back. A clock that was set back does not
// hold us up for more than a second.
func (p *purse) debt(now int64) int64 { return min(max(p.paid.Load()-now, 0), whole) }

// holds tells whether one more leaves the debt within a limit.
func (p *purse) holds(now, limit int64) bool { return p.debt(now)+p.step <= limit }

// take takes one, if there is one at all.
func (p *purse) take(now int64) bool {
	for {
		paid := p.paid.Load()
		debt := min(max(paid-now, 0), whole)
		if debt+p.step > whole {
			return false
		}
		if p.paid.CompareAndSwap(paid, now+debt+p.step) {
			return true
		}
	}
}

// Pressure begins when a socket has not run dry for so long, and grows with each further
// such time. A burst behind a pause of the machine is gone by then.
const pressureStep = 5 * time.Millisecond

// pressure is how many steps a socket has not run dry for, by the batches that came full
// in a row and when the first of them began.
func pressure(full int, since, now time.Time) int {
	if full < pressedAfter {
		return 0
	}
	return int(now.Sub(since) / pressureStep)
}

// overloadLinger is how long an overload lasts after the last query that was not
// served: what comes in waves is one story.
const overloadLinger = 10 * time.Second

// overloaded tells whether a query was lately not served; shed is when the last was.
func overloaded(shed, now int64) bool {
	return shed != 0 && now-shed < int64(overloadLinger) && shed-now < int64(overloadLinger)
}
