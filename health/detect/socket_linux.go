package detect

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawAddress is a destination as the kernel reads it, for both kinds of socket.
type rawAddress struct {
	v4 unix.RawSockaddrInet4
	v6 unix.RawSockaddrInet6
	is bool // an IPv4 address
}

func newRawAddress(a netip.AddrPort) (r rawAddress) {
	port := a.Port()>>8 | a.Port()<<8 // network order on a little-endian machine
	if hostIsBig() {
		port = a.Port()
	}
	r.v6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: port, Addr: a.Addr().As16()}
	if ip := a.Addr().Unmap(); ip.Is4() {
		r.v4, r.is = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port, Addr: ip.As4()}, true
	}
	return r
}

func hostIsBig() bool {
	one := uint16(1)
	return *(*byte)(unsafe.Pointer(&one)) == 0
}

// message is struct mmsghdr.
type message struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// batch is how many datagrams one system call moves.
const batch = 64

// batchSocket moves datagrams by recvmmsg and sendmmsg, in place. The headers
// live as long as it does, so that nothing is allocated a call.
type batchSocket struct {
	conn     *net.UDPConn
	raw      syscall.RawConn
	inet6    bool
	messages [batch]message
	vectors  [batch]unix.Iovec

	// What the two callbacks below work on; they are made once, since a closure a
	// call would be an allocation a call.
	count int
	done  int
	errno syscall.Errno
	in    func(fd uintptr) bool
	out   func(fd uintptr) bool
}

func newBatchSocket(conn *net.UDPConn) (*batchSocket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("detect: socket: %w", err)
	}
	s := &batchSocket{conn: conn, raw: raw, inet6: conn.LocalAddr().(*net.UDPAddr).IP.To4() == nil}
	s.in = func(fd uintptr) bool { return s.call(unix.SYS_RECVMMSG, fd) }
	s.out = func(fd uintptr) bool { return s.call(unix.SYS_SENDMMSG, fd) }
	return s, nil
}

// call makes the system call; false: nothing can be moved yet.
func (s *batchSocket) call(trap, fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(trap, fd, uintptr(unsafe.Pointer(&s.messages[0])), uintptr(s.count), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		s.done, s.errno = int(n), errno
		if errno != 0 {
			s.done = 0
		}
		return true
	}
}

func (s *batchSocket) setReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// prepare points header i at a buffer.
func (s *batchSocket) prepare(i int, buf []byte, name unsafe.Pointer, size int) {
	s.vectors[i].Base = &buf[0]
	s.vectors[i].SetLen(len(buf))
	m := &s.messages[i]
	m.hdr = unix.Msghdr{Iov: &s.vectors[i], Name: (*byte)(name), Namelen: uint32(size)}
	m.hdr.SetIovlen(1)
	m.len = 0
}

func (s *batchSocket) read(into []packet) (int, error) {
	s.count, s.done, s.errno = min(len(into), batch), 0, 0
	for i := range s.count {
		s.prepare(i, into[i].buf[:], nil, 0)
	}
	if err := s.raw.Read(s.in); err != nil {
		return 0, err
	}
	if s.errno != 0 {
		return 0, s.errno
	}
	for i := range s.done {
		into[i].n = int(s.messages[i].len)
	}
	return s.done, nil
}

func (s *batchSocket) write(out []packet) (int, error) {
	s.count, s.done, s.errno = min(len(out), batch), 0, 0
	for i := range s.count {
		p := &out[i]
		switch {
		case s.inet6:
			s.prepare(i, p.buf[:p.n], unsafe.Pointer(&p.to.to.raw.v6), unix.SizeofSockaddrInet6)
		case p.to.to.raw.is:
			s.prepare(i, p.buf[:p.n], unsafe.Pointer(&p.to.to.raw.v4), unix.SizeofSockaddrInet4)
		case i == 0:
			return 0, unix.EAFNOSUPPORT
		default:
			s.count = i // those before it; it fails in the next call
		}
		if s.count == i {
			break
		}
	}
	if err := s.raw.Write(s.out); err != nil {
		return 0, err
	}
	if s.errno != 0 {
		return 0, s.errno
	}
	return s.done, nil
}
