package edge

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"rhumb/edge/frame"
)

// A record is sent at set-up and after each new turn, and again by time and by
// volume. With freshness L0 nobody waits for it; with L1 a response does.
const (
	refreshTime  = 10 * time.Second
	refreshBytes = 1 << 30 // sequence numbers wrap at four times that
	sweepEvery   = time.Second
	recordLife   = 6 * refreshTime // of a record that is not refreshed
	dirtyQueue   = 8192
	// piecesMost bounds what is kept here of requests that come in pieces. Beyond it a
	// session is kept without, and reset after a crash.
	piecesMost = 64 << 20
	// gatherFor is how long the records that nobody waits for are gathered. A session that
	// has ended by then, or has another turn, costs none, or one for both.
	gatherFor = 5 * time.Millisecond
)

// replica sends the records of this site's sessions to their Backups and
// keeps those of other sites' sessions. The own side belongs to Run.
type replica struct {
	a     *Agent
	dirty chan *session // has a new turn; what does not fit the sweep finds
	gone  chan *session
	full  chan noRoom
	// linked tells that a Backup was reached which sessions wait for.
	linked chan struct{}
	own    map[copyOf]*shadow
	// gathered are the sessions whose records leave when the gathering is over; Run's.
	gathered []*session
	out      outbox
	tiered
	// dialled is when a link to a peer was last asked for.
	dialled map[string]time.Time

	mu    sync.Mutex
	store map[frame.Key]stored
	held  int                 // octets of pieces
	names map[objectOf]called // of the objects of records, where they were told
}

// copyOf is a session's record at the Backup of one tier.
type copyOf struct {
	s    *session
	tier int
}

// noRoom is the word of a Backup that it has no room.
type noRoom struct {
	key  frame.Key
	peer string
}

// shadow is what the Backup of a session was told last.
type shadow struct {
	peer  string
	link  *link
	turn  *turn
	off   int64
	at    time.Time
	skips int // Backups of its order that were full
	order     // as of the last word
}

// order is a session's Backups of one tier, and what it follows from.
type order struct {
	names []string
	known
}

// of is the order by what is known now.
func (o *order) of(k frame.Key, by *tiered, tier int) []string {
	if o.known == by.known {
		return o.names
	}
	o.known, o.names = by.known, o.names[:0]
	for _, p := range rendezvous(k, by.peers[tier]) {
		o.names = append(o.names, p.Name)
	}
	return o.names
}

// stored is a record of another site's session.
type stored struct {
	rec  frame.Record
	from string
	at   time.Time
	pace float64 // bytes of the response a second, between the last two words of it
	// piece is what came of the next request, from rec.RcvNxt on.
	piece []byte
}

func newReplica(a *Agent) *replica {
	return &replica{a: a, dirty: make(chan *session, dirtyQueue), gone: make(chan *session, dirtyQueue),
		full: make(chan noRoom, dirtyQueue), linked: make(chan struct{}, 1), own: map[copyOf]*shadow{}, dialled: map[string]time.Time{}, store: map[frame.Key]stored{}, names: map[objectOf]called{}}
}

// changed notes a new turn. It is called by the session's goroutine and does
// not wait.
func (r *replica) changed(s *session) {
	if s.turn.Load().fresh == nil && !s.queued.CompareAndSwap(false, true) {
		return // it is among those that are gathered
	}
	select {
	case r.dirty <- s:
	default:
		s.queued.Store(false)
	}
}

// ended notes the end of a session that a Backup may know.
func (r *replica) ended(s *session) {
	if !s.kept() {
		return // what is being told at this moment the sweep finds
	}
	select {
	case r.gone <- s:
	default: // the sweep finds it missing
	}
}

// Run owns the records of this site's sessions.
func (r *replica) Run(ctx context.Context) error {
	tick, over := time.NewTicker(sweepEvery), time.NewTimer(time.Hour)
	defer tick.Stop()
	defer over.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-r.dirty:
			if r.gather(ctx, s) {
				over.Reset(gatherFor)
			}
			continue
		case <-over.C:
			r.leave(ctx)
		case s := <-r.gone:
			r.retire(s)
		case no := <-r.full:
			r.next(ctx, no)
		case <-r.linked:
			r.sweep(ctx, time.Now())
		case now := <-tick.C:
			r.sweep(ctx, now)
		}
		r.out.flush()
	}
}

// gather takes the sessions that have a new turn. Records that responses wait for leave
// at once, together. It reports whether the gathering of the others begins.
func (r *replica) gather(ctx context.Context, s *session) bool {
	before := len(r.gathered)
	for {
		if s.turn.Load().fresh != nil {
			r.tell(ctx, s, time.Now())
		} else {
			r.gathered = append(r.gathered, s)
		}
		select {
		case s = <-r.dirty:
			continue
		default:
		}
		r.out.flush()
		return before == 0 && len(r.gathered) > 0
	}
}

// leave sends the records that were gathered.
func (r *replica) leave(ctx context.Context) {
	now := time.Now()
	for _, s := range r.gathered {
		s.queued.Store(false) // a turn from here on is another one's
		if !r.told(s) {
			r.tell(ctx, s, now)
		}
	}
	clear(r.gathered)
	r.gathered = r.gathered[:0]
}

// told reports whether the Backups have heard of a session's turn since it was gathered.
func (r *replica) told(s *session) bool {
	t := s.turn.Load()
	for tier, peers := range t.wanted(r.tiers(r.a)) {
		if sh := r.own[copyOf{s, tier}]; len(peers) > 0 && (sh == nil || sh.turn != t) {
			return false
		}
	}
	return true
}

// next moves a session's record to the next Backup of its order.
func (r *replica) next(ctx context.Context, no noRoom) {
	s := r.a.tab.get(no.key)
	for tier := range tierCount {
		if sh := r.own[copyOf{s, tier}]; sh != nil && sh.peer == no.peer {
			sh.skips++
			sh.turn, sh.link = nil, nil
			r.tell(ctx, s, time.Now())
		}
	}
}

// tell puts a session's record into the outbox for each of its Backups.
func (r *replica) tell(ctx context.Context, s *session, now time.Time) {
	tiers := r.tiers(r.a)
	if len(tiers[tierNear])+len(tiers[tierFar]) == 0 {
		s.turn.Load().waive()
	}
	for tier := range tiers {
		r.tellTier(ctx, s, tier, now)
	}
}

// tellTier does so for one of them, if there is a link to it.
func (r *replica) tellTier(ctx context.Context, s *session, tier int, now time.Time) {
	if r.a.tab.get(s.key) != s {
		return // ended meanwhile, or was never entered
	}
	if State(s.state.Load()) == Moving {
		return // it is the taker's: our word of it, coming late, would replace the taker's
	}
	t := s.turn.Load()
	tiers := t.wanted(r.tiers(r.a))
	if len(tiers[tier]) == 0 {
		r.retract(s, tier) // what it says of the session is over
		return
	}
	sh := r.own[copyOf{s, tier}]
	if sh == nil {
		sh = &shadow{}
		r.own[copyOf{s, tier}] = sh
	}
	part := t.fresh.divide(tiers)[tier]
	names := sh.of(s.key, &r.tiered, tier)
	if sh.skips >= len(names) {
		part.waive()
		return
	}
	peer := names[sh.skips]
	l := r.a.links.have(peer)
	if l == nil {
		r.dial(ctx, peer, now) // the sweep sends then
		part.waive()           // a client's wait would help nobody
		return
	}
	if sh.peer != peer && sh.link != nil {
		r.out.flush()  // it is not to overtake what was told
		sh.withdraw(s) // or two would revive it
	}
	if t.rec.Flags&frame.Upload != 0 && !l.uploads.Load() {
		part.waive() // it would end the link
		return
	}
	rec := s.record(t)
	l.tellName(rec, t.name, now)
	r.out.put(l, &rec, t.piece, part)
	if sh.peer != peer || s.backup[tier].Load() == nil {
		backup := peer
		s.backup[tier].Store(&backup)
	}
	sh.peer, sh.link, sh.turn, sh.off, sh.at = peer, l, t, int64(rec.Offset), now
	r.a.hush(s)
}

// dial asks for a link to a Backup, at most once a sweep.
func (r *replica) dial(ctx context.Context, peer string, now time.Time) {
	if now.Sub(r.dialled[peer]) < sweepEvery {
		return
	}
	r.dialled[peer] = now
	r.a.wg.Go(func() {
		if _, err := r.a.links.to(ctx, peer); err != nil {
			return // what is wrong shows in the records' count
		}
		select {
		case r.linked <- struct{}{}:
		default:
		}
	})
}

// record is the session's soft state at this moment.
func (s *session) record(t *turn) frame.Record {
	rec := t.rec
	rec.Key, rec.Epoch, rec.Generation = s.key, s.epoch, s.gen.Load()
	rec.Base, rec.RcvNxt, rec.Offset = t.base, t.rcv, uint64(t.off.Load())
	describe(&rec, s.reg.Options, s.reg.TSVal, s.regAt)
	s.cover.describe(&rec, t)
	return rec
}

// retire tells the Backup that a session ended here.
func (r *replica) retire(s *session) {
	for tier := range tierCount {
		r.retract(s, tier)
	}
}

// retract does so at the Backup of one tier.
func (r *replica) retract(s *session, tier int) {
	sh := r.own[copyOf{s, tier}]
	if sh == nil {
		return
	}
	r.out.flush() // it is not to overtake what was told
	sh.withdraw(s)
	delete(r.own, copyOf{s, tier})
	s.backup[tier].Store(nil)
}

// withdraw lets a Backup forget what it was told, if it was.
func (sh *shadow) withdraw(s *session) {
	if sh.link != nil {
		// If the link is gone the Backup lets the record expire.
		_ = sh.link.sendNumbered(frame.Frame{Type: frame.Retire, Key: s.key, Epoch: s.epoch, Generation: s.gen.Load()}, nil)
	}
}

// sweep refreshes what is due, finds what the queues missed, and counts.
func (r *replica) sweep(ctx context.Context, now time.Time) {
	live := map[*session]bool{}
	counts := map[string]int{}
	for _, s := range r.a.tab.all() {
		if s.changed == nil {
			continue
		}
		live[s] = true
		for tier := range tierCount {
			if r.own[copyOf{s, tier}].due(s, r.a.isDown, now) {
				r.tellTier(ctx, s, tier, now)
			}
			if sh := r.own[copyOf{s, tier}]; sh != nil && sh.link != nil {
				counts[sh.peer]++
			}
		}
	}
	for c := range r.own {
		if !live[c.s] {
			r.retire(c.s)
		}
	}
	r.a.m.records.Reset()
	for peer, n := range counts {
		r.a.m.records.WithLabelValues(peer, "owner").Set(float64(n))
	}
	for peer, n := range r.expire(now) {
		r.a.m.records.WithLabelValues(peer, "backup").Set(float64(n))
	}
}

// due reports whether the Backup's knowledge is too old.
func (sh *shadow) due(s *session, down func(site string) bool, now time.Time) bool {
	if sh == nil || sh.link == nil || sh.turn != s.turn.Load() || down(sh.peer) {
		return true
	}
	select {
	case <-sh.link.done:
		return true // what it had not acknowledged is lost: tell anew
	default:
	}
	return now.Sub(sh.at) >= refreshTime || s.turn.Load().off.Load()-sh.off >= refreshBytes
}

// expire drops records nobody refreshed, and counts the rest by site.
func (r *replica) expire(now time.Time) map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := map[string]int{}
	for k, st := range r.store {
		if now.Sub(st.at) > recordLife {
			r.drop(k)
			continue
		}
		counts[st.from]++
	}
	r.forgetNames(now)
	return counts
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
		select {
		case r.full <- noRoom{f.Key, l.peer}:
		default:
		}
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
	kept := r.enter(rec, piece, l.peer)
	if rec.Flags&frame.Idle == 0 {
		r.a.uploads.at(pointKept)
	}
	if !kept {
		return l.send(frame.Frame{Type: frame.Full, Key: rec.Key, Epoch: rec.Epoch, Generation: rec.Generation})
	}
	return nil
}

// enter is false when there is no room. Nobody sends under the lock: who
// forwards packets waits for it.
func (r *replica) enter(rec frame.Record, piece []byte, from string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.store[rec.Key]
	switch {
	case ok && (rec.Epoch < old.rec.Epoch || rec.Epoch == old.rec.Epoch && rec.Generation < old.rec.Generation):
		r.a.m.refused.Inc()
	case !ok && len(r.store) >= r.a.limits.Records:
		return false
	default:
		st := stored{rec: rec, from: from, at: time.Now()}
		st.pace = st.paceSince(old)
		clear(old.piece)
		if r.held -= len(old.piece); r.held+len(piece) <= piecesMost {
			st.piece, r.held = piece, r.held+len(piece)
		}
		r.store[rec.Key] = st
	}
	return true
}

// forget drops a record at its owner's word, not at that of an earlier owner.
func (r *replica) forget(peer string, f frame.Frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.store[f.Key]; ok && old.from == peer && old.rec.Epoch <= f.Epoch {
		r.drop(f.Key)
	}
}

// take removes the records of a site's sessions which may be revived, and
// returns them in the order of their keys. Who has a record from here has it
// alone: this is the claim.
func (r *replica) take(site string, may func(frame.Record) bool) []stored {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []stored
	for k, st := range r.store {
		if st.from == site && may(st.rec) {
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
		r.store[st.rec.Key] = st
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
	_, ok := r.store[k]
	return ok
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
	r.held -= len(r.store[k].piece)
	r.store[k] = stored{}
	delete(r.store, k)
}
