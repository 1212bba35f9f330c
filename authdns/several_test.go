package authdns

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// TestSeveralClusters: an answer holds one address of each cluster that the policy wants,
// the one that serves first, hints the same; its scope is a block that is drawn for as one
// (RFC 7871 section 7.2.1), and whoever asks from there gets the same.
func TestSeveralClusters(t *testing.T) {
	snap := fleet(t, plan{answers: placement.Answers{Nearest: 1, Random: 1}, https: &placement.Binding{}})
	st := compiled(t, snap, sources()...)
	of := map[string]string{}
	for _, site := range fixtureSites {
		for _, a := range site.Clusters[1].Addresses {
			of[a.Addr().String()] = site.Name
		}
	}
	ask := func(client string, qtype uint16) (sites []string, addrs []string, scope uint8) {
		m := st.reply(t, ask(t, "www.cdn.demo.test. "+dns.Type(qtype).String(), edns0(ecs(client))), from(elsewhere, placement.LowLevel))
		for _, rr := range m.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addrs = append(addrs, rr.A.String())
			case *dns.AAAA:
				addrs = append(addrs, rr.AAAA.String())
			case *dns.HTTPS:
				for _, v := range rr.Value {
					if h, ok := v.(*dns.SVCBIPv4Hint); ok {
						for _, a := range h.Hint {
							addrs = append(addrs, a.String())
						}
					}
				}
			}
		}
		for _, a := range addrs {
			sites = append(sites, of[a])
		}
		for _, o := range m.IsEdns0().Option {
			if o, ok := o.(*dns.EDNS0_SUBNET); ok {
				scope = o.SourceScope
			}
		}
		return sites, addrs, scope
	}
	drawn := map[string]bool{}
	for i := range 64 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 16, 0}), 24)
		sites, addrs, scope := ask(p.String(), dns.TypeA)
		if len(sites) != 2 || sites[0] != "tyo1" || sites[1] == "tyo1" || scope != placement.SplitBits4 {
			t.Fatalf("%s: %v with scope %d", p, sites, scope)
		}
		drawn[sites[1]] = true
		if _, near, _ := ask(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 31, 0}), 24).String(), dns.TypeA); !slices.Equal(near, addrs) {
			t.Errorf("the end of the block of %s gets %v, its begin %v", p, near, addrs)
		}
		if _, hints, _ := ask(p.String(), dns.TypeHTTPS); !slices.Equal(hints, addrs) {
			t.Errorf("%s: hints %v, addresses %v", p, hints, addrs)
		}
		if six, _, _ := ask(p.String(), dns.TypeAAAA); len(six) != 1 || six[0] != sites[1] { // tyo1 has none
			t.Errorf("%s: IPv6 of %v, IPv4 of %v", p, six, sites)
		}
	}
	if len(drawn) != 2 {
		t.Errorf("drawn: %v", drawn)
	}
}

// TestSeveralQuick: answers of several clusters take the fast path, and are the slow one's.
func TestSeveralQuick(t *testing.T) {
	for _, out := range []map[string]placement.Out{nil, {"ams1": placement.OutDown}} {
		st := compiled(t, fleet(t, plan{answers: placement.Answers{Nearest: 1, Random: 1}, out: out}), sources()...)
		p := newPaths(t, st, placement.LowLevel)
		for i := range 64 {
			for _, qtype := range []string{"A", "AAAA"} {
				client := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 16, 0}), 24).String()
				if !p.compare(t, ask(t, "www.cdn.demo.test. "+qtype, edns0(ecs(client))), euResolver) {
					t.Fatalf("%s for %s takes the slow path", qtype, client)
				}
			}
		}
		p.compareCounts(t)
	}
}

// TestSeveralShareAnAddress (RFC 2181 section 5): where clusters of an answer share an
// address it stands there once, by either path.
func TestSeveralShareAnAddress(t *testing.T) {
	const shared = "198.51.100.138" // tyo1's
	st := compiled(t, fleet(t, plan{answers: placement.Answers{Nearest: 1, Random: 2}, shared: shared}), sources()...)
	p := newPaths(t, st, placement.LowLevel)
	for i := range 16 {
		q := ask(t, "www.cdn.demo.test. A", edns0(ecs(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 16, 0}), 24).String())))
		if !p.compare(t, q, euResolver) {
			t.Fatal("takes the slow path")
		}
		m := st.reply(t, q, from(euResolver, placement.LowLevel))
		if len(m.Answer) != 2 || m.Answer[0].(*dns.A).A.String() != shared || m.Answer[1].(*dns.A).A.String() == shared {
			t.Errorf("client block %d: %v", i, m.Answer)
		}
	}
}
