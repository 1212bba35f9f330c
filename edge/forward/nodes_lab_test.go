//go:build e2e

package forward

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// addNode puts one more edge with servers behind the router.
func (l *lab) addNode(t *testing.T, letter, via4, gw4, via6, gw6 string) *site {
	t.Helper()
	s := &site{space: newSpace(t, letter), letter: letter, via4: via4, via6: via6, tunnelAt: netip.AddrPortFrom(netip.MustParseAddr(via4), 4790)}
	join(t, s.space, l.router, []string{via4 + "/29", via6 + "/64"}, []string{gw4 + "/29", gw6 + "/64"})
	for dst, gw := range map[string]string{"0.0.0.0/0": gw4, "::/0": gw6} {
		if err := s.route(dst, gw); err != nil {
			t.Fatal(err)
		}
	}
	s.addVIPs(t)
	l.startNginx(t, s)
	return s
}

// spread has the router spread the flows to the VIPs over nodes, by addresses and ports.
func (l *lab) spread(t *testing.T, nodes ...*site) {
	t.Helper()
	for _, vip := range []string{vip4 + "/32", vip6 + "/128"} {
		_, dst, err := net.ParseCIDR(vip)
		if err != nil {
			t.Fatal(err)
		}
		r := netlink.Route{Dst: dst}
		for _, n := range nodes {
			via := n.via4
			if strings.Contains(vip, ":") {
				via = n.via6
			}
			r.MultiPath = append(r.MultiPath, &netlink.NexthopInfo{Gw: net.ParseIP(via)})
		}
		l.router.must(t, func() error {
			// Of IPv6, replacing leaves the other hops of a route where they are.
			if err := netlink.RouteDel(&netlink.Route{Dst: dst}); err != nil {
				return fmt.Errorf("remove the route to %s: %w", dst, err)
			}
			return netlink.RouteAdd(&r)
		})
	}
}

// nodes makes one site of three edges, over which the router spreads flows.
func nodes(t *testing.T) (l *lab, all []*site) {
	t.Helper()
	l = newLabWith(t, smallSize)
	l.near = true
	c := l.addNode(t, "c", "203.0.113.18", "203.0.113.17", "2001:db8:c::2", "2001:db8:c::1")
	l.routeTo(t, c)
	l.warm(t)
	l.router.sysctl(t, "ipv4/fib_multipath_hash_policy", "1")
	l.router.sysctl(t, "ipv6/fib_multipath_hash_policy", "1")
	all = []*site{l.a, l.b, c}
	l.a.agent, l.b.agent, c.agent = l.startAgent(t, l.a, l.b, true, c), l.startAgent(t, l.b, l.a, true, c), l.startAgent(t, c, l.a, true, l.b)
	l.spread(t, all...)
	return l, all
}

// owned is a download and the node that serves it.
type owned struct {
	*gate
	node string
}

// downloads starts some over each VIP, each up to a mark.
func (l *lab) downloads(t *testing.T, n int, may int64) (out []owned) {
	t.Helper()
	for i := range n {
		conn, g := l.dialSmall(t, []string{vip4, vip6}[i%2]), newGate(may)
		d := owned{g, get(t, conn, "/site")}
		_ = conn.SetDeadline(time.Time{})
		go func() {
			err := l.fetch(conn, g)
			_ = conn.Close()
			g.end(err)
		}()
		t.Cleanup(func() { g.open(l.size) })
		out = append(out, d)
	}
	return out
}

// die takes a node from the site as the loss of its machine does.
func (l *lab) die(t *testing.T, s *site) {
	t.Helper()
	l.router.must(t, func() error {
		link, err := netlink.LinkByName("to-" + s.letter)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	if err := s.agent.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// TestNodesOfASite kills one of three edges of a site in the middle of downloads from
// stock servers. The router spreads all flows anew: those of the other two go on, without
// a reset, wherever their packets arrive now; those of the dead one are reset soon.
func TestNodesOfASite(t *testing.T) {
	l, all := nodes(t)
	dead := all[2]
	resets := l.client.counter(t, "snmp", "Tcp", "EstabResets")
	list := l.downloads(t, 60, l.size/4)
	count := map[string]int{}
	for _, d := range list {
		d.reached(t, l.size/10)
		count[d.node]++
	}
	if len(count) != 3 {
		t.Fatalf("the router chose nodes %v, want all three", count)
	}
	l.die(t, dead)
	l.spread(t, all[:2]...)
	for _, d := range list {
		d.open(l.size / 2) // the rest, when it is known that it is dead
	}
	for _, d := range list {
		if d.node != dead.letter {
			d.reached(t, l.size/3)
		}
	}
	for _, s := range all[:2] {
		s.agent.tell(t, "silent "+dead.letter)
	}
	for _, d := range list {
		d.open(l.size)
	}
	for _, d := range list {
		switch err := d.wait(); {
		case d.node != dead.letter && err != nil:
			t.Errorf("a download from %s, which lives: %v", d.node, err)
		case d.node == dead.letter && !isReset(err):
			t.Errorf("a download from the dead node ends with %v, want a reset", err)
		}
	}
	if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - resets; n != count[dead.letter] {
		t.Errorf("the client saw %d resets, want %d, one of each session of the dead node", n, count[dead.letter])
	}
	found := 0.0
	for _, s := range all[:2] {
		m := s.agent.tell(t, "stats").Metrics
		t.Logf("node %s: %v", s.letter, m)
		found += m["strays_total neighbour"]
	}
	if found == 0 {
		t.Error("no stray found its owner next door: the test proves nothing")
	}
}

// TestNodeComes adds a node to a site: the router spreads the flows anew over one more,
// and none is reset. Flows that were announced are asked for by nobody.
func TestNodeComes(t *testing.T) {
	l, all := nodes(t)
	l.spread(t, all[:2]...)
	resets := l.client.counter(t, "snmp", "Tcp", "EstabResets")
	list := l.downloads(t, 40, l.size/4)
	for _, d := range list {
		d.reached(t, l.size/10)
	}
	told := 0
	for _, s := range all[:2] {
		told += s.agent.tell(t, "announce-near").Foreign
	}
	all[2].await(t, "announced flows", func(s agentStats) bool { return s.Known == told })
	l.spread(t, all...)
	for _, d := range list {
		d.open(l.size)
	}
	for _, d := range list {
		if err := d.wait(); err != nil {
			t.Errorf("a download from %s: %v", d.node, err)
		}
	}
	if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - resets; n != 0 {
		t.Errorf("the client saw %d resets", n)
	}
	m := all[2].agent.tell(t, "stats").Metrics
	t.Logf("the new node: %v", m)
	if m["strays_total announced"] == 0 || m["strays_total neighbour"] > 0 {
		t.Errorf("strays at the new node: %v, want announced ones only", m)
	}
}
