package authdns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// serveUDP is one worker: it owns its socket, its buffers and its tally, and
// answers one query after another. It returns when the socket is closed.
func (s *Server) serveUDP(k socket) error {
	u := k.packet.(*net.UDPConn)
	t := s.tallies.add()
	in, out, oob := make([]byte, 4096), make([]byte, maxUDP), make([]byte, 128)
	for {
		n, noob, flags, src, err := u.ReadMsgUDPAddrPort(in, oob)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil && transient(err):
			s.metrics.dropped.WithLabelValues("read").Inc()
			continue
		case err != nil:
			return err
		}
		if flags&unix.MSG_TRUNC != 0 || src.Port() == 0 {
			s.metrics.dropped.WithLabelValues("malformed").Inc()
			continue
		}
		m := s.handle(in[:n], out, asker{addr: unmap(src), level: k.level}, t)
		if m == 0 {
			continue
		}
		if _, _, err := u.WriteMsgUDPAddrPort(out[:m], sameAddress(oob[:noob]), src); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			s.metrics.dropped.WithLabelValues("write").Inc()
		}
	}
}

// unmap makes an IPv4 client of a dual-stack socket an IPv4 client.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// transient tells whether a socket goes on after an error: the kernel reports
// what routers say about replies sent earlier, or has no memory just now.
func transient(err error) bool {
	for _, e := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sameAddress turns the control data of a request into that of its reply: the
// address stays, the interface is left to routing, since with anycast the way
// back is often another one. Link-local addresses keep theirs.
func sameAddress(oob []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= 12:
			return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])})
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 20:
			info := unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			if netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
				info.Ifindex = binary.NativeEndian.Uint32(m.Data[16:])
			}
			return unix.PktInfo6(&info)
		}
	}
	return nil
}

// dropSilent counts packets which are no queries; they get no reply.
const dropSilent = "not_a_query"

// proto is the label that CoreDNS uses, so that its panels work here.
func proto(from asker) string {
	if from.tcp {
		return "tcp"
	}
	return "udp"
}

// familyLabel is the address family by its number (RFC 7871, CoreDNS).
func familyLabel(from asker) string {
	if from.addr.Addr().Is4() {
		return "1"
	}
	return "2"
}
