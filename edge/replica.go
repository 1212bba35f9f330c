package edge

import (
	"context"
	"sync"
	"time"

	"rhumb/edge/frame"
)

// A record is sent at set-up and after each new turn, and again by time and by
// volume. With freshness L0 nobody waits for it; with L1 a response does.
const (
	refreshTime  = 10 * time.Second
	refreshBytes = 1 << 30 // sequence numbers wrap at four times that
	sweepEvery   = time.Second
	recordLife   = 6 * refreshTime // of a record that is not refreshed
	anewMost     = 5000            // records a sweep that go elsewhere since their Backup is none any more
	dirtyQueue   = 8192
	// piecesMost bounds what is kept here of requests that come in pieces. Beyond it a
	// session is kept without, and reset after a crash.
	piecesMost = 64 << 20
	// gatherFor is how long the records that nobody waits for are gathered, half of it at
	// least. A session that has ended by then, or has another turn, costs none, or one for
	// both.
	gatherFor = 10 * time.Millisecond
)

// replica sends the records of this site's sessions to their Backups and
// keeps those of other sites' sessions. The own side belongs to Run.
type replica struct {
	a     *Agent
	dirty chan *session // has a turn that a response waits for; what does not fit the sweep finds
	lot   lot           // nobody waits for what it has
	full  chan noRoom
	// linked tells that a Backup was reached which sessions wait for.
	linked chan struct{}
	own    map[copyOf]*shadow
	out    outbox
	tiered
	aims
	book book
	// dialled is when a link to a peer was last asked for.
	dialled map[string]time.Time

	mu    sync.Mutex
	store map[frame.Key]stored
	held  int                 // octets of pieces
	names map[objectOf]called // of the objects of records, where they were told
}

func newReplica(a *Agent) *replica {
	return &replica{a: a, dirty: make(chan *session, dirtyQueue), lot: newLot(),
		full: make(chan noRoom, dirtyQueue), linked: make(chan struct{}, 1), own: map[copyOf]*shadow{}, dialled: map[string]time.Time{}, store: map[frame.Key]stored{}, names: map[objectOf]called{}, book: newBook(a.limits.Sessions)}
}

// changed notes a new turn. It is called by the session's goroutine and does
// not wait.
func (r *replica) changed(s *session) {
	if s.turn.Load().fresh == nil {
		if s.queued.CompareAndSwap(false, true) { // else it is among those that are gathered
			r.lot.told(s)
		}
		return
	}
	select {
	case r.dirty <- s:
	default:
	}
}

// ended notes the end of a session that a Backup may know.
func (r *replica) ended(s *session) {
	if s.kept() { // what is being told at this moment the sweep finds
		r.lot.over(s)
	}
}

// Run owns the records of this site's sessions.
func (r *replica) Run(ctx context.Context) error {
	tick, over := time.NewTicker(sweepEvery), time.NewTimer(time.Hour)
	defer tick.Stop()
	defer over.Stop()
	r.balance(time.Now()) // before the first record comes
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-r.dirty:
			r.hurry(ctx, s)
		case <-r.lot.begun:
			over.Reset(gatherFor / 2)
		case <-over.C:
			if r.leave(ctx) {
				over.Reset(gatherFor / 2)
			}
		case no := <-r.full:
			r.next(ctx, no)
		case <-r.linked:
			r.sweep(ctx, time.Now())
		case now := <-tick.C:
			r.sweep(ctx, now)
		}
		r.out.flush()
	}
}

// hurry sends the records that responses wait for, together.
func (r *replica) hurry(ctx context.Context, s *session) {
	for {
		r.tell(ctx, s, time.Now())
		select {
		case s = <-r.dirty:
		default:
			return
		}
	}
}

// leave sends what was gathered: the records of those that go on, the end of the others. It
// reports whether there is more to come.
func (r *replica) leave(ctx context.Context) bool {
	now := time.Now()
	fresh, ended, more := r.lot.take()
	for _, s := range fresh {
		s.queued.Store(false) // a turn from here on is another one's
		if !r.told(s) {
			r.tell(ctx, s, now)
		}
	}
	for _, s := range ended {
		r.retire(s)
	}
	r.lot.done(fresh, ended)
	return more
}

// told reports whether the Backups have heard of a session's turn since it was gathered.
func (r *replica) told(s *session) bool {
	t := s.turn.Load()
	for tier, peers := range t.wanted(r.tiers(r.a)) {
		if sh := r.own[copyOf{s, tier}]; len(peers) > 0 && (sh == nil || sh.turn != t) {
			return false
		}
	}
	return true
}
