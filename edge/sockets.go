package edge

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"rhumb/edge/fdstore"
	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// sockets are those of protected sessions, which a process besides this one holds (package
// fdstore): when this one dies the kernel goes on with them, and the next one writes on where
// it stands. Empty, it does nothing.
type sockets struct {
	store atomic.Pointer[fdstore.Client]
	// left are those of an earlier process, until somebody takes them; revival.mu.
	left map[frame.Key]int
}

// open sorts what an earlier process left, and begins to hold what is here. quiet are its
// sessions whose end was kept from their clients: the others end now.
func (k *sockets) open(ctx context.Context, g *errgroup.Group, a *Agent, store *fdstore.Client, found map[fdstore.Flow]int, quiet []frame.Key) {
	k.left = map[frame.Key]int{}
	for _, key := range quiet {
		f := storeFlow(key)
		if fd, ok := found[f]; ok {
			k.left[key] = fd
			delete(found, f)
		}
	}
	for f, fd := range found {
		store.Forget(f)
		_ = unix.Close(fd)
	}
	k.store.Store(store)
	g.Go(func() error {
		return store.Run(ctx, func(err error) { a.log.Warn("sockets are not kept for the next process", "err", err) })
	})
}

// roomFor is how many descriptors a process has room for at its start. The kernel doubles the
// room when it is full, and then waits each time until no processor looks at the old
// table: five times, of some milliseconds each, for the first thousand sessions.
const roomFor = 16 << 10

// prepareStart begins what takes a moment and what sessions of an earlier process would wait
// for: room for descriptors, and links to those who have the records.
func (a *Agent) prepareStart(ctx context.Context) {
	if !a.moves.Backups {
		return
	}
	a.wg.Go(func() {
		if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, roomFor-1); err == nil { // else it comes step by step
			_ = unix.Close(fd)
		}
	})
	for _, p := range a.view.Load().peers {
		a.wg.Go(func() { _, _ = a.links.to(ctx, p.Name) }) // who needs it asks again
	}
}

func storeFlow(k frame.Key) fdstore.Flow { return fdstore.Flow{Local: k.VIP, Peer: k.Client} }

// keep holds the socket of a session, soon. Those whose acknowledgements wait for a Backup
// are not: their kernel would acknowledge what nobody has.
func (k *sockets) keep(s *session) {
	if !s.svc.held() {
		k.store.Load().Keep(storeFlow(s.key), s.conn)
	}
}

// end ends a connection that another process holds, too. It is called before it is closed.
func (k *sockets) end(s *session) {
	if k.store.Load().Drop(storeFlow(s.key)) {
		_ = tcprepair.Hangup(s.conn) // one that was handed off is closed already
	}
}

// takeLeft returns the descriptor of a session of an earlier process, and -1 if none is there.
func (v *revival) takeLeft(k frame.Key) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	left := v.a.kept.left
	fd, ok := left[k]
	if !ok {
		return -1
	}
	delete(left, k)
	return fd
}

// letGo closes what is left of a session of an earlier process, if there is anything. Its
// client hears of that as if it ended only now, but for one that had been given away.
func (v *revival) letGo(k frame.Key) {
	if fd := v.takeLeft(k); fd >= 0 {
		v.a.kept.store.Load().Forget(storeFlow(k))
		_ = unix.Close(fd)
	}
}

// early reports whether a session whose socket is left waits for its object: a new process
// has yet to find those that it has. The kernel goes on meanwhile.
func (v *revival) early(st stored, now time.Time) bool {
	v.mu.Lock()
	_, left := v.a.kept.left[st.rec.Key]
	v.mu.Unlock()
	svc := v.a.view.Load().vips[st.rec.Key.VIP]
	if !left || svc == nil || now.Sub(st.at) > objectLimit/2 || st.rec.Object == ([32]byte{}) {
		return false
	}
	_, ok := svc.source.ByHash(st.rec.Object, v.nameFor(objectOf{st.rec.Service, st.rec.Object}, now))
	return !ok
}

// later has a session looked at again in a moment.
func (v *revival) later(ctx context.Context, st stored) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(retryEvery):
	}
	select {
	case <-ctx.Done():
	case v.returned <- st:
	}
}

// adopt goes on with a session of an earlier process by its socket, from where that stands.
// False: its position is asked of its client.
func (v *revival) adopt(ctx context.Context, st stored, now time.Time) bool {
	fd := v.takeLeft(st.rec.Key)
	if fd < 0 {
		return false
	}
	defer unix.Close(fd)
	rd := &round{stored: st, epoch: st.rec.Epoch, begun: now, own: true, trail: trail{told: now}}
	s, err := v.admitKept(ctx, rd, fd)
	if err != nil {
		v.a.log.Debug("socket of the last process is not used", "err", err)
		v.a.kept.store.Load().Forget(storeFlow(st.rec.Key))
		return false
	}
	v.a.m.revivals.WithLabelValues(reviveKept).Inc()
	v.a.events.revived()
	v.tellKeepers(rd)
	v.went(s, rd)
	return true
}

// admitKept makes a session of a record and a socket. After an error the socket is silent, or
// as it was.
func (v *revival) admitKept(ctx context.Context, rd *round, fd int) (*session, error) {
	a, rec := v.a, rd.rec
	c, d, err := tcprepair.Adopt(fd)
	if err != nil {
		return nil, err
	}
	o, err := offerOf(rec, d.State, rd.begun)
	if err != nil {
		return nil, errors.Join(err, d.Vanish())
	}
	o.Name = v.nameFor(objectOf{rec.Service, rec.Object}, rd.begun)
	s, err := a.admit(o)
	if err != nil {
		return nil, errors.Join(err, d.Vanish())
	}
	if !a.tab.take(s.key, s.epoch, s.gen.Load(), rd.begun) {
		s.cover.wipe()
		return nil, errors.Join(errStale, d.Vanish())
	}
	rd.state, s.conn = d.State, c
	if err := d.Abort(); err != nil {
		a.tab.untake(s.key)
		s.cover.wipe()
		return nil, errors.Join(err, d.Vanish())
	}
	rd.restored = time.Now()
	s.heirOf = rd.from
	a.kept.store.Load().Adopt(storeFlow(s.key), c)
	a.run(ctx, s)
	return s, nil
}

// offerOf describes a session as its socket has it. What the earlier process read is what
// the record knows, or the record is stale.
func offerOf(rec frame.Record, st tcprepair.State, now time.Time) (frame.Offer, error) {
	read := st.RcvNxt - uint32(len(st.Input))
	at := offsetOf(rec, st.WriteSeq)
	switch {
	case rec.Flags&frame.Upload != 0:
		return frame.Offer{}, fmt.Errorf("edge: adopt %s: an upload", rec.Key)
	case read != rec.RcvNxt || at < 0:
		return frame.Offer{}, fmt.Errorf("edge: adopt %s: %w", rec.Key, errPositions)
	}
	o := sight{best: tcprepair.Segment{Ack: st.WriteSeq}}.offer(rec, now)
	if rec.Options&recTimestamps != 0 {
		o.Record.TSVal = st.TSVal
	}
	return o, nil
}
