package detect

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// packet is one datagram in a buffer of its own.
type packet struct {
	buf [MaxDatagram + 64]byte // above the largest, so that a larger one is seen to be one
	n   int
	to  *peer // outwards only
}

// address is a destination, in the form that each kind of socket wants.
type address struct {
	udp net.UDPAddr
	raw rawAddress
}

func newAddress(a netip.AddrPort) *address {
	return &address{udp: *net.UDPAddrFromAddrPort(a), raw: newRawAddress(a)}
}

// socket moves datagrams in batches.
type socket interface {
	// read fills packets and returns how many; it waits for the first until the
	// deadline, and then returns os.ErrDeadlineExceeded.
	read(into []packet) (int, error)
	// write sends packets in order and returns how many went out; the one behind
	// them failed.
	write(out []packet) (int, error)
	setReadDeadline(t time.Time) error
}

// newSocket uses batches where the system and the kind of connection have them.
func newSocket(conn net.PacketConn) (socket, error) {
	if udp, ok := conn.(*net.UDPConn); ok {
		return newBatchSocket(udp)
	}
	return plainSocket{conn}, nil
}

// plainSocket moves one datagram at a time.
type plainSocket struct{ conn net.PacketConn }

func (s plainSocket) setReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

func (s plainSocket) read(into []packet) (int, error) {
	n, _, err := s.conn.ReadFrom(into[0].buf[:])
	if err != nil {
		return 0, err
	}
	into[0].n = n
	return 1, nil
}

func (s plainSocket) write(out []packet) (int, error) {
	for i := range out {
		if _, err := s.conn.WriteTo(out[i].buf[:out[i].n], &out[i].to.to.udp); err != nil {
			return i, err
		}
	}
	return len(out), nil
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
