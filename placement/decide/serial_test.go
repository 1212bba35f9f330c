package decide

import (
	"testing"

	"rhumb/placement"
)

// TestSerials: a changed zone that others copy must have a later serial (RFC 1982),
// and nothing is said of any other.
func TestSerials(t *testing.T) {
	copied := &placement.Transfer{Keys: []string{"k."}}
	zone := func(sha string, serial uint32, tr *placement.Transfer) *placement.Inventory {
		return &placement.Inventory{Fleet: placement.Fleet{Zones: []placement.Zone{{Name: "demo.test.", SHA256: sha, Serial: serial, Transfer: tr}}}}
	}
	for _, c := range []struct {
		why      string
		old, new *placement.Inventory
		refused  bool
	}{
		{"later", zone("a", 5, copied), zone("b", 6, copied), false},
		{"RFC 1982 3.2 later across the end of the circle", zone("a", 1<<32-1, copied), zone("b", 3, copied), false},
		{"unchanged", zone("a", 5, copied), zone("a", 5, copied), false},
		{"changed, the same serial", zone("a", 5, copied), zone("b", 5, copied), true},
		{"changed, an earlier serial", zone("a", 5, copied), zone("b", 4, copied), true},
		{"RFC 1982 3.2 half the circle apart", zone("a", 0x10, copied), zone("b", 0x80000010, copied), true},
		{"nobody copies it", zone("a", 5, nil), zone("b", 5, nil), false},
		{"copied from now on", zone("a", 5, nil), zone("b", 5, copied), true},
		{"a new zone", &placement.Inventory{}, zone("b", 5, copied), false},
		{"kept before serials were", zone("a", 0, copied), zone("b", 5, copied), false},
		{"a copy of others", zone("", 0, copied), zone("", 0, copied), false},
	} {
		if got := serials(c.old, c.new); (len(got) == 1) != c.refused {
			t.Errorf("%s: %v", c.why, got)
		}
	}
	was, is := zone("a", 5, copied), zone("b", 5, copied)
	if r := JudgeZones(&was.Fleet, &is.Fleet, nil); r == nil || r.Rule != placement.RuleSerial {
		t.Errorf("with nothing set aside: %v", r)
	}
	if r := JudgeZones(&was.Fleet, &is.Fleet, []string{"serial"}); r != nil {
		t.Errorf("set aside by name: %v", r)
	}
	follows := zone("", 0, nil)
	follows.Zones[0].Catalog, follows.Zones[0].Secondary = &placement.Catalog{}, &placement.Secondary{}
	if r := JudgeZones(&follows.Fleet, &placement.Fleet{}, nil); r == nil || r.Rule != placement.RuleShrink {
		t.Errorf("RFC 9432 6: a catalog is left out: %v", r)
	}
	if r := JudgeZones(&follows.Fleet, &follows.Fleet, nil); r != nil {
		t.Errorf("RFC 9432 6: a catalog stays: %v", r)
	}
}
