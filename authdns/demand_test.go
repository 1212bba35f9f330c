package authdns

import (
	"math"
	"testing"
	"time"

	"rhumb/placement"
)

// milli is what a report says of one class.
func milli(r placement.DemandReport, service string, class uint16) int64 {
	for _, s := range r.Services {
		for _, a := range s.Asked {
			if s.Service == service && a.Class == class {
				return a.Milli
			}
		}
	}
	return 0
}

func near(t *testing.T, what string, got int64, want, part float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > part*want {
		t.Errorf("%s: %d milliqueries/s, want %.0f", what, got, want)
	}
}

// TestDemandIsSmooth: the first report is right already, a step arrives by and by, and
// who asks no more is forgotten.
func TestDemandIsSmooth(t *testing.T) {
	at := time.Unix(1000, 0)
	d := demand{at: at}
	www := demandKey{"www", 3}
	tick := func(n int64) placement.DemandReport {
		at = at.Add(10 * time.Second)
		counts := map[demandKey]int64{}
		if n > 0 {
			counts[www] = n
		}
		d.add(counts, "t1", at)
		return d.report("ams1-a")
	}
	near(t, "first report of 5 q/s", milli(tick(50), "www", 3), 5000, .001)
	for range 30 {
		tick(50)
	}
	near(t, "10 s after a step to 20 q/s", milli(tick(200), "www", 3), 5000+15000*(1-math.Exp(-1./6)), .01)
	for range 40 {
		tick(200)
	}
	near(t, "after 400 s of 20 q/s", milli(tick(200), "www", 3), 20000, .01)
	for range 90 {
		tick(0)
	}
	if r := tick(0); len(r.Services) != 0 || len(d.sums) != 0 {
		t.Errorf("after a quarter of an hour of silence: %+v", r)
	}
}

// TestDemandMoves: clients whose route moves from one node to another are counted once
// all the while, since both fade at one rate.
func TestDemandMoves(t *testing.T) {
	at := time.Unix(1000, 0)
	nodes := [2]demand{{at: at}, {at: at}}
	www := demandKey{"www", 3}
	for i := range 120 {
		at = at.Add(10 * time.Second)
		sum := int64(0)
		for k := range nodes {
			counts := map[demandKey]int64{}
			if (i < 60) == (k == 0) {
				counts[www] = 70
			}
			nodes[k].add(counts, "t1", at)
			sum += milli(nodes[k].report("n"), "www", 3)
		}
		near(t, "both nodes", sum, 7000, .02)
	}
}

// TestDemandOfAnotherTable: numbers of another class table are other clients.
func TestDemandOfAnotherTable(t *testing.T) {
	at := time.Unix(1000, 0)
	d := demand{at: at}
	www := demandKey{"www", 3}
	d.add(map[demandKey]int64{www: 50}, "t1", at.Add(10*time.Second))
	d.add(map[demandKey]int64{www: 50}, "t2", at.Add(20*time.Second))
	if r := d.report("n"); r.ClassTable != "t2" || len(r.Services) != 0 {
		t.Errorf("with the table anew: %+v", r)
	}
	d.add(map[demandKey]int64{www: 50}, "t2", at.Add(30*time.Second))
	near(t, "the next time", milli(d.report("n"), "www", 3), 5000, .001)
}

// TestDemandIsBounded: the strongest are reported.
func TestDemandIsBounded(t *testing.T) {
	at := time.Unix(1000, 0)
	d := demand{at: at}
	counts := make(map[demandKey]int64)
	for class := range 2 * maxDemand {
		counts[demandKey{"www", uint16(class)}] = int64(1 + class)
	}
	d.add(counts, "t1", at.Add(time.Second))
	r := d.report("n")
	if len(r.Services) != 1 || len(r.Services[0].Asked) != maxDemand || r.Services[0].Asked[0].Class != maxDemand {
		t.Errorf("%d services, the first with %d classes from %d on", len(r.Services), len(r.Services[0].Asked), r.Services[0].Asked[0].Class)
	}
}
