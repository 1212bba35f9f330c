package tcprepair

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A restored connection has measured no round trip. Its kernel then waits a second,
// and without a limit three, before it repeats what was lost of the first flight,
// and sends no probe for a lost tail before (RFC 8985 section 7.2). It takes a
// measurement from an acknowledgement of something new that echoes a timestamp
// (RFC 7323 section 4.1): so the connection begins one byte earlier, at one that the
// peer has acknowledged to the old owner, and hears of that byte again by a segment
// that does not leave this host, with the echo of a clock as it stood a round trip ago.

// tcpRTOMin is TCP_RTO_MIN_US (Linux 6.15): the least time, beyond a round trip, before
// the kernel repeats itself. It stands for peers that delay acknowledgements,
// 200 ms at most. A byte more is cheaper than a stall while the connection is young;
// Linux and most others delay for 40 ms.
const (
	tcpRTOMin = 45
	rtoEager  = 40_000 // us
)

// Of how long a segment to this host may take: it is there when the call that sends
// it returns, unless the kernel has left that to another thread.
const (
	lessonLooks = 6
	lessonPause = 500 * time.Microsecond
)

// lessonsMost is how many segments to this host may be lost, none of them having
// arrived, before no more are sent: a firewall has something against them.
const lessonsMost = 3

// lessons counts what became of the segments of a Wire to this host.
type lessons struct {
	heard  atomic.Bool
	missed atomic.Int32
}

func (l *lessons) over() bool { return !l.heard.Load() && l.missed.Load() >= lessonsMost }

// Learn makes Activate tell the kernel the round trip of State, by w. Call it before
// Activate; it changes nothing if there is none, or the connection has no timestamps.
// Where it does not work the connection starts without.
func (r *Restored) Learn(w *Wire) error {
	if w == nil || w.lessons.over() || r.State.RTT <= 0 || !r.State.Options.Timestamps {
		return nil
	}
	r.teacher = w
	if err := r.fd.setSeq(sendQueue, r.State.SndUna-1); err != nil {
		return fmt.Errorf("tcprepair: learn %s: %w", r.State.Peer, err)
	}
	return nil
}

// Calm ends the eagerness of a connection that was told a round trip: call it some
// seconds after Activate.
func Calm(c *net.TCPConn) error {
	return control(c, func(s sock) error { s.calm(); return nil })
}

// calm gives the ordinary bound back, as a new socket of this host has it. Older
// kernels have no such setting.
func (s sock) calm() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if v, err := sock(fd).int(tcpRTOMin, "TCP_RTO_MIN_US"); err == nil {
		_ = s.setInt(unix.IPPROTO_TCP, tcpRTOMin, v, "TCP_RTO_MIN_US")
	}
}

// lesson enters the byte before SndUna as sent. What it is does not matter: who
// has acknowledged it disregards another.
func (r *Restored) lesson() error {
	if r.teacher == nil {
		return nil
	}
	_ = r.fd.setInt(unix.IPPROTO_TCP, tcpRTOMin, rtoEager, "TCP_RTO_MIN_US")
	if err := r.fd.queue(sendQueue); err != nil {
		return err
	}
	if err := writeAll(int(r.fd), []byte{0}); err != nil {
		return fmt.Errorf("enter a byte: %w", err)
	}
	return r.fd.queue(noQueue)
}

// learn has the kernel hear of that byte. The filter lets this segment in and no
// other. False: it did not arrive.
func (r *Restored) learn() (bool, error) {
	now, err := r.fd.int(unix.TCP_TIMESTAMP, "TCP_TIMESTAMP")
	if err != nil {
		return false, err
	}
	ack := r.ack()
	ack.TSEcr = now - uint32(max(r.State.RTT.Milliseconds(), 1))
	if err := r.teacher.Send(ack); err != nil {
		return false, nil // as if it had been lost
	}
	for i := range lessonLooks {
		var t unix.TCPInfo
		if err := r.fd.tcpInfo(&t); err != nil {
			return false, err
		}
		if t.Bytes_acked > 0 {
			r.teacher.lessons.heard.Store(true)
			return true, nil
		}
		if i < lessonLooks-1 {
			time.Sleep(lessonPause)
		}
	}
	r.teacher.lessons.missed.Add(1)
	return false, nil
}

// ack is the segment that tells, but for its echo.
func (r *Restored) ack() Segment {
	st := r.State
	return Segment{Src: st.Peer, Dst: st.Local, Seq: st.RcvNxt, Ack: st.SndUna, Flags: ACK, Timestamps: true,
		Window: uint16(min(st.Window.SndWnd>>st.Options.SndScale, 0xffff)),
		TSVal:  lessonClock}
}

// lessonClock is the clock that a lesson tells. 0 is none: the peer's own goes on being unknown
// (RFC 7323 section 5.3).
const lessonClock = 0

// silence keeps from the connection what comes before it speaks, all but a lesson.
func (r *Restored) silence() error {
	if r.teacher == nil {
		return r.fd.deafen()
	}
	return r.teacher.hearLesson(r.fd, r.ack())
}

// unlearn begins anew without the byte: acknowledged by the peer itself, whose echo is
// of the old owner's clock, it would be measured as a round trip of seconds.
func (r *Restored) unlearn() error {
	r.teacher = nil
	if err := r.Close(); err != nil {
		return err
	}
	if err := r.open(); err != nil {
		return err
	}
	return r.establish()
}

// hearOnly makes the kernel drop every packet for this socket but one like seg, which
// has timestamps; its echo may be any.
func (s sock) hearOnly(seg Segment) error {
	const load, jump, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	var buf [128]byte
	head := seg.Append(buf[:0])
	head = head[len(head)-tcpSize-timestampSize:] // what the filter sees begins there
	at := [...]uint32{4, 8, tcpSize, tcpSize + 4} // both numbers, and the option up to its echo
	code := make([]unix.SockFilter, 0, 2*len(at)+2)
	for i, off := range at {
		code = append(code, unix.SockFilter{Code: load, K: off},
			unix.SockFilter{Code: jump, Jf: uint8(2*(len(at)-i) - 1), K: binary.BigEndian.Uint32(head[off:])})
	}
	code = append(code, unix.SockFilter{Code: ret, K: 0xffff}, unix.SockFilter{Code: ret, K: 0})
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(int(s), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("set SO_ATTACH_FILTER: %w", err)
	}
	return nil
}
