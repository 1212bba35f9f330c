package detect

import (
	"sync"
)

// mailbox is where the loop of a Link and others meet. Safe for concurrent use.
type mailbox struct {
	bell chan struct{} // rings when there are events to take
	wake func()        // ends the wait of the loop

	mu     sync.Mutex // guards what follows
	wishes []wish
	events []Event
}

// wish is what another goroutine wants the loop to do.
type wish struct {
	peers []Peer
	set   bool
	votes [][]byte
}

// Event is what the loop has to tell.
type Event struct {
	Node   uint16
	Change *Change   // of Node's state
	Votes  []byte    // said by Node
	Hold   *bool     // this observer begins or ends to doubt itself
	Heard  []Hearing // of everybody, when something in it has changed
}

// maxEvents bounds what waits for a reader that does not come; votes are repeated.
const maxEvents = 1 << 14

// post hands a wish to the loop and wakes it up.
func (m *mailbox) post(w wish) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wishes = append(m.wishes, w)
	m.wake()
}

// collect returns what is wished for.
func (m *mailbox) collect() []wish {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.wishes
	m.wishes = nil
	return out
}

// tell leaves an event for whoever takes it.
func (m *mailbox) tell(e Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Votes != nil && len(m.events) >= maxEvents {
		return
	}
	m.events = append(m.events, e)
	select {
	case m.bell <- struct{}{}:
	default:
	}
}

// unless runs a function, unless there are wishes; it tells whether it did. Nobody
// can wish for anything in between.
func (m *mailbox) unless(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.wishes) > 0 {
		return false
	}
	f()
	return true
}
