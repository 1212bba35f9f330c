package tcprepair

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Wire sends segments of connections that no socket here has, from any
// address (CAP_NET_RAW). It only sends. Safe for concurrent use.
type Wire struct {
	v4, v6  int
	filter  int     // the program of lessons; -1: none
	lessons lessons // sent to this host itself
}

// OpenWire opens a raw socket of each family. A host without IPv6 has a Wire
// for IPv4 alone.
func OpenWire() (*Wire, error) {
	w := &Wire{v6: -1, filter: -1}
	var err error
	// IPPROTO_RAW: the IP header is ours, and nothing is received.
	if w.v4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW); err != nil {
		return nil, fmt.Errorf("tcprepair: raw socket: %w", err)
	}
	w.v6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		unix.Close(w.v4)
		return nil, fmt.Errorf("tcprepair: raw socket for IPv6: %w", err)
	}
	if fd, err := loadFilter(lessonFilter()); err == nil { // without it each costs more
		w.filter = fd
	}
	return w, nil
}

// Send sends one segment. What a full queue refuses is lost, as on any path.
func (w *Wire) Send(s Segment) error {
	b := s.Append(make([]byte, 0, 128))
	fd := w.v4
	if !s.Dst.Addr().Is4() {
		fd = w.v6
	}
	// A raw socket's address has no port.
	if err := unix.Sendto(fd, b, 0, toSockaddr(netip.AddrPortFrom(s.Dst.Addr(), 0))); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("tcprepair: send a segment to %s: %w", s.Dst, err)
	}
	return nil
}

// Close ends it; nobody may be sending.
func (w *Wire) Close() error {
	err := unix.Close(w.v4)
	if w.v6 >= 0 {
		err = errors.Join(err, unix.Close(w.v6))
	}
	if w.filter >= 0 {
		err = errors.Join(err, unix.Close(w.filter))
	}
	return err
}
