//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rhumb/internal/netlab"
)

const (
	// drawnFor is how long the soak is, drawnCompress how much time it shows: a day.
	drawnFor      = 2 * time.Hour
	drawnCompress = 12
	// servedShare is the share of client seconds that has an answer within the patience of
	// a client, while each path is there for 99.6 % of the time.
	servedShare = 0.9999
	// openMore is how many descriptors more than before a process may have open.
	openMore = 64
)

// drawnVisits are what clients of every region do. The first two have an address that is
// everywhere, so routes move them; the third has addresses of its site alone, and caches
// stand between it and what the fleet knows: its figure is told, not judged.
func drawnVisits() []visit {
	return []visit{{"vod.cdn.demo.test", "80"}, {"site.cdn.demo.test", "8080"}, {"www.cdn.demo.test", "8080"}}
}

// drawnSchedule is what is played: RHUMB_SOAK_SEED draws another day, RHUMB_SOAK_FROM and
// RHUMB_SOAK_FOR take a part out of it.
func drawnSchedule(t *testing.T) netlab.Schedule {
	t.Helper()
	d := netlab.Draft{Seed: 20, Lasting: drawnFor, Compress: drawnCompress, Rates: netlab.PublishedRates(),
		Units: []string{"director", "dns", "bgp", "edge"}, Member: "director", Restart: time.Second}
	from := time.Duration(0)
	for name, v := range map[string]*time.Duration{"RHUMB_SOAK_FROM": &from, "RHUMB_SOAK_FOR": &d.Lasting} {
		var err error
		if text := os.Getenv(name); text != "" {
			if *v, err = time.ParseDuration(text); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if text := os.Getenv("RHUMB_SOAK_SEED"); text != "" {
		var err error
		if d.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("RHUMB_SOAK_SEED: %v", err)
		}
	}
	d.Lasting += from
	return fromOn(d.Draw(netlab.Lab(netlab.LabOptions{})), from)
}

// fromOn is a schedule without what was over by then.
func fromOn(s netlab.Schedule, from time.Duration) netlab.Schedule {
	var rest []netlab.Trouble
	for _, f := range s.Troubles {
		if end := f.End() - from; end > 0 {
			f.At = max(0, f.At-from)
			f.For = end - f.At
			rest = append(rest, f)
		}
	}
	s.Troubles, s.Lasting = rest, s.Lasting-from
	return s
}

// TestF20DrawnFaults plays a day of faults in two hours, drawn from published figures,
// while clients of every region resolve and fetch each second.
func TestF20DrawnFaults(t *testing.T) {
	schedule := drawnSchedule(t)
	if os.Getenv("RHUMB_SOAK") == "" {
		t.Logf("%d faults are played with RHUMB_SOAK=1", len(schedule.Troubles))
		return
	}
	l := startLab(t, foreignPeers()...)
	l.owners()
	l.compressRecovery(schedule.Compress)
	l.awaitSettled()
	before := testSameEverywhere(t, l)
	d := &drawn{player: newPlayer(l, schedule), routes: map[string]*routeWatch{}}
	d.watch()
	d.awaitServed()
	open := d.descriptors()
	d.forget()
	d.play()
	d.mend()
	took := l.within(healWithin, "all is as before", func() error { return l.asBefore(before) })
	t.Logf("all as before %.1f s after the last fault", took.Seconds())
	d.end()
	d.judge(t, open)
}

// compressRecovery has what failed come back as much faster as faults come: minutes of
// caution are meant for so many faults a day.
func (l *lab) compressRecovery(by float64) {
	l.t.Helper()
	before, after, ok := strings.Cut(l.fleetText(), "\nsafety:")
	if !ok {
		l.t.Fatal("the lab's fleet has no safety to stand behind the recovery")
	}
	short := func(d time.Duration) time.Duration { return time.Duration(float64(d) / by).Round(time.Millisecond) }
	l.applyText(before + fmt.Sprintf("\nrecovery: {delay: %s, ramp: %s, half_life: %s}\nsafety:",
		short(30*time.Second), short(time.Minute), short(time.Minute)) + after)
}

// drawn is a soak under way.
type drawn struct {
	*player
	routes map[string]*routeWatch
	stops  []func()

	mu      sync.Mutex
	seconds []clientSecond
}

// watch starts the clients of every region and the onlookers at its router.
func (d *drawn) watch() {
	visits := drawnVisits()
	for _, region := range regions() {
		d.stops = append(d.stops, d.background("client-"+region+"-5", order{Visits: visits}, func(e event) {
			if e.Visited == nil {
				return
			}
			service, _, _ := strings.Cut(visits[e.Visited.V].Name, ".")
			d.mu.Lock()
			defer d.mu.Unlock()
			d.seconds = append(d.seconds, clientSecond{visited: *e.Visited, region: region, service: service})
		}))
		d.routes["t-"+region] = d.watchFIB("t-"+region, anycast()...)
	}
}

// awaitServed waits until every client has been served.
func (d *drawn) awaitServed() {
	d.await(patience, "clients of every region are served", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		served := map[string]bool{}
		for _, s := range d.seconds {
			if !s.lost() {
				served[s.region+" "+s.service] = true
			}
		}
		if want := len(regions()) * len(drawnVisits()); len(served) != want {
			return fmt.Errorf("%d of %d: %v", len(served), want, served)
		}
		return nil
	})
}

// forget drops what was seen before the first fault.
func (d *drawn) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seconds = nil
}

// end stops the clients and brings what they saw into order and into the time of the
// schedule.
func (d *drawn) end() {
	for _, stop := range d.stops {
		stop()
	}
	d.note()
	d.mu.Lock()
	defer d.mu.Unlock()
	slices.SortStableFunc(d.seconds, func(a, b clientSecond) int { return a.At.Compare(b.At) })
	for i := range d.seconds {
		s := &d.seconds[i]
		s.at = s.At.Sub(d.began)
		state := cmp.Or(s.Site, "served") // the content server does not say by whom
		if s.lost() {
			state = "no answer"
		}
		d.line.set(s.service+" for "+s.region, s.At, state)
	}
}

// judge holds what was seen against what is promised, and leaves the table of faults.
func (d *drawn) judge(t *testing.T, open map[string]int) {
	all := d.schedule.Troubles
	near := func(region string) string { return sites()[slices.Index(regions(), region)] }
	spent := costs(all, d.seconds, near)
	share, lost, n := availability(d.seconds, "vod", "site")
	text := fmt.Sprintf("by address everywhere: %.4f %% of %d client seconds served, %d lost", 100*share, n, lost)
	wwwShare, wwwLost, wwwN := availability(d.seconds, "www")
	text += fmt.Sprintf("\nby DNS alone: %.4f %% of %d, %d lost", 100*wwwShare, wwwN, wwwLost)
	wrong, downs := takenAway(all, d.told, d.began, func(site string) string { return "t-" + d.regionOf(site) })
	text += fmt.Sprintf("\n%d verdicts of down against sites, %d of them against sites that were well", downs, len(wrong))
	gone, routes := d.judgeRoutes()
	text += "\n" + routes + fmt.Sprintf("processes that ended by themselves: %d %v\n", len(d.ended), d.ended)
	d.leaveTable(t, text, spent)
	t.Log("\n" + text)
	if share < servedShare {
		t.Errorf("%.4f %% of the client seconds were served, want %.2f %%; the costliest faults:\n%s", 100*share, 100*servedShare, d.costliest(spent))
	}
	for _, w := range wrong {
		t.Errorf("a site that was well was taken away, at %s", w)
	}
	for _, g := range gone {
		t.Errorf("no router had a route, at %.1f s; in force then: %s", g.Seconds(), inForce(all, g))
	}
	for key, now := range d.descriptors() {
		if now > open[key]+openMore {
			t.Errorf("%s has %d descriptors open, %d before the first fault", key, now, open[key])
		}
	}
	if n == 0 || len(d.seconds) < int(d.schedule.Lasting/visitEvery)*8 {
		t.Errorf("%d client seconds in %s, want nine of each", len(d.seconds), d.schedule.Lasting)
	}
}

// judgeRoutes tells when no router had a route, and how long each had none.
func (d *drawn) judgeRoutes() (gone []time.Duration, text string) {
	for _, p := range anycast() {
		changes := map[string][]routeChange{}
		for router, w := range d.routes {
			w.mu.Lock()
			changes[router] = slices.Clone(w.changes)
			w.mu.Unlock()
		}
		at, without := routeless(changes, p, time.Now())
		for _, g := range at {
			gone = append(gone, g.Sub(d.began))
		}
		for _, region := range regions() {
			text += fmt.Sprintf("t-%s had no route to %s for %.1f s in all\n", region, p, without["t-"+region].Seconds())
		}
	}
	return gone, text
}

// leaveTable writes the faults, what each cost, and the seconds that were lost.
func (d *drawn) leaveTable(t *testing.T, text string, spent map[int]*cost) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nA client second is lost that has no answer within %s, of as many tries as seconds.\n", text, visitPatience)
	fmt.Fprintf(&b, "%d faults in %s, drawn from seed %d, compressed %g times: RHUMB_SOAK_SEED=%d draws them again\n\n",
		len(d.schedule.Troubles), d.schedule.Lasting, d.schedule.Seed, d.schedule.Compress, d.schedule.Seed)
	fmt.Fprintf(&b, "%4s %11s %11s  %-46s %9s %9s %9s %9s\n", "", "at", "for", "fault", "lost", "by DNS", "waited", "longest")
	for i, f := range d.schedule.Troubles {
		fmt.Fprintf(&b, "%4d %9.3f s %9.3f s  %-46s%s\n", i+1, f.At.Seconds(), f.For.Seconds(), f, spent[i].row())
	}
	if c := spent[-1]; c != nil {
		fmt.Fprintf(&b, "%4s %11s %11s  %-46s%s\n", "", "", "", "no fault", c.row())
	}
	b.WriteString("\nlost client seconds\n")
	for _, s := range d.seconds {
		if s.lost() {
			fmt.Fprintln(&b, s)
		}
	}
	b.WriteString("\nwhat the fleet said\n")
	for _, e := range d.told {
		fmt.Fprintf(&b, "%8.1f s: %s\n", e.At.Sub(d.began).Seconds(), e.Text)
	}
	if err := os.WriteFile(outputFile(t, "-faults.txt"), []byte(b.String()), 0o644); err != nil {
		t.Error(err)
	}
}

// row is a cost in the table; nothing where there is none.
func (c *cost) row() string {
	if c == nil {
		return ""
	}
	return fmt.Sprintf(" %9d %9d %9d %7.1f s", c.lost["vod"]+c.lost["site"], c.lost["www"], c.waited, c.worst.Seconds())
}

// costliest lists the faults that cost most of what is judged, and of each the first
// seconds that were lost to it.
func (d *drawn) costliest(spent map[int]*cost) string {
	judged := func(i int) int { return spent[i].lost["vod"] + spent[i].lost["site"] }
	var order []int
	for i := range spent {
		if judged(i) > 0 {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return judged(b) - judged(a) })
	var b strings.Builder
	for _, i := range order[:min(len(order), 10)] {
		name := "no fault"
		if i >= 0 {
			f := d.schedule.Troubles[i]
			name = fmt.Sprintf("%d %s, from %.1f s for %.1f s", i+1, f, f.At.Seconds(), f.For.Seconds())
		}
		fmt.Fprintf(&b, "%s: %d lost\n", name, judged(i))
		shown := 0
		for _, s := range d.seconds {
			if site := sites()[slices.Index(regions(), s.region)]; s.lost() && s.service != "www" && shown < 4 &&
				blame(d.schedule.Troubles, s.at, s.Took, site, s.region) == i {
				fmt.Fprintf(&b, "    %s\n", s)
				shown++
			}
		}
	}
	return b.String()
}
