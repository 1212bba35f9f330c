package edge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
	"rhumb/edge/tcprepair"
)

// Times of a taker.
const (
	// serverStarts is how long a server may take to say active; then its client is told
	// that nobody is there.
	serverStarts = 5 * time.Second
	// easeLimit is how long our descriptor of a session that came may outlive the wait
	// for its first round trip; a close by the server is heard that much later.
	easeLimit = time.Second
	easeLook  = 20 * time.Millisecond
)

// taken is one hand-off of a guest, at the taker. Its goroutine owns it.
type taken struct {
	g       *guests
	l       *link
	msg     frame.Frame // key, epoch, generation
	svc     *Service
	offer   frame.Guest
	id      uint64
	server  *caller
	words   <-chan word
	restore revivable
	conn    *net.TCPConn // activated
	got     time.Time
	box     <-chan frame.Frame
}

// offered takes an offer off a link. The box stands before the next frame is read:
// that may be Abort.
func (g *guests) offered(ctx context.Context, l *link, f frame.Frame) {
	bulk := g.parts.take(l, f)
	answer := frame.Frame{Type: frame.Refused, Key: f.Key, Epoch: f.Epoch, Generation: f.Generation}
	box, ok := g.a.taking.open(f.Key)
	if !ok {
		answer.Payload = []byte(errClaimed.Error())
		_ = l.send(answer) // a dead link has told the giver
		return
	}
	x := &taken{g: g, l: l, msg: frame.Frame{Key: f.Key, Epoch: f.Epoch, Generation: f.Generation}, got: time.Now(), box: box}
	g.a.wg.Go(func() {
		err := x.run(ctx, f.Payload, bulk)
		if err == nil {
			g.a.taking.close(f.Key, box)
			return
		}
		// In this order, so that no Commit finds neither the box nor what became of it.
		g.declined.put(x.msg, time.Now())
		g.a.taking.close(f.Key, box)
		g.a.m.guests.ends.WithLabelValues(guestDeclined).Inc()
		g.a.log.Debug("a session of another server is declined", "peer", l.peer, "err", err)
		answer.Payload = []byte(err.Error())
		_ = l.send(answer)
	})
}

// run takes a session as far as it goes. An error means that it was not activated.
func (x *taken) run(ctx context.Context, payload, bulk []byte) error {
	a, k := x.g.a, x.msg.Key
	if err := x.admit(payload, bulk); err != nil {
		return err
	}
	if !x.g.claim(k, x.svc.Name) {
		return errClaimed
	}
	defer x.g.unclaim(k)
	x.server = x.g.lobby.pick(x.svc.Name)
	if x.server == nil {
		return errNoServer
	}
	x.id = x.g.lobby.next.Add(1)
	if x.words = x.server.begin(x.id); x.words == nil {
		return errServerGone
	}
	defer x.server.end(x.id)
	// Packets are for the socket that is about to be. If it is not to be they belong to
	// the giver, who goes on.
	a.strays.Hold(k)
	err := x.prepare(bulk)
	if err == nil {
		err = x.live(ctx)
	}
	if err != nil {
		a.strays.Stayed(k, x.l.peer)
		_ = x.server.tell(handsock.Abort, x.id, reasonOf(err))
	}
	return err
}

// admit decides whether an offered session can live here.
func (x *taken) admit(payload, bulk []byte) (err error) {
	if x.offer, err = frame.DecodeGuest(payload); err != nil {
		return err
	}
	a, o := x.g.a, &x.offer
	x.svc = a.view.Load().guests[x.msg.Key.VIP]
	switch {
	case x.svc == nil || serviceID(x.svc.Name) != o.Service:
		return errService
	case x.svc.Mode != ModeAct:
		return errObserve
	case !a.tab.fresh(x.msg.Key, x.msg.Epoch, x.msg.Generation):
		a.m.refused.Inc()
		return errStale
	case len(bulk) != int(o.Input)+o.Output():
		return fmt.Errorf("edge: %d bytes of queues, %d were announced", len(bulk), int(o.Input)+o.Output())
	case a.prep.crowded():
		return errFull
	case !a.bucket.take(time.Now()):
		return errRate
	}
	return nil
}

// prepare makes the silent socket and shows it to a server.
func (x *taken) prepare(bulk []byte) error {
	st := guestState(x.msg.Key, x.offer)
	elapsed := x.got.Sub(time.UnixMilli(x.offer.Wall)) + time.Since(x.got)
	q := tcprepair.Queues{Input: bulk[:x.offer.Input], Output: bulk[x.offer.Input:]}
	r, err := x.g.kernel.restore(st, q, elapsed)
	if err != nil {
		return err
	}
	f, err := r.File()
	if err == nil {
		offer := handsock.Message{Type: handsock.Offer, ID: x.id, Key: handsock.Key(x.msg.Key), Record: x.offer.Record}
		err = errors.Join(x.server.send(offer, f), f.Close())
	}
	if err != nil {
		return errors.Join(err, r.Close())
	}
	x.restore = r
	return nil
}

// guestState is the inverse of guestOf.
func guestState(k frame.Key, g frame.Guest) tcprepair.State {
	rec := frame.Record{Key: k, MSS: g.MSS, Scales: g.Scales, Options: g.Options, TSVal: g.TSVal}
	return stateOf(frame.Offer{Record: rec, SndUna: g.SndUna, SndNxt: g.SndNxt, WriteSeq: g.WriteSeq, RcvNxt: g.RcvNxt, Window: g.Window, RTT: g.RTT})
}

// live does what nextTake says until the hand-off is over.
func (x *taken) live(ctx context.Context) error {
	phase, until := takeOffered, time.Now().Add(x.g.lobby.cfg.Patience)
	for {
		ev, why := x.wait(ctx, phase, until)
		if phase == takeReady && ev == evCommit && x.serverGone() {
			ev, why = evServerGone, errServerGone // the last moment at which it matters to nobody
		}
		var deed takeDeed
		phase, deed = nextTake(phase, ev)
		switch deed {
		case takeAnswer:
			until = time.Now().Add(offerLife)
			x.say(frame.Ready)
		case takeStart:
			until = time.Now().Add(serverStarts)
			if err := x.start(); errors.Is(err, tcprepair.ErrSpoken) {
				x.reset(err)
				return nil
			} else if err != nil {
				return err
			}
		case takeDone:
			x.g.a.m.guests.ends.WithLabelValues(guestTaken).Inc()
			x.g.a.wg.Go(func() { ease(ctx, x.conn) })
			return nil
		case takeReset:
			x.reset(why)
			return nil
		case takeDecline:
			return errors.Join(why, x.restore.Close())
		}
	}
}

// say answers the giver; a dead link has told it, and it asks again by another.
func (x *taken) say(t frame.Type) {
	msg := x.msg
	if msg.Type = t; t == frame.Ready {
		msg.Payload = x.g.a.ledger.word()
	}
	_ = x.l.send(msg)
}

func (x *taken) serverGone() bool {
	select {
	case <-x.server.gone:
		return true
	default:
		return false
	}
}

// start lets the session speak here. After an error nothing was sent.
func (x *taken) start() (err error) {
	a, k := x.g.a, x.msg.Key
	if !a.tab.take(k, x.msg.Epoch, x.msg.Generation, time.Now()) {
		return errors.Join(errStale, x.restore.Close())
	}
	a.ledger.begin(ledgerRow{key: k, epoch: x.msg.Epoch, gen: x.msg.Generation, id: x.id})
	x.g.reached(guestBegun)
	x.conn, err = x.restore.Activate()
	switch {
	case errors.Is(err, tcprepair.ErrSpoken):
		x.say(frame.Active) // the giver must not go on
		return err
	case err != nil:
		a.tab.untake(k)
		x.note(ledgerNever)
		return err
	}
	x.g.reached(guestSpoken)
	x.note(ledgerActive)
	x.g.reached(guestNoted)
	x.say(frame.Active)
	x.g.reached(guestSaid)
	// A broken connection is heard of in live.
	_ = x.server.tell(handsock.Commit, x.id, "")
	a.strays.Release(k)
	a.events.came()
	a.m.stall.Observe(time.Since(x.got).Seconds())
	return nil
}

// note tells the ledger what became of it.
func (x *taken) note(s ledgerState) { x.g.a.ledger.end(x.msg.Key, x.msg.Epoch, x.msg.Generation, s) }

// reset ends a session that was activated and that nobody serves.
func (x *taken) reset(why error) {
	a := x.g.a
	a.m.guests.ends.WithLabelValues(guestReset).Inc()
	x.note(ledgerBegun) // there is nothing to serve
	a.log.Error("a session of another server was taken and cannot be served: reset", "service", x.svc.Name, "err", why)
	_ = x.server.tell(handsock.Abort, x.id, reasonOf(why))
	a.strays.Release(x.msg.Key)
	if x.conn == nil {
		return
	}
	if err := errors.Join(x.g.kernel.reset(x.conn), x.conn.Close()); err != nil {
		a.log.Warn("reset a session", "service", x.svc.Name, "err", err)
	}
}

// wait returns the next event and, for one that ends the hand-off, why.
func (x *taken) wait(ctx context.Context, p takePhase, until time.Time) (guestEvent, error) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	ended := ctx.Done()
	if p == takeStarted {
		ended = nil // the server is about to answer
	}
	for {
		// What the server said before it went counts.
		select {
		case w := <-x.words:
			if ev, why, ok := takeEventOf(w); ok {
				return ev, why
			}
			continue
		default:
		}
		select {
		case f := <-x.box:
			if f.Generation != x.msg.Generation || f.Epoch != x.msg.Epoch {
				continue
			}
			if f.Type == frame.Commit {
				return evCommit, errors.New("commit ahead of ready")
			}
			return evAbort, errors.New("the giver called it off")
		case w := <-x.words:
			if ev, why, ok := takeEventOf(w); ok {
				return ev, why
			}
		case <-x.server.gone:
			if len(x.words) == 0 {
				return evServerGone, errServerGone
			}
		case <-ended:
			return evLate, ctx.Err()
		case <-timer.C:
			return evLate, errNoAnswer
		}
	}
}

// takeEventOf reads what the server said.
func takeEventOf(w word) (guestEvent, error, bool) {
	if w.file != nil {
		w.file.Close()
	}
	switch w.Type {
	case handsock.Ready:
		return evServerReady, nil, true
	case handsock.Active:
		return evServerActive, nil, true
	case handsock.Abort:
		return evServerNo, refusedError{"server: " + w.Text}, true
	}
	return 0, nil, false
}

// ease waits until the kernel has measured a round trip of a session that came, or
// nothing is in flight, ends what eased its start and lets go of it.
func ease(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	for end := time.Now().Add(easeLimit); time.Now().Before(end); {
		rto, flying, err := tcprepair.Timing(c)
		if err != nil || !flying || rto < time.Second {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(easeLook):
		}
	}
	_ = tcprepair.Settle(c) // it may have ended
}
