package netlab

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// forkTopology is a router between a site on a line and a client on a bare veth.
func forkTopology() Topology {
	return Topology{
		Nodes: []Node{
			{Name: "router", Role: Router}, {Name: "site", Role: Site}, {Name: "client", Role: Client},
		},
		Links: []Link{
			{
				A: End{Node: "router", Addrs: prefixes("198.51.100.0/31", "2001:db8::/127")}, B: End{Node: "site", Addrs: prefixes("198.51.100.1/31", "2001:db8::1/127")},
				Line: true, Impair: Impairment{Delay: time.Millisecond, Loss: 0.5},
			},
			{A: End{Node: "router", Addrs: prefixes("198.51.100.2/31", "2001:db8::2/127")}, B: End{Node: "client", Addrs: prefixes("198.51.100.3/31", "2001:db8::3/127")}},
		},
	}
}

func TestEffects(t *testing.T) {
	ms := time.Millisecond
	base := Impairment{Delay: ms, Loss: 0.5}
	for _, tc := range []struct {
		name   string
		faults []Fault
		want   string // down; impair of link 0 both ways; filters
	}{
		{"none", nil, "[false false] 1ms/0.5 1ms/0.5"},
		{"cut of a site", []Fault{{Kind: Cut, Node: "site"}}, "[true false] 1ms/0.5 1ms/0.5"},
		{"kill of a router", []Fault{{Kind: Kill, Node: "router"}}, "[true true] 1ms/0.5 1ms/0.5"},
		{"cut towards one", []Fault{{Kind: Cut, Node: "router", Towards: "client"}}, "[false true] 1ms/0.5 1ms/0.5"},
		{"flap begins down", []Fault{{Kind: Flap, Node: "site"}}, "[true false] 1ms/0.5 1ms/0.5"},
		{"slow", []Fault{{Kind: Slow, Node: "site", Delay: 200 * ms}}, "[false false] 201ms/0.5 201ms/0.5"},
		{"slow at both ends adds up", []Fault{{Kind: Slow, Node: "site", Delay: 200 * ms}, {Kind: Slow, Node: "router", Delay: 100 * ms}}, "[false false] 301ms/0.5 301ms/0.5"},
		{"losses multiply", []Fault{{Kind: Lossy, Node: "site", Share: 0.5}}, "[false false] 1ms/0.75 1ms/0.75"},
		{"loss on a bare link", []Fault{{Kind: Lossy, Node: "client", Share: 0.25}}, "[false false] 1ms/0.5 1ms/0.5 router map[client:0.25] client map[router:0.25]"},
		{"mute B of a line", []Fault{{Kind: Mute, Node: "site"}}, "[false false] 1ms/0.5 1ms/1"},
		{"mute A of a line towards B", []Fault{{Kind: Mute, Node: "router", Towards: "site"}}, "[false false] 1ms/1 1ms/0.5"},
		{"mute on a bare link", []Fault{{Kind: Mute, Node: "client"}}, "[false false] 1ms/0.5 1ms/0.5 router map[client:1]"},
		{"holes merge", []Fault{
			{Kind: Blackhole, Node: "site", Prefixes: prefixes("192.0.2.1/32", "2001:db8:53::/48")},
			{Kind: Blackhole, Node: "site", Prefixes: prefixes("192.0.2.0/24", "192.0.2.7/32")},
		}, "[false false] 1ms/0.5 1ms/0.5 site [192.0.2.0/24 2001:db8:53::/48]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var active []*activeFault
			for _, f := range tc.faults {
				active = append(active, &activeFault{Fault: f})
			}
			topo := forkTopology()
			e := effectsOf(topo, active)
			if got := describe(topo, e); got != tc.want {
				t.Errorf("%s\nwant %s", got, tc.want)
			}
			if topo.Links[0].Impair != base {
				t.Error("the declaration was changed")
			}
		})
	}
}

func describe(topo Topology, e effects) string {
	text := fmt.Sprint(e.down)
	for _, imp := range e.impair[0] {
		text += fmt.Sprintf(" %s/%v", imp.Delay, imp.Loss)
	}
	for _, n := range topo.Nodes {
		f := e.filters[n.Name]
		if f.ifs != nil {
			text += fmt.Sprint(" ", n.Name, " ", f.ifs)
		}
		if f.holes != nil {
			text += fmt.Sprint(" ", n.Name, " ", f.holes)
		}
	}
	return text
}

func TestCheckFault(t *testing.T) {
	n := &Net{Topology: forkTopology(), hosts: map[string]*Host{"router": {}, "site": {}, "client": {}}}
	for _, tc := range []struct {
		name  string
		fault Fault
		want  string
	}{
		{"slow has a default", Fault{Kind: Slow, Node: "site"}, ""},
		{"no such node", Fault{Kind: Cut, Node: "void"}, `no node "void"`},
		{"no such kind", Fault{Kind: "melt", Node: "site"}, `no fault of kind "melt"`},
		{"not adjacent", Fault{Kind: Cut, Node: "site", Towards: "client"}, "no link for that"},
		{"slow without a line", Fault{Kind: Slow, Node: "client"}, "no link for that"},
		{"blackhole of nothing", Fault{Kind: Blackhole, Node: "site"}, "no prefix"},
		{"loss of nothing", Fault{Kind: Lossy, Node: "site"}, "lossy site"},
		{"loss of too much", Fault{Kind: Lossy, Node: "site", Share: 1.5}, "lossy site"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := n.checkFault(&tc.fault)
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if tc.want == "" && tc.fault.Delay != slowDelay {
				t.Errorf("delay %s", tc.fault.Delay)
			}
		})
	}
}

func TestAfterPrefix(t *testing.T) {
	for prefix, want := range map[string]string{
		"192.0.2.0/24": "192.0.3.0", "192.0.2.7/32": "192.0.2.8", "203.0.113.64/28": "203.0.113.80",
		"0.0.0.0/0": "", "2001:db8::/32": "2001:db9::", "2001:db8:100:40::/60": "2001:db8:100:50::",
	} {
		var got string
		if b := afterPrefix(netip.MustParsePrefix(prefix)); b != nil {
			a, _ := netip.AddrFromSlice(b)
			got = a.String()
		}
		if got != want {
			t.Errorf("after %s comes %q, want %q", prefix, got, want)
		}
	}
}

func TestSortedKeys(t *testing.T) {
	if got := sortedKeys(map[string]float64{"b": 1, "a": 2, "c": 0}); !reflect.DeepEqual(got, []string{"a", "b", "c"}) {
		t.Error(got)
	}
}
