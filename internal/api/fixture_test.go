package api

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"testing"
	"time"

	"rhumb/placement"
	"rhumb/placement/lpm"
)

func noon() time.Time { return time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC) }

// ago returns the instant d before the fixture's now.
func ago(d time.Duration) time.Time { return noon().Add(-d) }

// testFleet has three sites: one fine, one with a dead cluster, one drained.
func testFleet() placement.Fleet {
	site := func(name, city, region string, number uint16, host byte) placement.Site {
		return placement.Site{Name: name, City: city, Region: region, Number: number, Clusters: []placement.Cluster{
			{Name: "dns", Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, host}), 53)}},
			{Name: "web", Capacity: 40000, Addresses: []netip.AddrPort{
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, host + 1}), 8080),
				netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 10}), 8080)}},
		}}
	}
	return placement.Fleet{Version: 1, Mode: placement.Act,
		Sites:    []placement.Site{site("ams1", "Amsterdam", "eu", 1, 10), site("nyc1", "New York", "us", 2, 20), site("tyo1", "Tokyo", "ap", 3, 30)},
		Policies: []placement.Policy{{Name: "nearest", Pick: 2, TTL: placement.Duration(20 * time.Second), Headroom: 900}},
		Services: []placement.Service{{Name: "www", Names: []string{"www.cdn.demo.test."}, Clusters: []string{"web"}, Policy: "nearest"}},
		Prefixes: []placement.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Slots: 1, MinAnnouncing: 2, Mode: placement.Act}},
		Zones:    []placement.Zone{{Name: "cdn.demo.test.", SHA256: "aa", Names: 4, Level: placement.LowLevel}, {Name: "demo.test.", SHA256: "bb", Names: 9, Level: placement.TopLevel}},
		ECS:      placement.ECS{Bits4: 28, Bits6: 60},
		Safety:   placement.Safety{MinSites: 2, MaxDrains: 1, MinHeadroom: .15},
	}
}

func testState(t testing.TB) State {
	t.Helper()
	inv := &placement.Inventory{Revision: 900, Fleet: testFleet()}
	inv.Drains = []placement.Drain{{Site: "tyo1", Audit: placement.Audit{Who: "ops", Reason: "CHG-2231", Since: ago(6 * time.Minute), Until: ago(-30 * time.Minute)}}}
	plan := &placement.Plan{Revision: 1042, Made: ago(6 * time.Minute), By: "ams1-a",
		Services: []placement.ServicePlan{{Service: "www", Demand: []placement.ClassDemand{{Class: 0, QPS: 9000}, {Class: 1, QPS: 3000}}}},
		Drains:   []placement.DrainState{{Site: "tyo1", Phase: placement.PhaseSessions, Since: ago(4 * time.Minute)}}}
	return State{Snapshot: testSnapshot(t, inv, plan), Inventory: inv, Plan: plan, Nodes: testNodes(),
		Slots:     []placement.Slot{{Prefix: inv.Prefixes[0].Prefix, Number: 1, Site: "tyo1", Cause: "drain", Taken: ago(time.Minute)}},
		Loads:     []placement.Load{{Cluster: placement.ClusterID{Site: "ams1", Name: "web"}, QPS: 12000, Sessions: 812, Counted: true}, {Cluster: placement.ClusterID{Site: "nyc1", Name: "web"}, QPS: 3000, Counted: true}},
		Connected: true, Heartbeat: ago(2 * time.Second), Now: noon()}
}

// testSnapshot sends class 0 (203.0.113.0/28) to ams1, class 1 to nyc1 for 70 %
// and to ams1 for the rest; tyo1 is drained.
func testSnapshot(t testing.TB, inv *placement.Inventory, plan *placement.Plan) *placement.Snapshot {
	t.Helper()
	table, err := lpm.Build([]lpm.Entry{{Prefix: netip.MustParsePrefix("203.0.113.0/28"), Value: 0}, {Prefix: netip.MustParsePrefix("203.0.113.32/28"), Value: 1}})
	if err != nil {
		t.Fatal(err)
	}
	up := func(id placement.ClusterID) placement.Verdict {
		return placement.Verdict{Object: id, State: placement.Up, Own: placement.Up, Since: ago(37 * time.Minute), Domains: 3}
	}
	var verdicts []placement.Verdict
	for _, s := range inv.Sites {
		for _, name := range []string{"-", "dns", "web"} {
			verdicts = append(verdicts, up(placement.ClusterID{Site: s.Name, Name: name}))
		}
	}
	verdicts[4].State, verdicts[4].Cause, verdicts[4].Since = placement.Down, "SOA timed out", ago(5*time.Minute)
	rows := []*placement.Row{
		{Candidates: []placement.Candidate{{Cluster: 0, Cost: 48}, {Cluster: 1, Out: placement.OutFarther, Cost: 1700}, {Cluster: 2, Out: placement.OutDrained, Cost: 2800}},
			Shares: []placement.Share{{Candidate: 0, Upto: 1000}}},
		{Candidates: []placement.Candidate{{Cluster: 1, Cost: 48}, {Cluster: 0, Cost: 1700}, {Cluster: 2, Out: placement.OutDrained, Cost: 3200}},
			Shares: []placement.Share{{Candidate: 0, Upto: 700}, {Candidate: 1, Upto: 1000}}},
	}
	return &placement.Snapshot{Name: placement.Name{Plan: 1042, Votes: 17}, Inventory: inv, Plan: plan, Digest: "d1d1d1d1d1",
		Classes:  &placement.ClassTable{Prefixes: table, Source: "test", Locations: []placement.Location{{Country: "NL", Region: "eu"}, {Country: "US", Region: "us"}}},
		Verdicts: verdicts,
		Maps: []placement.ServiceMap{{Service: &inv.Services[0], Policy: &inv.Policies[0], Rows: append(rows, rows[0]),
			Clusters: []placement.ClusterID{{Site: "ams1", Name: "web"}, {Site: "nyc1", Name: "web"}, {Site: "tyo1", Name: "web"}},
			Blocks:   table.Fold([]uint32{1, 2}, 1)}},
		Announcements: []placement.Announcement{{Prefix: inv.Prefixes[0].Prefix, Site: "tyo1", Want: placement.Withdrawn, Intent: true, Cause: "drain"}},
		Anchors:       []placement.Anchors{{Prefix: inv.Prefixes[0].Prefix, Sites: []string{"ams1", "nyc1"}}},
		Backups:       []placement.Backup{{Site: "ams1", Order: []string{"nyc1", "tyo1"}, Epoch: 7}},
	}
}

func testNodes() []placement.Node {
	net := netip.MustParsePrefix("192.0.2.0/24")
	peer := func(last byte, state string) placement.PeerStatus {
		return placement.PeerStatus{Address: netip.AddrFrom4([4]byte{198, 51, 100, last}), ASN: 64501, State: state, Since: ago(time.Hour)}
	}
	bgp := func(site string, step placement.Step, peers ...placement.PeerStatus) placement.Node {
		return placement.Node{Name: site + "-a", Site: site, Unit: "rhumb-bgp", Roles: []string{"bgp", "health"}, Snapshot: "1042.17", Digest: "d1d1d1d1d1", At: noon(), Started: ago(time.Hour),
			BGP: &placement.BGPStatus{Peers: peers, Routes: []placement.RouteStatus{{Prefix: net, Announced: step, Mode: placement.Act}}}}
	}
	dns := placement.Node{Name: "ams1-a", Site: "ams1", Unit: "rhumb-dns", Roles: []string{"authdns"}, Snapshot: "1042.17", Digest: "d1d1d1d1d1", At: noon(), Started: ago(time.Hour),
		DNS: &placement.DNSStatus{QPS: 100, Answers: map[string]int64{"ams1": 1000}, Zones: []placement.ZoneStatus{{Name: "cdn.demo.test.", Serial: 1042, Names: 4}, {Name: "demo.test.", Serial: 1041, Names: 9}}}}
	edge := placement.Node{Name: "tyo1-a", Site: "tyo1", Unit: "rhumb-edge", Roles: []string{"edge"}, Snapshot: "1042.17", Digest: "d1d1d1d1d1", At: noon(), Started: ago(time.Hour),
		Edge: &placement.EdgeStats{Sessions: 40, Foreign: 2, Moving: 3, MovedOut: 77}}
	director := placement.Node{Name: "ams1-a", Site: "ams1", Unit: "rhumb-director", Roles: []string{"placement"}, Leader: true, At: noon()}
	return []placement.Node{
		bgp("ams1", placement.Announce, peer(2, "Established"), peer(3, "Active")),
		bgp("nyc1", placement.Announce, peer(66, "Established")),
		bgp("tyo1", placement.GShut, peer(130, "Established")), dns, edge, director}
}

// memoryLog is a log of events in a slice.
type memoryLog []placement.Event

func (l memoryLog) Events(_ context.Context, since int64, limit int) ([]placement.Event, error) {
	var out []placement.Event
	for _, e := range l {
		if e.ID > since {
			out = append(out, e)
		}
	}
	return out[max(0, len(out)-limit):], nil
}

// golden compares a document with the kept one; RHUMB_UPDATE=1 rewrites it.
func golden(t *testing.T, name string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	file := "testdata/" + name + ".json"
	if os.Getenv("RHUMB_UPDATE") != "" {
		if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != string(got)+"\n" {
		t.Errorf("%s differs; RHUMB_UPDATE=1 go test rewrites it\n%s", file, got)
	}
}
