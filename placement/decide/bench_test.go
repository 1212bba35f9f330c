package decide

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"rhumb/placement"
	"rhumb/placement/lpm"
)

// world20k is a table of 20,000 places and 300,000 prefixes.
func world20k(b testing.TB) *placement.ClassTable {
	r := rand.New(rand.NewPCG(1, 1))
	ct := &placement.ClassTable{Digest: "world"}
	for range 20_000 {
		ct.Locations = append(ct.Locations, placement.Location{At: placement.Position{r.Float64()*120 - 50, r.Float64()*360 - 180}})
	}
	var entries []lpm.Entry
	for i := range 300_000 {
		a := netip.AddrFrom4([4]byte{byte(1 + i>>13), byte(i >> 5), byte(i << 3), 0})
		entries = append(entries, lpm.Entry{Prefix: netip.PrefixFrom(a, 21), Value: uint16(r.IntN(20_000))})
	}
	table, err := lpm.Build(entries)
	if err != nil {
		b.Fatal(err)
	}
	ct.Prefixes = table
	return ct
}

// BenchmarkHealthChange is what every node does when a site dies: 3 sites,
// 20,000 classes, 5 services with demand.
func BenchmarkHealthChange(b *testing.B) {
	inv, ct := fleet(3), world20k(b)
	for _, name := range []string{"img", "api", "vod"} {
		s := inv.Services[1]
		s.Name, s.Names = name, []string{name + ".cdn.test."}
		inv.Services = append(inv.Services, s)
	}
	for i := range inv.Services {
		inv.Services[i].Demand = map[string]int64{"europe": 100, "north-america": 100, "asia": 100}
	}
	inv.Services = append([]placement.Service{inv.Services[3], inv.Services[2]}, inv.Services[0], inv.Services[4], inv.Services[1])
	for i := range inv.Sites {
		inv.Sites[i].Clusters[1].Capacity = 1000
	}
	votes := allUp(inv)
	var u Unfolder
	p := Planner{}
	in := PlanInput{Inventory: inv, Classes: ct, Votes: votes, Now: epoch()}
	plan, _ := p.Plan(in)
	dead := killed(inv, votes, "ams1", time.Minute)
	b.Run("unfold", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			v := votes
			if i%2 == 0 {
				v = dead
			}
			if _, err := u.Unfold(inv, ct, plan, Fold(inv, v, plan), int64(i), false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("plan", func(b *testing.B) {
		in.Prev, in.Votes = plan, dead
		for b.Loop() {
			p.Plan(in)
		}
	})
	b.Run("fold", func(b *testing.B) {
		for b.Loop() {
			Fold(inv, votes, plan)
		}
	})
}
