package decide

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement"
)

// several is a fleet whose www answers with the nearest clusters and others drawn.
func several(n, nearest, random int) *placement.Inventory {
	inv := fleet(n)
	p := inv.Policies[0]
	p.Name, p.Answers, p.AllDown = "several", placement.Answers{Nearest: nearest, Random: random}, placement.NoData
	inv.Policies = append(inv.Policies, p)
	inv.Services[1].Policy, inv.Services[1].Demand = "several", nil
	return inv
}

func answered(s *placement.Snapshot, client string) []string {
	c, _ := s.Choose("www", netip.MustParseAddr(client), nil)
	var out []string
	for _, i := range c.Clusters(netip.MustParseAddr(client), nil) {
		out = append(out, c.Map.Clusters[i].Site)
	}
	return out
}

func unfolded(t testing.TB, inv *placement.Inventory, votes []placement.Vote) *placement.Snapshot {
	ct := classes(t)
	plan, _ := Plan(PlanInput{Inventory: inv, Classes: ct, Votes: allUp(inv), Now: epoch()})
	return mustUnfold(t, inv, ct, plan, votes, 1)
}

// TestSeveralClusters: the nearest come first, and none is of a lower tier while the ones
// above are enough, none down, none of others.
func TestSeveralClusters(t *testing.T) {
	inv := several(6, 2, 0)
	if got := answered(unfolded(t, inv, allUp(inv)), "10.0.0.1"); !slices.Equal(got, []string{"ams1", "fra1"}) {
		t.Errorf("beside ams1: %v", got)
	}
	if got := answered(unfolded(t, inv, webDown(allUp(inv), "fra1")), "10.0.0.1"); !slices.Equal(got, []string{"ams1", "nyc1"}) {
		t.Errorf("without fra1: %v", got)
	}
	inv = several(6, 1, 2)
	inv.Policies[1].Choose = placement.Branch{Failover: []placement.Branch{{Sites: []string{"ams1", "nyc1"}}, {Sites: []string{"sin1", "syd1", "lax1"}}}}
	seen := map[string]int{}
	s := unfolded(t, inv, allUp(inv))
	for i := range 64 {
		got := answered(s, netip.AddrFrom4([4]byte{30, byte(i), 0, 1}).String())
		if len(got) != 3 || !slices.Contains(got[:2], "ams1") || !slices.Contains(got[:2], "nyc1") {
			t.Fatalf("tier one is ams1 and nyc1: %v", got)
		}
		seen[got[2]]++
	}
	if len(seen) != 3 || seen["fra1"] > 0 {
		t.Errorf("drawn of the second tier: %v", seen)
	}
	inv = several(3, 3, 0)
	inv.Sites[1].Clusters[1].CNAME, inv.Sites[1].Clusters[1].Addresses = "www.example.", nil
	if got := answered(unfolded(t, inv, allUp(inv)), "10.0.0.1"); !slices.Equal(got, []string{"ams1", "sin1"}) {
		t.Errorf("with a name of others: %v", got)
	}
}

// TestDrawnOnce: who is drawn for a block stays when others come and go, and all are drawn
// about as often.
func TestDrawnOnce(t *testing.T) {
	all, less := several(6, 1, 1), several(6, 1, 1)
	less.Sites = slices.DeleteFunc(less.Sites, func(s placement.Site) bool { return s.Name == "syd1" })
	a, b := unfolded(t, all, allUp(all)), unfolded(t, less, allUp(less))
	seen := map[string]int{}
	for i := range 2000 {
		client := netip.AddrFrom4([4]byte{10, 0, 0, 1}).String()
		if i > 0 {
			client = netip.AddrFrom4([4]byte{40, byte(i >> 4), byte(i << 4), 9}).String()
		}
		before, after := answered(a, client), answered(b, client)
		if before[0] == after[0] && before[1] != "syd1" && before[1] != after[1] {
			t.Fatalf("%s: %v, and without syd1 %v", client, before, after)
		}
		seen[before[1]]++
	}
	for site, n := range seen {
		if n < 2000/6*3/4 || n > 2000/6*5/4 {
			t.Errorf("%s was drawn %d times of 2000", site, n)
		}
	}
}

// TestSeveralScope (RFC 7871, 7.2.1): within a scope all clients get the same clusters, in
// the same order, of which none is closed; over random fleets, dials and failures.
func TestSeveralScope(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 7))
		inv := several(2+r.IntN(5), 1+r.IntN(3), r.IntN(3))
		if !inv.Policies[1].Answers.Set() {
			continue
		}
		if r.IntN(2) == 0 {
			inv.Policies[1].Choose = placement.Branch{Failover: []placement.Branch{{Sites: []string{"ams1"}}, {Sites: []string{"nyc1", "sin1"}}, {}}}
		}
		votes := allUp(inv)
		if r.IntN(2) == 0 {
			votes = webDown(votes, inv.Sites[r.IntN(len(inv.Sites))].Name)
		}
		if r.IntN(2) == 0 {
			inv = dialled(inv, inv.Sites[r.IntN(len(inv.Sites))].Name+"/web", r.IntN(1000))
		}
		s := unfolded(t, inv, votes)
		for range 300 {
			client := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(7)), byte(r.IntN(256))})
			if r.IntN(3) == 0 {
				client = netip.AddrFrom4([4]byte{byte(r.IntN(220)), byte(r.IntN(256)), byte(r.IntN(256)), 1})
			}
			c, _ := s.Choose("www", client, nil)
			got := c.Clusters(client, nil)
			for i, k := range got {
				if slices.Contains(got[:i], k) || !verdictOf(s.Verdicts, c.Map.Clusters[k]).Usable() {
					t.Fatalf("seed %d: %v of %v", seed, got, c.Map.Clusters)
				}
			}
			b := client.As4()
			host := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			host ^= uint32(uint64(r.Uint32()) & (1<<(32-c.Scope.Bits()) - 1))
			other := netip.AddrFrom4([4]byte{byte(host >> 24), byte(host >> 16), byte(host >> 8), byte(host)})
			d, _ := s.Choose("www", other, nil)
			if d.Scope != c.Scope || !slices.Equal(d.Clusters(other, nil), got) {
				t.Fatalf("seed %d: %s gets %v with scope %s, and %s %v with %s", seed, client, got, c.Scope, other, d.Clusters(other, nil), d.Scope)
			}
			for _, six := range []bool{false, true} {
				if n := len(s.Addresses(&c, client, six, 2)); !six && n != len(got) {
					t.Fatalf("%d addresses of %d clusters", n, len(got))
				}
			}
		}
	}
}

// TestCoarseScopes: answers that nothing divides keep one scope for all who get them.
func TestCoarseScopes(t *testing.T) {
	inv := several(3, 1, 2) // all three, whoever asks; but each has another in front
	s := unfolded(t, inv, allUp(inv))
	if c, _ := s.Choose("www", netip.MustParseAddr("10.0.0.1"), nil); c.Scope.Bits() != 24 {
		t.Errorf("a class without draws has scope %s", c.Scope)
	}
	inv = several(3, 1, 1)
	s = unfolded(t, inv, allUp(inv))
	if c, _ := s.Choose("www", netip.MustParseAddr("60.1.2.3"), nil); c.Scope.Bits() != placement.SplitBits4 {
		t.Errorf("drawn clients have scope %s", c.Scope)
	}
}

// TestNoRoomBeside: a cluster is added to no answer for which it has no room, by a forecast
// and in service alike, and a dialled one as often as its dial says.
func TestNoRoomBeside(t *testing.T) {
	inv := several(3, 1, 1)
	inv.Services[1].Demand = map[string]int64{"europe": 800, "asia": 800}
	inv.Sites[1].Clusters[1].Capacity = 300 // nyc1
	s := unfolded(t, inv, allUp(inv))
	for i := range 256 {
		if got := answered(s, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String()); slices.Contains(got, "nyc1") {
			t.Fatalf("nyc1 has no room: %v", got)
		}
	}
	f := Simulate(s, Change{})
	for _, c := range f.Clusters {
		if c.Capacity > 0 && c.Before != map[string]int64{"ams1": 800, "nyc1": 0, "sin1": 800}[c.Cluster.Site] {
			t.Errorf("%s is expected to carry %d", c.Cluster, c.Before)
		}
	}
	inv.Sites[1].Clusters[1].Capacity = 1000
	var total int64
	for _, c := range Simulate(unfolded(t, inv, allUp(inv)), Change{}).Clusters {
		total += c.Before
		if c.Cluster.String() == "nyc1/web" && c.Before != 400 {
			t.Errorf("with room nyc1 carries %d, want a quarter", c.Before)
		}
	}
	if total != 1600 {
		t.Errorf("%d in all", total)
	}
	inv = dialled(several(3, 1, 2), "nyc1/web", 250)
	s = unfolded(t, inv, allUp(inv))
	n := 0
	for i := range 4000 {
		if slices.Contains(answered(s, netip.AddrFrom4([4]byte{70, byte(i >> 4), byte(i << 4), 1}).String()), "nyc1") {
			n++
		}
	}
	if n < 800 || n > 1500 {
		t.Errorf("at a quarter nyc1 stands in %d of 4000 answers", n)
	}
}

func BenchmarkClusters(b *testing.B) {
	inv := several(6, 2, 2)
	s := unfolded(b, inv, allUp(inv))
	client := netip.MustParseAddr("10.0.0.9")
	var buf [placement.MaxAnswers]uint16
	b.ReportAllocs()
	for b.Loop() {
		c, _ := s.Choose("www", client, nil)
		c.Clusters(client, buf[:0])
	}
}
