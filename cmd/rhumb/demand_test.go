package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/director"
	"rhumb/placement/store"
)

// demandWorld is a fleet of three sites with a name server each, a store in memory
// and a director, on the clock of a bubble. Clients of class i are near to site i.
type demandWorld struct {
	t     *testing.T
	st    *store.Store
	mu    sync.Mutex
	asked [3][]placement.ClassRate // by node
	// stop ends the unit of a node.
	stop [3]context.CancelFunc
	plan *placement.Plan
	inv  *placement.Inventory
	// maps are the divisions of clients, one after the other.
	maps []string
}

func demandSites() []placement.Site {
	var out []placement.Site
	for i, site := range []string{"ams1", "nyc1", "tyo1"} {
		out = append(out, placement.Site{Name: site, Region: []string{"eu", "us", "ap"}[i], Number: uint16(i + 1), At: []placement.Position{{52, 5}, {41, -74}, {36, 140}}[i],
			Clusters: []placement.Cluster{{Name: "web", Capacity: 10000, Addresses: []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 1)}), 80)}}}})
	}
	return out
}

func demandTable3() *placement.ClassTable {
	ct := &placement.ClassTable{Digest: "t1"}
	for _, s := range demandSites() {
		ct.Locations = append(ct.Locations, placement.Location{At: s.At})
	}
	return ct
}

func startDemand(t *testing.T) *demandWorld {
	st, err := store.Open(t.Context(), store.Config{Memory: store.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	w := &demandWorld{t: t, st: st}
	fleet := &placement.Fleet{Mode: placement.Act, Sites: demandSites(), Policies: []placement.Policy{{Name: "nearest"}},
		Services: []placement.Service{{Name: "www", Names: []string{"www.test."}, Clusters: []string{"web"}, Policy: "nearest", PerQuery: 20,
			Demand: map[string]int64{"eu": 3000, "us": 3000, "ap": 3000}}}}
	t.Cleanup(func() { st.Close() })
	if _, err := st.PutFleet(t.Context(), fleet, nil, 0, "test", ""); err != nil {
		t.Fatal(err)
	}
	views := newBox[director.View]()
	go func() {
		for v := range st.Follow(t.Context()) {
			w.see(v)
			views.put(directorView(v))
		}
	}()
	d := director.New(director.Config{Node: "ams1-a", Store: directorStore{st}, Views: views, Log: slog.New(slog.DiscardHandler),
		Classes: func(*placement.Inventory) (*placement.ClassTable, error) { return demandTable3(), nil }})
	go func() { _ = d.Run(t.Context()) }()
	for i := range 3 {
		w.start(i)
	}
	return w
}

// see notes each plan that divides clients in another way than the one before.
func (w *demandWorld) see(v *store.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inv = v.Inventory
	if v.Plan == nil || w.plan != nil && v.Plan.Revision == w.plan.Revision {
		return
	}
	if w.plan == nil || fmt.Sprint(v.Plan.Services[0].Splits) != fmt.Sprint(w.plan.Services[0].Splits) {
		w.maps = append(w.maps, fmt.Sprintf("%v %+v", time.Now().Format(time.TimeOnly), v.Plan.Services[0].Splits))
	}
	w.plan = v.Plan
}

// start begins the name server's unit of a node.
func (w *demandWorld) start(i int) {
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop[i] = stop
	node := demandSites()[i].Name + "-a"
	session := w.st.Session(node, 0)
	go func() { _ = session.Run(ctx) }()
	measure := func() placement.DemandReport {
		w.mu.Lock()
		defer w.mu.Unlock()
		r := placement.DemandReport{Node: node, ClassTable: "t1"}
		if len(w.asked[i]) > 0 {
			r.Services = []placement.ServiceDemand{{Service: "www", Asked: w.asked[i]}}
		}
		return r
	}
	go func() { _ = newDemandKeeper(measure, session.SetDemand, prometheus.NewRegistry()).run(ctx) }()
}

// ask lets the clients of all three classes ask the name server of one node, in
// queries a second, for some time.
func (w *demandWorld) ask(node int, lasting time.Duration, qps ...int64) {
	w.mu.Lock()
	w.asked = [3][]placement.ClassRate{}
	for class, n := range qps {
		w.asked[node] = append(w.asked[node], placement.ClassRate{Class: uint16(class), Milli: 1000 * n})
	}
	w.mu.Unlock()
	time.Sleep(lasting)
	synctest.Wait()
}

// want compares how often clients were divided anew, and what each site carries.
func (w *demandWorld) want(when string, maps int, limit int64) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.maps) != maps {
		w.t.Fatalf("%s: %d maps, want %d:\n%v", when, len(w.maps), maps, w.maps)
	}
	ct := demandTable3()
	inv := w.inv
	snap, err := decide.Unfold(inv, ct, w.plan, decide.Fold(inv, nil, w.plan), w.plan.Votes, false)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range decide.Simulate(snap, decide.Change{}).Clusters {
		if c.Before > limit {
			w.t.Errorf("%s: %s carries %d requests/s, want %d at most", when, c.Cluster, c.Before, limit)
		}
	}
}

// TestCrowdOfOneRegionSpills: what the name servers are asked from one region exceeds
// its site, and goes on to where there is room. What flaps, moves to another name
// server, or is not told for a while, moves nobody.
func TestCrowdOfOneRegionSpills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const full = 9000 + 16 // a share is a whole part of a thousand
		w := startDemand(t)
		w.ask(0, 2*time.Minute, 150, 150, 150)
		w.want("as expected", 1, 3001)
		w.ask(0, 3*time.Minute, 800, 150, 150) // 16000 requests/s, room for 9000
		w.want("a crowd in Europe", 2, full)
		w.ask(1, 12*time.Minute, 800, 150, 150)
		w.want("it asks the node in New York", 2, full)
		w.stop[1]()
		time.Sleep(time.Minute)
		w.start(1)
		w.ask(1, 4*time.Minute, 800, 150, 150)
		w.want("that node has restarted", 2, full)
		for range 4 {
			w.ask(1, 2*time.Minute, 150, 150, 150)
			w.ask(1, 2*time.Minute, 800, 150, 150)
		}
		w.want("it comes and goes", 2, full)
		w.ask(1, 23*time.Minute, 150, 150, 150)
		w.want("it has gone for good", 3, 3001)
	})
}

// TestDemandKeeperTellsChanges: nothing is written for a change of a few per cent, nor
// while nothing changes.
func TestDemandKeeperTellsChanges(t *testing.T) {
	var told []placement.DemandReport
	milli := int64(0)
	k := newDemandKeeper(func() placement.DemandReport {
		return placement.DemandReport{Node: "ams1-a", Services: []placement.ServiceDemand{{Service: "www", Asked: []placement.ClassRate{{Class: 1, Milli: milli}}}}}
	}, func(r placement.DemandReport) { told = append(told, r) }, prometheus.NewRegistry())
	for _, milli = range []int64{1_000_000, 1_000_000, 1_020_000, 1_200_000, 1_180_000, 1_000_000, 990_000} {
		k.look()
	}
	if len(told) != 3 || told[1].Services[0].Asked[0].Milli != 1_200_000 || told[2].Services[0].Asked[0].Milli != 1_000_000 {
		t.Errorf("told %+v", told)
	}
}
