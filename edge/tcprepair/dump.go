package tcprepair

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dumped is a connection that was taken out of service and can still be put
// back. It is not safe for concurrent use.
type Dumped struct {
	State State
	conn  handle
	// rtoMax is the bound of its retransmission times as it was, in ms; 0 where
	// the kernel has no such setting.
	rtoMax uint32
}

// Dump silences c and reads its state. The caller must have stopped its own
// reads and writes. After an error c is as it was before.
func Dump(c *net.TCPConn) (*Dumped, error) {
	d := &Dumped{conn: c}
	if err := d.dump(); err != nil {
		return nil, fmt.Errorf("tcprepair: dump %s: %w", c.RemoteAddr(), err)
	}
	return d, nil
}

func (d *Dumped) dump() error {
	return control(d.conn, func(s sock) error {
		var err error
		d.rtoMax = patient(s)
		if d.State, err = dump(s); err != nil {
			return errors.Join(err, d.wake(s))
		}
		return nil
	})
}

// Abort puts the connection back to work where it is. A window probe goes
// out, whose answer makes up for the acknowledgements dropped meanwhile.
func (d *Dumped) Abort() error {
	if err := control(d.conn, d.wake); err != nil {
		return fmt.Errorf("tcprepair: abort %s: %w", d.State.Peer, err)
	}
	return nil
}

// Close forgets the connection: no FIN, no RST. The peer's kernel still
// believes in it, so someone else must have been restored from the State, or
// the peer meets a reset at its next packet.
func (d *Dumped) Close() error { return d.conn.Close() }

// Registration is what can be told of a live connection for its soft state.
type Registration struct {
	Write, RcvNxt uint32
	TSVal         uint32
	Options       Options
	RTT           time.Duration // smoothed; 0: not measured
}

// ErrUnsent: something that was written is not sent yet.
var ErrUnsent = errors.New("bytes are not sent yet")

// Register reads a live connection without a packet, and while nobody writes. What
// is unsent is an error: selecting the send queue would let the kernel take that for
// sent.
func Register(c *net.TCPConn) (Registration, error) {
	var g Registration
	err := control(c, func(s sock) error {
		if err := s.repair(unix.TCP_REPAIR_ON); err != nil {
			return err
		}
		// Which queue is selected counts in repair mode only, and entering that selects none.
		return errors.Join(g.read(s), s.repair(unix.TCP_REPAIR_OFF_NO_WP), s.reuse())
	})
	if err != nil {
		return g, fmt.Errorf("tcprepair: register %s: %w", c.RemoteAddr(), err)
	}
	return g, nil
}

func (g *Registration) read(s sock) (err error) {
	if g.RcvNxt, err = unreadSeq(s); err != nil {
		return err
	}
	inf, err := s.info()
	if err == nil && inf.unsent > 0 {
		err = ErrUnsent
	}
	if err != nil {
		return err
	}
	if g.Write, err = queueSeq(s, sendQueue); err != nil {
		return err
	}
	st := State{}
	if err := dumpRest(s, &st); err != nil {
		return err
	}
	g.Options, g.TSVal, g.RTT = inf.options, st.TSVal, time.Duration(inf.rttUsec)*time.Microsecond
	g.Options.MSS = st.Options.MSS
	return nil
}

// unreadSeq is the sequence number of the first byte that the application has not
// read, from where it counts on. What the client sends between two system calls
// would be counted once; where nothing waits behind it, nothing came before either.
func unreadSeq(s sock) (uint32, error) {
	if err := s.queue(recvQueue); err != nil {
		return 0, err
	}
	seq, err := s.seq()
	for range 16 {
		var unread uint32
		if err == nil {
			unread, err = s.ioctl(unix.SIOCINQ, "SIOCINQ")
		}
		if err != nil || unread == 0 {
			return seq, err
		}
		before := seq
		if seq, err = s.seq(); err == nil && seq == before {
			return seq - unread, nil
		}
	}
	return 0, errors.Join(err, errors.New("the client does not pause"))
}

func control(c syscall.Conn, f func(sock) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(sock(fd)) }); err != nil {
		return err
	}
	return inner
}

// wake undoes a dump at any of its steps. The filter goes first: the answer
// to the window probe that leaving repair mode sends must be heard.
func (d *Dumped) wake(s sock) error {
	err := s.hear()
	if errors.Is(err, unix.ENOENT) {
		err = nil // the dump never came as far as the filter
	}
	if w := d.State.Window; w != (Window{}) {
		err = errors.Join(err, s.setWindow(w))
	}
	if d.rtoMax != 0 {
		err = errors.Join(err, s.setInt(unix.IPPROTO_TCP, tcpRTOMax, d.rtoMax, "TCP_RTO_MAX_MS"))
	}
	return errors.Join(err, s.repair(unix.TCP_REPAIR_OFF), s.reuse())
}

// patient gives a connection the ordinary bound of retransmission times and
// returns what it had, or 0. The kernel gives up a connection with data in flight
// and a closed window, as a mute one has it, when its peer was not heard for
// twice that bound: with that of a second, in the middle of a hand-off that takes
// its time.
func patient(s sock) uint32 {
	was, err := s.int(tcpRTOMax, "TCP_RTO_MAX_MS")
	if err != nil || s.setInt(unix.IPPROTO_TCP, tcpRTOMax, rtoOrdinary, "TCP_RTO_MAX_MS") != nil {
		return 0
	}
	return was
}

// mute stops new data, and only that, by closing the send window of our side.
// Neither the filter nor repair mode does: segments queued below TCP (small
// queues, pacing) go on pulling unsent data for some milliseconds, and a
// snd_nxt read meanwhile is too low, which is fatal for the restore.
func mute(s sock, w Window) error {
	w.SndWnd = 0
	return s.setWindow(w)
}

func dump(s sock) (State, error) {
	var st State
	// The filter stands before repair mode: repair does not stop input, and
	// bytes acknowledged after rcv_nxt was read would be lost for ever.
	if err := s.deafen(); err != nil {
		return st, err
	}
	if err := s.repair(unix.TCP_REPAIR_ON); err != nil {
		return st, err
	}
	inf, err := s.info()
	if err != nil {
		return st, err
	}
	if inf.state != tcpEstablished {
		return st, fmt.Errorf("state %d: %w", inf.state, ErrNotEstablished)
	}
	st.Options, st.RTT = inf.options, time.Duration(inf.rttUsec)*time.Microsecond
	if st.Local, st.Peer, err = s.addrs(); err != nil {
		return st, err
	}
	if st.Window, err = s.window(); err != nil {
		return st, err
	}
	if err := mute(s, st.Window); err != nil {
		return st, err
	}
	for _, read := range []func(sock, *State) error{dumpRecv, dumpSend, dumpRest} {
		if err := read(s, &st); err != nil {
			return st, err
		}
	}
	return st, nil
}

// dumpRecv reads rcv_nxt and copies what was received and not read.
func dumpRecv(s sock, st *State) (err error) {
	if st.RcvNxt, err = queueSeq(s, recvQueue); err != nil {
		return err
	}
	waiting, err := s.ioctl(unix.SIOCINQ, "SIOCINQ")
	if err != nil || waiting == 0 {
		return err
	}
	if waiting > MaxInput {
		return fmt.Errorf("%d bytes: %w", waiting, ErrInput)
	}
	st.Input = make([]byte, waiting)
	n, _, err := unix.Recvfrom(int(s), st.Input, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return fmt.Errorf("peek input: %w", err)
	}
	if n != int(waiting) {
		return fmt.Errorf("peeked %d of %d bytes: %w", n, waiting, ErrInput)
	}
	return nil
}

// dumpSend reads the three positions of the send side. Both counters come
// before the send queue is selected: from then on any event on the socket may
// let the kernel mark unsent data as sent without sending it, and a restore
// would leave a hole in the stream. For the same reason no queue stays
// selected.
func dumpSend(s sock, st *State) error {
	unacked, err := s.ioctl(unix.SIOCOUTQ, "SIOCOUTQ")
	if err != nil {
		return err
	}
	unsent, err := s.ioctl(unix.SIOCOUTQNSD, "SIOCOUTQNSD")
	if err != nil {
		return err
	}
	if st.WriteSeq, err = queueSeq(s, sendQueue); err != nil {
		return err
	}
	st.SndUna, st.SndNxt = st.WriteSeq-unacked, st.WriteSeq-unsent
	return s.queue(noQueue)
}

func dumpRest(s sock, st *State) error {
	mss, err := s.int(unix.TCP_MAXSEG, "TCP_MAXSEG") // the peer's clamp, in repair mode
	if err != nil {
		return err
	}
	st.Options.MSS = uint16(mss)
	if st.TSVal, err = s.int(unix.TCP_TIMESTAMP, "TCP_TIMESTAMP"); err != nil {
		return err
	}
	if st.Options.Timestamps && st.TSVal&1 != 0 {
		return ErrClock
	}
	return nil
}

func queueSeq(s sock, q uint32) (uint32, error) {
	if err := s.queue(q); err != nil {
		return 0, err
	}
	return s.seq()
}
