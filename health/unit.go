package health

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// UnitState is what is seen of another unit of this machine.
type UnitState uint8

// The states. One that said goodbye (an upgrade, a restart by hand) is left to the
// probes: it is back before they miss it, or they do.
const (
	UnitHere    UnitState = iota // it ticks, and its listeners are there
	UnitExited                   // its process is gone, and it had not said goodbye
	UnitStalled                  // its process is there and does not tick
	UnitDeaf                     // it ticks, and a listener of its own is gone
	UnitLeft                     // it said goodbye
)

func (s UnitState) String() string {
	return [...]string{"here", "exited", "stalled", "deaf", "left"}[s]
}

// Unit is a process of this machine that serves on addresses, as it says itself.
type Unit struct {
	Name   string           `json:"unit"`
	Listen []netip.AddrPort `json:"listen"`
	// Bye is set in its last word.
	Bye bool `json:"bye,omitempty"`
}

// UnitEvent is a change of a unit, and why.
type UnitEvent struct {
	Unit  Unit
	PID   int
	State UnitState
	Cause string
}

// The times of a watch. A tick says that the process is scheduled and its runtime
// works; ten missed ones are no busy machine any more. The exit is the kernel's
// word and needs no time.
const (
	tickEvery    = 100 * time.Millisecond
	stalledAfter = time.Second
	drainWithin  = 50 * time.Millisecond
	listenEvery  = time.Second
	exitWithin   = 100 * time.Millisecond // between the end of a connection and that of its process
	// restartWithin is how long a unit whose sockets outlive it has to come back: queries
	// wait in them meanwhile, and are answered. One that ends again within spareEvery is
	// not waited for.
	restartWithin = 1500 * time.Millisecond
	spareEvery    = 10 * time.Second
	spareTick     = 20 * time.Millisecond
)

// Units watches the other units of this machine: each connects to a unix socket,
// says which addresses it serves, and ticks. The kernel tells who it is and when
// it ends.
type Units struct {
	path   string
	log    *slog.Logger
	events chan UnitEvent
	within time.Duration // restartWithin
	every  time.Duration // spareEvery

	mu     sync.Mutex           // guards what follows
	newest map[string]int       // process of each unit
	spared map[string]time.Time // when its end was waited with last
}

// NewUnits returns a watch which will listen at path.
func NewUnits(path string, log *slog.Logger) *Units {
	return &Units{path: path, log: log, events: make(chan UnitEvent), within: restartWithin, every: spareEvery,
		newest: make(map[string]int), spared: make(map[string]time.Time)}
}

// Events yields every change; one reader takes them.
func (u *Units) Events() <-chan UnitEvent { return u.events }

// Run watches until the context ends.
func (u *Units) Run(ctx context.Context) error {
	return serveUnix(ctx, u.path, "watch units at", u.log, func(c net.Conn) { u.serve(ctx, c.(*net.UnixConn)) })
}

// serve watches one unit until it ends.
func (u *Units) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	pid, err := peerOf(conn)
	if err == nil {
		var end *os.File
		if end, err = pidfd(pid); err == nil {
			defer end.Close()
			w := &unitWatch{units: u, conn: conn, pid: pid, exited: make(chan struct{}), words: make(chan Unit)}
			w.run(ctx, end)
			return
		}
	}
	u.log.Warn("a unit cannot be watched", "err", err)
}

// peerOf asks the kernel who connected; a process cannot pretend to be another.
func peerOf(conn *net.UnixConn) (pid int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	err = errors.Join(raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }), err)
	if err != nil {
		return 0, fmt.Errorf("peer of %s: %w", conn.LocalAddr(), err)
	}
	return int(cred.Pid), nil
}

// pidfd opens a process, so that its end is an event and its number cannot come
// to mean another one.
func pidfd(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("pidfd of process %d: %w", pid, err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("pidfd %d", pid)), nil
}

// awaitExit blocks until the process behind a pidfd has ended; false when the file
// was closed before.
func awaitExit(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		ended = err == nil && n == 1
		return ended
	})
	return err == nil && ended
}

// unitWatch is one unit while it is connected. run owns it.
type unitWatch struct {
	units  *Units
	conn   *net.UnixConn
	pid    int
	exited chan struct{} // closed at the end of the process
	words  chan Unit     // what it says; a tick has no name; closed at the end of the connection

	unit  Unit
	state UnitState
	seen  map[netip.AddrPort]bool // listeners that were there once
	at    time.Time               // of the last word
}

func (w *unitWatch) run(ctx context.Context, end *os.File) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end.Close() // wakes awaitExit
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer stop()
	defer cancel()
	wg.Go(func() {
		if awaitExit(end) {
			close(w.exited)
		}
	})
	wg.Go(func() { w.read(ctx) })
	w.seen, w.at = make(map[netip.AddrPort]bool), time.Now()
	w.watch(ctx)
}

// read parses what the unit says until the connection ends.
func (w *unitWatch) read(ctx context.Context) {
	defer close(w.words)
	sc := bufio.NewScanner(w.conn)
	for sc.Scan() {
		var word Unit
		if len(sc.Bytes()) > 0 && json.Unmarshal(sc.Bytes(), &word) != nil {
			continue
		}
		select {
		case w.words <- word:
		case <-ctx.Done():
			return
		}
	}
}

// watch judges: the exit at once, silence at its due time, listeners each second.
func (w *unitWatch) watch(ctx context.Context) {
	look := time.NewTicker(listenEvery)
	defer look.Stop()
	due := time.NewTimer(stalledAfter)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.exited:
			w.gone(ctx)
			return
		case word, ok := <-w.words:
			if !ok {
				w.lost(ctx)
				return
			}
			w.hear(ctx, word)
			due.Reset(stalledAfter)
		case <-due.C:
			w.silent(ctx)
			due.Reset(stalledAfter)
		case <-look.C:
			w.listeners(ctx)
		}
	}
}

// hear takes a tick, a word on what it serves, or its goodbye.
func (w *unitWatch) hear(ctx context.Context, word Unit) {
	w.at = time.Now()
	switch {
	case word.Bye:
		w.tell(ctx, UnitLeft, "stopped")
		return
	case word.Name != "":
		w.unit = word
		w.units.note(word.Name, w.pid)
		w.seen = make(map[netip.AddrPort]bool)
		w.state = UnitLeft // so that it is told as here, with its new addresses
	}
	if w.state != UnitDeaf {
		w.tell(ctx, UnitHere, "")
	}
}

// silent judges a unit that has not ticked. What waits in the socket is heard
// first: a pause of this process is not one of the other.
func (w *unitWatch) silent(ctx context.Context) {
	t := time.NewTimer(drainWithin)
	defer t.Stop()
	select {
	case word, ok := <-w.words:
		if ok {
			w.hear(ctx, word)
		} else {
			w.lost(ctx)
		}
	case <-t.C:
		w.tell(ctx, UnitStalled, fmt.Sprintf("process %d has not ticked for %d ms", w.pid, time.Since(w.at).Milliseconds()))
	}
}

// lost tells the end of a connection from that of the process. A process that is
// killed closes its files first; until its last thread is gone, and the pidfd says
// so, a tenth of a second may pass on a busy machine.
func (w *unitWatch) lost(ctx context.Context) {
	if exiting(w.pid) {
		w.gone(ctx)
		return
	}
	t := time.NewTimer(exitWithin)
	defer t.Stop()
	select {
	case <-w.exited:
		w.gone(ctx)
	case <-t.C: // it lives; it will connect again, and until then the probes judge
		w.tell(ctx, UnitLeft, "is not watched any more")
	case <-ctx.Done():
	}
}

// exiting asks the kernel whether a process is on its way out: flag PF_EXITING of its
// first thread (proc_pid_stat(5), field 9), or no process at all.
func exiting(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	const fieldsAfterName, flagExiting = 6, 0x4
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) <= fieldsAfterName {
		return false
	}
	flags, err := strconv.ParseUint(f[fieldsAfterName], 10, 64)
	return err == nil && flags&flagExiting != 0
}

func (w *unitWatch) gone(ctx context.Context) {
	if (w.state != UnitLeft || w.unit.Name == "") && !w.succeeded(ctx) {
		w.tell(ctx, UnitExited, fmt.Sprintf("process %d has exited", w.pid))
	}
}

// succeeded waits for the next process of a unit, while somebody (the service manager)
// holds its sockets, as the kernel sees them. It returns false as soon as one is gone.
func (w *unitWatch) succeeded(ctx context.Context) bool {
	if len(w.unit.Listen) == 0 || !w.units.spare(w.unit.Name, time.Now()) {
		return false
	}
	end := time.NewTimer(w.units.within)
	defer end.Stop()
	tick := time.NewTicker(spareTick)
	defer tick.Stop()
	for {
		if w.units.process(w.unit.Name) != w.pid {
			return true
		}
		here, err := listening()
		if err != nil || slices.ContainsFunc(w.unit.Listen, func(a netip.AddrPort) bool { return !here.has(a) }) {
			return false
		}
		select {
		case <-tick.C:
		case <-end.C:
			return false
		case <-ctx.Done():
			return true // nobody listens to us any more
		}
	}
}

// note notes the newest process of a unit.
func (u *Units) note(name string, pid int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.newest[name] = pid
}

func (u *Units) process(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.newest[name]
}

// spare tells whether the end of a unit may be waited with, and notes that it was.
func (u *Units) spare(name string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if last, ok := u.spared[name]; ok && now.Sub(last) < u.every {
		return false
	}
	u.spared[name] = now
	return true
}

// listeners looks whether the kernel still has what was there once.
func (w *unitWatch) listeners(ctx context.Context) {
	if w.unit.Name == "" || w.state == UnitLeft || w.state == UnitStalled {
		return
	}
	here, err := listening()
	if err != nil {
		return // no evidence against anybody
	}
	var missing []netip.AddrPort
	for _, a := range w.unit.Listen {
		if here.has(a) {
			w.seen[a] = true
		} else if w.seen[a] {
			missing = append(missing, a)
		}
	}
	switch {
	case len(missing) > 0:
		w.tell(ctx, UnitDeaf, fmt.Sprintf("nobody listens on %s any more", missing[0]))
	case w.state == UnitDeaf:
		w.tell(ctx, UnitHere, "")
	}
}

// tell passes a change on; what is steady is no news.
func (w *unitWatch) tell(ctx context.Context, s UnitState, cause string) {
	if w.unit.Name == "" || w.state == s {
		return
	}
	w.state = s
	e := UnitEvent{Unit: w.unit, PID: w.pid, State: s}
	e.Unit.Listen = slices.Clone(w.unit.Listen)
	if cause != "" {
		e.Cause = w.unit.Name + ": " + cause
	}
	select {
	case w.units.events <- e:
	case <-ctx.Done():
	}
}
