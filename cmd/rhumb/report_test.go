package main

import (
	"net/netip"
	"testing"
	"time"

	"rhumb/placement"
)

// TestWorthWriting: what is written at once, and what waits for its turn.
func TestWorthWriting(t *testing.T) {
	base := func() placement.Node {
		return placement.Node{Name: "ams1-a", Unit: "rhumb", Snapshot: "3.7", At: time.Unix(1, 0),
			Alarms: []placement.Alarm{{Kind: "StateStale", Text: "for 11s"}},
			DNS:    &placement.DNSStatus{QPS: 10, Answers: map[string]int64{"ams1": 4}, Zones: []placement.ZoneStatus{{Name: "demo.test.", Serial: 1}}},
			BGP: &placement.BGPStatus{Peers: []placement.PeerStatus{{State: "established"}},
				Routes: []placement.RouteStatus{{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}},
			Edge: &placement.EdgeStats{Sessions: 3, Forwarded: 2, MovedOut: 1}}
	}
	for _, c := range []struct {
		name string
		do   func(*placement.Node)
		want bool
	}{
		{"nothing but the time", func(n *placement.Node) { n.At = time.Unix(2, 0) }, false},
		{"rates and counters", func(n *placement.Node) { n.DNS.QPS, n.DNS.Answers["ams1"] = 99, 400 }, false},
		{"the seconds in an alarm's text", func(n *placement.Node) { n.Alarms[0].Text = "for 12s" }, false},
		{"sessions come and go", func(n *placement.Node) { n.Edge.Sessions, n.Edge.Forwarded, n.Edge.MovedOut = 5, 9, 2 }, false},
		{"the last session went", func(n *placement.Node) { n.Edge.Sessions = 0 }, true},
		{"a hand-off is under way", func(n *placement.Node) { n.Edge.Moving = 1 }, true},
		{"a hand-off failed", func(n *placement.Node) { n.Edge.Failed = 1 }, true},
		{"a way round a broken path", func(n *placement.Node) { n.Edge.Relays = []placement.EdgeRelay{{To: "nyc1", Via: "tyo1"}} }, true},
		{"another snapshot", func(n *placement.Node) { n.Snapshot = "3.8" }, true},
		{"an alarm more", func(n *placement.Node) { n.Alarms = append(n.Alarms, placement.Alarm{Kind: "SnapshotStale"}) }, true},
		{"no alarm any more", func(n *placement.Node) { n.Alarms = nil }, true},
		{"a zone's serial", func(n *placement.Node) { n.DNS.Zones[0].Serial = 2 }, true},
		{"a peer's state", func(n *placement.Node) { n.BGP.Peers[0].State = "idle" }, true},
		{"a route's step", func(n *placement.Node) { n.BGP.Routes[0].Announced = placement.GShut }, true},
		{"the lease", func(n *placement.Node) { n.Leader = true }, true},
		{"a role that has come up", func(n *placement.Node) { n.DNS = nil }, true},
	} {
		old, next := base(), base()
		c.do(&next)
		if got := worthWriting(&old, &next, time.Second); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if !worthWriting(&old, &next, reportFresh) {
			t.Errorf("%s: not written after %s, and its age would look like a dead unit's", c.name, reportFresh)
		}
	}
	next := base()
	if !worthWriting(&placement.Node{}, &next, time.Millisecond) {
		t.Error("the first record is not written")
	}
}
