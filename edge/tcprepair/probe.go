package tcprepair

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Feature is one ability of the kernel that was tried.
type Feature struct {
	Name     string
	Required bool  // a move is impossible without
	Err      error // nil: works
}

// Probe tries what a dump and a restore call, on a socket that is never
// connected. No packet leaves.
func Probe() []Feature {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return []Feature{{"tcp socket", true, err}}
	}
	defer unix.Close(fd)
	s := sock(fd)
	return []Feature{
		{"TCP_REPAIR", true, s.repair(unix.TCP_REPAIR_ON)},
		{"TCP_QUEUE_SEQ", true, s.setSeq(sendQueue, 1)},
		{"TCP_REPAIR_WINDOW", true, probeWindow(s)},
		{"TCP_TIMESTAMP", true, s.setInt(unix.IPPROTO_TCP, unix.TCP_TIMESTAMP, 2, "TCP_TIMESTAMP")},
		{"SO_ATTACH_FILTER", true, errors.Join(s.deafen(), s.hear())},
		{"SO_SNDBUFFORCE", false, s.setInt(unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20, "SO_SNDBUFFORCE")},
		{"SO_BUF_LOCK", false, s.setInt(unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0, "SO_BUF_LOCK")},
	}
}

// Usable joins the errors of all required features; nil means sessions can
// be moved on this host.
func Usable(features []Feature) error {
	var errs []error
	for _, f := range features {
		if f.Required && f.Err != nil {
			errs = append(errs, fmt.Errorf("tcprepair: %s: %w", f.Name, f.Err))
		}
	}
	return errors.Join(errs...)
}

func probeWindow(s sock) error {
	_, err := s.window()
	return err
}
