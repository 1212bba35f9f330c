package api

import (
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement"
)

// TestPrefixesOf: each way in which a prefix can stand to the fleet.
func TestPrefixesOf(t *testing.T) {
	known, stray := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("203.0.113.0/24")
	retire := func(p netip.Prefix) func(*State) {
		return func(s *State) {
			s.Inventory.Retirements = append(s.Inventory.Retirements, placement.Retirement{Prefix: p, Audit: placement.Audit{Who: "eve", Reason: "sold"}})
		}
	}
	silence := func(s *State) {
		s.Announced = nil
		for i := range s.Nodes {
			if s.Nodes[i].BGP != nil {
				s.Nodes[i].BGP.Routes = nil
			}
		}
	}
	left := func(s *State) {
		s.Announced = append(s.Announced, placement.Announced{Prefix: stray, Site: "ams1", Node: "ams1-a", Step: placement.GShut})
	}
	for name, tt := range map[string]struct {
		change []func(*State)
		prefix netip.Prefix
		want   PrefixState
	}{
		"in service":                 {nil, known, PrefixAnnounced},
		"nobody announces it":        {[]func(*State){silence}, known, PrefixSilent},
		"deleted, and held":          {[]func(*State){left}, stray, PrefixDeleted},
		"deleted, and now going":     {[]func(*State){left, retire(stray)}, stray, PrefixRetiring},
		"deleted, gone, and on file": {[]func(*State){retire(stray)}, stray, PrefixRetired},
		"going":                      {[]func(*State){retire(known)}, known, PrefixRetiring},
		"gone":                       {[]func(*State){silence, retire(known)}, known, PrefixRetired},
	} {
		t.Run(name, func(t *testing.T) {
			s := testState(t)
			for _, f := range tt.change {
				f(&s)
			}
			all := PrefixesOf(s)
			i := slices.IndexFunc(all, func(p Prefix) bool { return p.Prefix == tt.prefix })
			if i < 0 || all[i].State != tt.want || (all[i].Retired != nil) != (tt.want == PrefixRetiring || tt.want == PrefixRetired) {
				t.Errorf("%+v, want %s to be %s", all, tt.prefix, tt.want)
			}
			for _, n := range Notices(s, Sites(s, nil)) {
				if n.Kind == "PrefixNowhereAnnounced" && tt.want == PrefixRetired {
					t.Errorf("somebody is called for a retired prefix: %+v", n)
				}
			}
		})
	}
}
