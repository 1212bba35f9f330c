package edge

import "sync"

// pledge is a promise that several may keep and any may wait for.
type pledge struct {
	done chan struct{}
	once sync.Once

	whole *pledge // which this one is a part of; or
	mu    sync.Mutex
	parts [tierCount]*pledge
	open  int // parts not kept; -1: it was not divided
}

func newPledge() *pledge { return &pledge{done: make(chan struct{}), open: -1} }

func (p *pledge) keep() {
	p.once.Do(func() {
		close(p.done)
		if p.whole != nil {
			p.whole.partKept()
		}
	})
}

// waive keeps a pledge, if there is one, that nobody else will.
func (p *pledge) waive() {
	if p != nil {
		p.keep()
	}
}

// partKept keeps the whole with the last of its parts.
func (p *pledge) partKept() {
	p.mu.Lock()
	p.open--
	all := p.open == 0
	p.mu.Unlock()
	if all {
		p.keep()
	}
}

// divide returns the parts of a pledge, the first time made for the tiers that are wanted.
// Of nil there are none.
func (p *pledge) divide(wanted [tierCount][]Peer) (none [tierCount]*pledge) {
	if p == nil {
		return none
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open >= 0 {
		return p.parts
	}
	p.open = 0
	for i, peers := range wanted {
		if len(peers) > 0 {
			p.parts[i] = newPledge()
			p.parts[i].whole = p
			p.open++
		}
	}
	return p.parts
}
