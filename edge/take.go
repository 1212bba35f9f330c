package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"rhumb/edge/content"
	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// settleAfter is when a restored connection is like any other.
const settleAfter = 5 * time.Second

// Reasons why an offer is refused.
var (
	errService   = errors.New("no such service here")
	errObserve   = errors.New("service only observes")
	errObject    = errors.New("object is not here")
	errStale     = errors.New("a newer epoch or generation is known")
	errRate      = errors.New("too many restores at once")
	errPositions = errors.New("send positions lie outside the response")
	errUnknown   = errors.New("offer is not here")
	errFull      = errors.New("no room for another session")
)

// take answers one offer: restore, Ready, and then whatever the giver says.
// It runs in a goroutine of its own.
func (a *Agent) take(ctx context.Context, l *link, f frame.Frame, box <-chan frame.Frame) {
	got := time.Now()
	answer := frame.Frame{Type: frame.Refused, Key: f.Key, Epoch: f.Epoch, Generation: f.Generation}
	o, err := frame.DecodeOffer(f.Payload)
	if err == nil && (o.Record.Key != f.Key || o.Record.Epoch != f.Epoch || o.Record.Generation != f.Generation) {
		err = fmt.Errorf("edge: offer of %s describes %s", f.Key, o.Record.Key)
	}
	if err == nil {
		err = a.takeBoxed(ctx, l, o, box, got)
	}
	clear(f.Payload) // secrets, perhaps
	if err != nil {
		answer.Payload = []byte(err.Error())
		_ = l.send(answer) // a dead link has told the giver
	}
}

// takeBoxed holds the session's packets from here on: they are for the socket
// that is about to be. If it is not to be they belong to the giver, who goes
// on; the kernel here would answer them with a reset.
func (a *Agent) takeBoxed(ctx context.Context, l *link, o frame.Offer, box <-chan frame.Frame, got time.Time) error {
	if a.prep.crowded() || a.pulledTooMany(o.Record.Key, got) {
		return errFull // it stays where it is; who is about to lose his site comes first
	}
	s, err := a.admit(o)
	if err != nil {
		return err
	}
	st, t := stateOf(o), s.turn.Load()
	stuck := st.Stuck() && (st.InFlight() > 0 || t.off.Load() < t.wire.size())
	a.strays.Hold(s.key)
	if err := a.takeHeld(ctx, l, s, o, box, got); err != nil {
		s.cover.wipe()
		a.strays.Stayed(s.key, l.peer)
		return err
	}
	a.strays.Release(s.key)
	if a.mayAsk(s) {
		a.wg.Go(func() { a.confirm(ctx, s, st, stuck) }) // nothing of what was kept is to come any more
	}
	return nil
}

func (a *Agent) takeHeld(ctx context.Context, l *link, s *session, o frame.Offer, box <-chan frame.Frame, got time.Time) error {
	t := s.turn.Load()
	st := stateOf(o)
	elapsed := got.Sub(time.UnixMilli(o.Record.Wall)) + time.Since(got)
	r, err := tcprepair.Restore(st, t.wire.reader(t.off.Load()-int64(st.InFlight())), elapsed)
	if err != nil {
		return err
	}
	if a.revival.on() {
		if err := r.Learn(a.revival.wire); err != nil {
			return errors.Join(err, r.Close())
		}
	}
	ready := frame.Frame{Type: frame.Ready, Key: s.key, Epoch: s.epoch, Generation: s.gen.Load(), Payload: a.ledger.word()}
	if err := l.send(ready); err != nil {
		return errors.Join(err, r.Close())
	}
	if !a.committed(box, s) {
		return errors.Join(errUnknown, r.Close())
	}
	a.uploads.readmit(s, r)
	a.ledger.begin(ledgerRow{key: s.key, epoch: s.epoch, gen: ready.Generation})
	if s.conn, err = r.Activate(); err != nil {
		a.tab.untake(s.key)
		a.ledger.end(s.key, s.epoch, ready.Generation, ledgerNever)
		a.uploads.dismiss(s)
		return err
	}
	limitUnsent(s.conn, unsentMost)
	a.events.came()
	s.lastMv.Store(int64(time.Since(got)))
	a.m.stall.Observe(time.Since(got).Seconds())
	time.AfterFunc(settleAfter, func() { // it may have ended
		_ = tcprepair.Calm(s.conn)
		if !s.hastened() {
			_ = tcprepair.Settle(s.conn)
		}
	})
	ready.Type, ready.Payload = frame.Active, nil
	if st.Stuck() && !a.mayAsk(s) {
		s.stuck = st.InFlight()
	}
	_ = l.send(ready) // over a dead link: the giver asks again, by another
	a.run(ctx, s)
	return nil
}

// committed waits for the giver's decision. Only what the giver says before
// the offer's life ends counts; a later Commit finds no box and is refused.
func (a *Agent) committed(box <-chan frame.Frame, s *session) bool {
	timer := time.NewTimer(offerLife)
	defer timer.Stop()
	for {
		select {
		case f := <-box:
			if f.Generation != s.gen.Load() || f.Epoch != s.epoch {
				continue
			}
			return f.Type == frame.Commit && a.tab.take(s.key, s.epoch, f.Generation, time.Now())
		case <-timer.C:
			a.taking.close(s.key, box)
			select {
			case f := <-box: // put before the box closed
				return f.Type == frame.Commit && f.Generation == s.gen.Load() &&
					a.tab.take(s.key, s.epoch, f.Generation, time.Now())
			default:
				return false
			}
		}
	}
}

// admit decides whether an offered session can live here, and builds it up to
// the socket.
func (a *Agent) admit(o frame.Offer) (*session, error) {
	rec := o.Record
	svc := a.view.Load().vips[rec.Key.VIP]
	switch {
	case svc == nil || svc.id != rec.Service:
		return nil, errService
	case svc.Mode != ModeAct:
		return nil, errObserve
	case !a.tab.fresh(rec.Key, rec.Epoch, rec.Generation):
		a.m.refused.Inc()
		return nil, errStale
	case a.tab.len() >= a.limits.Sessions:
		return nil, errFull
	case !a.bucket.take(time.Now()):
		return nil, errRate
	}
	c, err := coverOf(svc, &o)
	if err != nil {
		return nil, err
	}
	s := &session{key: rec.Key, started: time.Now(), epoch: rec.Epoch, svc: svc, input: o.Input, cover: c}
	s.came = true
	s.done = make(chan struct{})
	s.gen.Store(rec.Generation)
	t, err := turnOf(svc, o, c)
	if err != nil {
		c.wipe()
		return nil, err
	}
	s.turn.Store(t)
	s.state.Store(int32(s.resting())) // an upload that goes on here stays here: a pull would leave what was received
	if a.moves.Backups {
		s.reg, s.regAt = tcprepair.Registration{Options: stateOf(o).Options, TSVal: rec.TSVal, RTT: cmp.Or(o.RTT, tripOf(rec.Options))}, s.started
		a.protect(s)
	}
	return s, nil
}

// turnOf rebuilds the response in progress. Its bytes must cover everything
// that is in flight.
func turnOf(svc *service, o frame.Offer, c *cover) (*turn, error) {
	rec := o.Record
	var b content.Body
	if rec.Object != ([32]byte{}) && rec.Length > 0 && rec.Flags&frame.Head == 0 {
		obj, ok := svc.source.ByHash(rec.Object, o.Name)
		if !ok || uint64(obj.Size()) != rec.Size {
			return nil, errObject
		}
		b = obj
	}
	rec.Cover = frame.Cover{} // c has it; a turn is kept for longer
	t, err := newTurn(rec, o.Name, b)
	if err == nil {
		err = c.wrap(t)
	}
	if err == nil {
		err = c.match(t, &o)
	}
	if err != nil {
		return nil, err
	}
	written := int64(rec.Offset)
	una, nxt := written-int64(o.WriteSeq-o.SndUna), written-int64(o.WriteSeq-o.SndNxt)
	if una < 0 || written < 0 || written > t.wire.size() {
		return nil, errPositions
	}
	t.base, t.rcv = rec.Base, rec.RcvNxt
	t.off.Store(nxt)
	return t, nil
}
