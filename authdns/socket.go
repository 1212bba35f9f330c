package authdns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// socket is one open socket of a listener; exactly one of packet and stream is set.
type socket struct {
	listener int // index into Config.Listeners
	level    placement.Level
	packet   net.PacketConn
	stream   net.Listener
	tls      *tls.Config // of stream, or of QUIC; nil: in clear
	http     string      // path of DNS over HTTPS; empty: DNS over TLS
	quic     bool        // of packet: DNS over QUIC
	// shared is set where another element has the same socket of the kernel.
	shared bool
}

// addr is the local address, as the kernel knows it.
func (k *socket) addr() netip.AddrPort {
	var a net.Addr
	if k.packet != nil {
		a = k.packet.LocalAddr()
	} else {
		a = k.stream.Addr()
	}
	return addrPort(a)
}

// close ends whoever reads from the socket.
func (k *socket) close() {
	if k.packet != nil {
		k.packet.Close()
	} else {
		k.stream.Close()
	}
}

// addrPort returns the address of a socket, the zero value for one that is
// neither UDP nor TCP.
func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort()
	case *net.TCPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// open opens the sockets of all listeners, or none; those that are held are taken.
func open(listeners []Listener, workers int, held *Held) ([]socket, error) {
	var out []socket
	for i, l := range listeners {
		opened, err := l.open(i, workers, held)
		out = append(out, opened...)
		if err != nil {
			for _, k := range out {
				k.close()
			}
			return nil, err
		}
	}
	return out, nil
}

// open opens a listener, or takes the sockets that were handed in; on error the
// ones already open come back too, for the caller to close.
func (l *Listener) open(index, workers int, held *Held) (out []socket, err error) {
	if l.Packet != nil || l.Stream != nil {
		return l.given(index, workers)
	}
	if l.QUIC {
		return l.openQUIC(index, held)
	}
	var packets []net.PacketConn
	if l.TLS == nil {
		packets = held.takePackets(l.Addr)
	}
	stream := held.takeStream(l.Addr)
	if l.TLS == nil && packets == nil && stream == nil {
		return openBoth(index, l, workers, 8)
	}
	if l.TLS == nil {
		if out, err = l.openHeld(index, workers, packets); err != nil {
			return out, err
		}
	}
	if stream == nil {
		if stream, err = listenTCP(l.Addr); err != nil {
			return out, err
		}
	}
	return append(out, socket{listener: index, level: l.Level, stream: stream, tls: l.TLS, http: l.HTTP}), nil
}

// openHeld makes sockets for all workers of those that are held. None is opened
// beside them: the kernel would give it clients at once, and nobody reads it yet.
func (l *Listener) openHeld(index, workers int, packets []net.PacketConn) (out []socket, err error) {
	for _, p := range packets {
		out = append(out, socket{listener: index, level: l.Level, packet: p})
	}
	for _, p := range packets {
		if err := replyFromAsked(p); err != nil {
			return out, err
		}
	}
	for i := len(out); i < workers; i++ {
		var p net.PacketConn
		if len(packets) > 0 {
			p, err = again(packets[i%len(packets)])
		} else {
			p, err = listenUDP(l.Addr)
		}
		if err != nil {
			return out, err
		}
		out = append(out, socket{listener: index, level: l.Level, packet: p, shared: len(packets) > 0})
	}
	return out, nil
}

// openQUIC opens the one socket of a listener for DNS over QUIC, or takes it: that of
// the process before. Others on its address, which somebody else was for, are let go.
func (l *Listener) openQUIC(index int, held *Held) ([]socket, error) {
	packets := held.takePackets(l.Addr)
	if len(packets) == 0 {
		p, err := listenUDP(l.Addr)
		if err != nil {
			return nil, err
		}
		packets = append(packets, p)
	}
	for _, p := range packets[1:] {
		p.Close()
	}
	return []socket{{listener: index, level: l.Level, packet: packets[0], tls: l.TLS, quic: true}}, nil
}

// given makes sockets of those in the Listener itself.
func (l *Listener) given(index, workers int) (out []socket, err error) {
	if l.QUIC {
		return []socket{{listener: index, level: l.Level, packet: l.Packet, tls: l.TLS, quic: true}}, nil
	}
	if l.Packet != nil {
		if out, err = l.openHeld(index, workers, []net.PacketConn{l.Packet}); err != nil {
			return out, err
		}
	}
	if l.Stream != nil {
		out = append(out, socket{listener: index, level: l.Level, stream: l.Stream, tls: l.TLS, http: l.HTTP})
	}
	return out, nil
}

// again returns a socket that was handed in once more, for another worker: whoever
// waits on one holds it alone.
func again(p net.PacketConn) (net.PacketConn, error) {
	u, ok := p.(*net.UDPConn)
	if !ok {
		return nil, fmt.Errorf("listen %s: a %T is not a UDP socket", p.LocalAddr(), p)
	}
	f, err := u.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// openBoth opens UDP and TCP on one port. Where the kernel chose it for UDP it
// may be taken for TCP: then another one, up to tries times.
func openBoth(index int, l *Listener, workers, tries int) ([]socket, error) {
	var out []socket
	addr := l.Addr
	for range workers {
		p, err := listenUDP(addr)
		if err != nil {
			return out, err
		}
		out = append(out, socket{listener: index, level: l.Level, packet: p})
		addr = addrPort(p.LocalAddr()) // the others share the port that 0 became
	}
	s, err := listenTCP(addr)
	if errors.Is(err, syscall.EADDRINUSE) && l.Addr.Port() == 0 && tries > 1 {
		for _, k := range out {
			k.close()
		}
		return openBoth(index, l, workers, tries-1)
	}
	if err != nil {
		return out, err
	}
	return append(out, socket{listener: index, level: l.Level, stream: s}), nil
}

// family returns the network name, since an IPv6 socket shall not take IPv4.
func family(network string, a netip.AddrPort) string {
	if a.Addr().Is4() {
		return network + "4"
	}
	return network + "6"
}

// listenUDP opens one of several sockets on an address; the kernel spreads the
// clients over them by hash.
func listenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: control}
	p, err := lc.ListenPacket(context.Background(), family("udp", addr), addr.String())
	if err != nil {
		return nil, err
	}
	if err := replyFromAsked(p); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// listenTCP opens the one listening socket of an address.
func listenTCP(addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{Control: control}
	lc.SetMultipathTCP(false)
	return lc.Listen(context.Background(), family("tcp", addr), addr.String())
}

// control prepares a socket before it is bound: several workers share a port,
// and an anycast address may be bound before it is up on this host.
func control(network, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		if network == "udp4" || network == "tcp4" {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_FREEBIND, 1))
		} else {
			err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1))
		}
	}); e != nil {
		return e
	}
	return err
}

// replyFromAsked lets a UDP socket that is bound to every address tell which of ours
// was asked, so that the reply leaves from it. One that is bound to a single address
// replies from that one anyway, and is spared what the telling costs with each datagram.
// It takes no path MTU from the network, where it can be forged (RFC 9715 section 3.1).
func replyFromAsked(p net.PacketConn) error {
	u, ok := p.(*net.UDPConn)
	if !ok {
		return fmt.Errorf("listen %s: a %T is not a UDP socket", p.LocalAddr(), p)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	local, tell := addrPort(u.LocalAddr()).Addr(), 0
	if local.IsUnspecified() {
		tell = 1
	}
	var serr error
	if err := raw.Control(func(fd uintptr) {
		if local.Is4() {
			serr = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, tell),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT))
		} else {
			serr = errors.Join(
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, tell),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT))
		}
	}); err != nil {
		return err
	}
	return serr
}
