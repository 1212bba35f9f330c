package forward

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// patience bounds every wait for something that must happen, however busy the
// machine is.
const patience = 30 * time.Second

// half is a forwarder without rules and devices: the host's side of its
// devices are pipes.
type half struct {
	*Forwarder
	strays, kernel *os.File // what the rules copy; what it gives back
	inner          *os.File // what came by tunnel
	registered     *prometheus.Registry
}

// newHalf starts the loops of a forwarder at an address of the loopback net.
func newHalf(t *testing.T, c Config) *half {
	t.Helper()
	registry := prometheus.NewRegistry()
	c.Registerer = registry
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	h := &half{Forwarder: f, registered: registry}
	e := &ends{rim: &rim{}}
	device := func() (*port, *os.File) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return &port{file: os.NewFile(uintptr(fds[0]), "near")}, os.NewFile(uintptr(fds[1]), "far")
	}
	e.rim.strays, h.strays = device()
	e.rim.giveBack, h.kernel = device()
	h.inner = h.strays
	if e.tunnel, err = listenTunnel(c.Local); err != nil {
		t.Fatal(err)
	}
	if e.diag, err = openDiag(); err != nil {
		t.Fatal(err)
	}
	if e.flows, err = openFlowSet(); err != nil {
		t.Fatal(err)
	}
	f.ends.Store(e)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 4)
	go func() { done <- f.findWays(ctx) }()
	go func() { done <- f.readStrays(ctx, e) }()
	go func() { done <- f.readTunnel(ctx, e) }()
	go func() { done <- f.tick(ctx) }()
	t.Cleanup(func() {
		stop()
		e.interrupt()
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		e.diag.close()
		e.flows.close()
		_ = e.rim.giveBack.file.Close()
		_ = h.strays.Close()
		_ = h.kernel.Close()
	})
	return h
}

// next reads a packet from a device, or nil if none comes in time.
func next(t *testing.T, file *os.File, within time.Duration) []byte {
	t.Helper()
	if err := file.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, largestInput)
	n, err := file.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// freePort finds a UDP port for a tunnel.
func freePort(t *testing.T, ip string) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// pair is an ingress and an owner with one real TCP connection.
type pair struct {
	ingress, owner *half
	flow           Flow
	client, server net.Conn
}

func newPair(t *testing.T, ip string, change func(ingress, owner *Config)) *pair {
	t.Helper()
	p := &pair{}
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	if p.client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if p.server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.client.Close(); _ = p.server.Close() })
	p.flow = Flow{Client: p.client.LocalAddr().(*net.TCPAddr).AddrPort(), VIP: listener.Addr().(*net.TCPAddr).AddrPort()}
	a, b := freePort(t, ip), freePort(t, ip)
	key := [32]byte{9}
	// The clock stands still unless a test says otherwise: what a site does when it has
	// waited for long is not to happen because the machine was busy.
	began := time.Now()
	still := func() time.Time { return began }
	ic := Config{Site: "in", Local: a, Peers: []Peer{{Site: "own", Addr: b, Key: key}}, VIPs: []netip.AddrPort{p.flow.VIP}, Mode: Act, Now: still}
	oc := Config{Site: "own", Local: b, Peers: []Peer{{Site: "in", Addr: a, Key: key}}, VIPs: []netip.AddrPort{p.flow.VIP}, Mode: Act, Now: still}
	if change != nil {
		change(&ic, &oc)
	}
	p.ingress, p.owner = newHalf(t, ic), newHalf(t, oc)
	return p
}

func (p *pair) stray(t *testing.T, f Flow, payload string) []byte {
	t.Helper()
	packet := tcpPacket(f, flagACK, payload)
	if _, err := p.ingress.strays.Write(packet); err != nil {
		t.Fatal(err)
	}
	return packet
}

func eachFamily(t *testing.T, test func(t *testing.T, ip string)) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) { test(t, ip) })
	}
}

// TestStrayReachesOwner sends small and large strays; the owner is found by
// its kernel.
func TestStrayReachesOwner(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		told := make(chan string, 10)
		p := newPair(t, ip, func(in, _ *Config) {
			in.OnForeign = func(f Flow, owner string, _ time.Time) { told <- f.String() + " " + owner }
		})
		for _, payload := range []string{"", "hello", strings.Repeat("x", 1380), strings.Repeat("y", 5000)} {
			want := p.stray(t, p.flow, payload)
			if got := next(t, p.owner.inner, patience); !bytes.Equal(got, want) {
				t.Fatalf("%d octets: the owner got %d", len(want), len(got))
			}
		}
		if got, want := <-told, p.flow.String()+" own"; got != want {
			t.Errorf("OnForeign was told %q, want %q", got, want)
		}
		flows := p.ingress.Flows()
		if len(flows) != 1 || flows[0].Flow != p.flow || flows[0].Owner != "own" || flows[0].Packets != 4 {
			t.Errorf("flows %+v", flows)
		}
	})
}

// TestStrayOfNobodyIsGivenBack covers a flow without a socket, whose VIP has a
// listener: the exact request finds that, and must not take it for the session.
func TestStrayOfNobodyIsGivenBack(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		p := newPair(t, ip, nil)
		strange := Flow{Client: netip.AddrPortFrom(p.flow.Client.Addr(), 1), VIP: p.flow.VIP}
		// The first waits for the answer, whose reader gives it back; the second may come just
		// behind the answer, and be given back by the reader of strays before that.
		want := [][]byte{p.stray(t, strange, "one"), p.stray(t, strange, "two")}
		got := [][]byte{next(t, p.ingress.kernel, patience), next(t, p.ingress.kernel, patience)}
		slices.SortFunc(got, bytes.Compare)
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("given back %q, want %q", got, want)
		}
		if got := next(t, p.owner.inner, 0); got != nil {
			t.Errorf("the other site got %d octets", len(got))
		}
	})
}

// TestGoneIsAskedAnew closes the session while strays are forwarded: the owner
// says so, and the ingress gives the next packet back.
func TestGoneIsAskedAnew(t *testing.T) {
	// The owner looks at its sockets again after a while.
	p := newPair(t, "127.0.0.1", func(in, own *Config) { in.Now, own.Now = time.Now, time.Now })
	p.stray(t, p.flow, "one")
	if got := next(t, p.owner.inner, patience); got == nil {
		t.Fatal("nothing arrived")
	}
	for _, conn := range []net.Conn{p.client, p.server} {
		_ = conn.(*net.TCPConn).SetLinger(0) // reset: no TIME_WAIT stays
		_ = conn.Close()
	}
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		p.stray(t, p.flow, "more")
		if next(t, p.ingress.kernel, 30*time.Millisecond) != nil {
			return
		}
	}
	t.Error("a flow that is gone is forwarded for ever")
}

func TestAnnounced(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		p := newPair(t, ip, nil)
		if n, err := p.owner.Announce(); n != 1 || err != nil {
			t.Fatalf("announced %d, %v; want 1", n, err)
		}
		if counts, err := p.owner.Owned(); err != nil || counts[p.flow.VIP] != 1 {
			t.Errorf("owned %v, %v; want 1", counts, err)
		}
		known := func() bool {
			p.ingress.mu.Lock()
			defer p.ingress.mu.Unlock()
			return p.ingress.announcedBy(session{protoTCP, p.flow}) == "own"
		}
		for deadline := time.Now().Add(patience); !known(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the announcement doesn't arrive")
			}
		}
		want := p.stray(t, p.flow, "x")
		if got := next(t, p.owner.inner, patience); !bytes.Equal(got, want) {
			t.Fatal("the stray doesn't arrive")
		}
		p.ingress.mu.Lock()
		p.ingress.retire("own", session{protoTCP, p.flow})
		p.ingress.mu.Unlock()
		if known() {
			t.Error("the announcement outlives its retirement")
		}
	})
}

// TestMovedSession moves a session twice: the owner sends what arrives after
// it, and a site that asks is told where it went.
func TestMovedSession(t *testing.T) {
	p := newPair(t, "127.0.0.1", nil)
	// The ingress holds it: it is to be the new owner.
	p.ingress.Hold(p.flow)
	held := p.stray(t, p.flow, "held")
	p.owner.Moved(p.flow, "in")
	direct := tcpPacket(p.flow, flagACK, "arrived at the old owner")
	if _, err := p.owner.strays.Write(direct); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); p.ingress.heldPackets() < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v packets are held, want 2", p.ingress.heldPackets())
		}
	}
	p.ingress.Release(p.flow)
	got := [][]byte{next(t, p.ingress.kernel, patience), next(t, p.ingress.kernel, patience)}
	if !(bytes.Equal(got[0], held) && bytes.Equal(got[1], direct) || bytes.Equal(got[1], held) && bytes.Equal(got[0], direct)) {
		t.Errorf("released %q", got)
	}
}

// TestMovedSessionIsFollowed: a packet that was on its way to the old owner when the session
// moved follows it, to the site that it came from, and no more of them than are bounded.
func TestMovedSessionIsFollowed(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		p := newPair(t, ip, nil)
		p.stray(t, p.flow, "found")
		if next(t, p.owner.inner, patience) == nil {
			t.Fatal("the owner was not found")
		}
		p.owner.Moved(p.flow, "in")
		want := p.stray(t, p.flow, "under way")
		if got := next(t, p.ingress.inner, patience); !bytes.Equal(got, want) {
			t.Errorf("the new owner got %q, want %q", got, want)
		}
		p.owner.mu.Lock()
		defer p.owner.mu.Unlock()
		for i := range 2 * passedMost {
			if got, want := p.owner.owners.passes(p.flow), i < passedMost-1; got != want {
				t.Fatalf("packet %d follows: %v", i+2, got)
			}
		}
	})
}

// TestStrangersAreRefused sends datagrams that no peer made, and replays one
// that a peer did.
func TestStrangersAreRefused(t *testing.T) {
	p := newPair(t, "127.0.0.1", nil)
	conn, err := net.Dial("udp", p.owner.local.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer := p.ingress.peers.Load().find("own")
	packet := tcpPacket(p.flow, flagACK, "forged")
	body := func() []byte { return append(make([]byte, headerSize), packet...) }
	genuine := peer.out.close(body(), kindPacket, p.ingress.id, peer.salt, peer.seq.Add(1))
	stranger := testSeal(t, 77, "in", "own")
	stranger.id = peer.out.id
	for _, e := range []struct {
		name, reason string
		datagram     []byte
	}{
		{"no datagram of ours", "form", []byte("hello")},
		{"unknown sender", "sender", peer.out.close(body(), kindPacket, idOf("nobody"), peer.salt, peer.seq.Add(1))},
		{"wrong key", "tag", stranger.close(body(), kindPacket, p.ingress.id, peer.salt, peer.seq.Add(1))},
		{"genuine", "", genuine},
		{"replayed", "replay", genuine},
	} {
		t.Run(e.name, func(t *testing.T) {
			if _, err := conn.Write(e.datagram); err != nil {
				t.Fatal(err)
			}
			if e.reason == "" {
				if got := next(t, p.owner.inner, patience); !bytes.Equal(got, packet) {
					t.Fatal("a genuine datagram was not delivered")
				}
				return
			}
			counter := p.owner.metrics.refused.WithLabelValues(e.reason)
			for deadline := time.Now().Add(patience); value(t, counter) != 1; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("not refused for %s", e.reason)
				}
			}
			if got := next(t, p.owner.inner, 0); got != nil {
				t.Error("delivered all the same")
			}
		})
	}
}

// TestKeyRollOver lets one side use the new key first.
func TestKeyRollOver(t *testing.T) {
	p := newPair(t, "127.0.0.1", func(in, own *Config) {
		in.Peers[0].Key, in.Peers[0].Previous = [32]byte{10}, [32]byte{9}
		own.Peers[0].Key, own.Peers[0].Previous = [32]byte{9}, [32]byte{10}
	})
	want := p.stray(t, p.flow, "x")
	if got := next(t, p.owner.inner, patience); !bytes.Equal(got, want) {
		t.Fatal("sites with old and new key don't understand each other")
	}
}

// TestPeersCarryOver replaces the list: numbers go on, or the peer would take
// what follows for replays.
func TestPeersCarryOver(t *testing.T) {
	p := newPair(t, "127.0.0.1", nil)
	p.stray(t, p.flow, "one")
	if next(t, p.owner.inner, patience) == nil {
		t.Fatal("nothing arrived")
	}
	before := p.ingress.peers.Load().find("own").Peer
	if err := p.ingress.SetPeers([]Peer{before, {Site: "third", Addr: before.Addr, Key: [32]byte{3}}}); err != nil {
		t.Fatal(err)
	}
	if err := p.ingress.SetPeers([]Peer{before, before}); err == nil {
		t.Error("the same peer twice was accepted")
	}
	want := p.stray(t, p.flow, "two")
	if got := next(t, p.owner.inner, patience); !bytes.Equal(got, want) {
		t.Error("after a change of the list nothing arrives")
	}
}

func TestNewRefuses(t *testing.T) {
	good := func() Config {
		return Config{Site: "a", Local: netip.MustParseAddrPort("203.0.113.2:4790"),
			Peers: []Peer{{Site: "b", Addr: netip.MustParseAddrPort("203.0.113.10:4790"), Key: [32]byte{1}}}}
	}
	if _, err := New(good()); err != nil {
		t.Fatal(err)
	}
	tests := map[string]func(*Config){
		"no site":          func(c *Config) { c.Site = "" },
		"no address":       func(c *Config) { c.Local = netip.AddrPort{} },
		"itself as peer":   func(c *Config) { c.Peers[0].Site = "a" },
		"nameless peer":    func(c *Config) { c.Peers[0].Site = "" },
		"no key":           func(c *Config) { c.Peers[0].Key = [32]byte{} },
		"other family":     func(c *Config) { c.Peers[0].Addr = netip.MustParseAddrPort("[2001:db8::1]:4790") },
		"VIP without port": func(c *Config) { c.VIPs = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:0")} },
		"tiny path":        func(c *Config) { c.PathMTU = 576 },
	}
	for name, change := range tests {
		c := good()
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestOwnedSeesMappedAddresses has a server with one socket for both families:
// its IPv4 sessions are kept as mapped IPv6 ones.
func TestOwnedSeesMappedAddresses(t *testing.T) {
	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), listener.Addr().(*net.TCPAddr).AddrPort().Port())
	client, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	f, err := New(Config{Site: "a", Local: netip.MustParseAddrPort("203.0.113.2:4790"), VIPs: []netip.AddrPort{at}})
	if err != nil {
		t.Fatal(err)
	}
	if counts, err := f.Owned(); err != nil || counts[at] != 1 {
		t.Errorf("owned %v, %v; want 1", counts, err)
	}
	d, err := openDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	flow := Flow{Client: client.LocalAddr().(*net.TCPAddr).AddrPort(), VIP: at}
	if owned, err := d.owned(flow); err != nil || !owned {
		t.Errorf("%v: owned %v, %v", flow, owned, err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	flow.Client = netip.AddrPortFrom(flow.Client.Addr(), 1)
	if owned, err := d.owned(flow); err != nil || owned {
		t.Errorf("%v: owned %v, %v; there is a listener only", flow, owned, err)
	}
}

// value reads a counter.
func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// BenchmarkOwned is what an answer to an ask costs the kernel.
func BenchmarkOwned(b *testing.B) {
	d, err := openDiag()
	if err != nil {
		b.Fatal(err)
	}
	defer d.close()
	for b.Loop() {
		if _, err := d.owned(flow4(1)); err != nil {
			b.Fatal(err)
		}
	}
}
