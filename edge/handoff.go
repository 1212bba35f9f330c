package edge

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"rhumb/edge/frame"
	"rhumb/edge/tcprepair"
)

// Limits of a hand-off. The giver's wait for Ready is shorter than the
// taker's for Commit, so a live taker never gives up first. It must be well
// above the round trip to the farthest site and a busy machine's delay: a wait
// that ends too early freezes the session in vain, again at each attempt.
const (
	readyLimit  = 800 * time.Millisecond
	offerLife   = 2 * time.Second
	activeLimit = time.Second
	commitTries = 4
)

// mailbox takes the answers to the hand-offs under way. One box a key: only
// the claimant of a session opens it. Safe for concurrent use.
type mailbox struct {
	mu    sync.Mutex
	boxes map[frame.Key]chan frame.Frame
}

func newMailbox() *mailbox { return &mailbox{boxes: map[frame.Key]chan frame.Frame{}} }

func (m *mailbox) open(k frame.Key) (chan frame.Frame, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boxes[k] != nil {
		return nil, false
	}
	c := make(chan frame.Frame, 8)
	m.boxes[k] = c
	return c, true
}

// close ends this box, not one that was opened for the key since.
func (m *mailbox) close(k frame.Key, box <-chan frame.Frame) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boxes[k] == box {
		delete(m.boxes, k)
	}
}

// put delivers f; false means that nobody waits for it. More frames than a
// hand-off has are dropped.
func (m *mailbox) put(f frame.Frame) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.boxes[f.Key]
	if c == nil {
		return false
	}
	select {
	case c <- f:
	default:
	}
	return true
}

// Reasons why a session stays. They travel in Refused.
var (
	errClaimed  = errors.New("session is claimed or pinned")
	errBusy     = errors.New("session did not come to its gate")
	errEarlier  = errors.New("bytes of an earlier response are in flight")
	errNoAnswer = errors.New("no answer")
	errLost     = errors.New("given away and not confirmed")
)

// refusedError is the other side's no.
type refusedError struct{ reason string }

func (e refusedError) Error() string { return "refused: " + e.reason }

// give hands one session to a site and reports how it ended. Before Commit
// any trouble leaves the session here; after it only the taker's own word
// brings it back, never the passing of time: two sites alive at once is what
// the two phases exclude.
func (a *Agent) give(ctx context.Context, s *session, to string) error {
	slots := a.lanes.of(to)
	if err := slots.take(ctx); err != nil {
		return err
	}
	return a.giveNow(ctx, s, to, slots)
}

// giveNow is give of who has a slot, which it gives back.
func (a *Agent) giveNow(ctx context.Context, s *session, to string, slots *slots) error {
	begun, took, result := time.Now(), time.Duration(0), ""
	defer func() { slots.done(begun.Add(took), took, result) }()
	if !s.claim() {
		return errClaimed
	}
	err := a.transfer(ctx, s, to)
	took = time.Since(begun)
	result = resultOf(err)
	a.m.transfers.WithLabelValues(a.cfg.Site, to, result).Inc()
	if result == resultOK {
		s.lastMv.Store(int64(took))
		a.m.duration.Observe(took.Seconds())
	}
	a.events.put(Move{At: begun, Key: s.key, Service: s.svc.Name, From: a.cfg.Site, To: to, Result: result, Took: took, Err: err})
	return err
}

func resultOf(err error) string {
	var no refusedError
	switch {
	case err == nil:
		return resultOK
	case errors.As(err, &no):
		return resultRefused
	case errors.Is(err, errLost):
		return resultLost
	case errors.Is(err, errNoAnswer) || errors.Is(err, errLink):
		return resultTimeout
	}
	return resultFailed
}

// transfer moves a claimed session. However it ends, the claim is spent.
func (a *Agent) transfer(ctx context.Context, s *session, to string) error {
	l, err := a.links.to(ctx, to)
	if err == nil && !s.stop() {
		err = errBusy
	}
	if err != nil {
		s.state.Store(int32(s.resting()))
		return err
	}
	// The socket hears nothing from the dump on. Where another site sends what
	// arrives there, as before each pull, that is kept for whoever goes on: a
	// client tells only once that its window is open again.
	if a.mayAsk(s) {
		a.strays.Hold(s.key)
	}
	d, err := tcprepair.Dump(s.conn)
	if err != nil {
		a.unhold(s)
		s.release()
		return err
	}
	gen := s.gen.Add(1)
	box, ok := a.giving.open(s.key)
	if !ok {
		return errors.Join(errClaimed, a.keep(s, d))
	}
	defer a.giving.close(s.key, box)
	msg := frame.Frame{Key: s.key, Epoch: s.epoch, Generation: gen}
	if msg.Payload, err = a.offer(l, s, d.State, msg, box); err != nil {
		msg.Type = frame.Abort
		_ = l.send(msg) // a courtesy: without it the offer's life ends by itself
		return errors.Join(err, a.keep(s, d))
	}
	return a.commit(ctx, s, d, to, msg, box)
}

// keep puts a dumped session back to work here. What its client said meanwhile
// may be lost, so the client is asked.
func (a *Agent) keep(s *session, d *tcprepair.Dumped) error {
	err := d.Abort()
	a.unhold(s)
	if a.mayAsk(s) {
		a.question(s.conn, d.State)
	}
	s.release()
	return err
}

// unhold gives what was kept of a session back to its own socket.
func (a *Agent) unhold(s *session) {
	if a.mayAsk(s) {
		a.strays.Release(s.key)
	}
}

// offer ships the session and waits for Ready. It returns the mark that Commit gives
// back, nil from a taker who remembers nothing.
func (a *Agent) offer(l *link, s *session, st tcprepair.State, msg frame.Frame, box chan frame.Frame) ([]byte, error) {
	o, err := s.offer(st, msg.Generation)
	if err != nil {
		return nil, err
	}
	msg.Type, msg.Payload = frame.OfferSession, frame.AppendOffer(nil, o)
	a.m.bytes.Add(float64(len(msg.Payload)))
	err = l.send(msg)
	clear(msg.Payload) // secrets, perhaps; the link has its own copy until it is sent
	if err != nil {
		return nil, err
	}
	f, err := await(box, msg.Generation, a.patience, l.done)
	if err != nil {
		return nil, err
	}
	if f.Type != frame.Ready {
		return nil, fmt.Errorf("edge: offer answered by %s", f.Type)
	}
	return f.Payload, nil
}

// commit gives the offered session away. The site is entered as the flow's
// new owner first: from here on its packets belong there.
func (a *Agent) commit(ctx context.Context, s *session, d *tcprepair.Dumped, to string, msg frame.Frame, box chan frame.Frame) error {
	s.state.Store(int32(Moving))
	a.strays.Moved(s.key, to)
	msg.Type = frame.Commit
	for range commitTries {
		f, err := a.ask(ctx, to, msg, box)
		var no refusedError
		switch {
		case err == nil && f.Type == frame.Active:
			a.tab.gave(s.key, s.epoch, msg.Generation, time.Now())
			a.leave(s, d)
			return nil
		case errors.As(err, &no):
			// The taker itself never activated this offer and never will.
			a.strays.Moved(s.key, "")
			return errors.Join(err, a.keep(s, d))
		}
	}
	a.leave(s, d)
	a.strays.Stayed(s.key, to) // until now its denial meant nothing; if it never had it, the client hears a reset
	return errLost
}

// ask sends msg over whatever link there is and waits for an answer.
func (a *Agent) ask(ctx context.Context, to string, msg frame.Frame, box chan frame.Frame) (frame.Frame, error) {
	wait, cancel := context.WithTimeout(ctx, activeLimit)
	defer cancel()
	l, err := a.links.to(wait, to)
	if err == nil {
		err = l.send(msg)
	}
	if err != nil {
		<-wait.Done() // a refused dial returns at once; the tries span seconds
		return frame.Frame{}, err
	}
	return await(box, msg.Generation, activeLimit, l.done)
}

// leave ends a session here without a packet.
func (a *Agent) leave(s *session, d *tcprepair.Dumped) {
	if err := d.Vanish(); err != nil { // the store may have a descriptor, too
		a.log.Error("close moved session", "err", err)
	}
	s.gate.resume(false)
}

// await takes the next answer of one generation. Refused comes as an error.
func await(box <-chan frame.Frame, gen uint32, limit time.Duration, down <-chan struct{}) (frame.Frame, error) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case f := <-box:
			if f.Generation != gen {
				continue
			}
			if f.Type == frame.Refused {
				return f, refusedError{string(f.Payload)}
			}
			return f, nil
		case <-timer.C:
			return frame.Frame{}, errNoAnswer
		case <-down:
			return frame.Frame{}, errLink
		}
	}
}

// offer describes the dumped session for another site. It is called while
// its goroutine waits at the gate.
func (s *session) offer(st tcprepair.State, gen uint32) (frame.Offer, error) {
	t := s.turn.Load()
	off := t.off.Load()
	if off < int64(st.WriteSeq-st.SndUna) {
		return frame.Offer{}, errEarlier
	}
	unread := s.unread()
	if len(unread)+len(st.Input) > frame.MaxInput || len(t.name) > frame.MaxName {
		return frame.Offer{}, tcprepair.ErrInput
	}
	rec := t.rec
	rec.Key, rec.Epoch, rec.Generation, rec.Base = s.key, s.epoch, gen, st.WriteSeq-uint32(off)
	rec.Offset = uint64(off)
	rec.RcvNxt = st.RcvNxt - uint32(s.ahead()+len(st.Input))
	describe(&rec, tcprepair.Registration{Options: st.Options, TSVal: st.TSVal, RTT: st.RTT}, time.Now())
	w := st.Window
	o := frame.Offer{Record: rec, SndUna: st.SndUna, SndNxt: st.SndNxt, WriteSeq: st.WriteSeq, RcvNxt: st.RcvNxt,
		Window: [5]uint32{w.SndWl1, w.SndWnd, w.MaxWindow, w.RcvWnd, w.RcvWup}, RTT: st.RTT,
		Name: t.name, Input: append(unread, st.Input...)}
	s.cover.offer(&o, t, len(s.input))
	return o, nil
}

// Bits of Record.Options.
const (
	recTimestamps = 1 << iota
	recSACK
	recScaling
)

// describe writes what is known of a connection, of that moment, into its record.
func describe(rec *frame.Record, g tcprepair.Registration, at time.Time) {
	o := g.Options
	rec.MSS, rec.Scales = o.MSS, o.SndScale|o.RcvScale<<4
	rec.TSVal, rec.Wall = g.TSVal, at.UnixMilli()
	rec.Options = tripBits(g.RTT)
	for _, bit := range [...]struct {
		is uint8
		on bool
	}{{recTimestamps, o.Timestamps}, {recSACK, o.SACK}, {recScaling, o.Scaling}} {
		if bit.on {
			rec.Options |= bit.is
		}
	}
}

// stateOf is the inverse of session.offer, for the taker.
func stateOf(o frame.Offer) tcprepair.State {
	r, w := o.Record, o.Window
	return tcprepair.State{
		Local: r.Key.VIP, Peer: r.Key.Client,
		SndUna: o.SndUna, SndNxt: o.SndNxt, WriteSeq: o.WriteSeq, RcvNxt: o.RcvNxt, TSVal: r.TSVal,
		Options: tcprepair.Options{MSS: r.MSS, SndScale: r.Scales & 15, RcvScale: r.Scales >> 4,
			Timestamps: r.Options&recTimestamps != 0, SACK: r.Options&recSACK != 0, Scaling: r.Options&recScaling != 0},
		Window: tcprepair.Window{SndWl1: w[0], SndWnd: w[1], MaxWindow: w[2], RcvWnd: w[3], RcvWup: w[4]},
		RTT:    o.RTT,
	}
}
