//go:build e2e

package netlab

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serveZone answers from the fake server's records on the real port 53 of a
// host's first addresses.
func serveZone(t *testing.T, n *Net, name string, s *fakeServer) {
	t.Helper()
	h := mustHost(t, n, name)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := s.answer(q)
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			m.Truncate(int(q.IsEdns0().UDPSize()))
		}
		w.WriteMsg(m)
	})
	for _, a := range h.Loopback {
		at := netip.AddrPortFrom(a, 53).String()
		p, err := h.ListenPacket(t.Context(), "udp", at)
		if err != nil {
			t.Fatal(err)
		}
		l, err := h.Listen(t.Context(), "tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []*dns.Server{{PacketConn: p, Handler: handler}, {Listener: l, Handler: handler}} {
			up := make(chan struct{})
			s.NotifyStartedFunc = func() { close(up) }
			go s.ActivateAndServe()
			<-up
			t.Cleanup(func() { s.Shutdown() })
		}
	}
}

// A resolver inside the lab, asked by getent and by a client in the same region:
// it answers over both families, falls back to TCP, and goes on within a second
// when the site that it prefers is cut off.
func TestResolverInLab(t *testing.T) {
	n := build(t, fastLab())
	ams, nyc := n.Topology.Addresses("ams1"), n.Topology.Addresses("nyc1")
	zone := fmt.Sprintf(`
. 3600 IN SOA ns. host. 1 3600 600 86400 60
. 3600 IN NS ams1.demo.test.
. 3600 IN NS nyc1.demo.test.
ams1.demo.test. 3600 IN A %s
ams1.demo.test. 3600 IN AAAA %s
nyc1.demo.test. 3600 IN A %s
nyc1.demo.test. 3600 IN AAAA %s
`, ams[0], ams[1], nyc[0], nyc[1])
	for i := range 200 {
		zone += fmt.Sprintf("n%d.demo.test. 1 IN A 192.0.2.1\n", i)
		zone += fmt.Sprintf("large.demo.test. 1 IN AAAA 2001:db8:53::%x\n", i+1)
	}
	for _, site := range []string{"ams1", "nyc1"} {
		serveZone(t, n, site, &fakeServer{zones: []string{"."}, records: records(t, zone)})
	}
	runResolver(t, n, "res-eu", []RootServer{{"ams1.demo.test.", ams[:2]}, {"nyc1.demo.test.", nyc[:2]}})

	client := mustHost(t, n, "client-eu-1")
	if got := output(t, client, "getent", "ahostsv4", "n0.demo.test"); !strings.Contains(got, "192.0.2.1") {
		t.Errorf("getent says %q", got)
	}
	if got := strings.Count(output(t, client, "getent", "ahostsv6", "large.demo.test"), "STREAM"); got != 200 {
		t.Errorf("getent found %d of 200 addresses", got)
	}
	slowest := func(from, to int) (worst time.Duration) {
		for i := from; i < to; i++ {
			worst = max(worst, lookupA(t, client, fmt.Sprintf("n%d.demo.test.", i), "192.0.2.1"))
		}
		return worst
	}
	t.Logf("slowest of 50 with both sites: %s", slowest(1, 51))
	if err := n.Break(Fault{Kind: Cut, Node: "ams1"}); err != nil {
		t.Fatal(err)
	}
	cut := slowest(51, 101)
	t.Logf("slowest of 50 with ams1 cut off: %s", cut)
	// On a busy machine the wait is the machine's; that each question was answered is not.
	if soak() && cut > time.Second {
		t.Errorf("with one site cut off a question took %s", cut)
	}
}

func runResolver(t *testing.T, n *Net, name string, roots []RootServer) {
	t.Helper()
	h := mustHost(t, n, name)
	r, err := NewResolver(ResolverConfig{Roots: roots, Exchange: HostExchanger{h}, Random: rand.Float64})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- r.ServeHost(ctx, h, h.Resolvers, slog.New(slog.NewTextHandler(t.Output(), nil)))
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	// Its last socket is the TCP one of its last address: when that takes
	// connections all do.
	last := netip.AddrPortFrom(h.Resolvers[len(h.Resolvers)-1], 53).String()
	for deadline := time.Now().Add(patience); ; {
		if c, err := h.Dial(ctx, "tcp", last); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the resolver does not listen")
		}
	}
}

// lookupA asks the client's resolver for an address and returns how long it took.
func lookupA(t *testing.T, client *Host, name, want string) time.Duration {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeA)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	begin := time.Now()
	m, err := HostExchanger{client}.Exchange(ctx, netip.AddrPortFrom(client.Resolvers[0], 53), q, false)
	took := time.Since(begin)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return took
	}
	if !slices.ContainsFunc(m.Answer, func(rr dns.RR) bool { a, ok := rr.(*dns.A); return ok && a.A.String() == want }) {
		t.Errorf("%s: %v", name, m)
	}
	return took
}
