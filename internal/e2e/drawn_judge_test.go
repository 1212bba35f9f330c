//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

const (
	// blameFor is how long after its end a fault may still cost: routes and answers come
	// back meanwhile.
	blameFor = 10 * time.Second
	// verdictFor is how late after its end a fault may still be what a verdict is about.
	verdictFor = 5 * time.Second
)

// clientSecond is one second of one client, in the time of the schedule.
type clientSecond struct {
	visited
	region  string
	service string
	at      time.Duration
}

// lost tells one that nobody served.
func (c clientSecond) lost() bool { return c.Err != "" }

func (c clientSecond) String() string {
	return fmt.Sprintf("%8.1f s: %s in %s, %d tries in %.1f s: %s", c.at.Seconds(), c.service, c.region, c.Tries, c.Took.Seconds(), c.Err)
}

// cost is what a fault cost.
type cost struct {
	lost   map[string]int // by service: seconds without an answer
	waited int            // answered later than within a second
	worst  time.Duration  // of these
}

// near tells whether a fault is on the way of a region's clients: at its site, router or
// resolver.
func near(f netlab.Trouble, site, region string) bool {
	ends := []string{site, "t-" + region, "res-" + region}
	return slices.Contains(ends, f.Node) || slices.Contains(ends, f.Towards)
}

// blame finds the fault that a second fell to, by its number: of those in force meanwhile
// or not long before, near ones first, then the one that began last. -1: there is none.
func blame(all []netlab.Trouble, at, took time.Duration, site, region string) int {
	found, isNear := -1, false
	for i, f := range all {
		if f.At > at+took {
			break // they are in order of time
		}
		if f.End()+blameFor < at {
			continue
		}
		if n := near(f, site, region); found < 0 || n || !isNear {
			found, isNear = i, n
		}
	}
	return found
}

// costs charges each second that was not served at once to a fault; what falls to none
// has number -1.
func costs(all []netlab.Trouble, seconds []clientSecond, siteOf func(region string) string) map[int]*cost {
	out := map[int]*cost{}
	for _, s := range seconds {
		if !s.lost() && s.Took <= visitEvery {
			continue
		}
		i := blame(all, s.at, s.Took, siteOf(s.region), s.region)
		if out[i] == nil {
			out[i] = &cost{lost: map[string]int{}}
		}
		if s.lost() {
			out[i].lost[s.service]++
		} else {
			out[i].waited++
			out[i].worst = max(out[i].worst, s.Took)
		}
	}
	return out
}

// availability is the share of a service's seconds that was served.
func availability(seconds []clientSecond, services ...string) (share float64, lost, all int) {
	for _, s := range seconds {
		if slices.Contains(services, s.service) {
			all++
			if s.lost() {
				lost++
			}
		}
	}
	return 1 - float64(lost)/float64(max(all, 1)), lost, all
}

// deserved tells whether a site was really in a state to be called down at a moment: it
// had no power, its link carried nothing in some direction, or its speaker, which is its
// voice to the others, was dead or stood still. Losses and slowness are no reason. Nor
// is a broken link between two routers; all of them at once are.
func deserved(all []netlab.Trouble, site, router string, at time.Duration) bool {
	mesh, dark := 0, map[string]bool{}
	for _, f := range all {
		if f.At > at || f.End()+verdictFor < at {
			continue
		}
		outage := f.Kind == netlab.LinkCut || f.Kind == netlab.LinkSilent || f.Kind == netlab.LinkOneWay
		switch {
		case f.Node == site && (f.Kind == netlab.PowerOff || outage || f.Unit == "bgp"):
			return true
		case outage && (f.Node == router || f.Towards == router) && !dark[f.Target()]:
			dark[f.Target()] = true
			mesh++
		}
	}
	return mesh == len(sites())-1
}

// takenAway lists verdicts against sites that were well, and counts all verdicts of down.
func takenAway(all []netlab.Trouble, told []placement.Event, began time.Time, routerOf func(site string) string) (wrong []string, downs int) {
	for _, e := range told {
		at := e.At.Sub(began)
		if at < 0 || !slices.Contains(sites(), e.Site) || !strings.HasPrefix(e.Text, e.Site+" is down") ||
			strings.HasPrefix(e.Text, e.Site+" is down, kept in service") {
			continue
		}
		downs++
		if !deserved(all, e.Site, routerOf(e.Site), at) {
			wrong = append(wrong, fmt.Sprintf("%8.1f s: %s; in force then: %s", at.Seconds(), e.Text, inForce(all, at)))
		}
	}
	return wrong, downs
}

// inForce names the faults of a moment.
func inForce(all []netlab.Trouble, at time.Duration) string {
	var out []string
	for i, f := range all {
		if f.At <= at && at <= f.End()+verdictFor {
			out = append(out, fmt.Sprintf("%d %s (%.1f s to %.1f s)", i+1, f, f.At.Seconds(), f.End().Seconds()))
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

// routeless replays what the routers' kernels did with a prefix and returns when none of
// them had a route to it, and for how long each had none.
func routeless(changes map[string][]routeChange, p netip.Prefix, ended time.Time) (gone []time.Time, without map[string]time.Duration) {
	type turn struct {
		routeChange
		router string
	}
	var turns []turn
	for router, all := range changes {
		for _, c := range all {
			if c.Prefix == p {
				turns = append(turns, turn{c, router})
			}
		}
	}
	slices.SortStableFunc(turns, func(a, b turn) int { return a.At.Compare(b.At) })
	since, without := map[string]time.Time{}, map[string]time.Duration{}
	for _, c := range turns {
		began, was := since[c.router]
		switch {
		case c.Gone && !was:
			since[c.router] = c.At
			if len(since) == len(changes) {
				gone = append(gone, c.At)
			}
		case !c.Gone && was:
			without[c.router] += c.At.Sub(began)
			delete(since, c.router)
		}
	}
	for router, began := range since {
		without[router] += ended.Sub(began)
	}
	return gone, without
}

// TestDrawnJudges: those who judge the soak, on faults and clients made up.
func TestDrawnJudges(t *testing.T) {
	t.Parallel()
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	all := []netlab.Trouble{
		{At: s(10), For: s(5), Kind: netlab.LinkCut, Node: "ams1", Towards: "t-eu"},
		{At: s(12), For: s(30), Kind: netlab.LinkLossy, Node: "tyo1", Towards: "t-ap", Share: .2},
		{At: s(100), For: s(5), Kind: netlab.LinkSilent, Node: "t-eu", Towards: "t-us"},
		{At: s(102), For: s(5), Kind: netlab.LinkCut, Node: "t-eu", Towards: "t-ap"},
		{At: s(200), For: s(5), Kind: netlab.UnitStopped, Node: "nyc1", Unit: "edge"},
	}
	for _, tc := range []struct {
		at, took     float64
		site, region string
		want         int
	}{
		{5, 1, "ams1", "eu", -1}, {8, 5, "ams1", "eu", 0}, {13, 1, "ams1", "eu", 0}, {13, 1, "tyo1", "ap", 1},
		{24, 1, "ams1", "eu", 0}, {26, 1, "ams1", "eu", 1}, {103, 1, "nyc1", "us", 2}, {103, 1, "ams1", "eu", 3}, {300, 1, "ams1", "eu", -1},
	} {
		if got := blame(all, s(tc.at), s(tc.took), tc.site, tc.region); got != tc.want {
			t.Errorf("a second at %v in %s fell to fault %d, want %d", tc.at, tc.region, got, tc.want)
		}
	}
	router := func(site string) string {
		return map[string]string{"ams1": "t-eu", "nyc1": "t-us", "tyo1": "t-ap"}[site]
	}
	began := time.Unix(1e9, 0)
	down := func(at float64, site, text string) placement.Event {
		return placement.Event{At: began.Add(s(at)), Site: site, Text: text}
	}
	wrong, downs := takenAway(all, []placement.Event{
		down(-1, "ams1", "ams1 is down"),                             // before
		down(11, "ams1", "ams1 is down (link), was up"),              // cut
		down(12, "ams1", "ams1 is up, was down"),                     // no verdict of down
		down(13, "ams1", "ams1/vod is down, was up"),                 // not the site
		down(14, "tyo1", "tyo1 is down, kept in service, was up"),    // the cap's word, nobody went
		down(14, "tyo1", "tyo1 is down, was up"),                     // loss alone: wrong
		down(101, "ams1", "ams1 is down, was up"),                    // one of two links: wrong
		down(103, "ams1", "ams1 is down, was up"),                    // both
		down(201, "nyc1", "nyc1 is down (2 of 2 domains), was path"), // its edge alone: wrong
	}, began, router)
	if downs != 5 || len(wrong) != 3 || !strings.Contains(wrong[0], "link lossy tyo1") {
		t.Errorf("%d verdicts, wrong: %q", downs, wrong)
	}
	seconds := []clientSecond{
		{visited{Took: s(.1), Site: "ams1"}, "eu", "vod", s(1)}, {visited{Took: s(5), Err: "refused"}, "eu", "vod", s(11)},
		{visited{Took: s(1.5), Site: "nyc1"}, "eu", "vod", s(12)}, {visited{Took: s(5), Err: "refused"}, "eu", "www", s(50)},
	}
	got := costs(all, seconds, func(string) string { return "ams1" })
	if c := got[0]; c == nil || c.lost["vod"] != 1 || c.waited != 1 || c.worst != s(1.5) || got[1] == nil || got[1].lost["www"] != 1 {
		t.Errorf("costs %+v", got)
	}
	if share, lost, n := availability(seconds, "vod"); lost != 1 || n != 3 || share < .66 || share > .67 {
		t.Errorf("vod: %d of %d lost, %.3f", lost, n, share)
	}
	p := netip.MustParsePrefix(netlab.AnycastV4)
	at := func(n float64, gone bool) routeChange { return routeChange{At: began.Add(s(n)), Gone: gone, Prefix: p} }
	gone, without := routeless(map[string][]routeChange{
		"t-eu": {at(1, true), at(3, false), at(9, true)}, "t-us": {at(2, true), at(4, false), at(5, true), at(6, false)}}, p, began.Add(s(10)))
	if len(gone) != 1 || !gone[0].Equal(began.Add(s(2))) || without["t-eu"] != s(3) || without["t-us"] != s(3) {
		t.Errorf("none had a route at %v, each without one for %v", gone, without)
	}
}

// TestDrawnActs: every fault of a schedule begins once and ends once, in order, and one
// that begins when another ends comes after it, which may be at the same place.
func TestDrawnActs(t *testing.T) {
	t.Parallel()
	whole := drawnSchedule(t)
	all := fromOn(whole, time.Hour).Troubles
	if last := whole.Troubles[len(whole.Troubles)-1]; len(all) == 0 || len(all) > len(whole.Troubles)*2/3 || all[len(all)-1].At != last.At-time.Hour {
		t.Fatalf("of %d faults there are %d from an hour on, the last of them not as it was", len(whole.Troubles), len(all))
	}
	all = append(all, netlab.Trouble{At: 0, For: time.Second, Kind: netlab.LinkCut}, netlab.Trouble{At: time.Second, For: time.Second, Kind: netlab.LinkCut})
	open, last := map[netlab.Trouble]bool{}, act{}
	for i, a := range acts(all) {
		switch {
		case a.at < last.at || a.at == last.at && a.end && !last.end && i > 0:
			t.Fatalf("%s (end %v) at %v comes after %s (end %v) at %v", a.fault, a.end, a.at, last.fault, last.end, last.at)
		case a.end != open[a.fault]:
			t.Fatalf("%s at %v: end %v, in force %v", a.fault, a.at, a.end, open[a.fault])
		}
		open[a.fault], last = !a.end, a
	}
	for f, in := range open {
		if in {
			t.Errorf("%s does not end", f)
		}
	}
}
