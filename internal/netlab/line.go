package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Line is a link with a temper. Frames of either direction are held as its
// Impairment says, which may be replaced at any time from any goroutine.
type Line struct {
	dirs [2]lineDir // 0: from the link's A to its B
}

// lineDir is one direction: frames read from in, written to out. Everything but
// the atomics belongs to the wire's thread.
type lineDir struct {
	in, out int
	shape   shaper
	impair  atomic.Pointer[Impairment]

	passed, lost atomic.Uint64 // frames
}

// LineView is a Line as seen from one of its nodes: forth is the direction that
// leaves it.
type LineView struct {
	line    *Line
	swapped bool
}

// dir is the direction that leaves (forth) or reaches the viewer.
func (v LineView) dir(forth bool) *lineDir {
	if forth != v.swapped {
		return &v.line.dirs[0]
	}
	return &v.line.dirs[1]
}

// Impair returns what the line does now in both directions.
func (v LineView) Impair() (forth, back Impairment) {
	return *v.dir(true).impair.Load(), *v.dir(false).impair.Load()
}

// SetImpair replaces what the line does; frames already held keep their time.
func (v LineView) SetImpair(forth, back Impairment) error {
	if err := errors.Join(forth.check(), back.check()); err != nil {
		return fmt.Errorf("netlab: impair line: %w", err)
	}
	v.dir(true).impair.Store(&forth)
	v.dir(false).impair.Store(&back)
	return nil
}

// LineStats counts the frames of one direction since the line was built. One
// frame may be a TCP segment of several packets which the kernel has not cut.
type LineStats struct{ Passed, Lost uint64 }

// Stats returns the counts of both directions.
func (v LineView) Stats() (forth, back LineStats) {
	return v.dir(true).stats(), v.dir(false).stats()
}

// stats reads both counters; they may be of different moments.
func (d *lineDir) stats() LineStats {
	return LineStats{Passed: d.passed.Load(), Lost: d.lost.Load()}
}

// wire is the hidden namespace in which the ends of all Lines meet, and the one
// thread that carries their frames. One thread and one queue for all lines cost
// the fewest wake-ups, and a timer of the kernel's own resolution the least
// lateness.
type wire struct {
	keeper *keeper
	nl     *netlink.Handle
	log    *slog.Logger

	lines []*Line
	poll  int // epoll over every socket, the timer and the bell
	timer int
	bell  int // rung to end
	done  chan struct{}

	loop wireLoop
}

// wireLoop is what only the carrying thread touches.
type wireLoop struct {
	begin time.Time
	byFD  map[int32]*lineDir
	queue delayQueue
	pool  framePool
	buf   []byte
	armed time.Duration // what the timer is set to; 0: not set
}

// newWire makes the hidden namespace. Lines are added by one goroutine, then start
// hands everything to the carrying thread.
func newWire(log *slog.Logger) (w *wire, err error) {
	w = &wire{log: log, poll: -1, timer: -1, bell: -1}
	w.loop = wireLoop{begin: time.Now(), byFD: map[int32]*lineDir{}, buf: make([]byte, largeFrame)}
	w.keeper, err = newKeeper(func() error {
		if err := sysctlAll(wireSysctls()); err != nil {
			return err
		}
		w.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: build wire: %w", err)
	}
	if err := w.openPoll(); err != nil {
		return nil, errors.Join(fmt.Errorf("netlab: build wire: %w", err), w.close())
	}
	return w, nil
}

// wireSysctls silence the wire's own ends: without IPv6 they neither solicit nor
// report, so a line carries nothing that its nodes did not send.
func wireSysctls() []sysctl {
	return []sysctl{
		{path: "net/ipv6/conf/all/disable_ipv6", values: []string{"1"}},
		{path: "net/ipv6/conf/default/disable_ipv6", values: []string{"1"}},
	}
}

// openPoll opens what the thread waits on besides sockets.
func (w *wire) openPoll() (err error) {
	if w.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if w.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	if w.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	return errors.Join(w.watch(w.timer), w.watch(w.bell))
}

// watch adds a descriptor, level-triggered: what burst leaves over is reported
// again at once.
func (w *wire) watch(fd int) error {
	return unix.EpollCtl(w.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// ports names the two ends that link number i has in the wire.
func (w *wire) ports(i int) (a, b port) {
	ns := int(w.keeper.net.Fd())
	return port{ns, fmt.Sprintf("l%da", i)}, port{ns, fmt.Sprintf("l%db", i)}
}

// add joins two ends that exist in the wire. Only before start.
func (w *wire) add(a, b string, imp Impairment) (*Line, error) {
	l := &Line{}
	var fds [2]int
	for i, name := range []string{a, b} {
		fd, err := w.open(name)
		if err != nil {
			return nil, err
		}
		fds[i] = fd
		l.dirs[i].in = fd
		l.dirs[1-i].out = fd
		l.dirs[i].shape.random = rand.Float64
		l.dirs[i].impair.Store(&imp)
		w.loop.byFD[int32(fd)] = &l.dirs[i]
	}
	w.lines = append(w.lines, l)
	return l, errors.Join(w.watch(fds[0]), w.watch(fds[1]))
}

// open brings an end up and returns a packet socket on it.
func (w *wire) open(name string) (fd int, err error) {
	link, err := w.nl.LinkByName(name)
	if err != nil {
		return -1, fmt.Errorf("find %s: %w", name, err)
	}
	if err := w.nl.LinkSetUp(link); err != nil {
		return -1, fmt.Errorf("bring up %s: %w", name, err)
	}
	err = w.keeper.do(func() error {
		fd, err = packetSocket(link.Attrs().Index, true)
		return err
	})
	return fd, err
}

// packetReceiveBuffer is what a packet socket asks for; the kernel gives at most
// net.core.rmem_max.
const packetReceiveBuffer = 4 << 20

// packetSocket opens a socket that sees every frame which comes in by the
// interface (and, unless inward, those which leave) and sends frames out of it.
//
// With the virtio header a frame passes as the kernel holds it: segments of TCP
// not cut, checksums not filled in. Without it the kernel would hand out frames
// whose checksums are wrong, since a veth leaves them to hardware it has not.
func packetSocket(ifindex int, inward bool) (fd int, err error) {
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	if inward {
		err = errors.Join(err,
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, packetReceiveBuffer) != nil {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, packetReceiveBuffer))
	}
	err = errors.Join(err, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: ifindex}))
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	return fd, nil
}

// start begins to carry frames.
func (w *wire) start() error {
	w.done = make(chan struct{})
	go onFreshThread(func() {
		defer close(w.done)
		// Best effort: a line that waits behind other work is late for all.
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)
		if err := w.run(); err != nil {
			w.log.Error("delay lines stopped", "err", err)
		}
	})
	return nil
}

// close stops the thread and drops what it held.
func (w *wire) close() error {
	if w.done != nil {
		if _, err := unix.Write(w.bell, binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
			return fmt.Errorf("netlab: ring the wire: %w", err)
		}
		<-w.done
	}
	for fd := range w.loop.byFD {
		unix.Close(int(fd))
	}
	for _, fd := range []int{w.poll, w.timer, w.bell} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	w.nl.Close()
	w.keeper.close()
	return nil
}

// run is the thread's life: wait, take in, send what is due, set the timer. Only a
// failure of the waiting itself ends it; failures of a link are lost frames.
func (w *wire) run() error {
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(w.poll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("netlab: wait for frames: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			switch e.Fd {
			case int32(w.bell):
				return nil
			case int32(w.timer):
				w.timerFired()
			default:
				w.loop.receive(w.loop.byFD[e.Fd])
			}
		}
		w.loop.flush()
		if err := w.arm(); err != nil {
			return err
		}
	}
}

// timerFired empties the timer, so that it can be seen to fire again.
func (w *wire) timerFired() {
	var b [8]byte
	if _, err := unix.Read(w.timer, b[:]); err == nil {
		w.loop.armed = 0
	}
}

// arm sets the timer to the next due time, if it is not set to it already.
func (w *wire) arm() error {
	due, ok := w.loop.queue.next()
	if !ok || due == w.loop.armed {
		return nil
	}
	wait := max(due-w.loop.now(), 1)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}
	if err := unix.TimerfdSettime(w.timer, 0, &spec, nil); err != nil {
		return fmt.Errorf("netlab: set timer: %w", err)
	}
	w.loop.armed = due
	return nil
}

// now is the monotonic time since the wire began, the unit of all due times.
func (l *wireLoop) now() time.Duration { return time.Since(l.begin) }

// burst bounds the frames taken from one socket before others get their turn.
const burst = 64

// receive takes what waits on a socket. A frame that is due at once and has none
// before it goes out from the buffer it came in.
func (l *wireLoop) receive(d *lineDir) {
	imp := d.impair.Load()
	for range burst {
		n, err := unix.Read(d.in, l.buf)
		if err != nil || n <= vnetHeader {
			return // nothing more, or the link is down
		}
		now := l.now()
		due, ok := d.shape.admit(now, n, imp)
		switch {
		case !ok:
			d.lost.Add(1)
		case due <= now && d.shape.held == n:
			d.send(l.buf[:n])
		default:
			data := l.pool.get(n)
			copy(data, l.buf[:n])
			l.queue.push(frame{due: due, data: data, out: d})
		}
	}
}

// flush sends all frames that are due, looking at the clock for each: sending takes
// time, in which the next may become due.
func (l *wireLoop) flush() {
	for {
		f, ok := l.queue.pop(l.now())
		if !ok {
			return
		}
		f.out.send(f.data)
		l.pool.put(f.data)
	}
}

// send writes a frame to the far end. What cannot go now is lost, as on a real
// wire: the far interface is down or its queue is full.
func (d *lineDir) send(data []byte) {
	d.shape.release(len(data))
	if _, err := unix.Write(d.out, data); err != nil {
		d.lost.Add(1)
		return
	}
	d.passed.Add(1)
}

// vnetHeader is the length of the virtio header before each frame.
const vnetHeader = 10
