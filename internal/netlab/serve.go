package netlab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

// Serve answers clients on the given sockets until ctx ends, then closes them.
func (r *Resolver) Serve(ctx context.Context, packets []net.PacketConn, listeners []net.Listener, log *slog.Logger) error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if err := w.WriteMsg(r.respond(ctx, w.RemoteAddr(), q)); err != nil {
			log.Debug("client of resolver not answered", "err", err)
		}
	})
	var servers []*dns.Server
	for _, p := range packets {
		servers = append(servers, &dns.Server{PacketConn: p, Handler: handler})
	}
	for _, l := range listeners {
		servers = append(servers, &dns.Server{Listener: l, Handler: handler})
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		g.Go(func() error {
			if err := s.ActivateAndServe(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("netlab: resolver: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			<-started
			return s.Shutdown()
		})
	}
	return g.Wait()
}

// ServeHost serves at port 53 of every address of a host.
func (r *Resolver) ServeHost(ctx context.Context, h *Host, addrs []netip.Addr, log *slog.Logger) error {
	var packets []net.PacketConn
	var listeners []net.Listener
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, 53).String()
		p, err := h.ListenPacket(ctx, "udp", at)
		if err != nil {
			return errors.Join(fmt.Errorf("netlab: resolver at %s: %w", h.Name, err), closeSockets(packets, listeners))
		}
		packets = append(packets, p)
		l, err := h.Listen(ctx, "tcp", at)
		if err != nil {
			return errors.Join(fmt.Errorf("netlab: resolver at %s: %w", h.Name, err), closeSockets(packets, listeners))
		}
		listeners = append(listeners, l)
	}
	return r.Serve(ctx, packets, listeners, log)
}

// closeSockets closes those opened before one failed.
func closeSockets(packets []net.PacketConn, listeners []net.Listener) error {
	var errs []error
	for _, p := range packets {
		errs = append(errs, p.Close())
	}
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// respond makes the reply to a client's query.
func (r *Resolver) respond(ctx context.Context, from net.Addr, q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	size := dns.MinMsgSize
	if _, tcp := from.(*net.TCPAddr); tcp {
		size = dns.MaxMsgSize
	} else if opt := q.IsEdns0(); opt != nil {
		size = max(size, int(opt.UDPSize()))
	}
	switch {
	case q.Opcode != dns.OpcodeQuery:
		m.Rcode = dns.RcodeNotImplemented
	case len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET || q.Question[0].Qtype == dns.TypeANY:
		m.Rcode = dns.RcodeRefused
	case !q.RecursionDesired:
		m.Rcode = dns.RcodeRefused // only the cache could answer, and it is nobody's business
	default:
		r.fill(ctx, m, q, addrOf(from))
	}
	m.Truncate(size)
	return m
}

// fill resolves the query's question into m.
func (r *Resolver) fill(ctx context.Context, m, q *dns.Msg, from netip.Addr) {
	network := r.clientNetwork(q, from)
	a := r.Resolve(ctx, q.Question[0].Name, q.Question[0].Qtype, network)
	m.Rcode, m.Answer, m.Ns = a.Rcode, a.Answer, a.Authority
	if q.IsEdns0() == nil {
		return
	}
	m.SetEdns0(ednsSize, q.IsEdns0().Do())
	if named, _, ok := subnetIn(q); ok && r.cfg.ECS {
		m.IsEdns0().Option = append(m.IsEdns0().Option, subnetOption(named, max(a.Scope.Bits(), 0)))
	}
	if errors.Is(a.Err, errAllSilent) {
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_EDE{
			InfoCode: dns.ExtendedErrorCodeNoReachableAuthority, ExtraText: a.Err.Error(),
		})
	}
}

// addrOf is the client's address; mapped IPv4 counts as IPv4.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// HostExchanger asks servers from a host, by a socket of its own for each
// question, so that the source port is a new one each time (RFC 5452).
type HostExchanger struct{ Host *Host }

// Exchange asks over UDP, or over TCP.
func (x HostExchanger) Exchange(ctx context.Context, server netip.AddrPort, query *dns.Msg, tcp bool) (*dns.Msg, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	conn, err := x.Host.Dial(ctx, network, server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	client := dns.Client{Net: network, UDPSize: ednsSize}
	m, _, err := client.ExchangeWithConnContext(ctx, query, &dns.Conn{Conn: conn, UDPSize: ednsSize})
	return m, err
}
