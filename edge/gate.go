package edge

import (
	"sync"
	"time"
)

// gate lets one goroutine stop another at a point where the other holds
// nothing, take what it owns, and send it on or home. The stopped one calls
// pass at such points and goes through deadline for every I/O deadline; the
// stopping one calls stop, then exactly one resume if stop succeeded.
type gate struct {
	mu       sync.Mutex
	wanted   bool
	arrived  chan struct{} // closed when the owner waits at the gate
	sentence chan bool     // true: go on; false: the session is gone
}

// stop asks for the owner to come and waits up to limit. interrupt makes the
// owner's blocking I/O return (a deadline in the past). One caller at a time.
func (g *gate) stop(limit time.Duration, interrupt, undo func()) bool {
	g.mu.Lock()
	g.wanted = true
	g.arrived, g.sentence = make(chan struct{}), make(chan bool, 1)
	arrived := g.arrived
	interrupt()
	g.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-arrived:
		return true
	case <-timer.C:
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-arrived: // it came in the meantime
		return true
	default:
	}
	g.wanted = false
	undo()
	return false
}

// resume ends the stop. The caller has already undone the interrupt if
// the owner is to go on.
func (g *gate) resume(goOn bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wanted = false
	g.sentence <- goOn // has room for it
}

// pass is the owner's: it waits if a stop is wanted. False means that the
// session is somebody else's now and nothing of it may be touched.
func (g *gate) pass() bool {
	g.mu.Lock()
	if !g.wanted {
		g.mu.Unlock()
		return true
	}
	close(g.arrived)
	sentence := g.sentence
	g.mu.Unlock()
	return <-sentence
}

// deadline runs set unless a stop is wanted, whose interrupt it would undo.
func (g *gate) deadline(set func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.wanted {
		set()
	}
}
