package edge

import "sync"

// lot is what is gathered for a while before it leaves for the Backups: sessions that have
// a new turn, and sessions that have ended. It is taken twice in that while, and what came
// since the take before stays for the next one: so each session has half of the while at
// least to end in, whenever it comes. Who adds wakes nobody but with the first of a lot: a
// word to another thread for each would cost a short session more than its record. Safe
// for concurrent use.
type lot struct {
	mu         sync.Mutex
	young, due []*session // have a new turn; due stood here at the last take
	ends       []*session
	// spare are the lists of the last take, empty.
	spare [2][]*session
	// begun has a word when a lot has its first; running is from there until a take leaves
	// nothing.
	begun   chan struct{}
	running bool
}

func newLot() lot { return lot{begun: make(chan struct{}, 1)} }

// told adds a session that has a new turn, and that is in no lot already.
func (l *lot) told(s *session) { l.add(&l.young, s) }

// over adds a session that has ended.
func (l *lot) over(s *session) { l.add(&l.ends, s) }

func (l *lot) add(list *[]*session, s *session) {
	l.mu.Lock()
	first := !l.running
	l.running = true
	*list = append(*list, s)
	l.mu.Unlock()
	if !first {
		return
	}
	select {
	case l.begun <- struct{}{}:
	default: // the word of a lot that was taken before it was heard
	}
}

// take returns what is due, and whether something stays for another take. The lists go
// back by done.
func (l *lot) take() (turns, ends []*session, more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	turns, ends = l.due, l.ends
	l.due, l.young, l.ends, l.spare = l.young, l.spare[0], l.spare[1], [2][]*session{}
	l.running = len(l.due) > 0
	return turns, ends, l.running
}

// done takes the lists back, to be filled again. They keep no session alive.
func (l *lot) done(turns, ends []*session) {
	clear(turns)
	clear(ends)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spare = [2][]*session{turns[:0], ends[:0]}
}
