package tcprepair

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MaxElapsed bounds what a restore adds to the timestamp clock. Two machines'
// wall clocks may differ by anything; a hand-off takes less than this.
const MaxElapsed = 500 * time.Millisecond

// tcpRTOMax is TCP_RTO_MAX_MS (Linux 6.15). A restored connection has no
// round-trip time, and the kernel then waits 3 s for the first retransmission.
// Capped to the least it takes, a packet lost around the move costs 1 s.
const (
	tcpRTOMax   = 44
	rtoMoved    = 1000   // ms
	rtoOrdinary = 120000 // ms, RFC 6298's bound as Linux has it
)

// Restored is a connection of which everything is at hand, and nothing known
// to the network: its socket is bound and not yet connected. Were it
// connected, the kernel would take the peer's packets for it and acknowledge
// them, and what was acknowledged here would be lost if the move is called
// off. Until Activate the peer's packets are strays like before; who holds
// them holds them all. It is not safe for concurrent use.
type Restored struct {
	State   State
	fd      sock
	file    *os.File      // has fd, once it was handed to Go's poller; nil before
	flight  []byte        // [SndUna, SndNxt)
	queues  Queues        // beyond the flight; empty for our own servers' connections
	elapsed time.Duration // since the dump, at made
	made    time.Time
	teacher *Wire // not nil: the kernel is told the round trip
	heard   bool  // no need for a window probe
}

// Restore prepares the connection of st in this namespace, without a packet.
// fill yields the bytes [SndUna, SndNxt) in order; elapsed is the time since
// the dump. st.Local must be an address of this host; a wildcard listener on
// its port may stand.
func Restore(st State, fill io.Reader, elapsed time.Duration) (*Restored, error) {
	flight := make([]byte, st.InFlight())
	if len(flight) > 0 {
		if _, err := io.ReadFull(fill, flight); err != nil {
			return nil, fmt.Errorf("tcprepair: restore %s: %d bytes in flight: %w", st.Peer, len(flight), err)
		}
	}
	return restore(st, flight, Queues{}, elapsed)
}

func restore(st State, flight []byte, q Queues, elapsed time.Duration) (*Restored, error) {
	r := &Restored{State: st, flight: flight, queues: q, elapsed: max(elapsed, 0), made: time.Now()}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("tcprepair: restore %s: %w", st.Peer, err)
	}
	return r, nil
}

// open makes the socket, bound and positioned.
func (r *Restored) open() error {
	family := unix.AF_INET6
	if r.State.Local.Addr().Is4() {
		family = unix.AF_INET
	}
	// IPPROTO_TCP by name: an MPTCP socket has no repair mode.
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	r.fd = sock(fd)
	if err := r.position(); err != nil {
		return errors.Join(err, r.Close())
	}
	return nil
}

// Close forgets the connection without a packet.
func (r *Restored) Close() error {
	fd := r.fd
	if r.fd = -1; fd < 0 {
		return nil // it is closed
	}
	if f := r.file; f != nil {
		r.file = nil
		return f.Close()
	}
	return unix.Close(int(fd))
}

// Activate establishes the connection, lets it speak and hands it to Go's
// poller. The caller owns the result; r is spent, after an error too. An
// error means that no packet was sent and none acknowledged, so the dumped
// side may go on; unless it is ErrSpoken, and then the peer hears a reset. Where the
// peer's packets were held back meanwhile, release them now.
func (r *Restored) Activate() (*net.TCPConn, error) {
	defer func() { _ = r.Close() }() // silent before speak; then conn has a duplicate
	if err := r.establish(); err != nil {
		return nil, fmt.Errorf("tcprepair: activate %s: %w", r.State.Peer, err)
	}
	c, err := r.conn()
	if err != nil {
		return nil, fmt.Errorf("tcprepair: activate %s: %w", r.State.Peer, err)
	}
	if err := r.speak(); err != nil {
		return nil, errors.Join(fmt.Errorf("tcprepair: activate %s: %w", r.State.Peer, err), c.Close())
	}
	if err := r.sendUnsent(); err != nil {
		return nil, errors.Join(fmt.Errorf("tcprepair: activate %s: %w: %w", r.State.Peer, ErrSpoken, err), disconnect(r.fd), c.Close())
	}
	return c, nil
}

// Heard lets Activate send no window probe: the peer has just said where it stands, there is
// something to send, and room for it. Where sessions come by the thousand, a question less
// and its answer are a third of the packets.
func (r *Restored) Heard() { r.heard = true }

// speak ends repair mode; the window probe that it sends brings the peer's
// true acknowledgement. Both settings before it are refused by no kernel
// that came so far.
func (r *Restored) speak() error {
	off := unix.TCP_REPAIR_OFF
	if r.heard {
		off = unix.TCP_REPAIR_OFF_NO_WP
	}
	return errors.Join(r.fd.hear(), r.fd.queue(noQueue), r.fd.repair(off), r.fd.reuse())
}

// conn is another descriptor of the socket, in the hands of Go's poller.
func (r *Restored) conn() (*net.TCPConn, error) {
	// A file that would block is none for Go's poller; FileConn's own copy is, which sets
	// both non-blocking again. So the kernel enters one of them, not two.
	if _, err := unix.FcntlInt(uintptr(r.fd), unix.F_SETFL, unix.O_RDWR); err != nil {
		return nil, fmt.Errorf("set flags: %w", err)
	}
	r.file = os.NewFile(uintptr(r.fd), "tcp")
	return connOf(r.file)
}

// connOf is a descriptor of its own, non-blocking as all of the same open file are then.
func connOf(f *os.File) (*net.TCPConn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tc, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor is a %T", c)
	}
	// FileConn turns keepalive on; its probes would be a surprise to a
	// session that never had them.
	if err := tc.SetKeepAlive(false); err != nil {
		tc.Close()
		return nil, err
	}
	return tc, nil
}

// establish puts the connection into the kernel's table as it was. The filter
// keeps packets from it until it speaks.
func (r *Restored) establish() error {
	if err := r.silence(); err != nil {
		return err
	}
	if err := unix.Connect(int(r.fd), toSockaddr(r.State.Peer)); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if err := r.fd.setOptions(r.State.Options); err != nil {
		return err
	}
	if err := r.clock(r.elapsed + time.Since(r.made)); err != nil {
		return err
	}
	// Older kernels refuse; there the first loss costs more.
	_ = r.fd.setInt(unix.IPPROTO_TCP, tcpRTOMax, rtoMoved, "TCP_RTO_MAX_MS")
	if err := r.lesson(); err != nil {
		return err
	}
	if err := r.fill(); err != nil {
		return err
	}
	if err := r.fillInput(); err != nil {
		return err
	}
	// Without the windows the connection starts with a send window of zero
	// and waits for its probe timer, seconds.
	if err := r.fd.setWindow(r.State.Window); err != nil {
		return err
	}
	if r.teacher == nil {
		return nil
	}
	if learned, err := r.learn(); learned || err != nil {
		return err
	}
	return r.unlearn()
}

// position does all that is possible only before connect. Repair mode comes
// first: it forces the bind beside the listener, and SO_REUSEADDR here would
// weaken that to the ordinary rule, which refuses. TCP_MAXSEG here is what
// keeps full-sized segments: left out, the first ones carry 524 (IPv4) or
// 1208 (IPv6) bytes. And it is what keeps segments small for a peer with a small window;
// the limit that was agreed upon comes back with the options.
func (r *Restored) position() error {
	st := r.State
	if err := r.fd.repair(unix.TCP_REPAIR_ON); err != nil {
		return err
	}
	if err := unix.Bind(int(r.fd), toSockaddr(st.Local)); err != nil {
		return fmt.Errorf("bind %s: %w", st.Local, err)
	}
	if err := r.fd.setInt(unix.IPPROTO_TCP, unix.TCP_MAXSEG, st.segment(), "TCP_MAXSEG"); err != nil {
		return err
	}
	una := st.SndUna
	if r.teacher != nil {
		una--
	}
	return errors.Join(r.fd.setSeq(recvQueue, st.RcvNxt-uint32(len(r.queues.Input))), r.fd.setSeq(sendQueue, una))
}

func (r *Restored) clock(elapsed time.Duration) error {
	if !r.State.Options.Timestamps {
		return nil
	}
	ms := uint32(min(max(elapsed, 0), MaxElapsed).Milliseconds())
	// Bit 0 would switch the connection to microseconds.
	return r.fd.setInt(unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, (r.State.TSVal+ms)&^1, "TCP_TIMESTAMP")
}

// fill enters [SndUna, SndNxt) as sent. A send queue that begins at SndUna
// but ends below SndNxt is fatal: the peer's acknowledgements would be of
// data "never sent" and be ignored.
func (r *Restored) fill() error {
	if len(r.flight)+len(r.queues.Output) == 0 {
		return nil
	}
	if err := r.room(len(r.flight) + len(r.queues.Output)); err != nil {
		return err
	}
	if err := r.fd.queue(sendQueue); err != nil {
		return err
	}
	if err := writeAll(int(r.fd), r.flight); err != nil {
		return fmt.Errorf("fill with %d bytes: %w", len(r.flight), err)
	}
	if err := r.fd.queue(noQueue); err != nil {
		return err
	}
	return r.unlock()
}

// room makes the send buffer hold n bytes and the kernel's overhead on them.
// The forced form is refused in a user namespace; the plain one then gives
// what net.core.wmem_max allows, and too large a fill fails with EAGAIN.
func (r *Restored) room(n int) error {
	want := uint32(2*n + 256<<10)
	err := r.fd.setInt(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, want, "SO_SNDBUFFORCE")
	if errors.Is(err, unix.EPERM) {
		err = r.fd.setInt(unix.SOL_SOCKET, unix.SO_SNDBUF, want, "SO_SNDBUF")
	}
	return err
}

// unlock gives the buffer back to autotuning. Kernels before 5.14 have no
// such option; there the size stays fixed, which is only slower.
func (r *Restored) unlock() error {
	err := r.fd.setInt(unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0, "SO_BUF_LOCK")
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return err
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
