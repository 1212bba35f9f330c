package health

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// sockets are the local addresses on which this host takes connections or datagrams.
type sockets map[netip.AddrPort]bool

// has tells whether an address is served, by a socket of its own or one of all
// addresses.
func (s sockets) has(a netip.AddrPort) bool {
	any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	return s[a] || s[netip.AddrPortFrom(any6, a.Port())] || a.Addr().Is4() && s[netip.AddrPortFrom(any4, a.Port())]
}

// Layout of sock_diag (linux/inet_diag.h), and the states asked for as bits
// (net/tcp_states.h): listening TCP, and UDP without a peer.
const (
	diagRequest = 72 // struct nlmsghdr and struct inet_diag_req_v2
	diagMessage = 72 // struct inet_diag_msg, without attributes
	stateListen = 1 << 10
	stateClose  = 1 << 7
)

// listening asks the kernel for every listening socket, of any process: the host's
// clients do not care whose it is. Established connections are never walked.
func listening() (sockets, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("health: open sock_diag: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, fmt.Errorf("health: sock_diag: %w", err)
	}
	out := make(sockets)
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		for protocol, states := range map[uint8]uint32{unix.IPPROTO_TCP: stateListen, unix.IPPROTO_UDP: stateClose} {
			if err := dump(fd, family, protocol, states, out); err != nil {
				return nil, fmt.Errorf("health: sock_diag: %w", err)
			}
		}
	}
	return out, nil
}

// dump adds the sockets of one family and protocol.
func dump(fd int, family, protocol uint8, states uint32, out sockets) error {
	req := make([]byte, diagRequest)
	binary.NativeEndian.PutUint32(req, diagRequest)
	binary.NativeEndian.PutUint16(req[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req[16], req[17] = family, protocol
	binary.NativeEndian.PutUint32(req[20:], states)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return err
		}
		done, err := parseDiag(buf[:n], out)
		if done || err != nil {
			return err
		}
	}
}

// parseDiag reads one datagram of an answer; done at its last message.
func parseDiag(data []byte, out sockets) (done bool, err error) {
	for len(data) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(data))
		if size < unix.SizeofNlMsghdr || size > len(data) {
			return false, fmt.Errorf("message of %d bytes in %d", size, len(data))
		}
		body := data[unix.SizeofNlMsghdr:size]
		switch binary.NativeEndian.Uint16(data[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) >= 4 {
				return true, unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
			}
			return true, unix.EIO
		case unix.SOCK_DIAG_BY_FAMILY:
			if len(body) >= diagMessage {
				out[localOf(body)] = true
			}
		}
		data = data[min((size+3)&^3, len(data)):]
	}
	return false, nil
}

// localOf is the local address of a struct inet_diag_msg: family, state, timer,
// retransmissions, then ports and addresses in network order.
func localOf(m []byte) netip.AddrPort {
	port := binary.BigEndian.Uint16(m[4:])
	if m[0] == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[8:12])), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m[8:24])).Unmap(), port)
}
