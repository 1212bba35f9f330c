package tcprepair

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Numbers that x/sys lacks.
const (
	tcpULP        = 31 // TCP_ULP: what rides on the connection inside the kernel
	soNetnsCookie = 71 // SO_NETNS_COOKIE (Linux 5.14)
)

// Examine tells why the socket behind a stranger's descriptor cannot be moved, or
// names its ends. It changes nothing.
func Examine(f *os.File) (local, peer netip.AddrPort, err error) {
	err = control(f, func(s sock) error {
		if err := isTCP(s); err != nil {
			return err
		}
		inf, err := s.info()
		if err != nil {
			return err
		}
		if inf.state != tcpEstablished {
			return fmt.Errorf("connection is in %s: %w", stateName(inf.state), ErrNotEstablished)
		}
		if ulp, err := unix.GetsockoptString(int(s), unix.IPPROTO_TCP, tcpULP); err == nil && ulp != "" {
			return fmt.Errorf("the kernel does %q for the connection, whose state cannot be read", ulp)
		}
		if err := sameNamespace(s); err != nil {
			return err
		}
		local, peer, err = s.addrs()
		return err
	})
	if err != nil {
		return local, peer, fmt.Errorf("tcprepair: %w", err)
	}
	return local, peer, nil
}

// ErrNotTCP: the descriptor is of something else.
var ErrNotTCP = errors.New("descriptor is no TCP socket")

func isTCP(s sock) error {
	domain, err := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return ErrNotTCP
	}
	kind, err1 := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_TYPE)
	proto, err2 := unix.GetsockoptInt(int(s), unix.SOL_SOCKET, unix.SO_PROTOCOL)
	switch {
	case err1 != nil || err2 != nil || kind != unix.SOCK_STREAM || domain != unix.AF_INET && domain != unix.AF_INET6:
		return ErrNotTCP
	case proto == unix.IPPROTO_MPTCP:
		return fmt.Errorf("the socket is multipath TCP: %w", ErrNotTCP)
	case proto != unix.IPPROTO_TCP:
		return ErrNotTCP
	}
	return nil
}

// sameNamespace refuses a socket of another network namespace: its addresses mean
// something else there, and this host's packets are not its.
func sameNamespace(s sock) error {
	theirs, err := unix.GetsockoptUint64(int(s), unix.SOL_SOCKET, soNetnsCookie)
	if err != nil {
		return nil // an older kernel cannot tell
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	if ours, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, soNetnsCookie); err == nil && ours != theirs {
		return errors.New("the socket belongs to another network namespace")
	}
	return nil
}

// stateName is the kernel's name of a state of TCP.
func stateName(state uint8) string {
	names := [...]string{1: "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
		"LISTEN", "CLOSING", "NEW_SYN_RECV"}
	if int(state) < len(names) && state > 0 {
		return names[state]
	}
	return fmt.Sprintf("state %d", state)
}
