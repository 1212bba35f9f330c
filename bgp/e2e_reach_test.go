//go:build e2e

package bgp

import (
	"net/netip"
	"strings"
	"testing"

	"rhumb/placement"
)

// TestLocalUnderCover has two sites announce a local prefix under a global
// cover. The direct neighbour follows the local one and passes on the cover
// alone; all sites may leave the local prefix at once, anchors or not, while
// other sites announce the cover, and its clients fall to the cover.
func TestLocalUnderCover(t *testing.T) {
	const local = "192.0.2.0/25"
	l := newLab(t)
	l.host("spa", 1)
	l.host("spb", 11)
	l.host("rb", 2)
	l.host("up", 4)
	up := l.helper("up", helperConfig{Role: "engine", ASN: 64504, RouterID: addr4(4), Peers: []Peer{{Address: addr4(2), ASN: 64501, Passive: true}}})
	bird := l.bird("rb", "router id 198.51.100.2;\n"+birdPeer("a", 2, 1, "")+birdPeer("b", 2, 11, "")+
		"protocol bgp up { local 198.51.100.2 as 64501; neighbor 198.51.100.4 as 64504; connect delay time 1; connect retry time 1; ipv4 { import none; export where source = RTS_BGP; }; }\n")
	cover := netip.MustParsePrefix(net4)
	site := func(host string, n int, number uint16, others ...string) *process {
		c := spConfig()
		c.Role, c.RouterID, c.Site, c.VIPs, c.Slots = "speaker", addr4(n), number, []netip.Addr{vip}, true
		c.Prefixes = []placement.Prefix{
			{Prefix: cover, Reach: placement.Global, Slots: 1, Prepend: 2, Witness: placement.WitnessOff},
			{Prefix: netip.MustParsePrefix(local), Reach: placement.Local, Slots: 2, Prepend: 2, Witness: placement.WitnessOff},
		}
		for _, o := range others {
			c.Live = append(c.Live, placement.Announced{Prefix: cover, Site: o, Node: o + "n1"})
		}
		c.Peers = []Peer{{Address: addr4(2), ASN: 64501, GTSM: true}}
		return l.helper(host, c)
	}
	// The store grants Slots of the local prefix alone. Each knows the other and a
	// third by what is live.
	a, b := site("spa", 1, 1, "site2", "site3"), site("spb", 11, 2, "site1", "site3")
	for _, p := range []*process{a, b} {
		p.expect(0, "ready")
		p.tell("announce")
	}
	until(t, "both prefixes of both sites", func() bool {
		return strings.Count(l.routes("rb", net4)+l.routes("rb", local), "via 198.51.100.1") == 4
	})
	if out := bird("show", "route", "for", local, "all"); !strings.Contains(out, "(65535,65281)") {
		t.Errorf("the local prefix without NO_EXPORT:\n%s", out)
	}
	up.expect(0, "learned 198.51.100.2 "+net4+" false")
	via := func() string { return l.ip("-n", l.ns("rb"), "route", "get", vip.String()) }

	a.tell("withdrawn intent " + local)
	a.expect(0, "event "+local+" gshut withdrawn")
	until(t, "the other site's local route alone", func() bool {
		return strings.Contains(l.routes("rb", local), "via 198.51.100.11 ") && !strings.Contains(l.routes("rb", local), "via 198.51.100.1 ")
	})
	b.tell("withdrawn local " + local)
	b.expect(0, "event "+local+" gshut withdrawn")
	until(t, "no local route", func() bool { return !strings.Contains(l.routes("rb", local), "via") })
	if out := via(); !strings.Contains(out, "via 198.51.100.1") {
		t.Errorf("the cover does not catch the clients: %s", out)
	}
	// The cover itself gets no Slot and has no witness: it stays.
	b.tell("withdrawn local " + net4)
	b.expect(0, "event "+net4+" gshut gshut rule=")
	if told := fibLines(up, 0, "learned 198.51.100.2 "+local); len(told) > 0 {
		t.Errorf("the local prefix went past the neighbour: %v", told)
	}
}
