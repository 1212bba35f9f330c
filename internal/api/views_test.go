package api

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

func TestViewsAgainstKeptDocuments(t *testing.T) {
	st := testState(t)
	rows := Sites(st, map[string]float64{"ams1": 80})
	status := StatusOf(st, Identity{Node: "ams1-a", Unit: "rhumb-dns", Version: "v0"}, rows)
	explained, err := Explain(st, ExplainRequest{Name: "www.cdn.demo.test", Client: "203.0.113.3"}, noon)
	if err != nil {
		t.Fatal(err)
	}
	for name, doc := range map[string]any{"sites": rows, "status": status, "zones": ZonesOf(st), "peers": PeersOf(st, ""),
		"routes": RoutesOf(st, ""), "sessions": SessionsOf(st, "", ""), "slots": SlotsOf(st), "explain": explained} {
		golden(t, name, doc)
	}
}

// TestListedZones: what catalogs list has rows of its own, as far as units tell of it.
func TestListedZones(t *testing.T) {
	st := testState(t)
	before := len(ZonesOf(st))
	for _, serial := range []uint32{7, 8} {
		zones := &st.Nodes[3].DNS.Zones
		*zones = append(*zones, placement.ZoneStatus{Name: "listed.test.", Catalog: "catz.test.", Serial: serial, Names: int(serial), Primary: "192.0.2.1:53"})
	}
	all := ZonesOf(st)
	at := slices.IndexFunc(all, func(z Zone) bool { return z.Name == "listed.test." })
	if len(all) != before+1 || at < 0 {
		t.Fatalf("%d rows before, now %d, listed.test. at %d", before, len(all), at)
	}
	if z := all[at]; z.Catalog != "catz.test." || !slices.Equal(z.Serials, []uint32{7, 8}) || z.Names != 8 || !slices.Equal(z.Primaries, []string{"192.0.2.1:53"}) {
		t.Errorf("%+v", z)
	}
}

// TestTheDocumentOfTheAPI: what others rely on changes only on purpose.
func TestTheDocumentOfTheAPI(t *testing.T) {
	doc := testServer(t, &fakeOps{}).describe()
	for _, e := range (&Server{}).endpoints() {
		if doc.Paths[prefix+e.path] == nil {
			t.Errorf("%s is not described", e.path)
		}
	}
	golden(t, "openapi", doc)
}

func row(t *testing.T, st State, site string) Site {
	t.Helper()
	rows := Sites(st, nil)
	i := slices.IndexFunc(rows, func(r Site) bool { return r.Name == site })
	if i < 0 {
		t.Fatalf("no row for %s", site)
	}
	return rows[i]
}

func TestOneWordForASite(t *testing.T) {
	verdict := func(st *State, name string) *placement.Verdict {
		for i := range st.Snapshot.Verdicts {
			if v := &st.Snapshot.Verdicts[i]; v.Object.String() == name {
				return v
			}
		}
		t.Fatalf("no verdict on %s", name)
		return nil
	}
	tests := map[string]struct {
		site   string
		change func(*State)
		want   string
		reason string
	}{
		"all is well but a peer": {"ams1", func(*State) {}, StatusDegraded, "1/2 BGP peers"},
		"a cluster is down":      {"nyc1", func(*State) {}, StatusDegraded, "dns down: SOA timed out"},
		"drained":                {"tyo1", func(*State) {}, StatusDraining, "ops: CHG-2231, until 12:30Z"},
		"drain ran out":          {"tyo1", func(s *State) { s.Now = noon().Add(time.Hour) }, StatusDraining, "ops: CHG-2231, EXPIRED 12:30Z and still drained"},
		"every cluster is down":  {"nyc1", func(s *State) { verdict(s, "nyc1/web").State = placement.Down }, StatusDown, "every cluster is down: SOA timed out"},
		"measured down":          {"nyc1", func(s *State) { v := verdict(s, "nyc1/-"); v.State, v.DownDomains = placement.Down, 2 }, StatusDown, "2 of 3 domains say down"},
		"down, kept by the cap": {"nyc1", func(s *State) {
			v := verdict(s, "nyc1/-")
			v.State, v.Capped, v.Cause = placement.Down, true, "beats lost"
		}, StatusDegraded, "down but kept by the removal cap: beats lost; dns down: SOA timed out"},
		"path broken": {"tyo1", func(s *State) {
			s.Inventory.Drains = nil
			s.Plan.Drains = nil
			v := verdict(s, "tyo1/-")
			v.State, v.Cause = placement.Path, "via nyc1"
		}, StatusDegraded, "path broken: via nyc1"},
		"no snapshot":            {"ams1", func(s *State) { s.Snapshot = nil }, StatusUnknown, "no snapshot yet"},
		"undrained, coming back": {"tyo1", func(s *State) { s.Inventory.Drains = nil; s.Plan.Drains[0].Phase = placement.PhaseReturning }, StatusUp, "returning"},
		"forced down": {"nyc1", func(s *State) {
			verdict(s, "nyc1/-").Force = placement.ForceDown
			s.Inventory.Forces = []placement.Force{{Object: placement.SiteID("nyc1"), State: placement.ForceDown, Audit: placement.Audit{Who: "eve", Reason: "fire"}}}
		}, StatusDown, "forced down by eve: fire"},
		"dialled": {"tyo1", func(s *State) {
			s.Inventory.Drains, s.Plan.Drains = nil, nil
			s.Inventory.Dials = []placement.Dial{{Site: "tyo1", PerMille: 300, Audit: placement.Audit{Who: "eve", Reason: "heat"}}}
		}, StatusUp, "dialled to 30 % by eve: heat"},
		"a cluster dialled": {"tyo1", func(s *State) {
			s.Inventory.Drains, s.Plan.Drains = nil, nil
			s.Inventory.Dials = []placement.Dial{{Site: "tyo1/web", PerMille: 300, Audit: placement.Audit{Who: "eve", Reason: "heat"}}, {Site: "tyo1", PerMille: 900, Audit: placement.Audit{Who: "bob", Reason: "exam"}}}
		}, StatusUp, "dialled to 90 % by bob: exam; web dialled to 30 % by eve: heat"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			st := testState(t)
			tt.change(&st)
			if got := row(t, st, tt.site); got.Status != tt.want || got.Reason != tt.reason {
				t.Errorf("%s is %s (%s), want %s (%s)", tt.site, got.Status, got.Reason, tt.want, tt.reason)
			}
		})
	}
}

func TestSharesAreOfTheDemand(t *testing.T) {
	got := shares(testState(t).Snapshot)
	// Class 0: 9000 to ams1; class 1: 2100 of 3000 to nyc1, 900 to ams1; the
	// class of nobody has no demand.
	if want := 9900.0 / 12000; got["ams1"] != want {
		t.Errorf("ams1 has %v, want %v", got["ams1"], want)
	}
	if want := 2100.0 / 12000; got["nyc1"] != want {
		t.Errorf("nyc1 has %v, want %v", got["nyc1"], want)
	}
	if len(shares(nil)) != 0 {
		t.Error("shares without a snapshot")
	}
}

// TestDemandOf: what all name servers are asked adds up by region, beside what the plan
// divides; classes of another table are nobody's.
func TestDemandOf(t *testing.T) {
	st := testState(t)
	st.Snapshot.Classes.Digest = "t1"
	st.Snapshot.Inventory.Services[0].PerQuery = 40
	report := func(table string, asked ...placement.ClassRate) placement.DemandReport {
		return placement.DemandReport{ClassTable: table, Services: []placement.ServiceDemand{{Service: "www", Asked: asked}}}
	}
	st.Demand = []placement.DemandReport{report("t1", placement.ClassRate{Class: 0, Milli: 1500}, placement.ClassRate{Class: placement.NoClass, Milli: 100}),
		report("t1", placement.ClassRate{Class: 0, Milli: 500}), report("t0", placement.ClassRate{Class: 1, Milli: 9000})}
	want := []Demand{{Service: "www", Asked: .1, Classes: 1, PerQuery: 40}, {Service: "www", Region: "eu", Asked: 2, Classes: 1, PerQuery: 40, Planned: 9000},
		{Service: "www", Region: "us", PerQuery: 40, Planned: 3000}}
	if got := DemandOf(st); !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	e, err := Explain(st, ExplainRequest{Name: "www.cdn.demo.test", Client: "203.0.113.1"}, time.Now)
	if err != nil || e.Demand == nil || *e.Demand != (ClassDemand{Asked: 2, Planned: 9000}) {
		t.Errorf("explain: %+v %v", e, err)
	}
	if got := DemandOf(State{}); len(got) != 0 {
		t.Errorf("before the first snapshot: %+v", got)
	}
}

func TestNotices(t *testing.T) {
	tests := map[string]struct {
		change func(*State)
		kind   string
		level  Level
	}{
		"no snapshot":       {func(s *State) { s.Snapshot = nil }, "NoSnapshot", Page},
		"store away":        {func(s *State) { s.Connected = false }, "StateStale", Warn},
		"store silent":      {func(s *State) { s.Heartbeat = ago(time.Minute) }, "StateStale", Warn},
		"frozen":            {func(s *State) { s.Inventory.Freeze.Reason = "x" }, "Frozen", Warn},
		"drain ran out":     {func(s *State) { s.Now = noon().Add(time.Hour) }, "DrainExpired", Page},
		"pinned":            {func(s *State) { s.Inventory.Pins = []placement.Pin{{Site: "ams1", Revision: 9}} }, "Pinned", Warn},
		"observes":          {func(s *State) { s.Inventory.Mode = placement.Observe }, "Observe", Warn},
		"a role observes":   {func(s *State) { s.Inventory.Roles = map[string]placement.Mode{"bgp": placement.Observe} }, "Observe", Warn},
		"capped":            {func(s *State) { s.Snapshot.Verdicts[0].Capped = true }, "RemovalCapped", Page},
		"fail-open":         {func(s *State) { s.Snapshot.Maps[0].Rows[0].FailOpen = true }, "FailOpenActive", Page},
		"digests differ":    {func(s *State) { s.Nodes[1].Digest = "e2" }, "DigestDiffers", Page},
		"a unit lags":       {func(s *State) { s.Nodes[1].Snapshot = "1041.3" }, "SnapshotSkew", Warn},
		"a lowering denied": {func(s *State) { s.Nodes[2].BGP.Routes[0].Refusal = &placement.Refusal{Rule: placement.RuleSlots} }, "RouteRefused", Warn},
		"a wrong ROA":       {func(s *State) { s.Nodes[2].BGP.Routes[0].Origin = "invalid" }, "OriginInvalid", Page},
		"a zone is broken":  {func(s *State) { s.Nodes[3].DNS.Zones[0].Error = "line 4" }, "ZoneNotServed", Warn},
		"a listed zone is broken": {func(s *State) {
			zones := &s.Nodes[3].DNS.Zones
			*zones = append(*zones, placement.ZoneStatus{Name: "listed.test.", Catalog: "demo.test.", Error: "expired"})
		}, "ZoneNotServed", Warn},
		"two list a zone": {func(s *State) { s.Nodes[3].DNS.Zones[0].Conflict = "z. is listed by a." }, "CatalogConflict", Warn},
		"signatures end":  {func(s *State) { s.Nodes[3].DNS.Zones[0].Warning = "at noon" }, "ZoneSignaturesEnd", Warn},
		"nobody announces": {func(s *State) {
			for i := range 3 {
				s.Nodes[i].BGP.Routes[0].Announced = placement.Withdrawn
			}
		}, "PrefixNowhereAnnounced", Page},
		"a unit's own alarm": {func(s *State) { s.Nodes[3].Alarms = []placement.Alarm{{Kind: "GeoOld", Text: "60 days"}} }, "GeoOld", Warn},
	}
	find := func(st State, kind string) *Notice {
		list := Notices(st, Sites(st, nil))
		if i := slices.IndexFunc(list, func(n Notice) bool { return n.Kind == kind }); i >= 0 {
			return &list[i]
		}
		return nil
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if n := find(testState(t), tt.kind); n != nil {
				t.Fatalf("raised without cause: %+v", n)
			}
			st := testState(t)
			tt.change(&st)
			if n := find(st, tt.kind); n == nil || n.Level != tt.level {
				t.Errorf("got %+v, want %s at level %s", n, tt.kind, tt.level)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	st := testState(t)
	tests := map[string]struct {
		req  ExplainRequest
		want string
		err  error
	}{
		"nearest":             {ExplainRequest{Name: "www.cdn.demo.test", Client: "203.0.113.3"}, "ams1/web", nil},
		"upper case, a dot":   {ExplainRequest{Name: "WWW.cdn.demo.test.", Client: "203.0.113.0/28"}, "ams1/web", nil},
		"by its resolver":     {ExplainRequest{Name: "www.cdn.demo.test", Resolver: "203.0.113.3"}, "ams1/web", nil},
		"no such type":        {ExplainRequest{Name: "www.cdn.demo.test", Type: "aaaa", Client: "203.0.113.3"}, "ams1/web, which has no address of type AAAA: NODATA", nil},
		"static":              {ExplainRequest{Name: "ns1.demo.test", Client: "203.0.113.3"}, "static: zone demo.test. answers from its records; no service steers this name", nil},
		"not ours":            {ExplainRequest{Name: "www.example", Client: "203.0.113.3"}, "", ErrNotFound},
		"nobody named":        {ExplainRequest{Name: "www.cdn.demo.test"}, "", ErrInvalid},
		"client is no prefix": {ExplainRequest{Name: "www.cdn.demo.test", Client: "tokyo"}, "", ErrInvalid},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Explain(st, tt.req, noon)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if err == nil && got.Text != tt.want {
				t.Errorf("%q, want %q", got.Text, tt.want)
			}
		})
	}
}

// TestExplainWithoutSubnet: where no client subnet counts, whoever is named stands there
// as the resolver, and the answer holds for all that ask it.
func TestExplainWithoutSubnet(t *testing.T) {
	for name, change := range map[string]func(*placement.Inventory){
		"of the fleet":  func(inv *placement.Inventory) { inv.ECS.Off = true },
		"of the policy": func(inv *placement.Inventory) { inv.Policies[0].IgnoreECS = true },
	} {
		st := testState(t)
		change(st.Snapshot.Inventory)
		for _, req := range []ExplainRequest{
			{Name: "www.cdn.demo.test", Client: "203.0.113.0/28"},
			{Name: "www.cdn.demo.test", Client: "198.51.100.0/24", Resolver: "203.0.113.0"},
		} {
			got, err := Explain(st, req, noon)
			if err != nil {
				t.Fatal(err)
			}
			want := Client{From: "resolver", Resolver: netip.MustParseAddr("203.0.113.0"), Subnet: netip.MustParsePrefix("203.0.113.0/32")}
			if got.Client != want || got.Answer.Scope.IsValid() {
				t.Errorf("%s: client %+v, scope %v; want %+v and none", name, got.Client, got.Answer.Scope, want)
			}
		}
	}
}

// TestExplainEqualsChoose: what is explained is what is done, for every block
// of the split class, where the hash decides.
func TestExplainEqualsChoose(t *testing.T) {
	st := testState(t)
	seen := map[string]int{}
	for i := range 256 {
		client := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		got, err := Explain(st, ExplainRequest{Name: "www.cdn.demo.test", Client: client.String()}, noon)
		if err != nil {
			t.Fatal(err)
		}
		c, _ := st.Snapshot.Choose("www", got.Client.Subnet.Addr(), nil)
		id, _ := c.Cluster()
		if got.Answer.Cluster != id.String() {
			t.Fatalf("%s: explained %s, chosen %s", client, got.Answer.Cluster, id)
		}
		seen[id.Site]++
	}
	if len(seen) == 0 || seen["tyo1"] != 0 {
		t.Errorf("chosen: %v; the drained site must not be", seen)
	}
}

func TestMeterForgetsAResetCounter(t *testing.T) {
	var m meter
	report := func(at time.Time, n int64) float64 {
		return m.observe([]placement.Node{{Name: "a", Unit: "dns", At: at, DNS: &placement.DNSStatus{Answers: map[string]int64{"ams1": n}}}})["ams1"]
	}
	for i, step := range []struct {
		sec   int
		count int64
		want  float64
	}{{0, 100, 0}, {2, 300, 100}, {2, 300, 100}, {4, 310, 5}, {6, 4, 0}, {8, 24, 10}} {
		if got := report(noon().Add(time.Duration(step.sec)*time.Second), step.count); got != step.want {
			t.Errorf("step %d: %v answers/s, want %v", i, got, step.want)
		}
	}
	if got := m.observe(nil); len(got) != 0 {
		t.Errorf("a unit which is gone still counts: %v", got)
	}
}

// TestSilentSite: what a dead site told before it died is marked as its last word; a site
// that is down and goes on telling is not silent.
func TestSilentSite(t *testing.T) {
	for name, c := range map[string]struct {
		state placement.State
		at    time.Duration // of its reports, after it was found down
		want  bool
	}{
		"dead":               {placement.Down, -time.Second, true},
		"down, and heard of": {placement.Down, time.Second, false},
		"up":                 {placement.Up, -time.Second, false},
	} {
		st := testState(t)
		for i := range st.Snapshot.Verdicts {
			if v := &st.Snapshot.Verdicts[i]; v.Object == placement.SiteID("nyc1") {
				v.State, v.Since = c.state, noon()
			}
		}
		for i := range st.Nodes {
			if n := &st.Nodes[i]; n.Site == "nyc1" {
				n.At = noon().Add(c.at)
			} else {
				n.At = noon().Add(time.Minute)
			}
		}
		if got := row(t, st, "nyc1").Silent; got != c.want {
			t.Errorf("%s: silent %t, want %t", name, got, c.want)
		}
	}
}
