//go:build e2e

package edge

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func rogueRole() error { return nil }

func setBuffer(c syscall.RawConn, size int) error {
	if size == 0 {
		return nil
	}
	return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size) })
}
