package edge

import "rhumb/edge/frame"

// outboxMost is when a batch is full; a frame is far smaller.
const outboxMost = 48 << 10

// outbox is the records that leave together, to one Backup at a time. It belongs to
// replica.Run. Empty, it holds nothing.
type outbox struct {
	link    *link
	batch   []byte  // whole frames
	turns   []*turn // of the records, which wait for the acknowledgement or not
	payload []byte  // of one record
	size    int     // of the last batch
}

// put adds a session's record. What another Backup is told leaves before.
func (o *outbox) put(l *link, rec *frame.Record, t *turn) {
	if o.link != nil && o.link != l || len(o.batch) > outboxMost {
		o.flush()
	}
	if o.link == nil {
		o.link = l
		o.batch = make([]byte, 0, o.size)
		l.order.Lock() // numbers leave in order
	}
	o.payload = frame.AppendRecord(o.payload[:0], *rec)
	b, err := l.number(o.batch, frame.Frame{Type: frame.RecordSet, Key: rec.Key, Epoch: rec.Epoch,
		Generation: rec.Generation, Payload: o.payload}, t.fresh)
	clear(o.payload) // secrets, perhaps
	if err != nil {
		t.waive()
		return
	}
	o.batch, o.turns = b, append(o.turns, t)
}

// flush queues the batch. The responses that would wait for it begin without, if the
// link is down: the sweep tells another.
func (o *outbox) flush() {
	if o.link == nil {
		return
	}
	err := error(nil)
	if len(o.batch) > 0 {
		err = o.link.queue(o.batch)
	}
	o.link.order.Unlock()
	if err != nil {
		for _, t := range o.turns {
			t.waive()
		}
	}
	o.size = len(o.batch)
	clear(o.turns)
	o.link, o.batch, o.turns = nil, nil, o.turns[:0]
}
