package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/store"
)

// loadInventory has a site of three clusters and a foreign one, and four services on the first's VIPs.
func loadInventory() *placement.Inventory {
	web, vod := netip.MustParseAddrPort("192.0.2.10:80"), netip.MustParseAddrPort("192.0.2.11:80")
	six, other := netip.MustParseAddrPort("[2001:db8::11]:80"), netip.MustParseAddrPort("192.0.2.12:80")
	return &placement.Inventory{Fleet: placement.Fleet{
		Sites: []placement.Site{{Name: "ams1", Clusters: []placement.Cluster{
			{Name: "web", Addresses: []netip.AddrPort{web}, Capacity: 100},
			{Name: "spare", Addresses: []netip.AddrPort{netip.MustParseAddrPort("198.51.100.1:80")}, Capacity: 50},
			{Name: "vod", Addresses: []netip.AddrPort{vod, six}, Capacity: 200},
			{Name: "others", CNAME: "x.test."}}}},
		Services: []placement.Service{
			{Name: "www", Clusters: []string{"web"}, Edge: &placement.Edge{Kind: placement.Forward, VIPs: []netip.AddrPort{web}}},
			{Name: "vod", Clusters: []string{"spare", "vod"}, Edge: &placement.Edge{Kind: placement.Content, VIPs: []netip.AddrPort{vod}}},
			{Name: "six", Clusters: []string{"vod"}, Edge: &placement.Edge{Kind: placement.Content, VIPs: []netip.AddrPort{six}}},
			{Name: "away", Clusters: []string{"others"}, Edge: &placement.Edge{Kind: placement.Content, VIPs: []netip.AddrPort{other}}},
			{Name: "dns", Clusters: []string{"web"}}}}}
}

// TestLoadIsTold: what an edge carries reaches the store, the cluster's row and the site's; only
// what has changed is written, and what is gone is taken back.
func TestLoadIsTold(t *testing.T) {
	inv, at := loadInventory(), time.Unix(1000, 0)
	wrote := ""
	k := &loadKeeper{told: map[string]placement.Load{}, seen: map[string]int64{"vod": 1000}, at: at,
		tell: func(l placement.Load) {
			wrote += fmt.Sprintf("%s %d/s %d %t, ", l.Cluster.Name, l.QPS, l.Sessions, l.Counted)
		},
		drop: func(id placement.ClusterID) { wrote += "drop " + id.Name }}
	sessions := map[netip.AddrPort]int{}
	for i, v := range []string{"192.0.2.10:80", "192.0.2.11:80", "[2001:db8::11]:80", "192.0.2.12:80"} {
		sessions[netip.MustParseAddrPort(v)] = 100 * (i + 1)
	}
	requests := map[string]int64{"vod": 1000, "six": 0, "away": 0}
	step := func(what string, vod, six int64, web int, want ...string) {
		t.Helper()
		at = at.Add(10 * time.Second)
		requests["vod"], requests["six"], sessions[netip.MustParseAddrPort("192.0.2.10:80")] = requests["vod"]+vod, requests["six"]+six, web
		wrote = ""
		k.look(inv, "ams1", burden{map[string]int64{"vod": requests["vod"], "six": requests["six"], "away": 9999}, sessions, at})
		if ok := slices.Contains(want, wrote); !ok {
			t.Errorf("%s: told %q, want one of %q", what, wrote, want)
		}
	}
	vod, web := "vod 60/s 500 true, ", "web 0/s 100 false, "
	step("first", 400, 200, 100, vod+web, web+vod)
	step("as before, but for chance", 410, 200, 104, "")
	step("fewer requests", 10, 1, 100, "vod 2/s 500 true, ")
	step("none", 0, 0, 110, "vod 0/s 500 true, web 0/s 110 false, ", "web 0/s 110 false, vod 0/s 500 true, ")
	inv.Services = inv.Services[1:]
	step("a service is gone", 0, 0, 110, "drop web")
}

// TestLoadIsSeen: from a session's report to the rows that people read. A cluster whose requests nobody
// counts has no part in the site's use.
func TestLoadIsSeen(t *testing.T) {
	st, err := store.Open(t.Context(), store.Config{Memory: store.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for i, node := range []string{"ams1-e1", "ams1-e2"} {
		s := st.Session(node, 0)
		go s.Run(t.Context())
		for name, l := range loadsOf(loadInventory(), "ams1", burden{sessions: map[netip.AddrPort]int{netip.MustParseAddrPort("192.0.2.10:80"): 7}, at: time.Now()},
			func(string) int64 { return int64(10 * (i + 1)) }) {
			if name != l.Cluster.Name {
				t.Errorf("%s is told as %s", name, l.Cluster.Name)
			}
			s.SetLoad(l)
		}
	}
	view := &store.View{}
	views := st.Follow(t.Context())
	for deadline := time.After(20 * time.Second); len(view.Loads) < 2 || view.Loads[0].QPS != 60 || view.Loads[1].Sessions != 14; {
		select {
		case view = <-views:
		case <-deadline:
			t.Fatalf("loads %+v", view.Loads)
		}
	}
	rows := api.Sites(api.State{Loads: view.Loads, Snapshot: &placement.Snapshot{Inventory: loadInventory()}, Inventory: loadInventory()}, nil)
	site := rows[0]
	if site.Load.QPS != 60 || site.Load.Use == nil || *site.Load.Use != 0.3 {
		t.Errorf("the site carries %+v, want 60 of 200", site.Load)
	}
	if c := site.Clusters[0]; c.Sessions != 14 || c.Counted || qpsText(&c) != "" {
		t.Errorf("the forwarded cluster: %+v", c)
	}
}
