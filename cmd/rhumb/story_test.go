package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/bgp"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/decide"
)

// sampleFleet is the fleet of etc, which its own package tests.
func sampleFleet(t *testing.T) *placement.Inventory {
	t.Helper()
	f, err := config.LoadFleet("../../etc/fleet.yaml", readZone)
	if err != nil {
		t.Fatal(err)
	}
	return &placement.Inventory{Revision: 1, Fleet: f.Fleet}
}

// votesOf makes every site's own vantage find its clusters up, and all living
// sites see the dead one down.
func votesOf(inv *placement.Inventory, dead string) []placement.Vote {
	var out []placement.Vote
	for _, vantage := range inv.Sites {
		if vantage.Name == dead {
			continue
		}
		vote := func(id placement.ClusterID, s placement.State) {
			v := placement.Vote{Object: id, Vantage: vantage.Name + "-a", Site: vantage.Name, Domain: vantage.Domain(), State: s}
			if s == placement.Down {
				v.Cause, v.Fault = "silent", placement.LocalFault
			}
			out = append(out, v)
		}
		for _, c := range vantage.Clusters {
			vote(placement.ClusterID{Site: vantage.Name, Name: c.Name}, placement.Up)
		}
		for _, site := range inv.Sites {
			state := placement.Up
			if site.Name == dead {
				state = placement.Down
			}
			vote(placement.SiteID(site.Name), state)
		}
	}
	return out
}

// snapshotOf decides as a director does and unfolds as every node does.
func snapshotOf(t *testing.T, inv *placement.Inventory, c *classes, dead string, revision int64) *placement.Snapshot {
	t.Helper()
	table, err := c.of(inv)
	if err != nil {
		t.Fatal(err)
	}
	votes := votesOf(inv, dead)
	plan, _ := decide.Plan(decide.PlanInput{Inventory: inv, Classes: table, Votes: votes, VotesRevision: revision, Now: time.Unix(1000, 0), By: "test"})
	plan.Revision = revision
	s, err := decide.Unfold(inv, table, plan, decide.Fold(inv, votes, plan), revision, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// directors are the records of the director's unit of every site.
func directors(inv *placement.Inventory) []placement.Node {
	var out []placement.Node
	for _, s := range inv.Sites {
		out = append(out, placement.Node{Name: s.Name + "-a", Site: s.Name, Roles: []string{config.RolePlacement}})
	}
	return out
}

// TestStoryOfALoss: the site that dies, the answers that move, and the way back
// are each told once, by one of the nodes that live.
func TestStoryOfALoss(t *testing.T) {
	inv, c := sampleFleet(t), testClasses(t)
	inv.Mode = placement.Act
	all, lost, back := snapshotOf(t, inv, c, "", 1), snapshotOf(t, inv, c, "ams1", 2), snapshotOf(t, inv, c, "", 3)
	var told []placement.Event
	for _, node := range []string{"ams1-a", "nyc1-a", "tyo1-a"} {
		s := &story{node: node, tell: func(e placement.Event) { e.Node = node; told = append(told, e) },
			nodes: func() []placement.Node { return directors(inv) }, now: func() time.Time { return time.Unix(2000, 0) }}
		for _, snap := range []*placement.Snapshot{all, lost, lost, back} {
			s.Apply(t.Context(), snap)
		}
	}
	var got []string
	for _, e := range told {
		if e.Node != "nyc1-a" || e.At.IsZero() {
			t.Errorf("told by %s at %v: %s; want nyc1-a, the first of the living", e.Node, e.At, e.Text)
		}
		got = append(got, e.Kind+" "+e.Site+" "+e.Snapshot+": "+e.Text)
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{"health ams1 2.2: ams1 is down", "snapshot  2.2: ", " % of the answers moved (ams1 is down",
		"health ams1 3.3: ams1 is up, was down", "snapshot  3.3: "} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%d times %q in\n%s", strings.Count(text, want), want, text)
		}
	}
	if strings.Contains(text, "ams1/") {
		t.Errorf("a cluster is told beside its whole site:\n%s", text)
	}
}

// TestStoryOfADrain: every phase, the expiry, and the end.
func TestStoryOfADrain(t *testing.T) {
	plan := func(d ...placement.DrainState) *placement.Plan { return &placement.Plan{Drains: d} }
	at := func(p placement.Phase, expired bool) placement.DrainState {
		return placement.DrainState{Site: "ams1", Phase: p, Expired: expired}
	}
	for _, c := range []struct {
		name      string
		old, next *placement.Plan
		want      []string
	}{
		{"begins", plan(), plan(at(placement.PhasePlan, false)), []string{"ams1 drain: plan"}},
		{"goes on", plan(at(placement.PhaseTTL, false)), plan(at(placement.PhaseGShut, false)), []string{"ams1 drain: gshut"}},
		{"waits", plan(at(placement.PhaseTTL, false)), plan(at(placement.PhaseTTL, false)), nil},
		{"expires", plan(at(placement.PhaseDrained, false)), plan(at(placement.PhaseDrained, true)), []string{"ams1 drain: its time has run out; the site stays drained"}},
		{"ends", plan(at(placement.PhaseReturning, false)), plan(), []string{"ams1 drain: over, the site is back"}},
	} {
		var got []string
		for _, e := range drainEvents(c.old, c.next) {
			got = append(got, e.Text)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestVotesAreTold: a vantage's change of mind is news, its first good word and
// its doubts are not.
func TestVotesAreTold(t *testing.T) {
	var got []string
	v := newVoteTeller(func(e placement.Event) { got = append(got, e.Site+": "+e.Text) })
	cast := func(s placement.State, hold bool) {
		v.cast(placement.Vote{Object: placement.SiteID("tyo1"), Vantage: "ams1-a", State: s, Hold: hold, Cause: "silent 0.4 s"})
	}
	cast(placement.Up, false)   // first word, good
	cast(placement.Down, true)  // in doubt
	cast(placement.Up, false)   // renewed
	cast(placement.Down, false) // news
	cast(placement.Down, false) // renewed
	v.forget(placement.SiteID("tyo1"))
	cast(placement.Up, false)
	v.forget(placement.SiteID("tyo1"))
	cast(placement.Down, false) // first word, bad
	want := []string{"tyo1: ams1-a sees tyo1 down (silent 0.4 s), was up", "tyo1: ams1-a sees tyo1 down (silent 0.4 s), was unknown"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestMissedVantageIsTold: once it is sure, and when it is back.
func TestMissedVantageIsTold(t *testing.T) {
	var got []string
	v := newVoteTeller(func(e placement.Event) { got = append(got, e.Text) })
	for _, c := range []struct {
		without string
		sure    bool
	}{{"", false}, {"ams1-b", false}, {"", false}, {"ams1-b", false}, {"ams1-b", true}, {"ams1-b", true}, {"ams1-b", false}, {"", false}} {
		v.cast(placement.Vote{Object: placement.SiteID("ams1"), Site: "ams1", Vantage: "ams1-a", State: placement.Up, Without: c.without, Sure: c.sure})
	}
	want := []string{"ams1-a hears ams1-b, on the other machine of its site, no more; what that one said counts no more", "ams1-a hears ams1-b again"}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// TestAlarmsAreTold: an alarm that lasts is told once and once more when it is over.
func TestAlarmsAreTold(t *testing.T) {
	stale := []placement.Alarm{{Kind: "SnapshotStale", Object: "3.7", Text: "input missing"}}
	var w alarmWatch
	var got []string
	for _, look := range [][]placement.Alarm{stale, nil, stale, stale, stale, nil, nil} {
		for _, e := range w.look(look) {
			got = append(got, e.Text)
		}
		got = append(got, ".")
	}
	want := []string{".", ".", ".", "SnapshotStale 3.7: input missing", ".", ".", "SnapshotStale 3.7: over", ".", "."}
	if !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if n := len(told([]placement.Alarm{{Kind: "NoPlan"}, stale[0]})); n != 1 {
		t.Errorf("%d alarms told, want the one that no fleet begins with", n)
	}
}

// TestRouteEvents: the line of a step and of a refusal.
func TestRouteEvents(t *testing.T) {
	e := bgp.Event{From: placement.Announce, To: placement.GShut, Snapshot: "3.7"}
	for _, c := range []struct {
		name string
		do   func(*bgp.Event)
		want string
	}{
		{"without a cause", func(*bgp.Event) {}, "invalid Prefix: announce → gshut"},
		{"with one", func(e *bgp.Event) { e.Cause = "own votes" }, "invalid Prefix: announce → gshut: own votes"},
		{"observed", func(e *bgp.Event) { e.Cause, e.Observed = "own votes", true }, "invalid Prefix: announce → gshut: own votes (observed only)"},
		{"refused", func(e *bgp.Event) { e.Rule = placement.RuleAnchors }, "invalid Prefix stays at announce: rule anchors"},
	} {
		e := e
		c.do(&e)
		if got := routeEvent(e); got.Text != c.want || got.Kind != "bgp" || got.Snapshot != "3.7" {
			t.Errorf("%s: %q, want %q", c.name, got.Text, c.want)
		}
	}
}
