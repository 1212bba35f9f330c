package edge

import (
	"sync"
	"time"

	"rhumb/edge/frame"
)

// Session describes one session for people.
type Session struct {
	Key      frame.Key
	Kind     string
	Service  string
	State    State
	Owner    string
	Backup   string // the one that would revive it, next door if there is one; "" without
	Second   string // the one at another site, where the first is next door
	Recall   string // without a Backup: who keeps its record for this edge's next process alone
	Epoch    uint64
	Offset   int64 // bytes of the response that the kernel has taken
	Size     int64 // of the response, head included
	Age      time.Duration
	LastMove time.Duration // what it took to move it here or to try, 0: never
	Local    bool          // from this host itself: a health check, not a client
}

// Sessions lists the sessions whose socket is here, in the order of VIP and
// client.
func (a *Agent) Sessions() []Session {
	all, now := a.tab.all(), time.Now()
	out := make([]Session, 0, len(all))
	for _, s := range all {
		t := s.turn.Load()
		d := Session{Key: s.key, Kind: s.svc.Kind, Service: s.svc.Name, State: State(s.state.Load()), Owner: a.cfg.Site,
			Epoch: s.epoch, Offset: t.off.Load(), Size: t.wire.size(), Age: now.Sub(s.started), LastMove: time.Duration(s.lastMv.Load()), Local: s.local}
		for _, b := range s.backups() {
			if d.Backup == "" {
				d.Backup = b
			} else {
				d.Second = b
			}
		}
		if keeper := s.deposit.Load(); keeper != nil && d.Backup == "" {
			d.Recall = *keeper
		}
		out = append(out, d)
	}
	return out
}

// Move is one hand-off begun at this site.
type Move struct {
	At       time.Time
	Key      frame.Key
	Service  string
	From, To string
	Result   string
	Took     time.Duration
	Err      error // why it stayed or was lost
}

// movesKept bounds the memory of moves.
const movesKept = 4096

// Totals counts hand-offs since the start.
type Totals struct {
	In, Out int64 // that ended well, to here and from here; In has the revived, too
	Failed  int64 // begun here, and the session stayed or was lost
	Revived int64 // of a site or a process that died, by this one
}

// events is a ring of the last moves, and how many there were. Safe for
// concurrent use.
type events struct {
	mu     sync.Mutex
	ring   []Move
	at     int
	totals Totals
}

func newEvents() *events { return &events{} }

func (e *events) put(m Move) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m.Err != nil {
		e.totals.Failed++
	} else {
		e.totals.Out++
	}
	if len(e.ring) < movesKept {
		e.ring = append(e.ring, m)
		return
	}
	e.ring[e.at] = m
	e.at = (e.at + 1) % movesKept
}

// came counts a session that was moved here.
func (e *events) came() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.totals.In++
}

// revived counts a session that goes on here after a crash.
func (e *events) revived() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.totals.Revived++
	e.totals.In++
}

// Totals returns how many sessions came and went.
func (a *Agent) Totals() Totals {
	a.events.mu.Lock()
	defer a.events.mu.Unlock()
	return a.events.totals
}

// Moves lists the last hand-offs begun here, the oldest first.
func (a *Agent) Moves() []Move {
	e := a.events
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(append([]Move(nil), e.ring[e.at:]...), e.ring[:e.at]...)
}
