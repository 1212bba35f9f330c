package bfd

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// On the loopback every address of 127.0.0.0/8 is ours and TTL 255 arrives as
// 255, so two ends can meet there without a privilege.
var (
	here  = netip.MustParseAddr("127.0.53.1")
	there = netip.MustParseAddr("127.0.53.2")
)

// calm is 50 ms x 40: a busy machine may give one of two ends no CPU for a while, and a
// beat which did not come says then what no test meant.
var calm = Timing{Interval: fast.Interval, Multiplier: 40}

// end is a running Watcher with one neighbour.
type end struct {
	*Watcher
	t       *testing.T
	changes chan Change
	trouble chan error
	stop    func()
}

func newEnd(t *testing.T, local, peer netip.Addr, timing Timing) *end {
	t.Helper()
	e := &end{t: t, changes: make(chan Change, 100), trouble: make(chan error, 100)}
	var err error
	e.Watcher, err = New(Config{Targets: []Target{{Address: peer, Local: local, Timing: timing}},
		Changed: func(c Change) { e.changes <- c },
		Trouble: func(_ netip.Addr, err error) { e.trouble <- err }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	ended := false
	e.stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("the watcher does not end")
		}
	}
	t.Cleanup(e.stop)
	return e
}

// await returns the change into a state; others before it are passed over.
func (e *end) await(s State) Change {
	e.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case c := <-e.changes:
			if c.To == s {
				return c
			}
		case <-deadline:
			e.t.Fatalf("never %v: %+v", s, e.Status())
		}
	}
}

// pair brings two ends Up.
func pair(t *testing.T) (a, b *end) {
	a, b = newEnd(t, here, there, calm), newEnd(t, there, here, calm)
	a.Alive(time.Hour)
	b.Alive(time.Hour)
	a.await(Up)
	b.await(Up)
	return a, b
}

func TestUpAndSilence(t *testing.T) {
	a, b := pair(t)
	if s := a.Status(); len(s) != 1 || s[0].State != Up || s[0].Peer != there || s[0].Ups != 1 {
		t.Errorf("%+v", s)
	}
	at := time.Now()
	b.stop()
	c := a.await(Down)
	if c.Diag != Expired || !c.Failure() || c.Ups != 1 || c.At.Sub(at) > 20*time.Second {
		t.Errorf("after %v: %+v", c.At.Sub(at), c)
	}
}

// TestBeatsNeedThePromise: nothing is sent before the first Alive; when the
// promise runs out the neighbour notices within its detection time, as if we
// were dead; with a new one the session comes back.
func TestBeatsNeedThePromise(t *testing.T) {
	a, b := newEnd(t, here, there, calm), newEnd(t, there, here, calm)
	a.Alive(time.Hour)
	time.Sleep(100 * time.Millisecond) // nothing must happen: there is no event to wait for
	if s := b.Status()[0]; s.Ups != 0 {
		t.Fatalf("the silent end: %+v", s)
	}
	if len(a.changes) > 0 {
		t.Fatalf("heard of one which did not speak: %+v", <-a.changes)
	}
	b.Alive(time.Hour)
	a.await(Up)
	b.await(Up)
	b.Alive(-time.Nanosecond)
	if c := a.await(Down); c.Diag != Expired {
		t.Errorf("%+v", c)
	}
	if c := b.await(Down); c.Diag != NeighborDown {
		t.Errorf("the end which hangs hears why: %+v", c)
	}
	b.Alive(time.Hour)
	if c := a.await(Up); c.Ups != 2 {
		t.Errorf("%+v", c)
	}
}

// TestLeave: the neighbour hears AdminDown, which is no failure.
func TestLeave(t *testing.T) {
	a, b := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b.Leave(ctx)
	if ctx.Err() != nil {
		t.Fatal("did not leave")
	}
	if c := a.await(Down); c.Diag != NeighborDown || c.Remote != AdminDown || c.Failure() {
		t.Errorf("%+v", c)
	}
	if c := b.await(AdminDown); c.Diag != AdminDownByUser || c.Failure() {
		t.Errorf("%+v", c)
	}
}

// forger sends packets to here from there's address, with a TTL of its choice.
type forger struct {
	t  *testing.T
	fd int
}

func newForger(t *testing.T) *forger {
	t.Helper()
	l := link{device: "lo", local: there}
	fd, err := l.dial(here, SingleHop, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &forger{t, fd}
}

func (f *forger) send(hops int, b []byte) {
	f.t.Helper()
	if err := unix.SetsockoptInt(f.fd, unix.IPPROTO_IP, unix.IP_TTL, hops); err != nil {
		f.t.Fatal(err)
	}
	if _, err := unix.Write(f.fd, b); err != nil {
		f.t.Fatal(err)
	}
}

// awaitDrops waits until so many packets were dropped for a reason.
func (e *end) awaitDrops(why Drop, n uint64) {
	e.t.Helper()
	for end := time.Now().Add(time.Minute); e.Dropped(why) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			e.t.Fatalf("dropped for %v: %d, want %d", why, e.Dropped(why), n)
		}
	}
}

// TestForgedPackets: what does not come with TTL 255, or for nobody, is counted
// and changes nothing (RFC 5881 section 5, RFC 5880 section 6.8.6).
func TestForgedPackets(t *testing.T) {
	a, _ := pair(t)
	f := newForger(t)
	mine := a.Status()[0].Discriminator
	down := Packet{State: Down, Multiplier: 3, Mine: 1, Yours: mine, MinTx: 1, MinRx: 1}
	var b [packetLen]byte
	down.Put(b[:])
	f.send(254, b[:])
	a.awaitDrops(DropTTL, 1)
	f.send(1, b[:])
	a.awaitDrops(DropTTL, 2)
	other := down
	other.Yours = mine + 1
	other.Put(b[:])
	f.send(255, b[:])
	a.awaitDrops(DropUnknown, 1)
	f.send(255, b[:20])
	a.awaitDrops(DropLength, 1)
	if len(a.changes) > 0 || a.Status()[0].State != Up {
		t.Errorf("a forged packet did something: %+v", a.Status())
	}
	down.Put(b[:])
	f.send(255, b[:]) // the same packet with the right TTL is believed
	if c := a.await(Down); c.Diag != NeighborDown {
		t.Errorf("%+v", c)
	}
}

// TestNoLink: a neighbour that is not on a link of ours is trouble which is
// told once, and keeps nobody else from being watched.
func TestNoLink(t *testing.T) {
	far := netip.MustParseAddr("192.0.2.99")
	e := newEnd(t, here, far, fast)
	select {
	case err := <-e.trouble:
		if err == nil {
			t.Error("no trouble with a neighbour which is nowhere")
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing told")
	}
}

// TestNoAllocation: a packet received, judged and answered costs no memory.
func TestNoAllocation(t *testing.T) {
	w, err := New(Config{Targets: []Target{{Address: there, Local: here, Timing: fast}}, Sent: func(time.Duration) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	w.Alive(time.Hour)
	w.list()
	now := time.Now()
	w.turn(now)
	p := w.peers[0]
	if p.tx < 0 {
		t.Fatal("no socket: ", p.trouble)
	}
	f := newForger(t)
	up := Packet{State: Init, Multiplier: 3, Mine: 1, Yours: p.session.Mine(), MinTx: 50000, MinRx: 50000, Poll: true}
	var b [packetLen]byte
	up.Put(b[:])
	f.send(255, b[:])
	w.turn(now)
	if p.session.State != Up {
		t.Fatalf("%+v", p.session)
	}
	if n := testing.AllocsPerRun(500, func() {
		unix.Write(f.fd, b[:])
		now = now.Add(60 * time.Millisecond)
		w.turn(now)
		if err := w.wait(time.Time{}); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations for a packet heard, a Final and a beat", n)
	}
	if p.session.State != Up || !slices.Equal(w.fds[1:], []unix.PollFd{{Fd: int32(p.rx.fd), Events: unix.POLLIN, Revents: w.fds[1].Revents}}) {
		t.Errorf("%+v", p.session)
	}
}

// TestPortsAreTheirOwn: each session sends from a port of its own in the range
// of RFC 5881 section 4, and sessions of one address and port share a listener.
func TestPortsAreTheirOwn(t *testing.T) {
	w, err := New(Config{Targets: []Target{{Address: there, Local: here}, {Address: netip.MustParseAddr("127.0.53.3"), Local: here},
		{Address: netip.MustParseAddr("127.0.53.4"), Local: netip.MustParseAddr("127.0.53.9")},
		{Address: netip.MustParseAddr("127.0.53.5"), Local: here, Port: MultiHop}}})
	if err != nil {
		t.Fatal(err)
	}
	w.turn(time.Now())
	seen := map[int]bool{}
	for _, p := range w.peers {
		sa, err := unix.Getsockname(p.tx)
		if err != nil {
			t.Fatal(err)
		}
		seen[sa.(*unix.SockaddrInet4).Port] = sa.(*unix.SockaddrInet4).Port >= firstSource
	}
	if len(seen) != 4 || len(w.socks) != 3 {
		t.Errorf("ports %v, %d listeners", seen, len(w.socks))
	}
	for port, ok := range seen {
		if !ok {
			t.Errorf("source port %d", port)
		}
	}
	w.close()
	if len(w.socks) != 0 {
		t.Error("listeners are left")
	}
}
