package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// benchBatch is how many datagrams go or come in one call of the kernel.
const benchBatch = 32

// volley is room for a batch of datagrams on a connected socket.
type volley struct {
	hdrs [benchBatch]benchMmsghdr
	iovs [benchBatch]unix.Iovec
	data [benchBatch][2048]byte
}

// benchMmsghdr is struct mmsghdr of sendmmsg(2).
type benchMmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

func newVolley() *volley {
	v := &volley{}
	for i := range v.hdrs {
		v.iovs[i].Base = &v.data[i][0]
		v.iovs[i].SetLen(len(v.data[i]))
		v.hdrs[i].hdr.Iov = &v.iovs[i]
		v.hdrs[i].hdr.SetIovlen(1)
	}
	return v
}

// call is one of sendmmsg and recvmmsg for some of the datagrams.
func (v *volley) call(trap, fd uintptr, from, to int) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(&v.hdrs[from])), uintptr(to-from), unix.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

// runUDP asks over a socket of its own until all is asked and answered or lost.
func (l *lane) runUDP(ctx context.Context, server netip.AddrPort) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if failed = benchRoom(int(fd)); failed == nil {
			failed = l.loopUDP(ctx, fd)
		}
	})
	if err != nil {
		return err
	}
	return failed
}

// benchRoom makes room for the replies of a second or two that come at once, as after a
// restart: what is lost must not be lost here. The kernel may cap it (net.core.rmem_max).
func benchRoom(fd int) error {
	const room = 16 << 20
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) == nil {
		return nil
	}
	return os.NewSyscallError("setsockopt SO_RCVBUF", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room))
}

// loopUDP waits by itself and not by the runtime's poller, whose clock ticks in
// milliseconds.
func (l *lane) loopUDP(ctx context.Context, fd uintptr) error {
	in, out := newVolley(), newVolley()
	for {
		now := l.now()
		n := min(l.pace.ready(now, l.open.count), benchBatch)
		if err := l.fire(out, fd, n, now); err != nil {
			return err
		}
		got, errno := in.call(unix.SYS_RECVMMSG, fd, 0, benchBatch)
		if errno != 0 && errno != syscall.EAGAIN && errno != syscall.ECONNREFUSED {
			return os.NewSyscallError("recvmmsg", errno)
		}
		if errno == 0 {
			at := l.now()
			for i := range got {
				l.heard(in.data[i][:min(int(in.hdrs[i].len), len(in.data[i]))], at)
			}
			if got > 0 {
				continue
			}
		}
		if l.tidy(ctx, now) {
			return nil
		}
		if n == 0 {
			waitFor(fd, unix.POLLIN, l.pace.wait(now))
		}
	}
}

// fire sends the next n queries. One that the kernel refuses counts as lost in its
// time, as one does that nobody listens to.
func (l *lane) fire(v *volley, fd uintptr, n int, now time.Duration) error {
	for i := range n {
		v.iovs[i].SetLen(l.ask(v.data[i][:], now))
	}
	for at := 0; at < n; {
		sent, errno := v.call(unix.SYS_SENDMMSG, fd, at, n)
		switch errno {
		case 0:
			at += sent
		case syscall.EAGAIN:
			waitFor(fd, unix.POLLOUT, time.Millisecond)
		case syscall.ECONNREFUSED, syscall.ENOBUFS, syscall.EPERM:
			at++
		default:
			return fmt.Errorf("send: %w", errno)
		}
	}
	return nil
}

// waitFor waits for a socket, no longer than given.
func waitFor(fd uintptr, events int16, limit time.Duration) {
	ts := unix.NsecToTimespec(limit.Nanoseconds())
	_, _ = unix.Ppoll([]unix.PollFd{{Fd: int32(fd), Events: events}}, &ts, nil) // whatever ends it, the socket is looked at
}
