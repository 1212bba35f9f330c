package detect

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"runtime"
	"slices"
	"sync/atomic"
	"time"
)

// LinkConfig is what a Link needs.
type LinkConfig struct {
	Node uint16
	// Incarnation rises at each start.
	Incarnation uint32
	Times       Config
	// Conn is the socket; the caller closes it after Run.
	Conn net.PacketConn
	// Plan returns the plan revision in force; may be nil. Late gets how late each
	// beat was sent; may be nil. Both are called from the goroutine of Run.
	Plan func() int64
	Late func(time.Duration)
}

// Link beats, listens and judges: one goroutine on a thread of its own owns socket
// and detector, so that nothing else of the process makes this site look dead to
// others, or others to it. No packet allocates. Set, SendVotes, Take, Counts and Heard may be
// called from other goroutines.
type Link struct {
	cfg     LinkConfig
	d       *Detector
	roster  roster
	in      []packet
	out     outbox
	mail    mailbox
	started time.Time
	now     time.Duration // since started, of this turn of the loop
	slot    uint32        // of the newest beat
	turn    int           // where the next vector begins
	asked   int           // which peer was asked last
	hearing hearings
	strays  [results]atomic.Uint64
}

// NewLink returns a link without peers.
func NewLink(cfg LinkConfig) (*Link, error) {
	l := &Link{cfg: cfg, d: New(cfg.Times), roster: roster{self: cfg.Node}, in: make([]packet, batch),
		out:  outbox{packets: make([]packet, batch), body: make([]byte, 0, MaxDatagram)},
		mail: mailbox{bell: make(chan struct{}, 1), wake: func() {}}}
	l.roster.set(nil)
	if cfg.Conn == nil {
		return l, nil
	}
	var err error
	l.out.sock, err = newSocket(cfg.Conn)
	l.mail.wake = func() { l.out.sock.setReadDeadline(time.Unix(1, 0)) }
	return l, err
}

// Set replaces the peers; those that stay keep what was heard of them.
func (l *Link) Set(peers []Peer) { l.mail.post(wish{peers: slices.Clone(peers), set: true}) }

// SendVotes tells all peers votes, a datagram a body.
func (l *Link) SendVotes(bodies [][]byte) {
	if len(bodies) > 0 {
		l.mail.post(wish{votes: bodies})
	}
}

// Bell rings when there are events to take.
func (l *Link) Bell() <-chan struct{} { return l.mail.bell }

// Take returns the events since the last call.
func (l *Link) Take() []Event {
	l.mail.mu.Lock()
	defer l.mail.mu.Unlock()
	out := l.mail.events
	l.mail.events = nil
	return out
}

// Run works until the context ends, and says goodbye to all peers then.
func (l *Link) Run(ctx context.Context) error {
	if l.out.sock == nil {
		<-ctx.Done()
		return nil
	}
	l.started = time.Now()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	stop := context.AfterFunc(ctx, func() { l.mail.post(wish{}) })
	defer stop()
	due, doubts := l.cfg.Times.Interval, time.Duration(0)
	for held := false; ctx.Err() == nil; {
		l.takeMail()
		if l.now >= due {
			due = l.beat(due)
		}
		l.d.Due(l.now)
		held = l.publish(held)
		l.ask()
		doubts = l.look(doubts)
		if err := l.listen(min(due, doubts, max(l.d.Next(), l.now+minWait))); err != nil {
			return err
		}
	}
	l.takeMail()
	l.leave()
	return nil
}

// goodbyes is how often a goodbye is said, within one interval: whoever misses it takes
// the restart for a death, and datagrams get lost.
const goodbyes = 3

// leave says goodbye, and when this node expects to be back.
func (l *Link) leave() {
	for i := range goodbyes {
		if i > 0 {
			time.Sleep(l.cfg.Times.Interval / goodbyes)
		}
		l.send(KindLeave, l.leaveSlot()+uint32(i), func(buf []byte, _ *peer) []byte { return appendWithin(buf, l.cfg.Times.BackWithin) })
		l.out.flush()
	}
}

const (
	// minWait is the least time between two judgements: a thousand subjects must not
	// wake the loop a thousand times an interval.
	minWait = 2 * time.Millisecond
	// lateWake is how late the loop may wake up before it listens again, and judges
	// then: what lies in the socket was in time.
	lateWake = 10 * time.Millisecond
	// idleWait bounds a wait without peers.
	idleWait = time.Second
)

func (l *Link) clock() time.Duration { return time.Since(l.started) }

// listen reads until a time, or until something was read. A loop that woke up late
// reads all that waits before it goes on; when it stood still for more than an
// interval, the deadlines in that pause do not count.
func (l *Link) listen(until time.Duration) error {
	until = min(until, l.now+idleWait)
	if l.deadline(until) {
		n, err := l.out.sock.read(l.in)
		before := l.now
		l.now = l.clock()
		l.take(n)
		if err != nil && !timedOut(err) {
			return l.pause(err)
		}
		if l.now-until > lateWake {
			l.drain()
		}
		if pause := l.now - max(before, until); pause > l.cfg.Times.Interval {
			l.d.Skip(pause, l.now)
		}
	}
	l.now = max(l.now, l.clock())
	return nil
}

// deadline sets how long to wait; false when there is mail.
func (l *Link) deadline(until time.Duration) bool {
	return l.mail.unless(func() { l.out.sock.setReadDeadline(l.started.Add(until)) })
}

// pause waits a little after a failed read, lest a socket that is broken for good
// make a busy loop. A closed one will not come back.
func (l *Link) pause(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("detect: %w", err)
	}
	l.strays[Failed].Add(1)
	time.Sleep(20 * time.Millisecond)
	return nil
}

// drain takes what waits in the socket, bounded by what a socket holds.
func (l *Link) drain() {
	for range 256 {
		l.out.sock.setReadDeadline(time.Now().Add(time.Millisecond))
		n, err := l.out.sock.read(l.in)
		l.now = l.clock()
		if err != nil || n == 0 {
			return
		}
		l.take(n)
	}
}

// takeMail does what others have asked for.
func (l *Link) takeMail() {
	for _, w := range l.mail.collect() {
		if w.set {
			l.d.Watch(l.roster.set(w.peers))
		}
		for _, body := range w.votes {
			l.out.votes++
			l.send(KindVotes, l.out.votes, func([]byte, *peer) []byte { return body })
		}
	}
	l.out.flush()
}

// beat sends the beat of the slot that is due and returns when the next is. A slot
// that passed without one is counted as late, too: the next beat says the same.
func (l *Link) beat(due time.Duration) time.Duration {
	interval := l.cfg.Times.Interval
	slot := uint32(l.now / interval)
	l.slot = max(l.slot+1, slot)
	if l.slot%vectorEvery == 0 {
		l.send(KindVector, l.slot, l.vector)
		l.turn++
	} else {
		l.send(KindBeat, l.slot, nil)
	}
	l.out.flush()
	l.tellHearing()
	for _, p := range l.roster.peers {
		p.suspicion.Store(math.Float64bits(l.d.Suspicion(uint32(p.Node), l.now)))
	}
	for sent := l.clock(); due <= sent; due += interval {
		if l.cfg.Late != nil {
			l.cfg.Late(sent - due)
		}
	}
	return due
}

// leaveSlot is the slot in which a goodbye is sent.
func (l *Link) leaveSlot() uint32 { return max(l.slot, uint32(l.clock()/l.cfg.Times.Interval)) }

// send queues a datagram to every peer; body appends what is special to one, or nil.
func (l *Link) send(kind Kind, seq uint32, body func([]byte, *peer) []byte) {
	for _, p := range l.roster.peers {
		l.queue(p, kind, seq, body)
	}
}

func (l *Link) queue(p *peer, kind Kind, seq uint32, body func([]byte, *peer) []byte) {
	b := Beat{Kind: kind, Node: l.cfg.Node, Incarnation: l.cfg.Incarnation, Seq: seq, Interval: l.cfg.Times.Interval}
	if l.cfg.Plan != nil {
		b.Plan = uint32(l.cfg.Plan())
	}
	if body != nil {
		b.Body = body(l.out.body[:0], p)
	}
	l.out.put(p, &b)
}

// publish tells what has changed.
func (l *Link) publish(held bool) bool {
	now := l.d.Held()
	if now != held {
		on := now // an event lives on; this function is called a thousand times a second
		l.mail.tell(Event{Hold: &on})
	}
	changes := l.d.Changes()
	for _, c := range changes {
		if p := l.roster.byNode[uint16(c.Subject)]; p != nil {
			l.mail.tell(Event{Node: p.Node, Change: &c})
		}
	}
	if len(changes) > 0 {
		l.tellHearing()
	}
	return now
}
