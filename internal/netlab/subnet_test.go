package netlab

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"
)

// RFC 7871 section 7.3: answers are kept by scope; clients inside share, others
// ask anew. Root and TLD never see the client.
func TestResolverClientSubnet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := threeLevels(t)
		var told []string
		for _, a := range []string{rootAddr, tldAddr, nearAddr, farAddr} {
			s := f.servers[a]
			s.reply = func(q *dns.Msg, _ bool) *dns.Msg {
				m := s.answer(q)
				network, _, ok := subnetIn(q)
				if ok {
					told = append(told, network.String())
					if a == rootAddr || a == tldAddr {
						t.Errorf("%s was told of %s", a, network)
					}
					if len(m.Answer) == 1 && m.Answer[0].Header().Name == "www.demo.test." {
						m.Answer[0].(*dns.A).A = network.Addr().AsSlice()
						m.SetEdns0(ednsSize, false)
						m.IsEdns0().Option = append(m.IsEdns0().Option, subnetOption(network, 26))
					}
				}
				return m
			}
		}
		r := newTestResolver(t, f, func(c *ResolverConfig) { c.ECS = true })
		for _, tc := range []struct{ client, want, told string }{
			{"203.0.113.16/28", "NOERROR 203.0.113.16", "203.0.113.16/28"},
			{"203.0.113.32/28", "NOERROR 203.0.113.16", ""}, // same /26
			{"203.0.113.64/28", "NOERROR 203.0.113.64", "203.0.113.64/28"},
			{"203.0.113.16/28", "NOERROR 203.0.113.16", ""},
		} {
			told = nil
			if got := askFor(r, "www.demo.test.", dns.TypeA, netip.MustParsePrefix(tc.client)); got != tc.want {
				t.Errorf("client %s: %s, want %s", tc.client, got, tc.want)
			}
			if got := strings.Join(told, " "); got != tc.told {
				t.Errorf("client %s: servers were told %q, want %q", tc.client, got, tc.told)
			}
		}
	})
}

func TestResolverClientNetwork(t *testing.T) {
	r := newTestResolver(t, threeLevels(t), func(c *ResolverConfig) { c.ECS = true })
	for _, tc := range []struct{ name, from, option, want string }{
		{"own address, cut", "203.0.113.67", "", "203.0.113.64/28"},
		{"own address IPv6, cut", "2001:db8:100:4f::3", "", "2001:db8:100:40::/60"},
		{"named by the client", "203.0.113.67", "192.0.2.0/24", "192.0.2.0/24"},
		{"named too finely", "203.0.113.67", "192.0.2.17/32", "192.0.2.16/28"},
		{"RFC 7871 section 7.1.2: source 0 hides", "203.0.113.67", "0.0.0.0/0", "invalid Prefix"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := new(dns.Msg)
			q.SetQuestion("www.demo.test.", dns.TypeA)
			q.SetEdns0(ednsSize, false)
			if tc.option != "" {
				q.IsEdns0().Option = append(q.IsEdns0().Option, subnetOption(netip.MustParsePrefix(tc.option), 0))
			}
			packed, err := q.Pack()
			if err != nil || q.Unpack(packed) != nil {
				t.Fatal(err)
			}
			if got := r.clientNetwork(q, netip.MustParseAddr(tc.from)); got.String() != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}
