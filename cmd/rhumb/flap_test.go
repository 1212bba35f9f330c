package main

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"rhumb/bgp/guard"
	"rhumb/health"
	"rhumb/placement"
	"rhumb/placement/decide"
)

// flapFleet is three sites with one cluster each on one anycast prefix.
func flapFleet() *placement.Inventory {
	inv := &placement.Inventory{Revision: 1}
	for i, name := range []string{"ams1", "nyc1", "sin1"} {
		inv.Sites = append(inv.Sites, placement.Site{Name: name, Number: uint16(i + 1), Region: name, Clusters: []placement.Cluster{{Name: "web"}}})
	}
	inv.Prefixes = []placement.Prefix{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Clusters: []string{"web"}, Slots: 1}}
	return inv
}

// flapLine is the way from a look at a server to its site's route, with nothing
// between them left out: damper, vote, fold, plan, announcement, ladder, guard.
type flapLine struct {
	inv     *placement.Inventory
	damper  *health.Damper
	plan    *placement.Plan
	ladder  guard.Ladder
	timing  guard.Timing
	votes   int64
	state   placement.State
	since   time.Time
	updates []string
}

func newFlapLine(now time.Time) *flapLine {
	l := &flapLine{inv: flapFleet(), damper: health.NewDamper(3, 2), timing: guard.Timing{}.Or()}
	l.ladder = guard.Ladder{At: placement.Announce, Since: now, Settled: now}
	return l
}

// look takes a result and follows it down to the route.
func (l *flapLine) look(t *testing.T, ok bool, now time.Time) {
	found := placement.Down
	if ok {
		found = placement.Up
	}
	if s := l.damper.Feed(found, now); s != l.state {
		l.state, l.since = s, now
		l.votes++
	}
	l.follow(t, now)
}

func (l *flapLine) follow(t *testing.T, now time.Time) {
	v := placement.Vote{Object: placement.ClusterID{Site: "sin1", Name: "web"}, Vantage: "sin1-a", Site: "sin1", State: l.state, Since: l.since}
	if l.state == placement.Down {
		v.Fault = placement.LocalFault
	}
	votes := []placement.Vote{v}
	for _, site := range []string{"ams1", "nyc1"} {
		votes = append(votes, placement.Vote{Object: placement.ClusterID{Site: site, Name: "web"}, Vantage: site + "-a", Site: site, State: placement.Up})
	}
	plan, _ := decide.Plan(decide.PlanInput{Inventory: l.inv, Votes: votes, VotesRevision: l.votes, Prev: l.plan, Now: now})
	if !decide.Same(plan, l.plan) {
		l.plan = plan
	}
	snap, err := decide.Unfold(l.inv, nil, l.plan, decide.Fold(l.inv, votes, l.plan), l.votes, false)
	if err != nil {
		t.Fatal(err)
	}
	for i := range snap.Announcements {
		if a := &snap.Announcements[i]; a.Site == "sin1" {
			l.step(snap, a, now)
		}
	}
}

// step moves the route as a speaker with a Slot at hand does.
func (l *flapLine) step(s *placement.Snapshot, a *placement.Announcement, now time.Time) {
	w := guard.Wish{Step: a.Want, Jump: !a.Intent && a.Fault == placement.LocalFault}
	next, rung, _ := l.ladder.Next(w, l.timing, now)
	l.ladder = next
	to := rung
	if rung > next.At {
		to, _ = guard.Lower(guard.Request{Prefix: s.Inventory.Prefixes[0], Site: "sin1", Node: "sin1-a", At: next.At, Want: rung,
			Fault: a.Fault, Intent: a.Intent, Anchors: s.AnchorSites(a.Prefix), Sites: s.Inventory.AnnouncingSites(&s.Inventory.Prefixes[0]),
			Prefixes: 1, Evidence: guard.Evidence{Slot: &placement.Slot{Prefix: a.Prefix, Number: 1, Site: "sin1"}, Seen: true}})
	}
	if to != next.At {
		l.updates = append(l.updates, fmt.Sprintf("%s %s", now.Sub(time.Unix(0, 0)), to))
		l.ladder = next.To(to, l.timing, now)
	}
}

// TestFlapperUpdates: a server that comes and goes every two seconds costs its
// prefix two BGP updates in five minutes, whenever it is looked at; and when it has
// stopped, all is as before within 180 s.
func TestFlapperUpdates(t *testing.T) {
	const flapping, every = 5 * time.Minute, 500 * time.Millisecond
	for phase := range 8 {
		now := time.Unix(0, 0)
		l := newFlapLine(now)
		for range 20 { // a calm start
			l.look(t, true, now)
			now = now.Add(every)
		}
		began := now.Add(time.Duration(phase) * 250 * time.Millisecond)
		for now.Sub(began) < flapping {
			l.look(t, now.Before(began) || now.Sub(began)/(2*time.Second)%2 == 1, now)
			now = now.Add(every)
		}
		if n := len(l.updates); n == 0 || n > 2 {
			t.Errorf("phase %d: %d updates in %v: %v; want 1 or 2", phase, n, flapping, l.updates)
		}
		stopped := now
		for l.ladder.At != placement.Announce || len(l.plan.Ramps) > 0 || len(l.plan.Down) > 0 {
			if now.Sub(stopped) > 180*time.Second {
				t.Fatalf("phase %d: at %v, ramps %v, down %v, 180 s after the last flap", phase, l.ladder.At, l.plan.Ramps, l.plan.Down)
			}
			l.look(t, true, now)
			now = now.Add(every)
		}
		t.Logf("phase %d: %v; all as before %v after the last flap", phase, l.updates, now.Sub(stopped))
	}
}
