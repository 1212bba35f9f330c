package token

import (
	"sync"
	"time"
)

// Question asks a keeper about a session. It is a touch when From and Epoch are
// the same, the word of a primary that goes on; else a claim, of one that wants
// to be it.
type Question struct {
	Session Session
	From    uint64    // epoch of the token that was opened
	Epoch   uint64    // epoch to have from now on
	Client  Client    // of the token
	Began   time.Time // the session, in whole seconds
	Nonce   uint64    // of a claim: tells it from another site's to the same epoch
}

// Vote is a keeper's answer.
type Vote uint8

// The votes.
const (
	// Abstained: the keeper may have forgotten what it would have to know.
	Abstained Vote = iota
	// Granted: it knows of no newer epoch, and will refuse older ones.
	Granted
	// Stale: it knows of a newer epoch.
	Stale
)

func (v Vote) String() string {
	return [...]string{"abstained", "granted", "stale"}[min(v, Stale)]
}

// Ledger is a keeper's memory of epochs. It is kept in no file: what a restart
// may have lost is not voted on. Safe for concurrent use.
type Ledger struct {
	room int // sessions

	mu    sync.Mutex
	since time.Time // of claims before it nothing is known
	known map[Session]epoch
}

// epoch is the newest one of a session, and from which it was claimed.
type epoch struct {
	number, from uint64
	client       Client
	nonce        uint64
	at           time.Time
	doubt        bool // there may have been a newer one, forgotten
}

// NewLedger begins to remember now. Beyond room sessions it abstains.
func NewLedger(now time.Time, room int) *Ledger {
	return &Ledger{room: room, since: now, known: map[Session]epoch{}}
}

// Vote answers, and remembers what it does not refuse. A claim about which it abstains
// may go on all the same, where a majority is not insisted on: what is older than that is
// stale from then on.
//
// The client whose claim was granted, and who never saw the answer, still has
// the token from which it claimed. It may claim from there once more, with a
// higher epoch than before: it must hold the key which that token is bound to.
func (l *Ledger) Vote(q Question, now time.Time) Vote {
	l.mu.Lock()
	defer l.mu.Unlock()
	have, ok := l.known[q.Session]
	again := q.Client != Client{} && q.Client == have.client && q.From == have.from && q.Epoch > have.number
	switch {
	case !ok && len(l.known) >= l.room:
		return Abstained
	case ok && have.number > q.From && !again:
		return Stale
	}
	next := epoch{number: q.Epoch, from: q.From, client: q.Client, nonce: q.Nonce, at: now, doubt: (!ok || have.doubt) && l.forgotten(q, now)}
	if q.Epoch == q.From { // a touch says nothing new of whence
		next.from, next.client, next.nonce = have.from, have.client, 0
	}
	l.known[q.Session] = next
	if next.doubt {
		return Abstained
	}
	return Granted
}

// forgotten tells whether a claim upon the session could have been granted here
// and forgotten: it began earlier than this memory, by the clock of the site where
// it did, and tokens from before that claim may still be good.
func (l *Ledger) forgotten(q Question, now time.Time) bool {
	return q.Began.Before(l.since.Add(Skew)) && now.Before(l.since.Add(Life+Skew))
}

// Release takes a claim back that came to nothing, so that the token which it
// was made from is good again. It is without effect upon any other claim, and upon
// one whose primary has touched the session since.
func (l *Ledger) Release(q Question) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.known[q.Session]; q.Epoch > q.From && have.number == q.Epoch && have.from == q.From && have.nonce == q.Nonce {
		have.number, have.from, have.client, have.nonce = q.From, 0, Client{}, 0
		l.known[q.Session] = have
	}
}

// Forget drops sessions of which no token can be good any more.
func (l *Ledger) Forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, e := range l.known {
		if now.Sub(e.at) > Life+Skew {
			delete(l.known, s)
		}
	}
}

// Doubt says that from now on other sites are keepers than before, so that claims
// of earlier sessions may be known elsewhere only.
func (l *Ledger) Doubt(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since = now
}

// Len is how many sessions are remembered.
func (l *Ledger) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.known)
}
