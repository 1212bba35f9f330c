//go:build e2e

package bgp

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rhumb/placement"
)

const (
	net4 = "192.0.2.0/24"
	net6 = "2001:db8:53::/48"
)

// birdPeer is a BIRD protocol on the shipped template.
func birdPeer(name string, local, neighbor int, extra string) string {
	return birdPeerAt(name, addr4(local), addr4(neighbor), extra)
}

func birdPeerAt(name string, local, neighbor netip.Addr, extra string) string {
	return "protocol bgp " + name + " from rhumb { local " + local.String() + " as 64501; neighbor " +
		neighbor.String() + " as 64500; " + extra + " }\n"
}

// twoRouters is sp (.1) between BIRD (.2) and FRR (.3).
func twoRouters(t *testing.T) (l *lab, bird func(...string) string, frr func(string) string) {
	l = newLab(t)
	l.host("sp", 1)
	l.host("bird", 2)
	l.host("frr", 3)
	bird = l.bird("bird", `router id 198.51.100.2;
protocol static { ipv4; route 203.0.113.0/24 blackhole; }
`+strings.Replace(birdPeer("sp", 2, 1, `password "secret";`), "}", "ipv4 { import filter rhumb_in4; export all; }; }", 1))
	// FRR takes anything here: what must not reach it is then kept back by us alone.
	frr = l.frr("frr", shippedFRR(t, "secret")+"route-map RHUMB-IN permit 99\nexit\n")
	return l, bird, frr
}

func spConfig() helperConfig {
	return helperConfig{Role: "engine", ASN: 64500, RouterID: addr4(1), Site: 1, NextHop6: addr6(1), Peers: []Peer{
		{Address: addr4(2), ASN: 64501, Password: "secret", GTSM: true},
		{Address: addr4(3), ASN: 64502, Password: "secret", GTSM: true},
	}}
}

func established(p *process, numbers ...int) {
	p.t.Helper()
	for _, n := range numbers {
		p.expect(0, "peer "+addr4(n).String()+" established")
	}
}

func TestRoutersFollow(t *testing.T) {
	l, bird, frr := twoRouters(t)
	sp := l.helper("sp", spConfig())
	established(sp, 2, 3)

	at := sp.tell("announce " + net4 + " prepend=0")
	sp.tell("announce " + net6)
	until(t, "the kernels' routes", func() bool {
		return strings.Contains(l.routes("bird", net4), "via 198.51.100.1") && strings.Contains(l.routes("bird", net6), "via 2001:db8:1::1") &&
			strings.Contains(l.routes("frr", net4), "via 198.51.100.1") && strings.Contains(l.routes("frr", net6), "via")
	})
	t.Logf("announced, in both kernels in both families after %v", time.Since(at))
	if out := frr("show bgp ipv4 unicast"); strings.Contains(out, "203.0.113.0") {
		t.Errorf("a route learnt from BIRD was passed on to FRR:\n%s", out)
	}

	sp.tell("announce " + net4 + " prepend=2 med=50 gshut noexport")
	until(t, "attributes at BIRD", func() bool {
		return containsAll(bird("show", "route", "for", net4, "all"), []string{
			"BGP.as_path: 64500 64500 64500", "BGP.med: 50", "(65535,0)", "(65535,65281)", "BGP.large_community: (64500, 1, 1)", "BGP.local_pref: 0"})
	})
	until(t, "attributes at FRR", func() bool {
		return containsAll(frr("show bgp ipv4 unicast "+net4), []string{
			"64500 64500 64500", "metric 50", "localpref 0", "no-export", "graceful-shutdown", "Large Community: 64500:1:1"})
	})
	if strings.Contains(l.routes("bird", net4), "via") == false {
		t.Error("at gshut the route must stay in the kernel")
	}
}

func TestKilledSpeaker(t *testing.T) {
	l, _, _ := twoRouters(t)
	sp := l.helper("sp", spConfig())
	established(sp, 2, 3)
	birdFIB, frrFIB := l.fib("bird"), l.fib("frr")
	a, b := birdFIB.mark(), frrFIB.mark()
	sp.tell("announce " + net4)
	birdFIB.expect(a, net4, "via")
	frrFIB.expect(b, net4, "via")
	a, b = birdFIB.mark(), frrFIB.mark()
	at := sp.signal(syscall.SIGKILL)
	tb := birdFIB.expect(a, "Deleted", net4).Sub(at)
	tf := frrFIB.expect(b, "Deleted", net4).Sub(at)
	t.Logf("SIGKILL to FIB-gone: BIRD %v, FRR %v", tb, tf)
	if limit := promised(2 * time.Second); max(tb, tf) > limit {
		t.Errorf("want %v at most: by the hold time it were 6 s and more", limit)
	}
}

// TestNoPasswordNoSession has one peer of each wrong kind beside a right one, in
// both families, and watches both ends for 20 s: a peer without the password, or
// with another TTL, must never get in.
func TestNoPasswordNoSession(t *testing.T) {
	l := newLab(t)
	l.host("sp", 1, 111, 121, 131, 141, 151)
	l.host("bird", 2, 12, 22, 32, 42, 52) // an address pair for each: BIRD and the kernel keep one key a neighbour
	kinds := []struct {
		name       string
		own, other int
		bird       string
		password   string
		gtsm       bool
	}{
		{"good", 1, 2, `password "secret";`, "secret", true},
		{"wrong", 111, 12, `password "other";`, "secret", true},
		{"none", 121, 22, ``, "secret", true},
		{"plain", 151, 52, `ttl security off;`, "secret", false}, // the password alone stands between
		{"extra", 131, 32, `password "secret";`, "", true},
		{"ttl", 141, 42, `ttl security off; multihop 5;`, "", true},
	}
	c := spConfig()
	c.Peers = nil
	config := "router id 198.51.100.2;\n"
	for _, addr := range []func(int) netip.Addr{addr4, addr6} {
		for _, k := range kinds {
			own, other := addr(k.own), addr(k.other)
			config += birdPeerAt(k.name+family(own.String())[1:], other, own, k.bird)
			c.Peers = append(c.Peers, Peer{Local: own, Address: other, ASN: 64501, Password: k.password, GTSM: k.gtsm})
		}
	}
	bird := l.bird("bird", config)
	sp := l.helper("sp", c)
	sp.expect(0, "peer "+addr4(2).String()+" established")
	sp.expect(0, "peer "+addr6(2).String()+" established")
	// The library sets the least TTL after accept, so an OPEN which is already
	// there gets through and BIRD may believe in a session; ours must not begin.
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		for line := range strings.Lines(bird("show", "protocols")) {
			name, _, _ := strings.Cut(line, " ")
			if strings.Contains(line, "Established") && !strings.HasPrefix(name, "good") && !strings.HasPrefix(name, "ttl") {
				t.Fatalf("BIRD's protocol %s reached Established", name)
			}
		}
	}
	for _, p := range c.Peers {
		right := p.Address == addr4(2) || p.Address == addr6(2)
		if strings.Contains(sp.text(), "peer "+p.Address.String()+" established") != right {
			t.Errorf("our peer %s: Established is to be %v", p.Address, right)
		}
	}
	if strings.Count(bird("show", "protocols"), "Established") < 2 {
		t.Error("the right password must go on working")
	}
}

// TestMultipathTCPRefused starts the speaker with the runtime's setting turned
// on from outside: it must not run at all.
func TestMultipathTCPRefused(t *testing.T) {
	l := newLab(t)
	l.host("sp", 1)
	sp := l.helper("sp", spConfig(), "GODEBUG=multipathtcp=1")
	select {
	case <-sp.done:
	case <-time.After(patience):
		t.Fatal("the speaker runs with multipath TCP")
	}
	if !strings.Contains(sp.text(), "error bgp: multipath TCP is on") {
		t.Errorf("said: %s", sp.text())
	}
}

// bothFamilies is one session for each family, as between routers.
func bothFamilies(n int, asn uint32) []Peer {
	return []Peer{{Address: addr4(n), ASN: asn, OwnFamily: true}, {Address: addr6(n), ASN: asn, OwnFamily: true}}
}

// TestTransit has two speakers, with an AS each, behind a transit router with BIRD behind it.
func TestTransit(t *testing.T) {
	l := newLab(t)
	l.host("sp", 1)
	l.host("sptwo", 11)
	l.host("tr", 4)
	l.host("bird", 2)
	bird := l.bird("bird", `router id 198.51.100.2;
protocol bgp tr4 { local 198.51.100.2 as 64501; neighbor 198.51.100.4 as 64510; connect delay time 1; ipv4 { import all; export none; }; }
protocol bgp tr6 { local 2001:db8:1::2 as 64501; neighbor 2001:db8:1::4 as 64510; connect delay time 1; ipv6 { import all; export none; }; }
`)
	tr := l.helper("tr", helperConfig{Role: "transit", ASN: 64510, RouterID: addr4(4),
		Peers: slices.Concat(bothFamilies(1, 64503), bothFamilies(11, 64504), bothFamilies(2, 64501))})
	var sps []*process
	for i, host := range []string{"sp", "sptwo"} {
		n := []int{1, 11}[i]
		sps = append(sps, l.helper(host, helperConfig{Role: "engine", ASN: 64503 + uint32(i), RouterID: addr4(n), Site: uint16(i + 1),
			Port: NoListener, Peers: bothFamilies(4, 64510)}))
	}
	established(tr, 1, 11, 2)
	for _, n := range []int{1, 11} {
		tr.expect(0, "peer "+addr6(n).String()+" established")
	}
	for _, sp := range sps {
		sp.tell("announce " + net4)
		sp.tell("announce " + net6)
	}
	tr.expect(0, "best "+net4+" [198.51.100.1 198.51.100.11]")
	tr.expect(0, "best "+net6+" [2001:db8:1::1 2001:db8:1::11]")
	until(t, "the path behind the transit router", func() bool {
		return containsAll(bird("show", "route", "for", net4, "all"), []string{"BGP.as_path: 64510 6450", "BGP.next_hop: 198.51.100.4"}) &&
			containsAll(bird("show", "route", "for", net6, "all"), []string{"BGP.as_path: 64510 6450", "BGP.next_hop: 2001:db8:1::4"})
	})

	from := tr.mark()
	sps[0].tell("announce " + net4 + " gshut")
	tr.expect(from, "best "+net4+" [198.51.100.11]")
	sps[0].expect(0, "learned 198.51.100.4 "+net4+" false [[64500 1 2]] false") // the witness
	from = tr.mark()
	sps[1].tell("withdraw " + net4)
	tr.expect(from, "best "+net4+" [198.51.100.1]") // the last one is used, gshut or not
	from = tr.mark()
	sps[0].tell("withdraw " + net4)
	tr.expect(from, "best "+net4+" []")
	until(t, "gone behind the transit router", func() bool { return !strings.Contains(bird("show", "route", "for", net4), net4) })
}

// TestLadderWithRouters runs two sites of one AS and an observing third: a
// drain by the ladder, the address on lo, the witness, the clean exit.
func TestLadderWithRouters(t *testing.T) {
	l := newLab(t)
	numbers := map[string]int{"spa": 1, "spb": 11, "spc": 21}
	for _, host := range []string{"spa", "spb", "spc"} {
		l.host(host, numbers[host])
	}
	l.host("bird", 2)
	bird := l.bird("bird", "router id 198.51.100.2;\n"+birdPeer("a", 2, 1, "")+birdPeer("b", 2, 11, "")+birdPeer("c", 2, 21, ""))
	speaker := func(host string, site uint16, mode placement.Mode) *process {
		n := numbers[host]
		return l.helper(host, helperConfig{Role: "speaker", ASN: 64500, RouterID: addr4(n), Site: site, NextHop6: addr6(n), Mode: mode,
			Prefixes: []placement.Prefix{{Prefix: anycast, Slots: 1, Prepend: 2, MED: 50, Witness: placement.WitnessRequired}},
			VIPs:     []netip.Addr{vip}, Slots: true,
			Peers: []Peer{{Address: addr4(2), ASN: 64501, GTSM: true}}})
	}
	a, b, c := speaker("spa", 1, placement.Act), speaker("spb", 2, placement.Act), speaker("spc", 3, placement.Observe)
	until(t, "BIRD's sessions", func() bool {
		return strings.Count(bird("show", "protocols"), "Established") == 3
	})
	fib := l.fib("bird")
	from := fib.mark()
	for _, sp := range []*process{a, b, c} {
		sp.tell("announce")
		sp.expect(0, "event "+net4+" prepend announce")
	}
	until(t, "both next hops in BIRD's kernel", func() bool {
		return containsAll(l.routes("bird", net4), []string{"via 198.51.100.1 ", "via 198.51.100.11 "})
	})
	if out := bird("show", "route", "protocol", "c"); strings.Contains(out, net4) {
		t.Errorf("the observing site announced:\n%s", out)
	}
	if !strings.Contains(l.ip("-n", l.ns("spa"), "addr", "show", "lo"), vip.String()+"/32") {
		t.Error("announced without the address on lo")
	}
	if strings.Contains(l.ip("-n", l.ns("spc"), "addr", "show", "lo"), vip.String()) {
		t.Error("the observing site bound the address")
	}

	at := a.tell("withdrawn intent")
	a.expect(0, "event "+net4+" gshut withdrawn", "witness=true")
	// First the address is looked for, then the route: whoever has no address any more and
	// is found to be announced did not wait for the routers.
	until(t, "site 1 out of BIRD, and the address off lo", func() bool {
		off := !strings.Contains(l.ip("-n", l.ns("spa"), "addr", "show", "lo"), vip.String())
		out := !strings.Contains(bird("show", "route", "protocol", "a"), net4)
		if off && !out {
			t.Error("the address left lo before the routers' FIBs had time")
		}
		return off && out
	})
	t.Logf("drained by the ladder in %v", time.Since(at))
	if strings.Contains(strings.Join(fibLines(fib, from, "Deleted "+net4), "\n"), net4) {
		t.Errorf("the prefix was gone from BIRD's kernel meanwhile:\n%s", fib.text())
	}

	b.tell("withdrawn local") // nobody else is left: no witness, so it stays
	b.expect(0, "event "+net4+" gshut gshut rule=witness")
	if !strings.Contains(l.routes("bird", net4), "198.51.100.11") {
		t.Error("the last site left")
	}

	from = fib.mark()
	at = b.signal(syscall.SIGTERM)
	gone := fib.expect(from, "Deleted", net4).Sub(at)
	select {
	case <-b.done:
	case <-time.After(patience):
		t.Fatal("the speaker did not end")
	}
	took := time.Since(at)
	if limit := promised(3 * time.Second); took > limit {
		t.Errorf("SIGTERM took %v, want %v at most", took, limit)
	}
	t.Logf("SIGTERM: route gone after %v, process after %v", gone, took)
}

func fibLines(p *process, from int, word string) (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines[from:] {
		if strings.Contains(l.text, word) {
			out = append(out, l.text)
		}
	}
	return out
}

// TestShippedConfigs has the daemons check the files we ship.
func TestShippedConfigs(t *testing.T) {
	for _, cmd := range [][]string{
		{"bird", "-p", "-c", "../etc/bird/example.conf"},
		{"bird", "-p", "-c", "../etc/bird/kernel.conf"},
		{"vtysh", "-C", "-f", "../etc/frr/rhumb-peer.conf"},
		{"vtysh", "-C", "-f", "../etc/frr/rhumb-kernel.conf"},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(cmd, " "), err, out)
		}
	}
}
