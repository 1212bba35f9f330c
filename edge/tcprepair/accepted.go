package tcprepair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ready makes a socket, before it listens, save the SYN of each connection and select the
// send queue of each: what is selected is inherited, and counts in repair mode only, which
// no connection is in. RegisterAccepted then needs a third of the calls that Register needs.
func Ready(c syscall.RawConn) error {
	var inner error
	err := c.Control(func(fd uintptr) {
		s := sock(fd)
		if inner = s.repair(unix.TCP_REPAIR_ON); inner != nil {
			return
		}
		inner = errors.Join(s.queue(sendQueue), s.repair(unix.TCP_REPAIR_OFF_NO_WP), s.reuse(),
			s.setInt(unix.IPPROTO_TCP, unix.TCP_SAVE_SYN, 1, "TCP_SAVE_SYN"))
	})
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("tcprepair: ready a listener: %w", err)
	}
	return nil
}

// RegisterAccepted is Register for a connection that was just accepted: nobody has read of
// it or written to it. Its numbers are thus those behind both SYNs, whatever came since.
// Where its listener was not made Ready, or the kernel saved no SYN since it sent a cookie,
// it is Register.
func RegisterAccepted(c *net.TCPConn) (Registration, error) {
	var g Registration
	known := false
	err := control(c, func(s sock) (err error) {
		known, err = g.accepted(s)
		return err
	})
	switch {
	case err != nil:
		return g, fmt.Errorf("tcprepair: register %s: %w", c.RemoteAddr(), err)
	case !known:
		return Register(c)
	}
	return g, nil
}

// accepted reports whether there was all it takes.
func (g *Registration) accepted(s sock) (known bool, err error) {
	if g.Write, err = s.seq(); errors.Is(err, unix.EINVAL) { // no queue is selected
		return false, nil
	}
	if err != nil {
		return false, err
	}
	first, ok := s.savedSYN()
	if !ok {
		return false, nil
	}
	inf, err := s.info()
	if err != nil {
		return false, err
	}
	g.RcvNxt, g.Options, g.RTT = first.seq+1, inf.options, time.Duration(inf.rttUsec)*time.Microsecond
	if g.Options.MSS = first.mss; !g.Options.Timestamps {
		return true, nil
	}
	if g.TSVal, err = s.int(unix.TCP_TIMESTAMP, "TCP_TIMESTAMP"); err == nil && g.TSVal&1 != 0 {
		err = ErrClock
	}
	return true, err
}

// saved is what a SYN tells that the kernel does not tell later, but in repair mode.
type saved struct {
	seq uint32
	mss uint16
}

// savedSYN takes the saved SYN, if there is one: it is there once.
func (s sock) savedSYN() (saved, bool) {
	var b [128]byte // at most 60 octets of either header with IPv4, 40 and 60 with IPv6
	n := uint32(len(b))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.IPPROTO_TCP, unix.TCP_SAVED_SYN,
		uintptr(unsafe.Pointer(&b)), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 { // of IPv6 with extension headers that do not fit
		return saved{}, false
	}
	return readSYN(b[:n])
}

// The MSS that a peer has which tells none (RFC 9293 section 3.7.1).
const (
	mssUntold4 = 536
	mssUntold6 = 1220
)

// readSYN reads IP and TCP header of a SYN. False is one that cannot be read here, as with
// extension headers of IPv6.
func readSYN(b []byte) (saved, bool) {
	var ip int
	out := saved{mss: mssUntold4}
	switch {
	case len(b) >= 20 && b[0]>>4 == 4 && b[9] == unix.IPPROTO_TCP:
		ip = int(b[0]&15) * 4
	case len(b) >= 40 && b[0]>>4 == 6 && b[6] == unix.IPPROTO_TCP:
		ip, out.mss = 40, mssUntold6
	default:
		return saved{}, false
	}
	if ip < 20 || len(b) < ip+20 {
		return saved{}, false
	}
	tcp := b[ip:]
	size := int(tcp[12]>>4) * 4
	if size < 20 || len(tcp) < size || tcp[13]&byte(SYN) == 0 {
		return saved{}, false
	}
	out.seq = binary.BigEndian.Uint32(tcp[4:])
	if mss := mssOf(tcp[20:size]); mss != 0 {
		out.mss = mss
	}
	return out, true
}

// mssOf finds the MSS among TCP options (RFC 9293 section 3.1); 0 is none.
func mssOf(opts []byte) uint16 {
	for len(opts) > 0 {
		switch {
		case opts[0] == 0: // the end
			return 0
		case opts[0] == 1: // a filler
			opts = opts[1:]
		case len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts):
			return 0
		case opts[0] == optMSS && opts[1] == 4:
			return binary.BigEndian.Uint16(opts[2:])
		default:
			opts = opts[opts[1]:]
		}
	}
	return 0
}
