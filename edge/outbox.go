package edge

import "rhumb/edge/frame"

// outboxMost is when a batch is full; a frame is far smaller.
const outboxMost = 48 << 10

// outbox is the records, and the ends of sessions, that leave together, a batch for each link. It belongs to
// replica.Run. Empty, it holds nothing.
type outbox struct {
	batches []batch
	payload []byte // of one record
	size    int    // of the largest batch of the last flush
}

// batch is what leaves by one link. While there is one, nothing else that is numbered
// does: numbers leave in order.
type batch struct {
	link    *link
	frames  []byte    // whole ones
	pledges []*pledge // nil, or kept by the acknowledgement
}

// put adds a session's record, as that of a Backup or a deposit, and what has come of its
// next request; they keep a pledge, if any, when they are acknowledged.
func (o *outbox) put(l *link, as frame.Type, rec *frame.Record, piece []byte, p *pledge) {
	o.payload = frame.AppendRecord(o.payload[:0], *rec)
	if l.pieces.Load() {
		o.payload = append(o.payload, piece...)
	}
	o.add(l, frame.Frame{Type: as, Key: rec.Key, Epoch: rec.Epoch, Generation: rec.Generation, Payload: o.payload}, p)
	clear(o.payload) // secrets, perhaps
}

// retire adds the word that a session has no record any more.
func (o *outbox) retire(l *link, s *session) {
	o.add(l, frame.Frame{Type: frame.Retire, Key: s.key, Epoch: s.epoch, Generation: s.gen.Load()}, nil)
}

// add numbers a frame. What was added before by the same link leaves before.
func (o *outbox) add(l *link, f frame.Frame, p *pledge) {
	b := o.to(l)
	frames, err := l.number(b.frames, f, p)
	if err != nil {
		p.waive()
		return
	}
	b.frames = frames
	if p != nil {
		b.pledges = append(b.pledges, p)
	}
}

// to is the batch of a link that has room.
func (o *outbox) to(l *link) *batch {
	for i := range o.batches {
		if b := &o.batches[i]; b.link == l {
			if len(b.frames) <= outboxMost {
				return b
			}
			o.flush()
			break
		}
	}
	l.order.Lock()
	o.batches = append(o.batches, batch{link: l, frames: make([]byte, 0, o.size)})
	return &o.batches[len(o.batches)-1]
}

// flush queues the batches. The responses that would wait for one begin without, if its
// link is down: the sweep tells another.
func (o *outbox) flush() {
	if len(o.batches) == 0 {
		return
	}
	o.size = 0
	for _, b := range o.batches {
		o.size = max(o.size, len(b.frames))
		err := error(nil)
		if len(b.frames) > 0 {
			err = b.link.queue(b.frames)
		}
		b.link.order.Unlock()
		if err != nil {
			for _, p := range b.pledges {
				p.keep()
			}
		}
	}
	clear(o.batches)
	o.batches = o.batches[:0]
}
