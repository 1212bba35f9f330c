package edge

import (
	"bytes"
	"slices"
	"time"

	"rhumb/edge/frame"
)

// stored is a record of another site's session.
type stored struct {
	rec  frame.Record
	from string
	at   time.Time
	pace float64 // bytes of the response a second, between the last two words of it
	// reserved tells that it counts in the book.
	reserved bool
	// deposit tells that it is kept for its owner's next process alone: there is no room
	// for the session here.
	deposit bool
	// piece is what came of the next request, from rec.RcvNxt on.
	piece []byte
}

// handle takes the frames of replication. It runs on the link's reader.
func (r *replica) handle(l *link, f frame.Frame) {
	switch f.Type {
	case frame.Ack:
		if err := l.acked(f.Seq); err != nil {
			r.broken(l, err)
		}
		return
	case frame.Full:
		r.refusedBy(l, f)
		return
	}
	if err := l.receipt.Take(f.Seq); err != nil {
		r.broken(l, err)
		return
	}
	if f.Type == frame.Retire {
		r.forget(l.peer, f)
		r.a.uploads.retired(f.Key, f.Epoch)
	} else if err := r.keep(l, f); err != nil {
		r.broken(l, err)
		return
	}
	l.ack(l.receipt.Last())
}

// broken ends a link whose other side does not speak as it should.
func (r *replica) broken(l *link, err error) {
	r.a.log.Warn("replication", "peer", l.peer, "err", err)
	l.close()
}

// keep stores a record unless a newer one is there or there is no room.
func (r *replica) keep(l *link, f frame.Frame) error {
	rec, piece, err := frame.DecodePiece(f.Payload)
	clear(f.Payload) // secrets, perhaps
	if err != nil {
		return err
	}
	// The session was taken over here: its old owner is not dead after all, or
	// speaks of it too late.
	if s := r.a.tab.get(rec.Key); s != nil && s.epoch > rec.Epoch {
		r.a.m.refused.Inc()
		return l.send(frame.Frame{Type: frame.Claimed, Key: rec.Key, Epoch: s.epoch, Generation: s.gen.Load()})
	}
	r.a.revival.spare(rec.Key, l.peer)
	r.a.uploads.recorded(&rec)
	reason := r.enter(rec, piece, l.peer, f.Type == frame.Deposit)
	if rec.Flags&frame.Idle == 0 {
		r.a.uploads.at(pointKept)
	}
	if reason != "" {
		if rec.Flags&frame.Upload != 0 {
			r.a.uploads.retired(rec.Key, rec.Epoch) // nobody would go on with it
		}
		r.a.m.reserve.refused.WithLabelValues(l.peer, reason).Inc()
		return l.refuse(refusalOf(&rec, f.Seq, reason))
	}
	return nil
}

// enter says why there is no room, "" if there is. A record that was a deposit stays one
// when its owner asks for more than there is. Nobody sends under the lock: who forwards
// packets waits for it.
func (r *replica) enter(rec frame.Record, piece []byte, from string, deposit bool) string {
	load, counts := r.a.load(), r.a.counts(&rec)
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.store[rec.Key]
	if ok && (rec.Epoch < old.rec.Epoch || rec.Epoch == old.rec.Epoch && rec.Generation < old.rec.Generation) {
		r.a.m.refused.Inc()
		return ""
	}
	why := r.refusal(old, from, counts && !deposit, load)
	deposit = deposit || why == refuseRoom && old.deposit && old.from == from
	if why != "" && !deposit || why == refuseRecords {
		r.drop(rec.Key)
		return why
	}
	st := stored{rec: rec, from: from, at: time.Now(), reserved: counts && !deposit, deposit: deposit}
	st.pace = st.paceSince(old)
	clear(old.piece)
	if r.held -= len(old.piece); r.held+len(piece) <= piecesMost {
		st.piece, r.held = piece, r.held+len(piece)
	}
	r.put(st)
	return why
}

// forget drops a record at its owner's word, not at that of an earlier owner.
func (r *replica) forget(peer string, f frame.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.store[f.Key]; ok && old.from == peer && old.rec.Epoch <= f.Epoch {
		r.drop(f.Key)
	}
}

// expire drops records nobody refreshed, and counts the rest.
func (r *replica) expire(now time.Time) map[copies]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[copies]int{}
	for k, st := range r.store {
		if now.Sub(st.at) > recordLife {
			r.drop(k)
			continue
		}
		counts[copies{st.from, st.deposit}]++
	}
	r.forgetNames(now)
	return counts
}

// copies are records of another site's sessions here, or of ours there.
type copies struct {
	site    string
	deposit bool // those that a next process alone goes on with
}

// role is the label by which those kept here are counted.
func (c copies) role() string {
	if c.deposit {
		return "recall"
	}
	return "backup"
}

// take removes the records of a site's sessions which may be revived, and
// returns them in the order of their keys. Who has a record from here has it
// alone: this is the claim.
func (r *replica) take(site string, may func(frame.Record) bool) []stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []stored
	for k, st := range r.store {
		if st.from == site && !st.deposit && may(st.rec) {
			out = append(out, st)
			r.release(k)
		}
	}
	slices.SortFunc(out, func(a, b stored) int { return a.rec.Key.Compare(b.rec.Key) })
	return out
}

// putBack ends a claim that came to nothing, unless the owner has told since.
func (r *replica) putBack(st stored) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.store[st.rec.Key]; !ok {
		r.held += len(st.piece)
		r.put(st)
	}
}

// recall returns the records of a site's sessions for its new process, each under
// its next epoch. They stay here, too: the process may die again.
func (r *replica) recall(site string) []stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []stored
	for k, st := range r.store {
		if st.from == site {
			st.rec.Epoch++
			st.at = time.Now()
			r.store[k] = st
			st.piece = bytes.Clone(st.piece) // it may be forgotten here meanwhile
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b stored) int { return a.rec.Key.Compare(b.rec.Key) })
	return out
}

// has reports whether there is a record of a session that could be revived.
func (r *replica) has(k frame.Key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	st, ok := r.store[k]
	return ok && !st.deposit
}

// owner is whose session a record is of, "" without one.
func (r *replica) owner(k frame.Key) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.store[k].from
}

// drop overwrites a record where it stands, since it may hold secrets, and
// forgets it. The caller holds mu.
func (r *replica) drop(k frame.Key) {
	clear(r.store[k].piece)
	r.release(k)
}

// release forgets a record that somebody else has. The caller holds mu.
func (r *replica) release(k frame.Key) {
	old := r.store[k]
	if old.reserved {
		r.book.ledger.Add(old.from, -1)
	}
	r.held -= len(old.piece)
	r.store[k] = stored{}
	delete(r.store, k)
}
