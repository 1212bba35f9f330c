package placement

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestSnapshotLookups: what is not in a snapshot is answered by what is safe: an
// unknown verdict serves, an unnamed step announces, a missing backup is none.
func TestSnapshotLookups(t *testing.T) {
	p, q := netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24")
	web := ClusterID{"ams1", "web"}
	plan := &Plan{Steps: []Announcement{{Prefix: p, Site: "ams1", Want: GShut}}, Drains: []DrainState{{Site: "ams1", Phase: PhaseTTL}}}
	s := &Snapshot{Plan: plan, Verdicts: []Verdict{{Object: SiteID("ams1"), State: Up}, {Object: web, State: Down}},
		Anchors: []Anchors{{Prefix: p, Sites: []string{"nyc1"}}}, Backups: []Backup{{Site: "ams1", Order: []string{"nyc1"}, Epoch: 7}}}
	if v := s.Verdict(web); v.State != Down {
		t.Errorf("%+v", v)
	}
	none := s.Verdict(ClusterID{"ams1", "zzz"})
	if none.State != Unknown || !none.Usable() || none.Object.Name != "zzz" {
		t.Errorf("%+v", none)
	}
	if plan.Step(p, "ams1") != GShut || plan.Step(q, "ams1") != Announce || plan.Step(p, "nyc1") != Announce {
		t.Error("a step which nobody asked for")
	}
	if d := plan.Drain("ams1"); d == nil || d.Phase != PhaseTTL || plan.Drain("nyc1") != nil {
		t.Errorf("%+v", d)
	}
	if !slices.Equal(s.AnchorSites(p), []string{"nyc1"}) || s.AnchorSites(q) != nil {
		t.Error("anchors")
	}
	if order, epoch := s.BackupOrder("ams1"); epoch != 7 || !slices.Equal(order, []string{"nyc1"}) {
		t.Errorf("%v %d", order, epoch)
	}
	if order, epoch := s.BackupOrder("nyc1"); epoch != 0 || order != nil {
		t.Errorf("%v %d", order, epoch)
	}
	if s.Map("www") != nil {
		t.Error("a map of nothing")
	}
}

// TestReasons: why a candidate is out is said with what an operator looks for.
func TestReasons(t *testing.T) {
	s := world(t, &Row{Candidates: candidates(In, OutDown, OutDialled)})
	s.Inventory.Drains = []Drain{{Site: "ams1", Audit: Audit{Who: "op", Reason: "new disks"}}}
	s.Plan.Weights = []Weight{{Cluster: ClusterID{"nyc1", "web"}, PerMille: 300, Cause: "ramp"}}
	s.Verdicts = []Verdict{{Object: SiteID("ams1"), State: Up}, {Object: ClusterID{"ams1", "web"}, State: Down, Cause: "refused"},
		{Object: SiteID("fra1"), State: Down, Cause: "no beat"}, {Object: ClusterID{"fra1", "web"}, State: Up}}
	for _, c := range []struct {
		site string
		out  Out
		want string
	}{
		{"ams1", OutDown, "down: refused"}, {"fra1", OutDown, "site fra1 is down: no beat"},
		{"ams1", OutDrained, "drained by op: new disks"}, {"nyc1", OutDrained, "drained"},
		{"nyc1", OutDialled, "limited by dial or ramp: ramp"}, {"ams1", OutDialled, "waits for the next plan"},
		{"ams1", OutForced, "forced down"}, {"ams1", OutFull, "capacity"}, {"ams1", OutTier, "tier above"},
		{"ams1", OutFarther, "farther"}, {"ams1", OutExcluded, "does not name it"}, {"fra1", In, "usable: up"},
	} {
		id := ClusterID{c.site, "web"}
		if got := s.reason(id, c.out, s.Verdict(id)); !strings.Contains(got, c.want) {
			t.Errorf("%s %v: %q, want %q", c.site, c.out, got, c.want)
		}
	}
}

// TestOutUsable: usable is what could take clients if those before it could not.
func TestOutUsable(t *testing.T) {
	usable := []Out{In, OutFull, OutTier, OutFarther}
	seen := make(map[string]bool)
	for o := In; o <= OutExcluded; o++ {
		text, _ := o.MarshalText()
		if o.Usable() != slices.Contains(usable, o) || seen[string(text)] || len(text) == 0 {
			t.Errorf("%v (%q): usable %v", o, text, o.Usable())
		}
		seen[string(text)] = true
	}
}

// TestCheckNameServers: who has a choice must not have all name servers in one fate.
func TestCheckNameServers(t *testing.T) {
	for _, c := range []struct {
		name    string
		regions []string
		servers []int // per site
		refused bool
	}{
		{"a fleet of one site has no choice", []string{"eu"}, []int{2}, false},
		{"two regions", []string{"eu", "us"}, []int{1, 1}, false},
		{"one region of two", []string{"eu", "eu", "us"}, []int{1, 1, 0}, true},
		{"one server of two sites", []string{"eu", "us"}, []int{1, 0}, true},
		{"no region named: the sites", []string{"", ""}, []int{1, 1}, false},
		{"none yet", []string{"eu", "us"}, []int{0, 0}, false},
	} {
		s := &Snapshot{Inventory: &Inventory{}, Maps: []ServiceMap{{Service: &Service{Name: "ns", Zone: "cdn.test."}}}}
		for i, region := range c.regions {
			name := string(rune('a' + i))
			s.Inventory.Sites = append(s.Inventory.Sites, Site{Name: name, Region: region})
			for k := range c.servers[i] {
				s.Maps[0].Clusters = append(s.Maps[0].Clusters, ClusterID{name, string(rune('0' + k))})
			}
		}
		if r := s.Check(); (r != nil) != c.refused || r != nil && r.Rule != RuleOneFate {
			t.Errorf("%s: %v", c.name, r)
		}
	}
}
