package tcprepair

import (
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Poke sends another window probe. The first may go without an answer: a
// Linux peer answers such segments twice a second, and the old owner may have
// spent the turn. Nobody may write to c meanwhile.
func Poke(c *net.TCPConn) error {
	return control(c, func(s sock) error {
		return errors.Join(s.repair(unix.TCP_REPAIR_ON), s.repair(unix.TCP_REPAIR_OFF), s.reuse())
	})
}

// Question is a segment that the peer of a connection restored from st answers
// at once, with its acknowledgement and window as they are: it holds one byte
// that the peer has had (RFC 9293 section 3.10.7.4). A window probe without data
// asks the same, and Linux answers such ones of a connection twice a second only;
// the old owner, whose peer's window was closed, may just have had one.
func Question(c *net.TCPConn, st State) (Segment, error) {
	q := Segment{Src: st.Local, Dst: st.Peer, Seq: st.SndUna - 1, Ack: st.RcvNxt, Flags: ACK | PSH,
		Window: uint16(min(st.Window.RcvWnd>>st.Options.RcvScale, 0xffff)), Timestamps: st.Options.Timestamps, Data: 1}
	if !q.Timestamps {
		return q, nil
	}
	// The connection's own clock: ahead of that, its segments would look old.
	err := control(c, func(s sock) (err error) {
		q.TSVal, err = s.int(unix.TCP_TIMESTAMP, "TCP_TIMESTAMP")
		return err
	})
	return q, err
}

// Notice is a segment that says nothing new to the peer of a connection restored from st which
// has nothing to send: it holds the time alone. From there on the peer takes what an earlier
// owner of the connection says for old, the end of it too (RFC 7323 section 5.3). Without
// timestamps it is of no use.
func Notice(c *net.TCPConn, st State) (Segment, error) {
	n, err := Question(c, st)
	n.Seq, n.Data, n.Flags = st.SndNxt, 0, ACK
	return n, err
}

// Stuck reports whether a connection restored from s can send nothing new
// before its peer has spoken: what is in flight fills the window, or the
// congestion window that a fresh connection has (RFC 6928), or the window has no
// room for a segment.
func (s State) Stuck() bool {
	mss, wnd := int(s.Options.MSS), int(s.Window.SndWnd)
	if s.InFlight() == 0 {
		return wnd < mss
	}
	return s.InFlight() >= min(10*mss, wnd-mss)
}

// Unacked counts the bytes which the peer has not acknowledged.
func Unacked(c *net.TCPConn) (int, error) {
	var n uint32
	err := control(c, func(s sock) (err error) {
		n, err = s.ioctl(unix.SIOCOUTQ, "SIOCOUTQ")
		return err
	})
	return int(n), err
}

// Standing is how far a connection has come, by its own kernel.
type Standing struct {
	Segments uint64 // of the peer, that have come
	Acked    uint64 // bytes that those acknowledged
	Waiting  bool   // bytes are not acknowledged, or not sent
	Flying   bool   // bytes were sent and are not acknowledged
	RTO      time.Duration
}

// Stand reads it, in one call. A connection waits, too, while nothing is in flight and a
// closed window keeps it from sending: the peer's word that the window is open counts
// only with an acknowledgement of what was sent.
func Stand(c *net.TCPConn) (st Standing, err error) {
	err = control(c, func(s sock) error {
		var t unix.TCPInfo
		if err := s.tcpInfo(&t); err != nil {
			return err
		}
		st = Standing{Segments: uint64(t.Segs_in), Acked: t.Bytes_acked, Flying: t.Unacked > 0,
			Waiting: t.Unacked > 0 || t.Notsent_bytes > 0, RTO: time.Duration(t.Rto) * time.Microsecond}
		return nil
	})
	return st, err
}

// Heard tells of a restored connection how many segments of its peer have come
// since and how many bytes those acknowledged, and whether it waits for more.
func Heard(c *net.TCPConn) (segments, acked uint64, waiting bool, err error) {
	st, err := Stand(c)
	return st.Segments, st.Acked, st.Waiting, err
}

// Refused counts the segments which came to a connection and which its kernel threw
// away. An acknowledgement of what was never sent is one; none of a peer that agrees with
// this kernel about where both stand is, but a keepalive.
func Refused(c *net.TCPConn) (n uint32, err error) {
	err = control(c, func(s sock) error {
		var counts [9]uint32 // SK_MEMINFO_VARS of linux/sock_diag.h, the last are the drops
		size := uint32(unsafe.Sizeof(counts))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&counts)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return fmt.Errorf("get SO_MEMINFO: %w", errno)
		}
		n = counts[len(counts)-1]
		return nil
	})
	return n, err
}

// Timing tells of a connection after what time the kernel would repeat itself, and
// whether something that was sent is not acknowledged.
func Timing(c *net.TCPConn) (rto time.Duration, flying bool, err error) {
	st, err := Stand(c)
	return st.RTO, st.Flying, err
}

// Hasten bounds what is left of a connection whose process dies: the kernel then
// sends its FIN at least once a second instead of at ever longer intervals, so
// that a client learns of the end soon after somebody stops holding it back. A
// peer that acknowledges nothing for limit is given up, as the shorter intervals
// alone would do after a quarter of a minute.
func Hasten(c *net.TCPConn, limit time.Duration) error {
	return control(c, func(s sock) error {
		return errors.Join(s.setInt(unix.IPPROTO_TCP, tcpRTOMax, rtoMoved, "TCP_RTO_MAX_MS"),
			s.setInt(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, uint32(limit.Milliseconds()), "TCP_USER_TIMEOUT"))
	})
}

// DelayAck lets the next acknowledgement wait for data to ride on, 40 ms at most.
// The kernel forgets it after a while.
func DelayAck(c *net.TCPConn) error {
	return control(c, func(s sock) error { return s.setInt(unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0, "TCP_QUICKACK") })
}

// Settle ends what eases a restored connection's start, and what Hasten set. Call
// it when round trips have been measured, a few seconds after Activate, or before
// a hastened connection is closed in order.
func Settle(c *net.TCPConn) error {
	return control(c, func(s sock) error {
		err := s.setInt(unix.IPPROTO_TCP, tcpRTOMax, rtoOrdinary, "TCP_RTO_MAX_MS")
		if errors.Is(err, unix.ENOPROTOOPT) {
			err = nil
		}
		return errors.Join(err, s.setInt(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0, "TCP_USER_TIMEOUT"))
	})
}
