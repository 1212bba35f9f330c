package edge

import (
	"context"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"rhumb/edge/fdstore"
	"rhumb/edge/frame"
	"rhumb/edge/silence"
	"rhumb/edge/tcprepair"
)

// Times of a process that follows a dead one.
const (
	recallLimit = 3 * time.Second // then the kernel ends what is left
	recallAgain = 100 * time.Millisecond
	hastenSlack = 5 * time.Second // the write limit comes first
	// returnedQueue is how many records wait while others are gone on with.
	returnedQueue = 1024
)

// hush keeps the FIN and RST of a dead process from its clients, once the kernel
// was asked to. Empty, it does nothing.
type hush struct {
	kernel atomic.Pointer[silence.Silence]
}

func (h *hush) add(f silence.Flow) {
	if k := h.kernel.Load(); k != nil {
		k.Add(f)
	}
}

func (h *hush) remove(f silence.Flow) {
	if k := h.kernel.Load(); k != nil {
		k.Remove(f)
	}
}

// leave is remove for a connection that another site has, and whose end here says nothing.
func (h *hush) leave(f silence.Flow) {
	if k := h.kernel.Load(); k != nil {
		k.Leave(f)
	}
}

func flowOf(k frame.Key) silence.Flow { return silence.Flow{Local: k.VIP, Peer: k.Client} }

// openRevival opens what a revival needs of the kernel, once there is a service
// that wants it: without one, nothing of all this touches the host. Where it
// fails sessions are served, and end with their process or site. It returns the
// sessions of an earlier process that were protected when it died.
func (a *Agent) openRevival(ctx context.Context, g *errgroup.Group) []frame.Key {
	wanted := slices.ContainsFunc(a.view.Load().services, func(s *service) bool { return s.revives() })
	if !a.moves.Backups || !wanted || a.revival.opened {
		return nil
	}
	a.revival.opened = true
	var err error
	if a.revival.wire, err = tcprepair.OpenWire(); err != nil {
		a.log.Warn("sessions of lost sites are not revived here", "err", err)
		return nil
	}
	a.revival.ready.Store(true)
	var store *fdstore.Client
	var found map[fdstore.Flow]int
	var none error
	var wait sync.WaitGroup
	wait.Go(func() { store, found, none = fdstore.Open(a.cfg.Store) })
	q, flows, err := silence.Open(a.log)
	wait.Wait()
	if none != nil {
		a.log.Warn("sessions of the last process are revived from their records", "err", none)
	}
	if err != nil {
		for _, fd := range found {
			_ = unix.Close(fd)
		}
		store.End()
		a.log.Warn("sessions end with this process", "err", err)
		return nil
	}
	a.quiet.kernel.Store(q)
	g.Go(func() error { return q.Run(ctx) })
	left := make([]frame.Key, len(flows))
	for i, f := range flows {
		left[i] = frame.Key{Client: f.Peer, VIP: f.Local}
	}
	a.kept.open(ctx, g, a, store, found, left)
	for _, k := range left {
		if _, ok := a.kept.left[k]; !ok { // else its packets have a socket to go to
			a.strays.Claim(k)
		}
	}
	return left
}

// protect gives a session a Backup, and silence once that knows of it. It is
// called before the session is served.
func (a *Agent) protect(s *session) {
	if !s.svc.shadows() {
		return // nobody would ever ask for its record
	}
	s.changed = a.replica.changed
	if a.quiet.kernel.Load() == nil || !s.svc.revives() {
		return
	}
	s.quiet = &a.quiet
}

// unquiet is called before the connection of a session is closed, and returns when its
// kernel may tell the client of that. Most short sessions end before they were silenced.
func (s *session) unquiet() {
	if s.quiet == nil {
		return
	}
	s.spoken.Do(func() {
		s.closing.Store(true)
		// An orphan whose client's window is closed is given up once its probes
		// are as far apart as they get: after a second and a half, hastened.
		begun := s.haste.end(s.conn)
		switch {
		case !begun && !s.came: // nobody has silenced it
		case State(s.state.Load()) == Moving: // given away
			s.quiet.leave(flowOf(s.key))
		default:
			s.quiet.remove(flowOf(s.key))
		}
	})
}

// haste is whether a connection was hastened.
type haste struct {
	mu    sync.Mutex
	begun bool
	ended bool
}

// begin hastens, once, and reports false if the end has come. Older kernels refuse; there
// the end of an abandoned session comes later.
func (h *haste) begin(c *net.TCPConn, limit time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun && !h.ended {
		h.begun = true
		_ = tcprepair.Hasten(c, limit)
	}
	return !h.ended
}

// end reports whether there was a begin.
func (h *haste) end(c *net.TCPConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended = true; h.begun {
		_ = tcprepair.Settle(c) // it may have been handed off
	}
	return h.begun
}

// hastened reports whether the kernel repeats itself more often for a session, so
// that its end is heard soon after somebody stops holding it back.
func (s *session) hastened() bool { return s.quiet != nil }

// hush silences the end of a session whose record is at its Backup.
func (a *Agent) hush(s *session) {
	if !s.hastened() || !s.haste.begin(s.conn, a.limits.Write+hastenSlack) {
		return
	}
	a.quiet.add(flowOf(s.key))
	a.kept.keep(s)
	// The session may have ended in between, and its own Remove come first.
	if s.closing.Load() {
		a.quiet.remove(flowOf(s.key))
		a.kept.end(s)
	}
}

// recall asks every site for the records of the sessions that an earlier process
// of this one left, and ends those that no site knows.
func (v *revival) recall(ctx context.Context, left []frame.Key) {
	a := v.a
	v.mu.Lock()
	for _, k := range left {
		v.orphans[k] = true
	}
	v.mu.Unlock()
	a.log.Info("an earlier process left sessions", "sessions", len(left))
	end, cancel := context.WithTimeout(ctx, recallLimit)
	defer cancel()
	// A few, since each session is a matter of the processor alone: the first need not
	// wait for the last.
	for range runtime.GOMAXPROCS(0) {
		a.wg.Go(func() { v.goOn(ctx) })
	}
	var wg sync.WaitGroup
	for _, p := range a.view.Load().peers {
		wg.Go(func() { v.recallFrom(end, p.Name) })
	}
	wg.Wait()
	<-end.Done()
	v.mu.Lock()
	rest := make([]frame.Key, 0, len(v.orphans))
	for k := range v.orphans {
		rest = append(rest, k)
	}
	clear(v.orphans)
	v.mu.Unlock()
	slices.SortFunc(rest, frame.Key.Compare)
	for _, k := range rest {
		a.m.revivals.WithLabelValues(reviveNoRecords).Inc()
		a.quiet.remove(flowOf(k))
		v.letGo(k)
		a.uploads.orphaned(k)
		a.strays.Release(k)
	}
}

// goOn goes on with the sessions whose records came back, until the context ends.
func (v *revival) goOn(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case st := <-v.returned:
			if v.early(st, time.Now()) {
				v.a.wg.Go(func() { v.later(ctx, st) })
				continue
			}
			// Another record of it may have come first, or another edge, which has it now.
			if !v.disown(st.rec.Key) || v.adopt(ctx, st, st.at) {
				continue
			}
			if rd := v.begin(st, st.rec.Epoch, st.at, recallLimit); rd != nil {
				v.a.wg.Go(func() { v.run(ctx, rd, rd.sight(), 0) })
			}
		}
	}
}

// recallFrom asks one site, again until it is reached.
func (v *revival) recallFrom(ctx context.Context, peer string) {
	for ctx.Err() == nil {
		l, err := v.a.links.to(ctx, peer)
		if err == nil {
			err = l.send(frame.Frame{Type: frame.Recall})
		}
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(recallAgain):
		}
	}
}

// recalled takes a record back and begins the revival of its session, if the
// earlier process was silenced in time.
func (v *revival) recalled(ctx context.Context, l *link, f frame.Frame) {
	rec, piece, err := frame.DecodePiece(f.Payload)
	clear(f.Payload) // secrets, perhaps
	if err != nil {
		v.a.replica.broken(l, err)
		return
	}
	v.mu.Lock()
	mine := v.orphans[rec.Key]
	v.mu.Unlock()
	if !mine {
		return // it ended before this process began; the Backup forgets it
	}
	if !v.a.mayRevive(rec) {
		v.disown(rec.Key)
		v.a.quiet.remove(flowOf(rec.Key))
		v.letGo(rec.Key)
		v.a.uploads.orphaned(rec.Key)
		v.a.strays.Release(rec.Key)
		return
	}
	st := stored{rec: rec, piece: piece, from: v.a.cfg.Site, at: time.Now()}
	select {
	case v.returned <- st:
	case <-ctx.Done():
	}
}

// recalledBy gives a site's new process its records.
func (a *Agent) recalledBy(ctx context.Context, l *link) {
	a.revival.yield(l.peer)
	a.tellHeirs(l)
	a.revival.inherit(ctx, l)
	all := a.replica.recall(l.peer)
	if len(all) > 0 {
		a.log.Info("another process of the site asks for its records", "peer", l.peer, "records", len(all))
	}
	for _, st := range all {
		rec, payload := st.rec, frame.AppendRecord(nil, st.rec)
		if l.pieces.Load() {
			payload = append(payload, st.piece...)
		}
		if l.send(frame.Frame{Type: frame.Recalled, Key: rec.Key, Epoch: rec.Epoch, Generation: rec.Generation, Payload: payload}) != nil {
			return // it asks again by another link
		}
	}
}

// inherit goes on here with the uploads of a process that died: what was received of them is
// here, and the next process, who asks, has none of it. It ends what is left of their connections
// and sends their packets after them, as at a claim of another edge.
func (v *revival) inherit(ctx context.Context, l *link) {
	now, a := time.Now(), v.a
	for _, st := range a.replica.take(l.peer, func(rec frame.Record) bool { return rec.Flags&frame.Upload != 0 && a.mayRevive(rec) }) {
		rd := v.begin(st, st.rec.Epoch+1, now, reviveLife)
		if rd == nil {
			continue
		}
		// Were it lost, the link is dead, and who asks by another one has the record put back.
		_ = l.send(frame.Frame{Type: frame.Claimed, Key: rd.rec.Key, Epoch: rd.epoch})
		a.wg.Go(func() { v.run(ctx, rd, rd.sight(), 0) })
	}
}

// claimedBy ends a session here that its Backup took over while this site was
// thought dead: without a packet, and what still comes follows it.
func (a *Agent) claimedBy(l *link, f frame.Frame) {
	s := a.tab.get(f.Key)
	if s == nil {
		a.supersededBy(l, f)
		return
	}
	if s.epoch >= f.Epoch {
		return
	}
	if !s.mayKeep(l.peer) {
		a.log.Warn("a site claims a session of which it is not the backup", "peer", l.peer)
		return
	}
	a.uploads.lost(f.Key)
	if !s.claim() && !s.claimUpload() {
		return // the next record is refused again
	}
	if !s.stop() {
		s.state.Store(int32(s.resting()))
		return
	}
	d, err := tcprepair.Dump(s.conn)
	if err != nil {
		s.release()
		a.log.Warn("give up a session that was taken over", "peer", l.peer, "err", err)
		return
	}
	a.strays.Moved(s.key, l.peer)
	a.tab.gave(s.key, s.epoch, s.gen.Load(), time.Now())
	a.leave(s, d)
}
