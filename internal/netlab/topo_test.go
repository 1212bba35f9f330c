package netlab

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// pairTopology is two nodes on one link, the smallest internet.
func pairTopology(imp Impairment) Topology {
	return Topology{
		Nodes: []Node{{Name: "left", Role: Client}, {Name: "right", Role: Site}},
		Links: []Link{{
			A:    End{Node: "left", Addrs: prefixes("198.51.100.0/31", "2001:db8::/127")},
			B:    End{Node: "right", Addrs: prefixes("198.51.100.1/31", "2001:db8::1/127")},
			Line: true, Impair: imp,
		}},
	}
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func TestTopologyCheck(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Topology)
		want   string // part of the error; empty: none
	}{
		{"as it is", func(*Topology) {}, ""},
		{"node twice", func(t *Topology) { t.Nodes = append(t.Nodes, t.Nodes[0]) }, "node left is declared twice"},
		{"node without name", func(t *Topology) { t.Nodes = append(t.Nodes, Node{}) }, "without a name"},
		{"link to nowhere", func(t *Topology) { t.Links[0].B.Node = "void" }, `no node "void"`},
		{"link to itself", func(t *Topology) { t.Links[0].B.Node = "left" }, "both ends at one node"},
		{"interface twice", func(t *Topology) { t.Links = append(t.Links, t.Links[0]) }, "interface right is used twice"},
		{"long name", func(t *Topology) { t.Links[0].A.If = "sixteen-bytes-00" }, "not of 1 to 15 bytes"},
		{"address at both ends", func(t *Topology) { t.Links[0].B.Addrs = t.Links[0].A.Addrs }, "198.51.100.0 is at left and at right"},
		{"anycast twice on loopback", func(t *Topology) {
			t.Nodes[0].Loopback = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
			t.Nodes[1].Loopback = t.Nodes[0].Loopback
		}, "192.0.2.1 is at left and at right"},
		{"same address on two links of one node", func(t *Topology) {
			t.Nodes[0].Loopback = []netip.Addr{netip.MustParseAddr("198.51.100.0")}
		}, ""},
		{"impairment without line", func(t *Topology) { t.Links[0].Line = false }, "needs a line"},
		{"negative delay", func(t *Topology) { t.Links[0].Impair.Delay = -1 }, "negative"},
		{"loss of 200 %", func(t *Topology) { t.Links[0].Impair.Loss = 2 }, "outside 0 to 1"},
		{"route off every link", func(t *Topology) {
			t.Nodes[0].Routes = []Route{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Link: "up"}}
		}, `no interface "up"`},
		{"route with host bits", func(t *Topology) {
			t.Nodes[0].Routes = []Route{{Prefix: netip.MustParsePrefix("192.0.2.1/24"), Link: "right"}}
		}, "not a network"},
		{"next hop of the other family", func(t *Topology) {
			t.Nodes[0].Routes = []Route{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Link: "right", Via: netip.MustParseAddr("2001:db8::1")}}
		}, "other family"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			topo := pairTopology(Impairment{Delay: time.Millisecond})
			tc.change(&topo)
			err := topo.Check()
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}
