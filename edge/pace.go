package edge

import (
	"context"
	"sync"
	"time"
)

// Bounds of how many hand-offs are under way at once, as giver.
const (
	paceFirst = 32
	paceLeast = 8
	paceMost  = 1024
	// paceQueued is how long a session may be silent because others are, beyond what the
	// path and the work of a hand-off take. It is what stalls the clients of a drain.
	paceQueued = 5 * time.Millisecond
	// paceMemory is how long the fastest hand-off is remembered, at least: paths change.
	paceMemory = 10 * time.Second
)

// pace decides how many hand-offs are under way at once, by what the last ones took. A
// session that is handed on is silent meanwhile, so more than the slower of both sites
// works at do nothing but wait in silence; how many that are depends on the path between
// them and on what else they do. It is the way of TCP Vegas: what the fastest took is
// path and work, what others take beyond is a queue.
type pace struct {
	most        float64
	least, last time.Duration // that one took, of this memory and the one before; 0: none
	since       time.Time     // of this memory
}

func newPace() pace { return pace{most: paceFirst} }

// took is told of a hand-off that ended well.
func (p *pace) took(now time.Time, d time.Duration) {
	if now.Sub(p.since) >= paceMemory {
		p.last, p.least, p.since = p.least, d, now
	}
	p.least = min(p.least, d)
	least := p.least
	if p.last > 0 {
		least = min(least, p.last)
	}
	switch queued := d - least; {
	case queued < paceQueued:
		p.most = min(p.most+.25, paceMost)
	case queued > 2*paceQueued:
		p.most = max(p.most-.5, paceLeast)
	}
}

// failed is told of one without an answer: who does not answer is not asked more.
func (p *pace) failed() { p.most = max(p.most/2, paceLeast) }

// lanes are the slots of each site that sessions are handed to: how far it is, and how busy,
// is its own. Safe for concurrent use.
type lanes struct {
	mu sync.Mutex
	to map[string]*slots
}

func newLanes() *lanes { return &lanes{to: map[string]*slots{}} }

func (l *lanes) of(site string) *slots {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.to[site]
	if s == nil {
		s = &slots{pace: newPace()}
		l.to[site] = s
	}
	return s
}

// slots are the right to hand a session on: so many at once as their pace allows, in the
// order in which they were asked for. Safe for concurrent use.
type slots struct {
	mu    sync.Mutex
	pace  pace
	busy  int
	queue []chan struct{} // each is closed when its turn comes
}

// take waits for a slot until the context ends.
func (s *slots) take(ctx context.Context) error {
	s.mu.Lock()
	if len(s.queue) == 0 && s.busy < int(s.pace.most) {
		s.busy++
		s.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	s.queue = append(s.queue, turn)
	s.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		s.giveUp(turn)
		return ctx.Err()
	}
}

// giveUp leaves the queue, or gives back the slot that was just had.
func (s *slots) giveUp(turn chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.queue {
		if s.queue[i] == turn {
			s.queue = append(s.queue[:i], s.queue[i+1:]...)
			return
		}
	}
	s.busy--
	s.next()
}

// done gives a slot back, and says what became of the hand-off.
func (s *slots) done(now time.Time, d time.Duration, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch result {
	case resultOK:
		s.pace.took(now, d)
	case resultTimeout, resultLost:
		s.pace.failed()
	}
	s.busy--
	s.next()
}

// next lets those in whose turn it is. The caller holds mu.
func (s *slots) next() {
	n := min(max(int(s.pace.most)-s.busy, 0), len(s.queue))
	for i, turn := range s.queue[:n] {
		close(turn)
		s.queue[i] = nil
	}
	s.queue = s.queue[n:]
	s.busy += n
}
