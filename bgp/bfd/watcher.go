package bfd

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Target is a neighbour to watch.
type Target struct {
	Address netip.Addr // with a zone where it is link-local
	// Local is our address beside it; zero leaves it to the routing table.
	Local  netip.Addr
	Timing Timing // zero fields have the defaults
	// Port is where the neighbour hears and speaks; 0 is SingleHop.
	Port uint16
}

// Config is what a Watcher is made of. The functions are called from its
// thread: they must not block, nor allocate where a packet is sent.
type Config struct {
	Targets []Target
	// Changed is told of each change of a session's state.
	Changed func(Change)
	// Sent is told how late a due beat went out.
	Sent func(late time.Duration)
	// Trouble is told why a neighbour cannot be watched, and nil when it can
	// again; once for each cause.
	Trouble func(peer netip.Addr, err error)
}

// Change is a transition of a session.
type Change struct {
	Peer     netip.Addr
	From, To State
	Diag     Diag
	// Remote is the state in which the neighbour said to be.
	Remote State
	// Ups names the run of the session which began or ended.
	Ups uint64
	At  time.Time
}

// Failure tells whether the neighbour was there and is gone without having
// meant it: AdminDown is no failure (RFC 5882 section 3.2).
func (c Change) Failure() bool { return c.From == Up && c.To == Down && c.Remote != AdminDown }

// Status is a session as its last change left it.
type Status struct {
	Peer  netip.Addr
	State State
	Diag  Diag
	Ups   uint64
	Since time.Time
	// Discriminator is ours, as the neighbour's "show bfd" names it.
	Discriminator uint32
}

// Watcher keeps the sessions. Run owns everything but what is atomic; the other
// methods may be called from anywhere.
type Watcher struct {
	cfg     Config
	peers   []*peer
	byMine  map[uint32]*peer
	socks   []*listener
	fds     []unix.PollFd // the wake descriptor, then the listeners in order
	inbox   *inbox
	dice    *rand.Rand
	wake    int
	alive   atomic.Int64 // until when beats may go out, in nanoseconds since began
	spoke   bool         // the promise held at the last turn
	leaving atomic.Bool
	left    chan struct{} // closed once every neighbour was told AdminDown
	dropped [drops]atomic.Uint64
	began   time.Time
}

// peer is a session with its sockets; only the thread touches it, but status.
type peer struct {
	target  Target
	session Session
	status  atomic.Pointer[Status]
	tx      int // sending socket, -1 for none
	rx      *listener
	sent    time.Time // the last beat
	due     time.Time // the next one; zero for none
	pace    time.Duration
	retry   time.Time // when to try for sockets again
	broken  error     // why the sockets must be made anew
	trouble string    // the cause last told
	buf     [packetLen]byte
}

// listener is the receiving socket of one of our addresses on one interface.
type listener struct {
	link link
	port uint16
	fd   int
}

// New returns a Watcher; Run starts it. It sends nothing before Alive is called.
func New(c Config) (*Watcher, error) {
	w := &Watcher{cfg: c, byMine: make(map[uint32]*peer), inbox: newInbox(), left: make(chan struct{}), began: time.Now(),
		dice: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	for _, t := range c.Targets {
		t.Timing, t.Port = t.Timing.Or(), cmp.Or(t.Port, SingleHop)
		if err := t.Timing.Check(); err != nil {
			return nil, fmt.Errorf("bfd: neighbour %s: %w", t.Address, err)
		}
		p := &peer{target: t, session: NewSession(w.discriminator(), t.Timing), tx: -1}
		p.status.Store(&Status{Peer: t.Address, State: Down, Since: w.began, Discriminator: p.session.Mine()})
		w.peers, w.byMine[p.session.Mine()] = append(w.peers, p), p
	}
	var err error
	if w.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("bfd: eventfd: %w", err)
	}
	runtime.AddCleanup(w, func(fd int) { unix.Close(fd) }, w.wake) // poke may be called after Run
	return w, nil
}

// discriminator picks one which is not in use. They are random so that whoever
// is not on the link cannot guess one (RFC 5880 section 10).
func (w *Watcher) discriminator() uint32 {
	for {
		if d := rand.Uint32(); d != 0 && w.byMine[d] == nil {
			return d
		}
	}
}

// Alive promises that the caller's loop runs, and will have called again before
// the time has passed. Without the promise no beat goes out.
func (w *Watcher) Alive(within time.Duration) {
	now := int64(time.Since(w.began))
	if w.alive.Swap(now+int64(within)) < now {
		w.poke()
	}
}

// promised tells whether Alive's promise holds.
func (w *Watcher) promised() bool { return int64(time.Since(w.began)) <= w.alive.Load() }

// Leave tells every neighbour that we go on purpose (AdminDown) and returns when
// that was sent, or when the context ends.
func (w *Watcher) Leave(ctx context.Context) {
	w.leaving.Store(true)
	w.poke()
	select {
	case <-w.left:
	case <-ctx.Done():
	}
}

// Status returns the sessions in order of the targets.
func (w *Watcher) Status() []Status {
	out := make([]Status, 0, len(w.peers))
	for _, p := range w.peers {
		out = append(out, *p.status.Load())
	}
	return out
}

// Dropped counts the packets thrown away for a reason.
func (w *Watcher) Dropped(why Drop) uint64 { return w.dropped[why].Load() }

// poke wakes the thread.
func (w *Watcher) poke() {
	unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
}

// Run sends and hears until the context ends; it is called once. The thread is
// its own: the kernel wakes it, not the runtime's poller when it comes round, and
// it ends with Run.
func (w *Watcher) Run(ctx context.Context) error {
	if len(w.peers) == 0 {
		<-ctx.Done()
		return nil
	}
	done := make(chan error, 1)
	go func() { done <- w.thread(ctx) }()
	return <-done
}

// niceness asks for the CPU before ordinary processes. It needs CAP_SYS_NICE;
// without it the thread is one among others.
const niceness = -19

// thread locks itself to a thread of the system which it never gives back,
// because its priority is not that of others: it ends with the goroutine.
func (w *Watcher) thread(ctx context.Context) error {
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceness)
	defer w.close()
	stop := context.AfterFunc(ctx, w.poke)
	defer stop()
	w.list()
	for ctx.Err() == nil {
		next := w.turn(time.Now())
		if err := w.wait(next); err != nil {
			return err
		}
	}
	return nil
}

// wait blocks until a packet comes, somebody pokes, or the time has come.
func (w *Watcher) wait(until time.Time) error {
	ts := unix.NsecToTimespec(max(0, time.Until(until)).Nanoseconds())
	n, err := unix.Ppoll(w.fds, &ts, nil)
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("bfd: poll: %w", err)
	}
	if n > 0 && w.fds[0].Revents != 0 {
		var buf [8]byte
		unix.Read(w.wake, buf[:])
	}
	return nil
}

// idle is the longest sleep: how often missing sockets are looked for.
const idle = time.Second

// turn does all that is to be done now and returns when there is more. What
// waits in the sockets is read first: silence is judged by what has come.
func (w *Watcher) turn(now time.Time) time.Time {
	for _, l := range w.socks {
		w.drain(l, now)
	}
	next, woken := now.Add(idle), !w.spoke && w.promised()
	w.spoke = w.promised()
	for _, p := range w.peers {
		if p.broken != nil {
			w.drop(p)
		}
		if p.tx < 0 && !now.Before(p.retry) {
			w.open(p, now)
		}
		if woken && !p.due.IsZero() {
			p.due = now
		}
		w.set(p, p.session.Expire(now), now)
		if !p.due.IsZero() && !now.Before(p.due) {
			w.beat(p, now)
		}
		for _, at := range [...]time.Time{p.due, p.session.Deadline()} {
			if !at.IsZero() && at.Before(next) {
				next = at
			}
		}
	}
	if w.leaving.Load() {
		w.leave(now)
	}
	return next
}

// drainLimit bounds what one socket may have read in one turn, so that a flood
// delays no beat for long. It is more than a socket's buffer holds: nothing that
// came before the turn is left when silence is judged.
const drainLimit = 512

// drain reads what waits in a socket.
func (w *Watcher) drain(l *listener, now time.Time) {
	for range drainLimit {
		b, from, hops, ok := w.inbox.read(l.fd)
		if !ok {
			return
		}
		if why := w.receive(l, b, from, hops, now); why != Accepted {
			w.dropped[why].Add(1)
		}
	}
}

// receive gives a packet to its session, or says why not.
func (w *Watcher) receive(l *listener, b []byte, from netip.Addr, hops int, now time.Time) Drop {
	if hops != ttl {
		return DropTTL
	}
	packet, why := Decode(b)
	if why != Accepted {
		return why
	}
	p := w.find(l, from, packet.Yours)
	if p == nil {
		return DropUnknown
	}
	next, answer := p.session.Receive(&packet, now)
	w.set(p, next, now)
	if answer {
		w.send(p, true)
	}
	return Accepted
}

// find returns the session of a packet: by our discriminator once the neighbour
// knows it, before that by interface and sender (RFC 5880 section 6.3, RFC 5881
// section 3). A discriminator counts only on its session's own interface and
// from its neighbour.
func (w *Watcher) find(l *listener, from netip.Addr, mine uint32) *peer {
	if mine != 0 {
		if p := w.byMine[mine]; p != nil && p.rx == l && p.target.Address.WithZone("") == from {
			return p
		}
		return nil
	}
	for _, p := range w.peers {
		if p.rx == l && p.target.Address.WithZone("") == from {
			return p
		}
	}
	return nil
}

// set gives a session its next value. A change of state is told at once, to the
// neighbour too (RFC 5880 section 6.8.7).
func (w *Watcher) set(p *peer, next Session, now time.Time) {
	before := p.session
	p.session = next
	if before.State != next.State {
		p.status.Store(&Status{Peer: p.target.Address, State: next.State, Diag: next.Diag, Ups: next.Ups, Since: now,
			Discriminator: next.Mine()})
		remote := next.Remote.State
		w.beat(p, now)
		if w.cfg.Changed != nil {
			w.cfg.Changed(Change{Peer: p.target.Address, From: before.State, To: next.State, Diag: next.Diag,
				Remote: remote, Ups: next.Ups, At: now})
		}
		return
	}
	if pace := next.Interval(); pace != p.pace { // a shorter one holds at once (RFC 5880 section 6.8.3)
		w.schedule(p, p.sent)
	}
}

// schedule sets when the next beat is due, counted from the last.
func (w *Watcher) schedule(p *peer, from time.Time) {
	p.pace = p.session.Interval()
	p.due = time.Time{}
	if p.pace > 0 && p.tx >= 0 {
		p.due = from.Add(Jitter(p.pace, p.target.Timing.Multiplier, w.dice.Uint32()))
	}
}

// beat sends a periodic packet and plans the next. How late it is counts only
// for one which was due.
func (w *Watcher) beat(p *peer, now time.Time) {
	if late := now.Sub(p.due); !p.due.IsZero() && late >= 0 && w.cfg.Sent != nil {
		w.cfg.Sent(late)
	}
	w.send(p, false)
	p.sent = now
	w.schedule(p, now)
}

// send writes a packet, while somebody promises that we are alive.
func (w *Watcher) send(p *peer, final bool) {
	if p.tx < 0 || !w.promised() {
		return
	}
	packet := p.session.Packet(final)
	packet.Put(p.buf[:])
	switch err := write(p.tx, p.buf[:]); {
	case err == nil, errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH),
		errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EPERM):
		// The link's trouble, not the socket's: the neighbour's silence will say what it means.
	default: // the interface or our address is gone: make the sockets anew
		p.broken = fmt.Errorf("bfd: send to %s: %w", p.target.Address, err)
	}
}

// leave takes every session down by our own will, once.
func (w *Watcher) leave(now time.Time) {
	select {
	case <-w.left:
		return
	default:
	}
	for _, p := range w.peers {
		w.set(p, p.session.Disable(), now)
	}
	close(w.left)
}
