package netlab

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestLabIsConsistent(t *testing.T) {
	many := LabOptions{Clients: 12}
	for i := range 9 {
		many.Sites = append(many.Sites, LabSite{fmt.Sprintf("site%d", i), []string{Europe, America, Asia}[i%3]})
	}
	for name, o := range map[string]LabOptions{"standard": {}, "twelve sites": many} {
		t.Run(name, func(t *testing.T) {
			topo := Lab(o)
			if err := topo.Check(); err != nil {
				t.Fatal(err)
			}
			seen := map[netip.Addr]string{}
			for _, n := range topo.Nodes {
				addrs := topo.Addresses(n.Name)
				if len(addrs) < 2 {
					t.Errorf("%s has addresses %v, want one of each family", n.Name, addrs)
				}
				for _, a := range addrs {
					if o, taken := seen[a]; taken {
						t.Errorf("%s is at %s and at %s", a, o, n.Name)
					}
					seen[a] = n.Name
					if !documentation(a) {
						t.Errorf("%s of %s is no documentation address", a, n.Name)
					}
				}
			}
		})
	}
}

func documentation(a netip.Addr) bool {
	for _, p := range []string{"192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return true
		}
	}
	return false
}

func TestLabStandardPlan(t *testing.T) {
	topo := Lab(LabOptions{})
	if got := len(topo.Nodes); got != 3*(1+1+8)+3+1 {
		t.Errorf("%d nodes, want 34", got)
	}
	for node, want := range map[string]string{
		"client-eu-1": "[203.0.113.3 2001:db8:100::3]",
		"client-ap-1": "[203.0.113.67 2001:db8:100:40::3]",
		"res-us":      "[203.0.113.34 2001:db8:100:20::2]",
		"tyo1":        "[198.51.100.134 2001:db8:64:1::6 198.51.100.176 2001:db8:64:1::30 198.51.100.177 2001:db8:64:1::31 198.51.100.5 2001:db8:64::5]",
	} {
		if got := fmt.Sprint(topo.Addresses(node)); got != want {
			t.Errorf("%s has %s, want %s", node, got, want)
		}
	}
	v4, v6 := LabBlock(2)
	if v4.String() != "203.0.113.64/28" || v6.String() != "2001:db8:100:40::/60" {
		t.Errorf("block of ap is %s and %s", v4, v6)
	}
}

// Every node's declared routes, followed from next hop to next hop, lead from
// each node to every address of every other.
func TestLabRoutesReachEverything(t *testing.T) {
	topo := Lab(LabOptions{})
	owner := map[netip.Addr]string{}
	routes := map[string][]Route{}
	for _, n := range topo.Nodes {
		routes[n.Name] = append(n.Routes, connected(topo, n.Name)...)
		for _, a := range topo.Addresses(n.Name) {
			owner[a] = n.Name
		}
	}
	for _, n := range topo.Nodes {
		for a, want := range owner {
			at := n.Name
			for hop := 0; at != want && hop < 6; hop++ {
				at = bestRoute(routes[at], a).Link // interfaces bear the name of the far node
			}
			if at != want && !meshAddress(topo, a) {
				t.Errorf("from %s to %s of %s: ends at %q", n.Name, a, want, at)
			}
		}
	}
}

// meshAddress reports whether a numbers a link between two routers: nobody but
// those two needs to reach it.
func meshAddress(topo Topology, a netip.Addr) bool {
	for _, l := range topo.Links {
		if strings.HasPrefix(l.A.Node, "t-") && strings.HasPrefix(l.B.Node, "t-") {
			for _, p := range append(l.A.Addrs, l.B.Addrs...) {
				if p.Addr() == a {
					return true
				}
			}
		}
	}
	return false
}

func connected(topo Topology, node string) []Route {
	var all []Route
	for _, l := range topo.Links {
		for _, e := range [][2]End{{l.A, l.B}, {l.B, l.A}} {
			if e[0].Node == node {
				for _, p := range e[0].Addrs {
					all = append(all, Route{Prefix: p.Masked(), Link: e[0].ifName(e[1])})
				}
			}
		}
	}
	return all
}

func bestRoute(routes []Route, a netip.Addr) Route {
	best := Route{Prefix: netip.Prefix{}, Metric: 1 << 30}
	bits := -1
	for _, r := range routes {
		if r.Prefix.Contains(a) && (r.Prefix.Bits() > bits || r.Prefix.Bits() == bits && r.Metric < best.Metric) {
			best, bits = r, r.Prefix.Bits()
		}
	}
	return best
}

func TestLabDelayIsSymmetric(t *testing.T) {
	for _, a := range []string{Europe, America, Asia, "elsewhere"} {
		for _, b := range []string{Europe, America, Asia, "elsewhere"} {
			if LabDelay(a, b) != LabDelay(b, a) || LabDelay(a, b) <= 0 {
				t.Errorf("delay %s-%s: %s, back %s", a, b, LabDelay(a, b), LabDelay(b, a))
			}
		}
	}
}
