//go:build e2e

package bgp

import (
	"net/netip"
	"strings"
	"testing"

	"rhumb/placement"
)

// TestNodeLeaves drains one of two nodes of a site at a BIRD and an FRR that spread clients
// over both: its next hop leaves their FIBs, the other's stays in both families, and no
// route is away at any time. It comes back, and as the last one it does not go.
func TestNodeLeaves(t *testing.T) {
	l := newLab(t)
	l.host("spa", 1)
	l.host("spb", 11)
	l.host("rb", 2)
	l.host("rf", 3)
	routers := []string{"rb", "rf"}
	l.bird("rb", "router id 198.51.100.2;\n"+birdPeer("a", 2, 1, `password "secret";`)+birdPeer("b", 2, 11, `password "secret";`))
	l.frr("rf", twice(shippedFRR(t, "secret"), "neighbor 198.51.100.1 ", "neighbor 198.51.100.11 "))
	six := netip.MustParsePrefix(net6)
	node := func(host, name, other string, n int) *process {
		c := spConfig()
		c.Role, c.RouterID, c.Node, c.NextHop6 = "speaker", addr4(n), name, addr6(n)
		c.VIPs = []netip.Addr{vip, six.Addr().Next()}
		for _, p := range []netip.Prefix{anycast, six} {
			c.Prefixes = append(c.Prefixes, placement.Prefix{Prefix: p, Slots: 1, Prepend: 2, MED: 50, Witness: placement.WitnessOff})
			c.Live = append(c.Live, placement.Announced{Prefix: p, Site: "site1", Node: other})
		}
		p := l.helper(host, c)
		p.expect(0, "ready")
		p.tell("announce")
		return p
	}
	a, b := node("spa", "n1", "n2", 1), node("spb", "n2", "n1", 11)
	a4, b4 := "via 198.51.100.1 ", "via 198.51.100.11 "
	// FRR may take the link-local one of an IPv6 next hop: these are counted.
	hops := func(six int, want []string, not ...string) func() bool {
		return func() bool {
			for _, r := range routers {
				four := l.routes(r, net4)
				if !containsAll(four, want) || strings.Count(l.routes(r, net6), "via ") != six || len(not) > 0 && containsAll(four, not) {
					return false
				}
			}
			return true
		}
	}
	both, other := hops(2, []string{a4, b4}), hops(1, []string{b4}, a4)
	until(t, "both next hops at both routers", both)
	fibs := map[string]*process{}
	for _, r := range routers {
		fibs[r] = l.fib(r)
	}

	a.tell("announce node")
	a.expect(0, "event "+net4+" prepend gshut")
	until(t, "the next hop of the drained node gone", other)
	a.expect(0, "event "+net4+" gshut withdrawn")
	a.expect(0, "event "+net6+" gshut withdrawn")
	if !other() {
		t.Error("the other node's routes do not stay")
	}
	if lo := l.ip("-n", l.ns("spa"), "addr", "show", "lo"); !strings.Contains(lo, vip.String()) {
		t.Errorf("its sessions are not found any more: the address is off lo\n%s", lo)
	}
	mark := a.mark()
	a.tell("announce")
	a.expect(mark, "event "+net4+" prepend announce")
	until(t, "both next hops again", both)

	mark = a.mark()
	a.tell("announce last")
	a.expect(mark, "event "+net4, "rule=last-node")
	a.expect(mark, "event "+net6, "rule=last-node")
	if !both() {
		t.Error("the last node is not as loud as before")
	}
	for _, line := range fibLines(b, 0, "event ") {
		if strings.Contains(line, "gshut") || strings.HasSuffix(line, "withdrawn") {
			t.Errorf("the other node: %s", line)
		}
	}
	for r, p := range fibs {
		for _, prefix := range []string{net4, net6} {
			for _, line := range fibLines(p, 0, "Deleted "+prefix) {
				// Of IPv6 each next hop is a route of its own to the kernel, and goes by itself.
				if family(prefix) == "-4" {
					t.Errorf("%s was without a route: %s", r, line)
				}
			}
		}
	}
}
