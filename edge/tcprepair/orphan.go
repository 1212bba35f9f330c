package tcprepair

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// The parts of an inet_diag request and of its answer (linux/inet_diag.h).
const (
	sockDestroy   = 21 // SOCK_DESTROY
	diagHeader    = 16 // struct nlmsghdr
	diagRequest   = diagHeader + 56
	diagID        = diagHeader + 8 // struct inet_diag_sockid in the request
	diagCookie    = 40             // in that
	answerID      = diagHeader + 4
	answerSize    = diagHeader + 72
	tcpListen     = 10
	orphanTimeout = time.Second
)

// Destroy ends a connection of this host, whoever has it or nobody, as of a
// process that died. The kernel sends a reset unless something holds that back.
// It reports whether there was one. CAP_NET_ADMIN.
func Destroy(local, peer netip.AddrPort) (bool, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return false, fmt.Errorf("tcprepair: open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	limit := unix.NsecToTimeval(orphanTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return false, fmt.Errorf("tcprepair: sock_diag: %w", err)
	}
	// Without a connection of these ends the kernel names, and would destroy,
	// the listener. So the socket is looked at first, and then named by its
	// cookie, which no other one has.
	cookie, err := findSocket(fd, local, peer)
	if err != nil || cookie == 0 {
		return false, err
	}
	r := newDiagRequest(sockDestroy, unix.NLM_F_ACK, local, peer, cookie)
	if _, err := diagAsk(fd, r); err != nil && !errors.Is(err, unix.ENOENT) {
		return false, fmt.Errorf("tcprepair: destroy the connection of %s: %w", peer, err)
	}
	return true, nil
}

// findSocket returns the cookie of the connection, 0 for none.
func findSocket(fd int, local, peer netip.AddrPort) (uint64, error) {
	b, err := diagAsk(fd, newDiagRequest(unix.SOCK_DIAG_BY_FAMILY, 0, local, peer, ^uint64(0)))
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("tcprepair: look for the connection of %s: %w", peer, err)
	case len(b) < answerSize:
		return 0, fmt.Errorf("tcprepair: sock_diag answered with %d octets", len(b))
	case b[diagHeader+1] == tcpListen:
		return 0, nil
	}
	return binary.NativeEndian.Uint64(b[answerID+diagCookie:]), nil
}

// newDiagRequest names one socket; in struct inet_diag_sockid the source is the
// local end.
func newDiagRequest(kind, flags uint16, local, peer netip.AddrPort, cookie uint64) []byte {
	r, ne, be := make([]byte, diagRequest), binary.NativeEndian, binary.BigEndian
	ne.PutUint32(r[0:], diagRequest)
	ne.PutUint16(r[4:], kind)
	ne.PutUint16(r[6:], unix.NLM_F_REQUEST|flags)
	r[diagHeader] = unix.AF_INET
	if local.Addr().Is6() {
		r[diagHeader] = unix.AF_INET6
	}
	r[diagHeader+1] = unix.IPPROTO_TCP
	ne.PutUint32(r[diagHeader+4:], ^uint32(0)) // any state
	id := r[diagID:]
	be.PutUint16(id[0:], local.Port())
	be.PutUint16(id[2:], peer.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], peer.Addr().AsSlice())
	ne.PutUint64(id[diagCookie:], cookie)
	return r
}

// diagAsk sends one request and returns the answer, or the error it holds.
func diagAsk(fd int, request []byte) ([]byte, error) {
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return nil, err
	}
	if n < diagHeader+4 {
		return nil, fmt.Errorf("answer of %d octets", n)
	}
	if binary.NativeEndian.Uint16(buf[4:]) == unix.NLMSG_ERROR {
		if errno := -int32(binary.NativeEndian.Uint32(buf[diagHeader:])); errno != 0 {
			return nil, unix.Errno(errno)
		}
		return nil, nil
	}
	return buf[:n], nil
}
