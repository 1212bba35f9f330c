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

	"rhumb/internal/config"
)

// relay passes DNS messages of the host on to the low-level listener of the
// first site that answers. Every node gives the same answer, so it does not
// matter which one it is; a client subnet option passes untouched.
type relay struct {
	unit *unit
	tcp  net.Listener
	udp  net.PacketConn
}

func newRelay(_ *config.Node, tcp, udp uintptr, u *unit) (*relay, error) {
	l, err := net.FileListener(os.NewFile(tcp, "dns-tcp"))
	if err != nil {
		return nil, fmt.Errorf("lab: passed listener: %w", err)
	}
	p, err := net.FilePacketConn(os.NewFile(udp, "dns-udp"))
	if err != nil {
		return nil, fmt.Errorf("lab: passed socket: %w", err)
	}
	return &relay{unit: u, tcp: l, udp: p}, nil
}

// servers are the low-level name servers of all sites, by name of site.
func (r *relay) servers() []netip.AddrPort {
	var out []netip.AddrPort
	s := r.unit.current.Load()
	if s == nil {
		return nil
	}
	for _, site := range s.Inventory.Sites {
		for _, c := range site.Clusters {
			if c.Name == "dns" && len(c.Addresses) > 0 {
				out = append(out, c.Addresses[0])
			}
		}
	}
	return out
}

func (r *relay) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { r.tcp.Close(); r.udp.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.serveTCP(ctx, &wg) })
	for {
		buf := make([]byte, 4096)
		n, from, err := r.udp.ReadFrom(buf)
		if err != nil {
			return nil
		}
		wg.Go(func() {
			if resp := r.ask(buf[:n]); resp != nil {
				r.udp.WriteTo(resp, from)
			}
		})
	}
}

// tryFor is how long one site may take before the next is asked, too; it is
// longer than the longest way through the lab and back.
const tryFor = 350 * time.Millisecond

// ask puts a query to one site after the other, over UDP.
func (r *relay) ask(query []byte) []byte {
	for _, server := range r.servers() {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(tryFor))
		resp := make([]byte, 4096)
		_, err = conn.Write(query)
		n := 0
		if err == nil {
			n, err = conn.Read(resp)
		}
		conn.Close()
		if err == nil {
			return resp[:n]
		}
	}
	return nil
}

func (r *relay) serveTCP(ctx context.Context, wg *sync.WaitGroup) {
	for {
		conn, err := r.tcp.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			r.pipe(conn)
		})
	}
}

// pipe joins a TCP client with the first site that accepts.
func (r *relay) pipe(conn net.Conn) {
	for _, server := range r.servers() {
		up, err := net.DialTimeout("tcp", server.String(), tryFor)
		if err != nil {
			continue
		}
		defer up.Close()
		go func() {
			io.Copy(up, conn)
			up.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(conn, up)
		return
	}
}
