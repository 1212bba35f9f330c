package edge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/handsock"
	"rhumb/edge/tcprepair"
)

// Reasons why a guest stays.
var (
	errNoServer   = errors.New("no server of the service is connected")
	errNoGuests   = errors.New("the other site does not take sessions of other servers")
	errServerGone = errors.New("the server ended its connection to the agent")
	errServerNo   = errors.New("the server called it off")
)

// perOctet is what an octet of the queues adds to the wait for Ready: 8 MB a second is
// a slow path between sites.
const perOctet = 125 * time.Nanosecond

// given is one hand-off of a guest, at the giver. Its goroutine owns it.
type given struct {
	g      *guests
	svc    *Service
	key    frame.Key
	to     string
	id     uint64
	server *caller
	words  <-chan word
	record []byte
	dumped silenced
	state  tcprepair.State
	link   *link
	msg    frame.Frame
	box    chan frame.Frame
	silent bool   // the server is gone: nobody here would go on
	size   int    // of the queues
	free   func() // gives the slot back; once
}

// give hands one session to a site and reports how it ended. The counting and the
// words are those of our own sessions. freed is called once its slot is, be it before the
// end: one of which nobody can tell who has it lasts for doubtTries seconds.
func (g *guests) give(ctx context.Context, svc *Service, k frame.Key, to string, freed func()) error {
	a := g.a
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	free := sync.OnceFunc(func() { <-g.slots; freed() })
	defer free()
	if !g.claim(k, svc.Name) {
		return errClaimed
	}
	defer g.unclaim(k)
	begun := time.Now()
	err := (&given{g: g, svc: svc, key: k, to: to, id: g.lobby.next.Add(1), free: free}).run(ctx)
	took, result := time.Since(begun), resultOf(err)
	a.m.transfers.WithLabelValues(a.cfg.Site, to, result).Inc()
	switch result {
	case resultOK:
		a.m.duration.Observe(took.Seconds())
	case resultLost:
		a.log.Error("a session of another server is lost: given away and not confirmed", "service", svc.Name, "peer", to)
	default:
		a.log.Debug("a session of another server stays", "service", svc.Name, "peer", to, "err", err)
	}
	a.events.put(Move{At: begun, Key: k, Service: svc.Name, From: a.cfg.Site, To: to, Result: result, Took: took, Err: err})
	return err
}

// run asks for the session, silences and ships it, and lives through what comes then.
func (x *given) run(ctx context.Context) error {
	a := x.g.a
	if err := x.connect(ctx); err != nil {
		return err
	}
	f, err := x.ask(ctx)
	if err != nil {
		return err
	}
	defer x.server.end(x.id)
	if err := x.silence(f); err != nil {
		f.Close()
		_ = x.server.tell(handsock.Abort, x.id, reasonOf(err))
		return err
	}
	box, ok := a.giving.open(x.key)
	if !ok {
		return errors.Join(errClaimed, x.back(errClaimed, giveShipped))
	}
	defer a.giving.close(x.key, box)
	x.box = box
	if err := x.ship(); err != nil {
		return errors.Join(err, x.back(err, giveShipped))
	}
	x.g.reached(guestShipped)
	return x.live(ctx)
}

// connect makes sure that the other side can take it, before the server is disturbed.
func (x *given) connect(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	l, err := x.g.a.links.to(wait, x.to)
	if err != nil {
		return err
	}
	select {
	case <-l.greeted.done:
	case <-l.done:
		return errLink
	case <-wait.Done():
		return errNoAnswer
	}
	if !l.guests.Load() {
		return errNoGuests
	}
	x.link = l
	return nil
}

// ask asks the servers of the service for the connection, the newest first: which of
// them has it, they know.
func (x *given) ask(ctx context.Context) (*os.File, error) {
	err := errNoServer
	for _, c := range x.g.lobby.callers(x.svc.Name) {
		if x.words = c.begin(x.id); x.words == nil {
			continue
		}
		var f *os.File
		if f, err = x.askOne(ctx, c); err == nil {
			x.server = c
			return f, nil
		}
		c.end(x.id)
	}
	return nil, err
}

func (x *given) askOne(ctx context.Context, c *caller) (*os.File, error) {
	wish := handsock.Message{Type: handsock.Offer, ID: x.id, Key: handsock.Key(x.key)}
	if err := c.send(wish, nil); err != nil {
		return nil, err
	}
	timer := time.NewTimer(x.g.lobby.cfg.Patience)
	defer timer.Stop()
	select {
	case w := <-x.words:
		switch {
		case w.Type == handsock.Abort:
			return nil, refusedError{w.Text}
		case w.Type != handsock.Offer || w.file == nil || w.Key != wish.Key:
			if w.file != nil {
				w.file.Close()
			}
			err := fmt.Errorf("edge: the server answered a wish for %s by %s of %s", x.key, w.Type, w.Key)
			_ = c.tell(handsock.Abort, x.id, reasonOf(err))
			return nil, err
		}
		x.record = w.Record
		return w.file, nil
	case <-c.gone:
		return nil, errServerGone
	case <-timer.C:
		return nil, errNoAnswer
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// silence checks what the server gave and dumps it. After an error the connection is
// as it was, and the file is the caller's.
func (x *given) silence(f *os.File) error {
	local, peer, err := x.g.kernel.examine(f)
	if err != nil {
		return err
	}
	if local != x.key.VIP || peer != x.key.Client {
		return fmt.Errorf("edge: the descriptor is of %s>%s, not of %s", peer, local, x.key)
	}
	a := x.g.a
	a.strays.Hold(x.key)
	if x.dumped, x.state, err = x.g.kernel.dump(f); err != nil {
		a.strays.Release(x.key)
		return err
	}
	x.msg = frame.Frame{Key: x.key, Epoch: x.g.epoch(x.key, time.Now()), Generation: x.g.nextGen()}
	return nil
}

// ship sends the queues in parts, and the offer behind them.
func (x *given) ship() error {
	st := x.state
	out, err := x.dumped.Output()
	if err != nil {
		return err
	}
	msg := x.msg
	msg.Type = frame.GuestPart
	for _, b := range [...][]byte{st.Input, out} {
		for len(b) > 0 {
			n := min(len(b), frame.MaxGuestPart)
			msg.Payload = b[:n]
			if err := x.link.send(msg); err != nil {
				return err
			}
			b = b[n:]
		}
	}
	msg.Type, msg.Payload = frame.OfferGuest, frame.AppendGuest(nil, guestOf(st, serviceID(x.svc.Name), x.record))
	x.size = len(st.Input) + len(out)
	x.g.a.m.bytes.Add(float64(len(msg.Payload) + x.size))
	return x.link.send(msg)
}

// guestOf describes a dumped connection.
func guestOf(st tcprepair.State, service uint32, record []byte) frame.Guest {
	var rec frame.Record
	describe(&rec, tcprepair.Registration{Options: st.Options, TSVal: st.TSVal}, time.Now())
	w := st.Window
	return frame.Guest{Service: service, Record: record, SndUna: st.SndUna, SndNxt: st.SndNxt, WriteSeq: st.WriteSeq, RcvNxt: st.RcvNxt,
		Window: [5]uint32{w.SndWl1, w.SndWnd, w.MaxWindow, w.RcvWnd, w.RcvWup}, RTT: st.RTT,
		MSS: rec.MSS, Scales: rec.Scales, Options: rec.Options, TSVal: rec.TSVal, Wall: rec.Wall, Input: uint32(len(st.Input))}
}

// live does what nextGive says until the hand-off is over.
func (x *given) live(ctx context.Context) error {
	phase, tries := giveShipped, 0
	until := time.Now().Add(x.g.a.patience + time.Duration(x.size)*perOctet)
	for {
		ev, why := x.wait(ctx, phase, until)
		if ev == evReady && phase == giveShipped && x.server.tell(handsock.Commit, x.id, ticket{x.to, x.msg}.text()) != nil {
			ev, why = evServerGone, errServerGone
		}
		if ev == evLate && phase == giveCommitted {
			x.free() // others need not wait with it
			switch {
			case tries >= doubtTries:
				ev = evLast
			case tries >= commitTries && ctx.Err() != nil:
				return errors.Join(errDoubt, x.dumped.Close())
			}
		}
		if ev == evServerGone {
			x.silent = true
		}
		was := phase
		var deed giveDeed
		phase, deed = nextGive(phase, ev)
		switch deed {
		case giveCommit:
			x.g.reached(guestTold)
			x.g.a.strays.Moved(x.key, x.to)
			fallthrough
		case giveAgain:
			tries, until = tries+1, time.Now().Add(activeLimit)
			x.commit(ctx, tries)
		case giveBack:
			if was == giveCommitted {
				x.g.a.strays.Moved(x.key, "")
			}
			return errors.Join(why, x.back(why, was))
		case giveAway:
			x.g.a.tab.gave(x.key, x.msg.Epoch, x.msg.Generation, time.Now())
			x.leave()
			return nil
		case giveUp:
			x.leave()
			x.g.a.strays.Stayed(x.key, x.to) // it has it or denies it, and then the client hears a reset
			return errLost
		}
	}
}

// commit tells the taker, over whatever link there is.
func (x *given) commit(ctx context.Context, try int) {
	if try > 1 {
		wait, cancel := context.WithTimeout(ctx, activeLimit)
		defer cancel()
		if l, err := x.g.a.links.to(wait, x.to); err == nil {
			x.link = l
		}
	}
	msg := x.msg
	msg.Type = frame.Commit
	_ = x.link.send(msg) // without an answer it is sent again
	x.g.reached(guestSent)
}

// wait returns the next event and, for one that ends the hand-off, why.
func (x *given) wait(ctx context.Context, p givePhase, until time.Time) (guestEvent, error) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	down, gone, ended := x.link.done, x.server.gone, ctx.Done()
	if x.silent {
		gone = nil // known
	}
	if p == giveCommitted {
		down, ended = nil, nil // it is asked again, over another link
	}
	for {
		select {
		case f := <-x.box:
			if f.Generation != x.msg.Generation || f.Epoch != x.msg.Epoch {
				continue
			}
			if f.Type == frame.Ready && len(f.Payload) <= ledgerMark {
				x.msg.Payload = f.Payload // goes back with Commit
			}
			return giveEventOf(f)
		case w := <-x.words:
			if w.file != nil {
				w.file.Close()
			}
			if w.Type == handsock.Abort {
				return evServerNo, errServerNo
			}
		case <-gone:
			return evServerGone, errServerGone
		case <-down:
			return evLate, errLink
		case <-ended:
			return evLate, ctx.Err()
		case <-timer.C:
			return evLate, errNoAnswer
		}
	}
}

// giveEventOf reads the taker's answer.
func giveEventOf(f frame.Frame) (guestEvent, error) {
	switch {
	case f.Type == frame.Ready:
		return evReady, nil
	case f.Type == frame.Active:
		return evActive, nil
	case string(f.Payload) == errUnknown.Error():
		return evUnknown, refusedError{errUnknown.Error()}
	}
	return evRefused, refusedError{string(f.Payload)}
}

// back lets the session go on here, with the taker told if it may still wait. A
// server that went away before commit comes back for it; after commit it has closed
// its descriptor, and the client hears a reset from ours.
func (x *given) back(why error, was givePhase) error {
	msg := x.msg
	msg.Type = frame.Abort
	_ = x.link.send(msg) // a courtesy: the offer's life ends by itself
	err := x.dumped.Abort()
	x.g.a.strays.Release(x.key)
	told := x.server.tell(handsock.Abort, x.id, reasonOf(why))
	if was == giveCommitted && (x.silent || told != nil) {
		return errors.Join(err, x.dumped.Drop())
	}
	return errors.Join(err, x.dumped.Close())
}

// leave ends the session here for everybody who has its descriptor, and lets the
// server forget it.
func (x *given) leave() {
	if err := x.dumped.Vanish(); err != nil {
		x.g.a.log.Error("end a session that was given away", "service", x.svc.Name, "err", err)
	}
	_ = x.server.tell(handsock.Active, x.id, "")
}
