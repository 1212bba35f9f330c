package tcprepair

import (
	"errors"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrDumped: a connection was being moved when its process died.
var ErrDumped = errors.New("connection is being moved")

// Adopt takes over a connection of a process that died, which had another descriptor of it: as
// Dump, so that it speaks after Abort. The descriptor stays the caller's. A connection
// that is no more, or was being moved, is an error, and is left as it is.
func Adopt(fd int) (*net.TCPConn, *Dumped, error) {
	s := sock(fd)
	if err := s.whole(); err != nil {
		return nil, nil, fmt.Errorf("tcprepair: adopt: %w", err)
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("tcprepair: adopt: duplicate: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(dup), unix.F_SETFL, unix.O_RDWR); err != nil {
		unix.Close(dup)
		return nil, nil, fmt.Errorf("tcprepair: adopt: set flags: %w", err)
	}
	f := os.NewFile(uintptr(dup), "tcp")
	defer f.Close()
	c, err := connOf(f)
	if err != nil {
		return nil, nil, fmt.Errorf("tcprepair: adopt: %w", err)
	}
	d, err := Dump(c)
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, d, nil
}

// whole reports whether nobody has begun to take a connection out of service.
func (s sock) whole() error {
	mode, err := s.int(unix.TCP_REPAIR, "TCP_REPAIR")
	if err != nil {
		return err
	}
	// A dump begins with a filter. SO_GET_FILTER tells in the place of the length how many
	// steps its program has, and copies none into a room of 0.
	var filter uint32
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(s), unix.SOL_SOCKET, unix.SO_GET_FILTER, 0, uintptr(unsafe.Pointer(&filter)), 0)
	if errno == unix.EACCES { // a program for many sockets, as a lesson has
		return ErrDumped
	}
	if errno != 0 {
		return fmt.Errorf("get SO_GET_FILTER: %w", errno)
	}
	if mode != unix.TCP_REPAIR_OFF || filter != 0 {
		return ErrDumped
	}
	return nil
}

// Hangup ends a connection of which another process may have a descriptor, as the close of
// the last one would: by a FIN, or a RST where something was not read or the end is to be
// abrupt (SO_LINGER of 0). The caller closes its own.
func Hangup(c *net.TCPConn) error {
	return control(c, func(s sock) error {
		unread, err := s.ioctl(unix.SIOCINQ, "SIOCINQ")
		if err != nil {
			return err
		}
		l, err := unix.GetsockoptLinger(int(s), unix.SOL_SOCKET, unix.SO_LINGER)
		if err != nil {
			return fmt.Errorf("get SO_LINGER: %w", err)
		}
		if unread > 0 || l.Onoff != 0 && l.Linger == 0 {
			return disconnect(s)
		}
		if err := unix.Shutdown(int(s), unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
			return fmt.Errorf("shut down: %w", err)
		}
		return nil
	})
}
