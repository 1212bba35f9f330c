package bfd

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// SingleHop is where control packets of single-hop sessions go (RFC 5881 section 4).
	SingleHop uint16 = 3784
	// MultiHop is where those of RFC 5883 go. Some routers use it towards a
	// neighbour on their own link, because they take a session whose TTL is
	// raised for GTSM for one over several hops. We speak there as we do on the
	// other, TTL 255 included: nothing but the port is different.
	MultiHop uint16 = 4784
	// firstSource begins the range that packets come from; each session has a
	// port of its own there (RFC 5881 section 4).
	firstSource = 49152
	// ttl is sent, and asked of what is received: no router is between (RFC 5881 section 5).
	ttl = 255
	// class is CS6, network control, as a Traffic Class octet.
	class = 0xc0
)

// link is where a neighbour is: an interface, and our address beside the neighbour's.
type link struct {
	device string
	local  netip.Addr // without a zone
	scope  uint32     // the interface's number for a link-local address, else 0
}

// findLink finds the interface on which a neighbour is directly connected, and
// our address there: the one given, or the one the kernel would speak from.
func findLink(peer, local netip.Addr) (link, error) {
	if !local.IsValid() {
		var err error
		if local, err = kernelChoice(peer); err != nil {
			return link{}, err
		}
	}
	list, err := net.Interfaces()
	if err != nil {
		return link{}, fmt.Errorf("bfd: interfaces: %w", err)
	}
	for _, i := range list {
		if z := peer.Zone(); z != "" && z != i.Name {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return link{}, fmt.Errorf("bfd: addresses of %s: %w", i.Name, err)
		}
		if holds(addrs, peer.WithZone(""), local.WithZone("")) {
			l := link{device: i.Name, local: local.WithZone("")}
			if local.IsLinkLocalUnicast() && local.Is6() {
				l.scope = uint32(i.Index)
			}
			return l, nil
		}
	}
	return link{}, fmt.Errorf("bfd: %s is on no link of ours with %s; only neighbours on a link are watched", peer, local)
}

// holds tells whether both addresses are in one net of an interface.
func holds(addrs []net.Addr, peer, local netip.Addr) bool {
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Masked().Contains(peer) && p.Masked().Contains(local) {
			return true
		}
	}
	return false
}

// kernelChoice asks the routing table which address we would speak from.
func kernelChoice(peer netip.Addr) (netip.Addr, error) {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer, SingleHop)))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("bfd: way to %s: %w", peer, err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}

// option is a socket option with an integer value.
type option struct{ level, name, value int }

// options are those of every socket of a family.
func options(v6 bool) []option {
	if v6 {
		return []option{{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1}, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl},
			{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, class}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1}}
	}
	return []option{{unix.IPPROTO_IP, unix.IP_TTL, ttl}, {unix.IPPROTO_IP, unix.IP_TOS, class}, {unix.IPPROTO_IP, unix.IP_RECVTTL, 1}}
}

// open makes a socket on the link and binds it to the port.
func (l link) open(from uint16) (int, error) {
	family := unix.AF_INET
	if l.local.Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("bfd: socket: %w", err)
	}
	err = unix.BindToDevice(fd, l.device)
	for _, o := range options(l.local.Is6()) {
		if err == nil {
			err = unix.SetsockoptInt(fd, o.level, o.name, o.value)
		}
	}
	if err == nil {
		err = unix.Bind(fd, l.sockaddr(l.local, from))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bfd: %s port %d on %s: %w", l.local, from, l.device, err)
	}
	return fd, nil
}

// sockaddr puts an address of the link in the kernel's words.
func (l link) sockaddr(a netip.Addr, p uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(p), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(p), Addr: a.As16(), ZoneId: l.scope}
}

// dial makes a session's sending socket: its own source port, the neighbour as
// its only destination. chance picks the first port to try.
func (l link) dial(peer netip.Addr, port uint16, chance uint32) (int, error) {
	const span = 1<<16 - firstSource
	for i := range uint32(span) {
		fd, err := l.open(uint16(firstSource + (chance+i)%span))
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			return -1, err
		}
		if err := unix.Connect(fd, l.sockaddr(peer.WithZone(""), port)); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("bfd: connect to %s: %w", peer, err)
		}
		return fd, nil
	}
	return -1, fmt.Errorf("bfd: %s: no source port is free", l.local)
}

// inbox receives one packet after another into the same memory: the kernel
// writes through the pointers in hdr.
type inbox struct {
	data [128]byte
	ctl  [64]byte
	name unix.RawSockaddrInet6
	iov  unix.Iovec
	hdr  unix.Msghdr
}

func newInbox() *inbox {
	in := &inbox{}
	in.iov.Base = &in.data[0]
	in.iov.SetLen(len(in.data))
	in.hdr.Name, in.hdr.Iov = (*byte)(unsafe.Pointer(&in.name)), &in.iov
	in.hdr.SetIovlen(1)
	in.hdr.Control = &in.ctl[0]
	return in
}

// read takes a packet from a socket without waiting: its bytes, which are good
// until the next read, its sender and the TTL with which it came. ok is false
// when there is none. The raw call spares the runtime's bookkeeping for calls
// that may block, after which it could give our place to another goroutine.
func (in *inbox) read(fd int) (b []byte, from netip.Addr, hops int, ok bool) {
	for {
		in.hdr.Namelen = uint32(unsafe.Sizeof(in.name))
		in.hdr.SetControllen(len(in.ctl))
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(&in.hdr)), unix.MSG_DONTWAIT)
		switch errno {
		case 0:
			return in.data[:n], in.sender(), in.hops(), true
		case unix.EINTR:
		default:
			return nil, netip.Addr{}, 0, false
		}
	}
}

// sender is where the last packet came from.
func (in *inbox) sender() netip.Addr {
	if in.name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&in.name))
		return netip.AddrFrom4(v4.Addr)
	}
	return netip.AddrFrom16(in.name.Addr)
}

// hops is the TTL or hop limit in the last packet's control data, -1 when the
// kernel gave none.
func (in *inbox) hops() int {
	rest := in.ctl[:in.hdr.Controllen]
	for len(rest) >= unix.SizeofCmsghdr {
		h, data, next, err := unix.ParseOneSocketControlMessage(rest)
		if err != nil {
			return -1
		}
		v4 := h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TTL
		if v6 := h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_HOPLIMIT; (v4 || v6) && len(data) >= 4 {
			return int(*(*int32)(unsafe.Pointer(&data[0])))
		}
		rest = next
	}
	return -1
}

// write sends a packet to a connected socket's neighbour without waiting.
func write(fd int, b []byte) error {
	for range 3 {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR, unix.ECONNREFUSED, unix.EHOSTUNREACH:
			// What an earlier packet met (ICMP) is told to the next call, which sent nothing.
		default:
			return errno
		}
	}
	return unix.ECONNREFUSED
}
