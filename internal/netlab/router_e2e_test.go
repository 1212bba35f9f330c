//go:build e2e

package netlab

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"
)

const testProtocol = 190

func testFIB(t *testing.T, h *Host) *FIB {
	t.Helper()
	f, err := h.FIB(testProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestFIBReplaceListDelete(t *testing.T) {
	n := build(t, forkTopology())
	f := testFIB(t, mustHost(t, n, "router"))
	hop := func(a, link string) NextHop { return NextHop{Addr: netip.MustParseAddr(a), Link: link} }
	for _, tc := range []struct {
		name, prefix string
		hops         []NextHop
		want         string
	}{
		{"IPv4, interface found by address", "192.0.2.0/24", []NextHop{hop("198.51.100.1", "")}, "198.51.100.1@site*1"},
		{"IPv4, two ways", "192.0.2.0/24", []NextHop{hop("198.51.100.1", ""), hop("198.51.100.3", "")}, "198.51.100.1@site*1 198.51.100.3@client*1"},
		{"IPv4, weights", "192.0.2.0/24", []NextHop{{Addr: netip.MustParseAddr("198.51.100.1"), Weight: 3}, hop("198.51.100.3", "")}, "198.51.100.1@site*3 198.51.100.3@client*1"},
		{"IPv4, one again", "192.0.2.0/24", []NextHop{hop("198.51.100.3", "")}, "198.51.100.3@client*1"},
		{"IPv4, off the subnet", "192.0.2.0/24", []NextHop{hop("203.0.113.9", "site")}, "203.0.113.9@site*1"},
		{"IPv6", "2001:db8:53::/48", []NextHop{hop("2001:db8::1", "")}, "2001:db8::1@site*1"},
		{"IPv6, two ways", "2001:db8:53::/48", []NextHop{hop("2001:db8::1", ""), hop("2001:db8::3", "")}, "2001:db8::1@site*1 2001:db8::3@client*1"},
		{"IPv6, one again", "2001:db8:53::/48", []NextHop{hop("2001:db8::3", "")}, "2001:db8::3@client*1"},
		{"IPv6, two ways when deleted", "2001:db8:53::/48", []NextHop{hop("2001:db8::1", ""), hop("2001:db8::3", "")}, "2001:db8::1@site*1 2001:db8::3@client*1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := netip.MustParsePrefix(tc.prefix)
			if err := f.Replace(p, tc.hops); err != nil {
				t.Fatal(err)
			}
			if got := hopsOf(t, f, p); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
	for range 2 { // the second time nothing is there, which is what is wanted
		for _, p := range []string{"192.0.2.0/24", "2001:db8:53::/48"} {
			if err := f.Delete(netip.MustParsePrefix(p)); err != nil {
				t.Error(err)
			}
		}
	}
	if all, err := f.List(); err != nil || len(all) != 0 {
		t.Errorf("left: %v, %v", all, err)
	}
}

func hopsOf(t *testing.T, f *FIB, p netip.Prefix) (text string) {
	t.Helper()
	all, err := f.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.Prefix != p {
			continue
		}
		for i, h := range r.Hops {
			if i > 0 {
				text += " "
			}
			text += fmt.Sprintf("%s@%s*%d", h.Addr, h.Link, h.Weight)
		}
	}
	return text
}

// onLink are a site's addresses on the link to its router, IPv4 first: the last
// ones, after those on lo.
func onLink(n *Net, site string) []netip.Addr {
	all := n.Topology.Addresses(site)
	return all[len(all)-2:]
}

func TestFIBLeavesOthersRoutesAlone(t *testing.T) {
	n := build(t, fastLab())
	h := mustHost(t, n, "t-eu")
	before := dump(t, n)
	f := testFIB(t, h)
	p := netip.MustParsePrefix(AnycastV4)
	if err := f.Replace(p, []NextHop{{Addr: onLink(n, "ams1")[0]}}); err != nil {
		t.Fatal(err)
	}
	if all, err := f.List(); err != nil || len(all) != 1 {
		t.Errorf("ours: %v, %v", all, err)
	}
	if err := f.Delete(p); err != nil {
		t.Fatal(err)
	}
	mustSame(t, n, before)
}

// A change is reported when it is made, and also when the kernel drops a route
// with its link, which for IPv4 it does in silence.
func TestFIBWatch(t *testing.T) {
	n := build(t, forkTopology())
	h := mustHost(t, n, "router")
	f := testFIB(t, h)
	changes, err := f.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next := func(p string, gone bool) FIBChange {
		t.Helper()
		for {
			select {
			case c := <-changes:
				if c.Prefix.String() == p && c.Gone == gone {
					return c
				}
			case <-time.After(patience):
				t.Fatalf("no change of %s, gone=%v", p, gone)
			}
		}
	}
	for p, via := range map[string]string{"192.0.2.0/24": "198.51.100.1", "2001:db8:53::/48": "2001:db8::1"} {
		prefix, hops := netip.MustParsePrefix(p), []NextHop{{Addr: netip.MustParseAddr(via)}}
		begin := time.Now()
		if err := f.Replace(prefix, hops); err != nil {
			t.Fatal(err)
		}
		c := next(p, false)
		if c.Protocol != testProtocol || c.Hops[0].Addr.String() != via || c.At.Before(begin) || c.At.After(time.Now()) {
			t.Errorf("change %+v", c)
		}
		if err := f.Delete(prefix); err != nil {
			t.Fatal(err)
		}
		next(p, true)
		if err := f.Replace(prefix, hops); err != nil {
			t.Fatal(err)
		}
		next(p, false)
		if err := n.Break(Fault{Kind: Cut, Node: "site"}); err != nil {
			t.Fatal(err)
		}
		next(p, true)
		if err := n.Heal(""); err != nil {
			t.Fatal(err)
		}
	}
}

// A table has its routes again after their link was away, whether the kernel told or not.
func TestTableKeeps(t *testing.T) {
	n := build(t, forkTopology())
	f := testFIB(t, mustHost(t, n, "router"))
	table := NewTable(f, slog.New(slog.DiscardHandler))
	routes := map[string]string{"192.0.2.0/24": "198.51.100.1", "2001:db8:53::/48": "2001:db8::1"}
	for p, via := range routes {
		if err := table.Set(netip.MustParsePrefix(p), []NextHop{{Addr: netip.MustParseAddr(via)}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	kept := make(chan struct{})
	go func() { defer close(kept); table.Keep(ctx) }()
	defer func() { stop(); <-kept }()
	if err := n.Break(Fault{Kind: Cut, Node: "site"}); err != nil {
		t.Fatal(err)
	}
	if all, err := f.List(); err != nil || len(all) > 0 {
		t.Fatalf("with the link away there are %v, %v", all, err)
	}
	if err := n.Heal(""); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		all, err := f.List()
		if err == nil && len(all) == len(routes) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after the link came back there are %v, %v", all, err)
		}
	}
	if err := table.Set(netip.MustParsePrefix("192.0.2.0/24"), nil); err != nil {
		t.Fatal(err)
	}
	table.compare()
	if all, err := f.List(); err != nil || len(all) != 1 {
		t.Errorf("of one that is no longer wanted there are %v, %v", all, err)
	}
}

// Anycast by hand: two sites have the address, the client's router decides, and
// a change of its table moves the client.
func TestAnycastFollowsTheFIB(t *testing.T) {
	n := build(t, fastLab())
	client := mustHost(t, n, "client-eu-1")
	f := testFIB(t, mustHost(t, n, "t-eu"))
	for i, service := range prefixes("192.0.2.53/32", "2001:db8:53::53/128") {
		for _, site := range []string{"ams1", "nyc1"} {
			h := mustHost(t, n, site)
			if err := h.AddAddress("lo", service); err != nil {
				t.Fatal(err)
			}
			echoAt(t, h, service.Addr())
		}
		us := testFIB(t, mustHost(t, n, "t-us"))
		if err := us.Replace(service, []NextHop{{Addr: onLink(n, "nyc1")[i]}}); err != nil {
			t.Fatal(err)
		}
		for site, via := range map[string]netip.Addr{
			"ams1": onLink(n, "ams1")[i],
			"nyc1": meshAddressOf(n.Topology, "t-us", "t-eu", i),
		} {
			if err := f.Replace(service, []NextHop{{Addr: via}}); err != nil {
				t.Fatal(err)
			}
			if !reaches(t, client, service.Addr(), site) {
				t.Errorf("%s by %s does not lead to %s", service, via, site)
			}
		}
		if err := mustHost(t, n, "nyc1").RemoveAddress("lo", service); err != nil {
			t.Error(err)
		}
	}
}

// meshAddressOf is the address number i of a's end of its link to b.
func meshAddressOf(topo Topology, a, b string, i int) netip.Addr {
	for _, l := range topo.Links {
		if l.A.Node == a && l.B.Node == b {
			return l.A.Addrs[i].Addr()
		}
		if l.B.Node == a && l.A.Node == b {
			return l.B.Addrs[i].Addr()
		}
	}
	return netip.Addr{}
}
