//go:build e2e

package edge

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// spread has the router spread the clients' flows over edges.
func (w *world) spread(to ...string) {
	w.t.Helper()
	i := map[string]int{"a": 1, "b": 2, "d": 3}
	four, six := "ip route replace "+vip4+"/32", "ip -6 route replace "+vip6+"/128"
	for _, n := range to {
		four += fmt.Sprintf(" nexthop via 198.51.100.%d", i[n]*4+2)
		six += fmt.Sprintf(" nexthop via 2001:db8:%d::2", i[n]+1)
	}
	w.in("r", four)
	w.in("r", "ip -6 route del "+vip6+"/128") // else the hops of before stay
	w.in("r", six)
}

// edges starts three, of which some are nodes of one site.
func (w *world) edges(nodes string) map[string]*process {
	w.t.Helper()
	w.host("d")
	w.link(3, "d")
	w.in("r", "sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1")
	out := map[string]*process{}
	for _, x := range []agentArgs{{Site: "a", Other: "b", Third: "d"}, {Site: "b", Other: "a", Third: "d"}, {Site: "d", Other: "a", Third: "b"}} {
		out[x.Site] = w.agent(x.Site, x.Other, func(y *agentArgs) {
			y.Third, y.Nodes, y.Backups, y.Root = x.Third, nodes, true, filepath.Join(w.dir, "root-a")
		})
	}
	for n := range out {
		w.serving(n)
	}
	return out
}

// kept waits until all of the load's sessions have a Backup and silence, and returns how
// many each edge has.
func (w *world) kept(edges map[string]*process, n, records int) map[string]int {
	w.t.Helper()
	var count map[string]int
	w.await("backups", func() bool {
		backed, quiet, have := 0, 0, 0
		count = map[string]int{}
		for name, p := range edges {
			var r report
			p.ask("state", &r)
			count[name], backed, quiet, have = r.Sessions, backed+r.Backed, quiet+r.Quiet, have+r.Records
		}
		return backed == n && quiet == n && have == records
	})
	return count
}

// dies takes an edge away as the loss of its machine does.
func (w *world) dies(n string, p *process) {
	w.t.Helper()
	w.in("r", "ip link set "+n+"0 down")
	p.kill()
}

// TestNodeLoss kills one of three edges of a site under downloads over which the router
// spreads flows. All go on: those of the dead one at its neighbours, those of the others
// wherever their packets arrive now. Nobody is reset, and no session has two owners.
func TestNodeLoss(t *testing.T) {
	for _, f := range families(0) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.crowd(f.vip)
			edges := w.edges("a b d")
			w.spread("a", "b", "d")
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			count := w.kept(edges, x.N, x.N)
			if count["a"] == 0 || count["b"] == 0 || count["d"] == 0 {
				t.Fatalf("the router chose %v, want all three", count)
			}
			load.tell("go")
			w.dies("a", edges["a"])
			delete(edges, "a")
			w.spread("b", "d")
			for _, p := range edges {
				p.ask("silent s/a", &word)
			}
			var at map[string]report
			w.await("all sessions at the two that are left, once each", func() bool {
				at = map[string]report{}
				sum := 0
				for n, p := range edges {
					var r report
					p.ask("state", &r)
					at[n], sum = r, sum+r.Sessions
				}
				return sum == x.N
			})
			load.tell("end")
			gaps := w.finish(load, x.N)
			revived := at["b"].Revivals[reviveOK] + at["d"].Revivals[reviveOK]
			t.Logf("sessions %v; revived %v; strays at b %v, at d %v; longest gap p50 %v p99 %v", count, revived, at["b"].Strays, at["d"].Strays, quantile(gaps, .5), quantile(gaps, .99))
			if revived != float64(count["a"]) {
				t.Errorf("%v sessions were revived, want the %d of the dead node and no other", revived, count["a"])
			}
			w.noResets()
		})
	}
}

// TestNodeThenSite kills one of two edges of a site, and then the other, when it has the
// sessions of both. They go on next door first, then at the other site, which has kept
// records of all of them and revives nothing that is older.
func TestNodeThenSite(t *testing.T) {
	for _, f := range families(1) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.crowd(f.vip)
			edges := w.edges("a b")
			w.spread("a", "b")
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			count := w.kept(edges, x.N, 2*x.N) // each next door, and elsewhere
			load.tell("go")
			w.dies("a", edges["a"])
			delete(edges, "a")
			w.spread("b")
			edges["b"].ask("silent s/a", &word)
			var b, d report
			w.await("all sessions at b, and records of these at d", func() bool {
				edges["b"].ask("state", &b)
				edges["d"].ask("state", &d)
				return b.Sessions == x.N && b.Backed == x.N && d.Records == x.N
			})
			if b.Revivals[reviveOK] != float64(count["a"]) || d.Revivals[reviveOK] != 0 {
				t.Errorf("revived next door %v, elsewhere %v; want %d and none", b.Revivals, d.Revivals, count["a"])
			}
			w.dies("b", edges["b"])
			w.in("r", "ip route replace "+vip4+"/32 via 198.51.100.14")
			w.in("r", "ip -6 route replace "+vip6+"/128 via 2001:db8:4::2")
			edges["d"].ask("down s/a s/b", &word)
			load.tell("end")
			w.finish(load, x.N)
			if edges["d"].ask("state", &d); d.Revivals[reviveOK] != float64(x.N) {
				t.Errorf("the other site revived %v, want %d", d.Revivals, x.N)
			}
			w.noResets()
		})
	}
}

// TestNodeCrash kills the process of a node whose machine lives. Its neighbour takes it for
// dead and begins to revive, but the packets still arrive at the node: the next process
// there asks for the records, and gets them back in the middle of that.
func TestNodeCrash(t *testing.T) {
	w := newWorld(t)
	x := w.crowd(vip4)
	edges := w.edges("a b")
	w.route("a")
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	next := w.agent("a", "b", func(y *agentArgs) {
		y.Third, y.Nodes, y.Backups, y.Standby = "d", "a b", true, true
	})
	w.kept(edges, x.N, 2*x.N)
	load.tell("go")
	edges["a"].kill()
	edges["b"].ask("silent s/a", &word)
	var r report
	w.await("probes of the neighbour", func() bool { edges["b"].ask("state", &r); return r.Records == 0 })
	next.tell("begin")
	load.tell("end")
	w.finish(load, x.N)
	var a report
	next.ask("state", &a)
	edges["b"].ask("state", &r)
	t.Logf("revivals at the node %v, at its neighbour %v", a.Revivals, r.Revivals)
	if a.wentOn() < float64(x.N) || r.Revivals[reviveOK] != 0 || r.Revivals[reviveLost] != float64(x.N) {
		t.Errorf("want %d revived at the node, and as many given back by the neighbour", x.N)
	}
	w.noResets()
}

// TestNodeDrain drains one of three edges of a site: while the router still sends it packets,
// and then those of none of its sessions. Downloads and sessions that rest, which nobody
// pulls, go on at its neighbours by planned hand-offs, and its process can be stopped.
func TestNodeDrain(t *testing.T) {
	for _, f := range families(1) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.deadline = 500 * time.Millisecond
			x := w.crowd(f.vip)
			rest := w.object("film.mp4", 1<<20)
			rest.N, rest.VIP, rest.Piece, rest.Hold = x.N, f.vip, 4<<10, 4<<10
			edges := w.edges("a b d")
			w.spread("a", "b", "d")
			load, resting := w.start("c", "load", x), w.start("c", "load", rest)
			var word string
			load.next(&word)
			resting.next(&word)
			count := w.kept(edges, 2*x.N, 2*x.N)
			if count["a"] < 4 {
				t.Fatalf("the router chose %v, want some at each", count)
			}
			for _, n := range []string{"b", "d"} {
				edges[n].ask("leaving s/a", &word)
			}
			edges["a"].ask("drain s/b s/d", &word)
			load.tell("go")
			var a, b, d report
			w.await("no session at the node, though its packets come there", func() bool { edges["a"].ask("state", &a); return a.Sessions == 0 })
			w.await("packets that are sent after their sessions", func() bool { edges["a"].ask("state", &a); return a.Strays["hint"] >= 5 })
			if a.Sessions > 0 || a.Totals.In > 0 {
				t.Errorf("%d sessions are at the node, %d came back", a.Sessions, a.Totals.In)
			}
			w.spread("b", "d")
			if moved := a.Results[resultOK]; moved != count["a"] || len(a.Errors) > 0 {
				t.Errorf("%d of %d sessions were handed off; %v %v", moved, count["a"], a.Results, a.Errors)
			}
			w.await("all sessions at the two that stay, with Backups", func() bool {
				edges["b"].ask("state", &b)
				edges["d"].ask("state", &d)
				return b.Sessions+d.Sessions == 2*x.N && b.Backed+d.Backed == 2*x.N && b.Records+d.Records == 2*x.N
			})
			w.dies("a", edges["a"])
			for _, n := range []string{"b", "d"} {
				edges[n].ask("silent s/a", &word)
			}
			for _, l := range []*process{load, resting} {
				l.tell("end")
				w.finish(l, x.N)
			}
			edges["b"].ask("state", &b)
			edges["d"].ask("state", &d)
			t.Logf("sessions %v; moves from the node %v, between the others %v %v", count, a.Results, b.Results, d.Results)
			if len(b.Revivals)+len(d.Revivals) > 0 {
				t.Errorf("revivals %v %v, want none: nothing was lost", b.Revivals, d.Revivals)
			}
			w.noResets()
		})
	}
}
