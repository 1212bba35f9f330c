package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TCP states as the kernel numbers them in inet_diag (net/tcp_states.h).
const (
	tcpEstablished = 1
	tcpSynRecv     = 3
	tcpFinWait1    = 4
	tcpFinWait2    = 5
	tcpTimeWait    = 6
	tcpClose       = 7
	tcpCloseWait   = 8
	tcpLastAck     = 9
	tcpListen      = 10
	tcpClosing     = 11

	// liveStates are those of a session which still needs its client's
	// packets. TIME_WAIT isn't: the server has let go of it.
	liveStates = 1<<tcpSynRecv | begunStates
	// begunStates are the live ones that a server knows of. SYN_RECV isn't: whoever
	// sent a SYN and went away leaves it behind for a minute.
	begunStates = 1<<tcpEstablished | 1<<tcpFinWait1 | 1<<tcpFinWait2 |
		1<<tcpCloseWait | 1<<tcpLastAck | 1<<tcpClosing
)

const (
	// requestSize is that of struct nlmsghdr and struct inet_diag_req_v2
	// (linux/inet_diag.h).
	requestSize  = 16 + 56
	messageSize  = 72 // struct inet_diag_msg
	nlHeaderSize = 16
)

// diag asks the kernel about its TCP sockets, in the network namespace where
// it was opened. It is safe for concurrent use: one request at a time.
type diag struct {
	mu  sync.Mutex
	fd  int
	buf [32 << 10]byte
	seq uint32
}

// openDiag needs no privilege: an ordinary user may see sockets' addresses.
func openDiag() (*diag, error) {
	fd, err := openNetlink(unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, fmt.Errorf("forward: open inet_diag: %w", err)
	}
	return &diag{fd: fd}, nil
}

// openNetlink opens a socket for exact questions. The kernel answers one before
// send returns; the limit only keeps a lost answer from holding us up for ever.
func openNetlink(protocol int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	limit := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (d *diag) close() { _ = unix.Close(d.fd) }

// owned tells whether this host has a connection for the flow, in any state
// that wants the client's packets, TIME_WAIT included.
//
// The request is exact: one look-up in the kernel's hash table. Without a
// connection the kernel goes on to look for a listener and reports that one,
// so the state LISTEN means no.
func (d *diag) owned(f Flow) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	request := exactRequest(f, d.seq)
	if err := unix.Sendto(d.fd, request[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false, fmt.Errorf("forward: ask inet_diag about %s: %w", f, err)
	}
	for {
		n, err := receive(d.fd, d.buf[:])
		if err != nil {
			return false, fmt.Errorf("forward: read inet_diag about %s: %w", f, err)
		}
		if n < nlHeaderSize || binary.NativeEndian.Uint32(d.buf[8:]) != d.seq {
			continue // the late answer to an earlier request
		}
		state, err := exactAnswer(d.buf[:n])
		if err != nil {
			return false, fmt.Errorf("forward: inet_diag about %s: %w", f, err)
		}
		return state != 0 && state != tcpListen && state != tcpClose, nil
	}
}

// receive reads one netlink datagram. A signal may end a read that has a limit,
// whatever the signal's handler says (signal(7)).
func receive(fd int, b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// exactAnswer reads a reply: the state of the socket, or 0 for none.
func exactAnswer(b []byte) (state byte, err error) {
	switch binary.NativeEndian.Uint16(b[4:]) {
	case unix.NLMSG_ERROR:
		if len(b) < nlHeaderSize+4 {
			return 0, errShort
		}
		errno := unix.Errno(-int32(binary.NativeEndian.Uint32(b[nlHeaderSize:])))
		if errno == unix.ENOENT {
			return 0, nil
		}
		return 0, errno
	case unix.SOCK_DIAG_BY_FAMILY:
		if len(b) < nlHeaderSize+messageSize {
			return 0, errShort
		}
		return b[nlHeaderSize+1], nil
	}
	return 0, errors.New("unexpected type of reply")
}

// exactRequest asks for the one socket of a flow. In struct inet_diag_sockid,
// source is the local end: the VIP. The interface index stays 0; a socket
// bound to a device isn't found.
func exactRequest(f Flow, seq uint32) [requestSize]byte {
	r := newRequest(f.VIP.Addr(), unix.NLM_F_REQUEST, ^uint32(0), seq)
	id := r[24:]
	binary.BigEndian.PutUint16(id[0:], f.VIP.Port())
	binary.BigEndian.PutUint16(id[2:], f.Client.Port())
	copy(id[4:20], f.VIP.Addr().AsSlice())
	copy(id[20:36], f.Client.Addr().AsSlice())
	binary.NativeEndian.PutUint64(id[40:], ^uint64(0)) // any cookie
	return r
}

// newRequest fills the parts that exact requests and dumps share: struct
// nlmsghdr in the host's byte order, then family, protocol and states.
func newRequest(family netip.Addr, flags uint16, states, seq uint32) (r [requestSize]byte) {
	binary.NativeEndian.PutUint32(r[0:], requestSize)
	binary.NativeEndian.PutUint16(r[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(r[6:], flags)
	binary.NativeEndian.PutUint32(r[8:], seq)
	r[16] = unix.AF_INET
	if family.Is6() {
		r[16] = unix.AF_INET6
	}
	r[17] = unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(r[20:], states)
	return r
}

// dump calls visit for each connection of a local port in one of the states, in one family.
// A server with one socket for both families has its IPv4 connections in the
// IPv6 list, as mapped addresses; visit sees them as IPv4.
func (d *diag) dump(port uint16, family netip.Addr, states uint32, visit func(Flow)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	request := newRequest(family, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, states, d.seq)
	binary.BigEndian.PutUint16(request[24:], port)
	if err := unix.Sendto(d.fd, request[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("forward: dump sockets of port %d: %w", port, err)
	}
	for {
		n, err := receive(d.fd, d.buf[:])
		if err != nil {
			return fmt.Errorf("forward: dump sockets of port %d: %w", port, err)
		}
		done, err := readDump(d.buf[:n], d.seq, visit)
		if err != nil {
			return fmt.Errorf("forward: dump sockets of port %d: %w", port, err)
		}
		if done {
			return nil
		}
	}
}

// readDump visits the sockets of one datagram of a dump and tells whether it
// was the last.
func readDump(b []byte, seq uint32, visit func(Flow)) (done bool, err error) {
	for len(b) >= nlHeaderSize {
		size := int(binary.NativeEndian.Uint32(b))
		if size < nlHeaderSize || size > len(b) {
			return false, errShort
		}
		message := b[:size]
		b = b[min(len(b), (size+3)&^3):]
		if binary.NativeEndian.Uint32(message[8:]) != seq {
			continue
		}
		switch binary.NativeEndian.Uint16(message[4:]) {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			_, err := exactAnswer(message)
			return true, err
		case unix.SOCK_DIAG_BY_FAMILY:
			if size >= nlHeaderSize+messageSize {
				visit(diagFlow(message[nlHeaderSize:]))
			}
		}
	}
	return false, nil
}

// diagFlow reads the two ends of a struct inet_diag_msg.
func diagFlow(m []byte) Flow {
	end := func(addr, port []byte) netip.AddrPort {
		a := netip.AddrFrom4([4]byte(addr[:4]))
		if m[0] == unix.AF_INET6 {
			a = netip.AddrFrom16([16]byte(addr[:16])).Unmap()
		}
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
	}
	return Flow{Client: end(m[24:], m[6:]), VIP: end(m[8:], m[4:])}
}
