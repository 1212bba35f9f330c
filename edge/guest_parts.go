package edge

import (
	"errors"
	"sync"
	"time"

	"rhumb/edge/frame"
)

// maxGuestParts bounds the octets of all queues that wait for their offer.
const maxGuestParts = 64 << 20

// guestParts gathers what frames of type GuestPart bring ahead of an offer. Safe for
// concurrent use.
type guestParts struct {
	mu   sync.Mutex
	held int
	by   map[partOf]*gathered
}

// partOf names a queue on its way; another link cannot add to it.
type partOf struct {
	link *link
	key  frame.Key
	gen  uint32
}

type gathered struct {
	b    []byte
	last time.Time
}

func newGuestParts() *guestParts { return &guestParts{by: map[partOf]*gathered{}} }

// add keeps a part. What exceeds a bound is dropped, and the offer refused for its
// length.
func (p *guestParts) add(l *link, f frame.Frame, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := partOf{l, f.Key, f.Generation}
	g := p.by[id]
	if g == nil {
		g = &gathered{}
		p.by[id] = g
	}
	g.last = now
	if p.held+len(f.Payload) > maxGuestParts || len(g.b)+len(f.Payload) > frame.MaxGuestInput+frame.MaxGuestOutput {
		return
	}
	g.b = append(g.b, f.Payload...)
	p.held += len(f.Payload)
}

// take hands over what was gathered for an offer.
func (p *guestParts) take(l *link, f frame.Frame) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drop(partOf{l, f.Key, f.Generation})
}

func (p *guestParts) drop(id partOf) []byte {
	g := p.by[id]
	if g == nil {
		return nil
	}
	delete(p.by, id)
	p.held -= len(g.b)
	return g.b
}

// forget drops what no offer came for.
func (p *guestParts) forget(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, g := range p.by {
		if now.Sub(g.last) > memory {
			p.drop(id)
		}
	}
}

// errDeclined is the answer to a Commit of an offer that ended before.
var errDeclined = errors.New("offer was declined")

// declines remembers the offers of guests that were not activated here, so that a
// giver who asks later hears a certain no. Safe for concurrent use.
type declines struct {
	mu sync.Mutex
	by map[frame.Key]passage
}

func newDeclines() *declines { return &declines{by: map[frame.Key]passage{}} }

func (d *declines) put(f frame.Frame, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.by[f.Key] = passage{f.Epoch, f.Generation, now}
}

// has reports whether exactly this offer was declined.
func (d *declines) has(f frame.Frame) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.by[f.Key]
	return ok && p.epoch == f.Epoch && p.gen == f.Generation
}

func (d *declines) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, p := range d.by {
		if now.Sub(p.at) > memory {
			delete(d.by, k)
		}
	}
}
