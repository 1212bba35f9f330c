package placement

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement/lpm"
)

// world is a snapshot made by hand: three sites in two regions, and a class for
// 10.0.0.0/16 which is split 250:750 between the first two.
func world(t testing.TB, rows ...*Row) *Snapshot {
	inv := &Inventory{Revision: 1}
	for i, name := range []string{"ams1", "fra1", "nyc1"} {
		region := "europe"
		if name == "nyc1" {
			region = "america"
		}
		var addresses []netip.AddrPort
		for k := range 4 {
			addresses = append(addresses, netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:80", 16*i+k)))
		}
		addresses = append(addresses, netip.MustParseAddrPort(fmt.Sprintf("[2001:db8::%d]:80", i)))
		inv.Sites = append(inv.Sites, Site{Name: name, Region: region, Clusters: []Cluster{{Name: "web", Addresses: addresses}}})
	}
	inv.Services = []Service{{Name: "www", Policy: "p", Clusters: []string{"web"}}}
	inv.Policies = []Policy{{Name: "p", Pick: 2}}
	table, err := lpm.Build([]lpm.Entry{{Prefix: netip.MustParsePrefix("10.0.0.0/16"), Value: 0}})
	if err != nil {
		t.Fatal(err)
	}
	s := &Snapshot{Name: Name{4, 2, false}, Inventory: inv, Plan: &Plan{}, Classes: &ClassTable{Prefixes: table, Locations: []Location{{Country: "NL"}}}}
	s.Maps = []ServiceMap{{Service: &inv.Services[0], Policy: &inv.Policies[0], Clusters: inv.Eligible(&inv.Services[0]), Rows: rows,
		Blocks: table.Fold([]uint32{lpm.SplitBase}, 1)}}
	return s
}

func candidates(outs ...Out) []Candidate {
	var out []Candidate
	for i, o := range outs {
		out = append(out, Candidate{Cluster: uint16(i), Out: o, Cost: Cost(16 * i)})
	}
	return out
}

func split() *Row {
	return &Row{Candidates: candidates(In, In, OutFarther), Shares: []Share{{0, 250}, {1, 1000}}}
}

func single() *Row {
	return &Row{Candidates: candidates(In, OutFarther, OutDown), Shares: []Share{{0, 1000}}}
}

// TestChooseDividesByShare: blocks fall on the clusters as the shares say, and
// every client of a block falls on the same one.
func TestChooseDividesByShare(t *testing.T) {
	s := world(t, split(), single())
	r := rand.New(rand.NewPCG(1, 1))
	counts := make(map[string]int)
	for i := range 16 {
		var first ClusterID
		for k := range 8 {
			client := netip.AddrFrom4([4]byte{10, 0, byte(i<<4 | r.IntN(16)), byte(r.IntN(256))})
			c, ok := s.Choose("www", client, nil)
			id, served := c.Cluster()
			if !ok || !served || c.Class != 0 || c.Match.String() != "10.0.0.0/16" {
				t.Fatalf("%v: %+v", client, c)
			}
			if !c.Scope.Contains(client) || c.Scope.Bits() < 16 {
				t.Fatalf("%v is not in its scope %v", client, c.Scope)
			}
			if k == 0 {
				first = id
			} else if id != first {
				t.Fatalf("%v gets %v, its block %v", client, id, first)
			}
		}
		counts[first.Site]++
	}
	if counts["ams1"] == 0 || counts["fra1"] <= counts["ams1"] || counts["nyc1"] > 0 {
		t.Errorf("blocks by site: %v, want a quarter and three quarters", counts)
	}
}

func TestSplitHashIsEven(t *testing.T) {
	low := 0
	for i := range 1 << 14 {
		client := netip.AddrFrom4([4]byte{byte(i >> 8), byte(i), byte(i << 4), 1})
		if h := splitHash("www", client); h < 250 {
			low++
		} else if h > 999 {
			t.Fatalf("hash %d", h)
		}
	}
	if part := float64(low) / (1 << 14); part < .24 || part > .26 {
		t.Errorf("%.3f of the blocks fall on a quarter", part)
	}
}

func TestChooseUnknown(t *testing.T) {
	s := world(t, split(), single())
	c, ok := s.Choose("www", netip.MustParseAddr("172.16.0.1"), nil)
	if id, _ := c.Cluster(); !ok || c.Class != NoClass || id.Site != "ams1" {
		t.Errorf("of nobody knows where: %+v", c)
	}
	if _, ok := s.Choose("nothing", netip.MustParseAddr("10.0.0.1"), nil); ok {
		t.Error("a service that is not there was chosen for")
	}
	if c, ok := s.Choose("www", netip.Addr{}, nil); !ok || c.Scope.IsValid() {
		t.Errorf("the zero address: %+v", c)
	}
	down := world(t, &Row{Candidates: candidates(OutDown, OutDown, OutDown)})
	c, ok = down.Choose("www", netip.MustParseAddr("10.0.0.1"), nil)
	if _, served := c.Cluster(); !ok || served || down.Addresses(&c, netip.MustParseAddr("10.0.0.1"), false, 2) != nil {
		t.Errorf("nobody is usable, yet %+v", c)
	}
}

func TestAddresses(t *testing.T) {
	s := world(t, split(), single())
	seen := make(map[netip.AddrPort]bool)
	for i := range 64 {
		client := netip.AddrFrom4([4]byte{10, 0, byte(i * 4), 9})
		c, _ := s.Choose("www", client, nil)
		got := s.Addresses(&c, client, false, 2)
		again := s.Addresses(&c, client, false, 2)
		if len(got) != 2 || got[0] == got[1] || !slices.Equal(got, again) {
			t.Fatalf("%v gets %v, then %v", client, got, again)
		}
		seen[got[0]] = true
		if six := s.Addresses(&c, client, true, 2); len(six) != 1 || !six[0].Addr().Is6() {
			t.Fatalf("%v gets %v", client, six)
		}
	}
	if len(seen) < 4 {
		t.Errorf("only %d addresses ever come first", len(seen))
	}
}

func TestNameServers(t *testing.T) {
	cases := []struct {
		name string
		outs []Out
		pick int
		want string
	}{
		{"the nearest, and one outside its fate", []Out{In, OutFarther, OutFarther}, 2, "[ams1/web nyc1/web]"},
		{"all", []Out{In, OutFarther, OutFarther}, 3, "[ams1/web fra1/web nyc1/web]"},
		{"never fewer than two", []Out{In, OutFarther, OutFarther}, 1, "[ams1/web nyc1/web]"},
		{"the dead one is passed over", []Out{OutDown, In, OutFarther}, 2, "[fra1/web nyc1/web]"},
		{"one alive is filled up", []Out{OutDown, In, OutDown}, 2, "[fra1/web nyc1/web]"},
		{"two of one fate alive: one more, outside it", []Out{In, OutFarther, OutDown}, 2, "[ams1/web fra1/web nyc1/web]"},
		{"none alive", []Out{OutDown, OutDown, OutDown}, 2, "[ams1/web nyc1/web]"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := world(t, &Row{Candidates: candidates(tc.outs...)})
			c, _ := s.Choose("www", netip.MustParseAddr("10.0.0.1"), nil)
			if got := fmt.Sprint(s.NameServers(&c, tc.pick)); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
		})
	}
}

// TestTraceTellsWhatIsDone: with and without a trace the choice is the same, and
// the trace names it.
func TestTraceTellsWhatIsDone(t *testing.T) {
	s := world(t, split(), single())
	r := rand.New(rand.NewPCG(2, 2))
	for range 2000 {
		client := netip.AddrFrom4([4]byte{byte(9 + r.IntN(3)), byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(256))})
		var tr Trace
		a, _ := s.Choose("www", client, nil)
		b, _ := s.Choose("www", client, &tr)
		id, _ := a.Cluster()
		if a != b || tr.Chosen != id.String() || tr.Scope != a.Scope || tr.Match != a.Match {
			t.Fatalf("%v: %+v, traced %+v, told %+v", client, a, b, tr)
		}
		sum := 0
		for _, c := range tr.Candidates {
			sum += c.PerMille
			if c.Reason == "" {
				t.Fatalf("no reason for %+v", c)
			}
		}
		if sum != 1000 {
			t.Fatalf("shares sum to %d", sum)
		}
	}
}

func TestChooseAllocatesNothing(t *testing.T) {
	s := world(t, split(), single())
	client := netip.MustParseAddr("10.0.3.4")
	if n := testing.AllocsPerRun(100, func() { s.Choose("www", client, nil) }); n > 0 {
		t.Errorf("%v allocations a choice", n)
	}
}

func TestName(t *testing.T) {
	for _, text := range []string{"0.0", "1042.17", "1042.17+p"} {
		n, err := ParseName(text)
		if err != nil || n.String() != text {
			t.Errorf("%q reads as %v (%v)", text, n, err)
		}
	}
	for _, text := range []string{"", "1042", "1042.", ".17", "-1.2", "1.2+q", "1.2.3", "a.b", "+1.2", "01.2", "1.-0", "1.2+p+p", "9223372036854775808.1"} {
		if n, err := ParseName(text); err == nil {
			t.Errorf("%q reads as %v", text, n)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add("1042.17+p")
	f.Add("+1.2")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text)
		if err != nil {
			return
		}
		if n.String() != text || n.Plan < 0 || n.Votes < 0 {
			t.Errorf("%q reads as %v", text, n)
		}
	})
}

func TestCheckRefuses(t *testing.T) {
	prefix := netip.MustParsePrefix("203.0.113.0/24")
	cases := []struct {
		name   string
		change func(s *Snapshot)
		want   RuleName
	}{
		{"sound", func(*Snapshot) {}, ""},
		{"an anchor too few", func(s *Snapshot) { s.Anchors[0].Sites = []string{"ams1"} }, RuleAnchors},
		{"an anchor that may not announce", func(s *Snapshot) { s.Anchors[0].Sites = []string{"ams1", "xxx1"} }, RuleAnchors},
		{"no anchors at all", func(s *Snapshot) { s.Anchors = nil }, RuleAnchors},
		{"one anchor suffices below three sites", func(s *Snapshot) {
			s.Inventory.Prefixes[0].Sites = []string{"ams1", "fra1"}
			s.Anchors[0].Sites = []string{"fra1"}
		}, ""},
		{"name servers of one fate", func(s *Snapshot) {
			s.Inventory.Services[0].Zone = "cdn.test."
			s.Inventory.Sites[2].Region = "europe"
		}, RuleOneFate},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := world(t, single())
			s.Inventory.Prefixes = []Prefix{{Prefix: prefix}}
			s.Anchors = []Anchors{{Prefix: prefix, Sites: []string{"ams1", "nyc1"}}}
			tc.change(s)
			r := s.Check()
			if (r == nil) != (tc.want == "") || (r != nil && r.Rule != tc.want) {
				t.Errorf("%v, want %q", r, tc.want)
			}
		})
	}
}
