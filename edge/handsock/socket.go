package handsock

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// tcpOf hands the socket to Go's poller and closes the file.
func tcpOf(f *os.File) (*net.TCPConn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("handsock: %w", err)
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("handsock: the descriptor is a %T", c)
	}
	// FileConn turns keepalive on, which the connection may never have had.
	return t, t.SetKeepAlive(false)
}

// discard closes a socket that may have been activated without our being told: its
// client hears a reset then.
func discard(f *os.File) {
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			// An unconnected socket accepts it too.
			_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
	}
	_ = errors.Join(err, f.Close())
}
