package authdns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

func TestParse(t *testing.T) {
	in := ask(t, `a\.b\000.Demo.TEST. AAAA`, func(m *dns.Msg) {
		m.RecursionDesired = true
		m.SetEdns0(700, true)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, ecs("2001:db8::/33")}
	})
	q, rcode := parse(in, false)
	if rcode != dns.RcodeSuccess || q.id != 0x4242 || !q.rd || q.qtype != dns.TypeAAAA || q.qclass != dns.ClassINET {
		t.Errorf("rcode %d, %+v", rcode, q)
	}
	if q.name != `a\.b\000.Demo.TEST.` || q.canon != `a\.b\000.demo.test.` {
		t.Errorf("name %q, canonical %q", q.name, q.canon)
	}
	e := q.edns
	if !e.present || !e.do || !e.nsid || e.size != 700 || e.ecs == nil || e.ecs.prefix.String() != "2001:db8::/33" {
		t.Errorf("edns %+v", e)
	}
}

func TestSubnetClient(t *testing.T) {
	resolver := netip.MustParseAddr("192.0.2.53")
	none := placement.ECS{}
	for _, c := range []struct {
		name   string
		option string
		limit  placement.ECS
		addr   string
		bits   int
	}{
		{"no option", "", none, "192.0.2.53", 0},
		{"whole prefix", "203.0.113.0/24", none, "203.0.113.0", 24},
		{"RFC 7871 11.1 beyond the cap", "203.0.113.77/32", none, "203.0.113.0", 24},
		{"cap of the lab", "203.0.113.80/28", placement.ECS{Bits4: 28}, "203.0.113.80", 28},
		{"shorter than the cap", "203.0.0.0/16", none, "203.0.0.0", 16},
		{"IPv6 beyond the cap", "2001:db8:1:2ff::/64", none, "2001:db8:1:200::", 56},
		{"RFC 7871 7.1.2 source 0", "0.0.0.0/0", none, "192.0.2.53", 0},
		{"off", "203.0.113.0/24", placement.ECS{Off: true}, "192.0.2.53", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s *subnet
			if c.option != "" {
				q, rcode := parse(ask(t, "x. A", edns0(ecs(c.option))), false)
				if rcode != dns.RcodeSuccess {
					t.Fatal(rcode)
				}
				s = q.edns.ecs
			}
			addr, bits := s.client(resolver, c.limit)
			if addr.String() != c.addr || bits != c.bits {
				t.Errorf("got %s/%d, want %s/%d", addr, bits, c.addr, c.bits)
			}
		})
	}
}

// TestScope: RFC 7871 section 7.2.1.
func TestScope(t *testing.T) {
	s := &subnet{family: familyIPv4, source: 20}
	for _, c := range []struct {
		block string
		want  int
	}{{"198.51.0.0/14", 14}, {"198.51.100.0/24", 24}, {"198.51.100.0/28", 24}, {"0.0.0.0/0", 0}} {
		if got := s.scope(netip.MustParsePrefix(c.block), 20, placement.ECS{}); got != c.want {
			t.Errorf("block %s: scope %d, want %d", c.block, got, c.want)
		}
	}
	if got := s.scope(netip.Prefix{}, 20, placement.ECS{}); got != 20 {
		t.Errorf("no block known: scope %d, want what was used", got)
	}
}

// TestFind: the longest suffix, by whole labels.
func TestFind(t *testing.T) {
	f := forest{"demo.test.": {name: "demo.test."}, "cdn.demo.test.": {name: "cdn.demo.test."}}
	rooted := forest{".": {name: "."}, "demo.test.": {name: "demo.test."}}
	for _, c := range []struct {
		f     forest
		name  string
		qtype uint16
		want  string
	}{
		{f, "demo.test.", dns.TypeA, "demo.test."},
		{f, "a.b.cdn.demo.test.", dns.TypeA, "cdn.demo.test."},
		{f, "xcdn.demo.test.", dns.TypeA, "demo.test."},
		{f, "cdn.demo.test.", dns.TypeDS, "demo.test."},
		{f, "demo.test.", dns.TypeDS, "demo.test."},
		{f, "test.", dns.TypeA, ""},
		{f, ".", dns.TypeA, ""},
		{rooted, ".", dns.TypeNS, "."},
		{rooted, ".", dns.TypeDS, "."},
		{rooted, "other.", dns.TypeA, "."},
		{rooted, "demo.test.", dns.TypeDS, "."},
	} {
		got := ""
		if z := c.f.find(c.name, c.qtype); z != nil {
			got = z.name
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.name, dns.Type(c.qtype), got, c.want)
		}
	}
}

// TestObserves: an observe of the node or of the role holds for every service;
// below that a service's own word counts before the fleet's.
func TestObserves(t *testing.T) {
	const act, watch = placement.Act, placement.Observe
	for _, c := range []struct {
		node, fleet, role, service placement.Mode
		want                       bool
	}{
		{"", act, "", "", false},
		{"", act, "", watch, true},
		{"", watch, "", "", true},
		{"", watch, act, "", false},
		{"", watch, "", act, false},
		{"", act, watch, act, true},
		{watch, act, act, act, true},
		{"", "", "", "", true},
	} {
		snap := fleet(t, plan{})
		snap.Inventory.Mode = c.fleet
		snap.Inventory.Roles = map[string]placement.Mode{}
		if c.role != "" {
			snap.Inventory.Roles["authdns"] = c.role
		}
		k := compiler{snap: snap, state: &state{self: identity{Mode: c.node}}}
		if got := k.observes(c.service); got != c.want {
			t.Errorf("%+v: observes %t", c, got)
		}
	}
}

// TestFixed: the static set names every cluster before any of them twice.
func TestFixed(t *testing.T) {
	snap := fleet(t, plan{})
	k := compiler{snap: snap, state: &state{}}
	got := ofFamily(k.fixed(snap.Inventory.Service("www")), dns.TypeA, 4)
	want := []string{"198.51.100.10", "198.51.100.74", "198.51.100.138", "198.51.100.11"}
	for i, w := range want {
		if i >= len(got) || got[i].String() != w {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

// FuzzSubnet holds that an accepted option has a prefix without stray bits, no
// longer than it says, and that a scope never exceeds the cap.
func FuzzSubnet(f *testing.F) {
	f.Add([]byte{0, 1, 24, 0, 198, 51, 100})
	f.Add([]byte{0, 2, 33, 0, 32, 1, 13, 184, 128})
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := parseSubnet(data)
		if !ok {
			return
		}
		if len(s.octets) != (s.source+7)/8 || (s.source > 0) != s.prefix.IsValid() {
			t.Fatalf("%x: %+v", data, s)
		}
		addr, bits := s.client(netip.MustParseAddr("192.0.2.53"), placement.ECS{})
		if bits > s.source || bits > defaultBits6 || (bits > 0 && !s.prefix.Contains(addr) && bits >= s.source) {
			t.Fatalf("%x: client %s/%d", data, addr, bits)
		}
	})
}
