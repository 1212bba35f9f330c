package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tunnelSocket is the UDP socket of the tunnel.
type tunnelSocket struct {
	conn *net.UDPConn
	pool sync.Pool // of *[]byte, for datagrams being built
}

// listenTunnel binds the tunnel's address. Datagrams are never fragmented
// (RFC 8900): if one is too large for the path, we learn it.
func listenTunnel(local netip.AddrPort) (*tunnelSocket, error) {
	network, level, option, value := "udp4", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if local.Addr().Is6() {
		network, level, option, value = "udp6", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	var failed error
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		err := raw.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), level, option, value)
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
			}
			_ = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) // else they come one by one
		})
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(context.Background(), network, local.String())
	if err != nil {
		return nil, fmt.Errorf("forward: listen for tunnels on %s: %w", local, err)
	}
	return &tunnelSocket{conn: conn.(*net.UDPConn)}, nil
}

// close ends reads in progress.
func (t *tunnelSocket) close() { _ = t.conn.Close() }

// readStrays judges what the rules copied to us.
func (f *Forwarder) readStrays(ctx context.Context, e *ends) error {
	r := strayReader{Forwarder: f, out: newOutbox(f)}
	err := e.rim.strays.drain(make([]byte, largestInput), r.judge, r.rest)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("forward: read strays: %w", err)
}

// strayReader is what belongs to the goroutine that reads strays.
type strayReader struct {
	*Forwarder
	out   *outbox
	steps []step
}

// rest comes before a wait.
func (r *strayReader) rest() { r.out.flush(r.now()) }

// judge handles one stray. What isn't to a VIP didn't come from our rules, but
// from the host's own chatter on the device.
func (r *strayReader) judge(packet []byte) {
	now := r.now()
	s, err := parsePacket(packet)
	if err != nil {
		if errors.Is(err, errFragment) {
			r.giveBack(packet)
		}
		return
	}
	mode, table, ours := r.treat(s.session)
	if !ours {
		return
	}
	if q := r.quic.Load(); s.proto == protoUDP && q.VIPs[s.flow.VIP].Owner == ByConnectionID {
		r.steps = r.judgeQUIC(now, s, q, r.steps[:0])
	} else {
		r.mu.Lock()
		r.steps = table.packet(now, s.flow, s.packet, mode == Observe, r.steps[:0])
		r.mu.Unlock()
	}
	r.runBy(r.out, now, table, r.steps)
}

// treat returns how packets of a session are treated, and the table for its
// foreign ones; not ours are those to other addresses than the VIPs.
func (f *Forwarder) treat(s session) (mode Mode, table *owners, ours bool) {
	if s.proto == protoUDP {
		v, ours := f.quic.Load().VIPs[s.flow.VIP]
		return v.Mode, f.udp, ours
	}
	mode, ours = (*f.vips.Load())[s.flow.VIP]
	return mode, f.owners, ours
}

// run does what was decided, in order and without the lock: sending may block,
// and OnForeign may call us.
func (f *Forwarder) run(now time.Time, table *owners, steps []step) {
	f.runBy(f, now, table, steps)
}

func (f *Forwarder) runBy(t tunneller, now time.Time, table *owners, steps []step) {
	for i := range steps {
		s := &steps[i]
		switch s.do {
		case doTunnel:
			t.tunnel(now, s.site, s.packet)
		case doGiveBack:
			f.giveBack(s.packet)
		case doAsk:
			f.ask(now, s.site, session{proto: table.proto, flow: s.flow})
		case doHeld:
			if f.onHeld != nil {
				f.onHeld(s.flow, s.packet)
			}
		case doForeign:
			// Only TCP sessions can be moved.
			if f.onForeign != nil && table.proto == protoTCP {
				f.onForeign(s.flow, s.site, s.since)
			}
		}
		s.packet = nil
	}
}

// giveBack lets the kernel judge a packet by itself.
func (f *Forwarder) giveBack(packet []byte) {
	e := f.ends.Load()
	if e == nil || len(packet) == 0 {
		return
	}
	if err := e.rim.giveBack.write(packet); err != nil {
		f.complain(fmt.Errorf("forward: give a packet back: %w", err))
	}
}

// tunnel sends a packet to the site that owns its session.
func (f *Forwarder) tunnel(now time.Time, site string, packet []byte) {
	p := f.peers.Load().find(site)
	if p == nil {
		return // the peer left the group since
	}
	r, via := f.relayTo(p)
	err := f.sendPacket(now, p, r, via, packet)
	// The kernel knows from a router's ICMP error that the path is smaller
	// than was said (RFC 1191, RFC 8201).
	if errors.Is(err, unix.EMSGSIZE) {
		next := p
		if via != nil {
			next = via
		}
		next.path.Store(&path{mtu: pathMTU(next.Addr), until: now.Add(pathLife)})
		err = f.sendPacket(now, p, r, via, packet)
	}
	if err != nil {
		f.complain(fmt.Errorf("forward: tunnel to %s: %w", site, err))
		return
	}
	p.packets.Inc()
	p.octets.Add(float64(len(packet)))
	if via != nil {
		r.packets.Add(1)
		r.octets.Add(uint64(len(packet)))
	}
}

// sendPacket sends a packet whole if the path carries it, else in parts.
func (f *Forwarder) sendPacket(now time.Time, p *peer, r *route, via *peer, packet []byte) error {
	room := f.roomTo(now, p, r, via)
	if len(packet) <= room {
		return f.sendBy(p, via, kindPacket, packet)
	}
	return splitParts(p.parts.Add(1), packet, room-partHeader, func(body []byte) error {
		return f.sendBy(p, via, kindPart, body)
	})
}

// send seals one datagram and sends it the way that is in use.
func (f *Forwarder) send(p *peer, k kind, body []byte) error {
	_, via := f.relayTo(p)
	return f.sendBy(p, via, k, body)
}

// sendBy sends one datagram by a relay, or directly if via is nil. It takes no lock and
// allocates nothing but now and then a buffer.
func (f *Forwarder) sendBy(p, via *peer, k kind, body []byte) error {
	e := f.ends.Load()
	if e == nil {
		return net.ErrClosed
	}
	buf, _ := e.tunnel.pool.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	at, to := 0, p.Addr
	if via != nil {
		at, to = relayHead, via.Addr
	}
	b := slices.Grow((*buf)[:0], at+overhead+len(body)+tagSize)[:at+headerSize]
	b = append(b, body...)
	inner := p.out.close(b[at:], k, f.id, p.salt, p.seq.Add(1))
	b = b[:at+len(inner)]
	if via != nil {
		copy(b[headerSize:], p.id[:])
		b = via.out.close(b, kindRelay, f.id, via.salt, via.seq.Add(1))
	}
	_, err := e.tunnel.conn.WriteToUDPAddrPort(b, to)
	*buf = b
	e.tunnel.pool.Put(buf)
	return err
}

// pathMTU asks the kernel what it has learnt of the path to a site.
func pathMTU(to netip.AddrPort) int {
	network, level, option := "udp4", unix.IPPROTO_IP, unix.IP_MTU
	if to.Addr().Is6() {
		network, level, option = "udp6", unix.IPPROTO_IPV6, unix.IPV6_MTU
	}
	// A connected socket has a path; nothing is sent.
	conn, err := net.DialUDP(network, nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return smallMTU
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return smallMTU
	}
	mtu := 0
	_ = raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), level, option) })
	if err != nil || mtu < leastMTU {
		return smallMTU
	}
	return mtu
}

// ask sends a question, and times it if no other is being timed.
func (f *Forwarder) ask(now time.Time, site string, s session) {
	p := f.peers.Load().find(site)
	if p == nil {
		return
	}
	f.mu.Lock()
	if p.sample.sent.IsZero() || now.Sub(p.sample.sent) > time.Second {
		p.sample.of, p.sample.sent = s, now
	}
	f.mu.Unlock()
	if err := f.send(p, kindAsk, appendSession(nil, s)); err != nil {
		f.complain(fmt.Errorf("forward: ask %s: %w", site, err))
	}
}
