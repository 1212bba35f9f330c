package decide

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
	"rhumb/placement/lpm"
)

// epoch is when the tests begin.
func epoch() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

type town struct {
	site, region, country, continent string
	at                               placement.Position
}

func towns() []town {
	return []town{
		{"ams1", "europe", "NL", "EU", placement.Position{52.37, 4.90}},
		{"nyc1", "north-america", "US", "NA", placement.Position{40.71, -74.01}},
		{"sin1", "asia", "SG", "AS", placement.Position{1.35, 103.82}},
		{"fra1", "europe", "DE", "EU", placement.Position{50.11, 8.68}},
		{"lax1", "north-america", "US", "NA", placement.Position{34.05, -118.24}},
		{"syd1", "asia", "AU", "OC", placement.Position{-33.87, 151.21}},
	}
}

// fleet has n sites, each with a dns and a web cluster, one anycast prefix,
// and two services: www steered by name, ns the referral of a zone.
func fleet(n int) *placement.Inventory {
	inv := &placement.Inventory{Revision: 7}
	inv.Mode = placement.Act
	for i, t := range towns()[:n] {
		inv.Sites = append(inv.Sites, placement.Site{Name: t.site, Region: t.region, At: t.at, Number: uint16(i + 1), Clusters: []placement.Cluster{
			{Name: "dns", Addresses: []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:53", i+1))}},
			{Name: "web", Capacity: 1000, Addresses: []netip.AddrPort{netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:80", i+1))}},
		}})
	}
	slices.SortFunc(inv.Sites, func(a, b placement.Site) int { return placement.SiteID(a.Name).Compare(placement.SiteID(b.Name)) })
	inv.Policies = []placement.Policy{{Name: "nearest", Pick: 2, TTL: placement.Duration(20 * time.Second)}}
	inv.Services = []placement.Service{
		{Name: "ns", Clusters: []string{"dns"}, Policy: "nearest", Zone: "cdn.test."},
		{Name: "www", Names: []string{"www.cdn.test."}, Clusters: []string{"web"}, Policy: "nearest", Demand: map[string]int64{"europe": 300, "north-america": 300, "asia": 300}},
	}
	inv.Prefixes = []placement.Prefix{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Clusters: []string{"dns"}, Slots: 1, Mode: placement.Act}}
	return inv
}

// classes has a class at each town: class i is 10.0.i.0/24.
func classes(t testing.TB) *placement.ClassTable {
	ct := &placement.ClassTable{Digest: "c1a55e5", Source: "test"}
	var entries []lpm.Entry
	for i, t := range towns() {
		ct.Locations = append(ct.Locations, placement.Location{Country: t.country, Continent: t.continent, At: t.at})
		entries = append(entries, lpm.Entry{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24), Value: uint16(i)})
	}
	table, err := lpm.Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	ct.Prefixes = table
	return ct
}

// vote is what the node of a site says.
func vote(from, object string, state placement.State, fault placement.Fault, since time.Duration) placement.Vote {
	v := placement.Vote{Vantage: from + "-a", Site: from, State: state, Fault: fault, Since: epoch().Add(since), Seq: uint64(since/time.Second) + 1}
	if err := v.Object.UnmarshalText([]byte(object)); err != nil {
		panic(err)
	}
	if state == placement.Down {
		v.Cause = "timeout"
	}
	return v
}

// allUp is every site saying that everything is up.
func allUp(inv *placement.Inventory) []placement.Vote {
	var out []placement.Vote
	for _, from := range inv.Sites {
		for _, of := range inv.Sites {
			out = append(out, vote(from.Name, of.Name+"/-", placement.Up, placement.NoFault, 0))
			for _, c := range of.Clusters {
				if from.Name == of.Name {
					out = append(out, vote(from.Name, of.Name+"/"+c.Name, placement.Up, placement.NoFault, 0))
				}
			}
		}
	}
	return out
}

// without drops what a dead site said; its lease has run out.
func without(votes []placement.Vote, site string) []placement.Vote {
	return slices.DeleteFunc(slices.Clone(votes), func(v placement.Vote) bool { return v.Site == site })
}

// killed is a site dead, as the others see it.
func killed(inv *placement.Inventory, votes []placement.Vote, site string, at time.Duration) []placement.Vote {
	votes = without(votes, site)
	for i := range votes {
		if votes[i].Object == placement.SiteID(site) {
			votes[i] = vote(votes[i].Site, site+"/-", placement.Down, placement.NoFault, at)
		}
	}
	return votes
}

func mustUnfold(t testing.TB, inv *placement.Inventory, ct *placement.ClassTable, plan *placement.Plan, votes []placement.Vote, rev int64) *placement.Snapshot {
	t.Helper()
	s, err := Unfold(inv, ct, plan, Fold(inv, votes, plan), rev, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// heads is, by class, who serves a service.
func heads(s *placement.Snapshot, service string) []string {
	var out []string
	m := s.Map(service)
	for _, row := range m.Rows {
		text, last := "", 0
		for _, sh := range row.Shares {
			if text != "" {
				text += " "
			}
			text += m.Clusters[row.Candidates[sh.Candidate].Cluster].Site
			if len(row.Shares) > 1 {
				text += fmt.Sprintf(":%d", int(sh.Upto)-last)
			}
			last = int(sh.Upto)
		}
		out = append(out, text)
	}
	return out
}
