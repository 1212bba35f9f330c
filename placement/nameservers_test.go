package placement

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// someServers is a snapshot with one row of name servers in a random fleet.
func someServers(r *rand.Rand) (*Snapshot, *Choice) {
	inv, m, row := &Inventory{}, &ServiceMap{}, &Row{}
	sites := 1 + r.IntN(6)
	for i := range sites {
		s := Site{Name: fmt.Sprintf("s%d", i), Region: []string{"", "eu", "us"}[r.IntN(3)]}
		inv.Sites = append(inv.Sites, s)
		for k := range 1 + r.IntN(2) {
			m.Clusters = append(m.Clusters, ClusterID{s.Name, fmt.Sprintf("dns%d", k)})
		}
	}
	for _, i := range r.Perm(len(m.Clusters)) {
		out := []Out{In, OutFarther, OutDown, OutDrained}[r.IntN(4)]
		row.Candidates = append(row.Candidates, Candidate{Cluster: uint16(i), Out: out})
	}
	return &Snapshot{Inventory: inv}, &Choice{Map: m, Row: row}
}

// TestNameServersAgainstAllSets: of all sets of sites there are, the one returned
// is the best by the rules in their order.
func TestNameServersAgainstAllSets(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 3000 {
		s, c := someServers(r)
		pick := r.IntN(5)
		got := s.NameServers(c, pick)
		if want := bestServers(s, c, pick); !slices.Equal(got, want) {
			t.Fatalf("pick %d of %v\n%v, want %v\n(sites %+v)", pick, c.Row.Candidates, got, want, s.Inventory.Sites)
		}
	}
}

// bestServers tries every set.
func bestServers(s *Snapshot, c *Choice, pick int) (best []ClusterID) {
	pick = max(pick, 2)
	var all []ClusterID // a cluster a site: a usable one where there is one
	usable := make(map[ClusterID]bool)
	for _, up := range []bool{true, false} {
		for _, cand := range c.Row.Candidates {
			id := c.Map.Clusters[cand.Cluster]
			if cand.Out.Usable() == up && !slices.ContainsFunc(all, func(o ClusterID) bool { return o.Site == id.Site }) {
				all = append(all, id)
				usable[id] = up
			}
		}
	}
	var bestScore []int
	for set := 1; set < 1<<len(all); set++ {
		var ids []ClusterID
		var ranks []int
		live, fates := 0, make(map[string]bool)
		for i, id := range all {
			if set>>i&1 == 0 {
				continue
			}
			ids, ranks = append(ids, id), append(ranks, i)
			fates[cmp.Or(s.Inventory.Site(id.Site).Region, id.Site)] = true
			if usable[id] {
				live++
			}
		}
		off := len(ids) - pick
		score := []int{-min(len(ids), 2), -min(len(fates), 2), -min(live, 2), len(ids) - live, max(off, -off)}
		if score = append(score, ranks...); best == nil || slices.Compare(score, bestScore) < 0 {
			best, bestScore = ids, score
		}
	}
	return best
}

// TestNameServersOfCheckedSnapshots: what Check lets pass gives every resolver two
// name servers at least, of two fates.
func TestNameServersOfCheckedSnapshots(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	passed := 0
	for range 2000 {
		s, c := someServers(r)
		c.Map.Service, c.Map.Policy = &Service{Name: "ns", Zone: "cdn.test."}, &Policy{}
		s.Maps = []ServiceMap{*c.Map}
		if s.Check() != nil || len(s.Inventory.Sites) < 2 {
			continue
		}
		passed++
		if got := s.NameServers(c, 2); len(got) < 2 || s.oneFate(got) {
			t.Fatalf("%v of sites %+v", got, s.Inventory.Sites)
		}
	}
	if passed < 500 {
		t.Errorf("only %d snapshots passed Check", passed)
	}
}
