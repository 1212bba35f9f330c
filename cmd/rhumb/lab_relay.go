package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"rhumb/placement"
)

// relay passes DNS messages of the host on to the low-level listener of the
// first site that answers. Every node gives the same answer, so it does not
// matter which one it is; a client subnet option passes untouched. run owns the
// sockets and every goroutine.
type relay struct {
	servers func() []netip.AddrPort
	tcp     net.Listener
	udp     net.PacketConn
}

// newRelay takes over the listeners which the supervisor has passed.
func newRelay(tcp, udp uintptr, servers func() []netip.AddrPort) (*relay, error) {
	l, err := net.FileListener(os.NewFile(tcp, "dns-tcp"))
	if err != nil {
		return nil, fmt.Errorf("lab: passed listener: %w", err)
	}
	p, err := net.FilePacketConn(os.NewFile(udp, "dns-udp"))
	if err != nil {
		return nil, fmt.Errorf("lab: passed socket: %w", err)
	}
	return &relay{servers: servers, tcp: l, udp: p}, nil
}

// nameServers are the low-level name servers of all sites, in order of site.
func nameServers(s *placement.Snapshot) []netip.AddrPort {
	if s == nil {
		return nil
	}
	var out []netip.AddrPort
	for _, site := range s.Inventory.Sites {
		for _, c := range site.Clusters {
			if c.Name == "dns" && len(c.Addresses) > 0 {
				out = append(out, c.Addresses[0])
			}
		}
	}
	return out
}

// relayed is how many queries may be under way; those beyond are dropped, as a
// name server drops what it has no room for.
const relayed = 1024

func (r *relay) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { r.tcp.Close(); r.udp.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.serveTCP(ctx, &wg) })
	room := make(chan struct{}, relayed)
	for {
		buf := make([]byte, 4096)
		n, from, err := r.udp.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("lab: dns relay: %w", err)
		}
		select {
		case room <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			defer func() { <-room }()
			if resp := r.ask(buf[:n]); resp != nil {
				r.udp.WriteTo(resp, from)
			}
		})
	}
}

// tryFor is how long one site may take before the next is asked, too; it is
// longer than the longest way through the lab and back.
const tryFor = 350 * time.Millisecond

// tries are all sites in turn, and then all once more with more time: on a machine that
// is busy none may be as fast as that.
func (r *relay) tries(each func(server netip.AddrPort, within time.Duration) (done bool)) {
	for _, within := range []time.Duration{tryFor, 3 * tryFor} {
		for _, server := range r.servers() {
			if each(server, within) {
				return
			}
		}
	}
}

// ask puts a query to one site after the other, over UDP.
func (r *relay) ask(query []byte) (resp []byte) {
	r.tries(func(server netip.AddrPort, within time.Duration) bool {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
		if err != nil {
			return false
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(within))
		buf := make([]byte, 4096)
		if _, err = conn.Write(query); err != nil {
			return false
		}
		n, err := conn.Read(buf)
		if err == nil {
			resp = buf[:n]
		}
		return err == nil
	})
	return resp
}

// serveTCP accepts until the listener is closed. Its callers' group waits for
// every connection.
func (r *relay) serveTCP(ctx context.Context, wg *sync.WaitGroup) {
	for {
		conn, err := r.tcp.Accept()
		if err != nil {
			return
		}
		wg.Go(func() { r.pipe(ctx, conn) })
	}
}

// pipe joins a TCP client with the first site that accepts, until one of the two
// has said all, or the lab ends: a site that was killed never closes anything.
func (r *relay) pipe(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	r.tries(func(server netip.AddrPort, within time.Duration) bool {
		up, err := net.DialTimeout("tcp", server.String(), within)
		if err != nil {
			return false
		}
		stop := context.AfterFunc(ctx, func() { conn.Close(); up.Close() })
		defer stop()
		var asking sync.WaitGroup
		asking.Go(func() {
			io.Copy(up, conn)
			up.(*net.TCPConn).CloseWrite()
		})
		io.Copy(conn, up)
		conn.Close()
		asking.Wait()
		up.Close()
		return true
	})
}
