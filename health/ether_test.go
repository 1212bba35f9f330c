package health

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"rhumb/placement"
)

// ether carries datagrams between the agents of a bubble, at once and in order.
type ether struct {
	mu    sync.Mutex
	ports map[netip.AddrPort]*port
	// lost tells which datagrams are lost; nil: none.
	lost func(from, to netip.AddrPort) bool
	// seen gets every datagram, also lost ones.
	seen func(from, to netip.AddrPort, data []byte)
}

// port is a net.PacketConn on the ether.
type port struct {
	net  *ether
	addr netip.AddrPort
	in   chan []byte

	mu       sync.Mutex
	deadline time.Time
	moved    chan struct{} // closed when the deadline moves
}

func newEther() *ether { return &ether{ports: make(map[netip.AddrPort]*port)} }

func (e *ether) open(i int) *port {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := &port{net: e, addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7000), in: make(chan []byte, 1024), moved: make(chan struct{})}
	e.ports[p.addr] = p
	return p
}

func (e *ether) deliver(from, to netip.AddrPort, data []byte) {
	e.mu.Lock()
	p, lost := e.ports[to], e.lost
	if e.seen != nil {
		e.seen(from, to, slices.Clone(data))
	}
	e.mu.Unlock()
	if p != nil && (lost == nil || !lost(from, to)) {
		p.in <- slices.Clone(data)
	}
}

func (e *ether) lose(f func(from, to netip.AddrPort) bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost = f
}

func (p *port) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.mu.Lock()
		left, moved := time.Until(p.deadline), p.moved
		p.mu.Unlock()
		if left <= 0 {
			return 0, nil, os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		select {
		case data := <-p.in:
			t.Stop()
			return copy(b, data), nil, nil
		case <-t.C:
		case <-moved:
			t.Stop()
		}
	}
}

func (p *port) WriteTo(b []byte, to net.Addr) (int, error) {
	p.net.deliver(p.addr, to.(*net.UDPAddr).AddrPort(), b)
	return len(b), nil
}

func (p *port) SetReadDeadline(at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline = at
	close(p.moved)
	p.moved = make(chan struct{})
	return nil
}

func (p *port) Close() error {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	delete(p.net.ports, p.addr)
	return nil
}

func (p *port) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(p.addr) }
func (p *port) SetDeadline(time.Time) error      { return nil }
func (p *port) SetWriteDeadline(time.Time) error { return nil }

// station is an agent in a bubble, with the votes that it cast.
type station struct {
	*Agent
	site  string
	mu    sync.Mutex
	cast  []placement.Vote
	ended []placement.ClusterID
	stop  func()
}

// start runs the agent of site i (sites are named s1, s2 …) which knows n sites.
func start(t *testing.T, e *ether, i, n int, incarnation uint32, more func(*Config)) *station {
	t.Helper()
	s := &station{site: siteName(i)}
	c := Config{Node: s.site + "-a", Site: s.site, Domain: s.site, NodeID: uint16(i), Incarnation: incarnation, Beat: e.open(i), Interval: beatInterval,
		Sink: func(v placement.Vote) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.cast = append(s.cast, v)
		},
		Ended: func(id placement.ClusterID) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ended = append(s.ended, id)
		}, Log: quiet()}
	if more != nil {
		more(&c)
	}
	s.Agent = New(c)
	s.Set(peersOf(i, n), nil)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	s.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(s.stop)
	return s
}

func siteName(i int) string { return "s" + string(rune('0'+i)) }

func peersOf(i, n int) (out []Peer) {
	for k := 1; k <= n; k++ {
		if k != i {
			out = append(out, Peer{Site: siteName(k), NodeID: uint16(k), Addr: stationAddr(k), Keys: [][32]byte{{9}}})
		}
	}
	return out
}

func stationAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7000)
}

// on returns the last vote on a site.
func (s *station) on(i int) (last placement.Vote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range s.cast {
		if v.Object == placement.SiteID(siteName(i)) {
			last = v
		}
	}
	return last
}

func (s *station) votes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.cast)
}

func silent(i int) func(from, to netip.AddrPort) bool {
	return func(from, to netip.AddrPort) bool { return from == stationAddr(i) || to == stationAddr(i) }
}
