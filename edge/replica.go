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
	dirtyQueue   = 8192
	// gatherFor is how long the records that nobody waits for are gathered. A session that
	// has ended by then, or has another turn, costs none, or one for both.
	gatherFor = 5 * time.Millisecond
)

// replica sends the records of this site's sessions to their Backups and
// keeps those of other sites' sessions. The own side belongs to Run.
type replica struct {
	a     *Agent
	dirty chan *session // has a new turn; what does not fit the sweep finds
	gone  chan *session
	full  chan noRoom
	// linked tells that a Backup was reached which sessions wait for.
	linked chan struct{}
	own    map[copyOf]*shadow
	// gathered are the sessions whose records leave when the gathering is over; Run's.
	gathered []*session
	out      outbox
	tiered
	// dialled is when a link to a peer was last asked for.
	dialled map[string]time.Time

	mu    sync.Mutex
	store map[frame.Key]stored
	names map[objectOf]called // of the objects of records, where they were told
}

func newReplica(a *Agent) *replica {
	return &replica{a: a, dirty: make(chan *session, dirtyQueue), gone: make(chan *session, dirtyQueue),
		full: make(chan noRoom, dirtyQueue), linked: make(chan struct{}, 1), own: map[copyOf]*shadow{}, dialled: map[string]time.Time{}, store: map[frame.Key]stored{}, names: map[objectOf]called{}}
}

// changed notes a new turn. It is called by the session's goroutine and does
// not wait.
func (r *replica) changed(s *session) {
	if s.turn.Load().fresh == nil && !s.queued.CompareAndSwap(false, true) {
		return // it is among those that are gathered
	}
	select {
	case r.dirty <- s:
	default:
		s.queued.Store(false)
	}
}

// ended notes the end of a session that a Backup may know.
func (r *replica) ended(s *session) {
	if !s.kept() {
		return // what is being told at this moment the sweep finds
	}
	select {
	case r.gone <- s:
	default: // the sweep finds it missing
	}
}

// Run owns the records of this site's sessions.
func (r *replica) Run(ctx context.Context) error {
	tick, over := time.NewTicker(sweepEvery), time.NewTimer(time.Hour)
	defer tick.Stop()
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-r.dirty:
			if r.gather(ctx, s) {
				over.Reset(gatherFor)
			}
			continue
		case <-over.C:
			r.leave(ctx)
		case s := <-r.gone:
			r.retire(s)
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

// gather takes the sessions that have a new turn. Records that responses wait for leave
// at once, together. It reports whether the gathering of the others begins.
func (r *replica) gather(ctx context.Context, s *session) bool {
	before := len(r.gathered)
	for {
		if s.turn.Load().fresh != nil {
			r.tell(ctx, s, time.Now())
		} else {
			r.gathered = append(r.gathered, s)
		}
		select {
		case s = <-r.dirty:
			continue
		default:
		}
		r.out.flush()
		return before == 0 && len(r.gathered) > 0
	}
}

// leave sends the records that were gathered.
func (r *replica) leave(ctx context.Context) {
	now := time.Now()
	for _, s := range r.gathered {
		s.queued.Store(false) // a turn from here on is another one's
		if !r.told(s) {
			r.tell(ctx, s, now)
		}
	}
	clear(r.gathered)
	r.gathered = r.gathered[:0]
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
