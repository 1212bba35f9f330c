//go:build e2e

package edge

import (
	"path/filepath"
	"slices"
	"testing"
)

// TestLeavingBackup: a site that drains is no Backup any more. The records that it keeps go
// to the other one, those of new sessions too, and when their site dies they go on there.
func TestLeavingBackup(t *testing.T) {
	for _, f := range families(0) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.host("d")
			w.link(3, "d")
			x := w.crowd(f.vip)
			edges := map[string]*process{}
			for n, rest := range map[string][2]string{"a": {"b", "d"}, "b": {"a", "d"}, "d": {"a", "b"}} {
				edges[n] = w.agent(n, rest[0], func(x *agentArgs) { x.Backups, x.Rest, x.Root = true, rest[1], filepath.Join(w.dir, "root-a") })
			}
			for n := range edges {
				w.serving(n)
			}
			first := w.start("c", "load", x)
			var word string
			first.next(&word)
			w.kept(edges, x.N, x.N)
			var b, d report
			if edges["b"].ask("state", &b); b.Records == 0 {
				t.Fatal("b is nobody's Backup")
			}
			for _, p := range edges {
				p.ask("leaving b", &word)
			}
			second := w.start("c", "load", x)
			second.next(&word)
			w.await("records of all sessions at d, and none at b", func() bool {
				edges["b"].ask("state", &b)
				edges["d"].ask("state", &d)
				return b.Records == 0 && d.Records == 2*x.N
			})
			w.kept(edges, 2*x.N, 2*x.N)
			w.in("r", "ip link set a0 down")
			edges["a"].kill()
			w.route("d")
			for _, n := range []string{"b", "d"} {
				edges[n].ask("lost a", &word)
			}
			for _, load := range []*process{first, second} {
				load.tell("go")
				load.tell("end")
				w.finish(load, x.N)
			}
			edges["b"].ask("state", &b)
			if edges["d"].ask("state", &d); d.Revivals[reviveOK] < float64(2*x.N) || len(b.Revivals) > 0 {
				t.Errorf("revivals at d %v, at the one that drains %v", d.Revivals, b.Revivals)
			}
			w.noResets()
		})
	}
}

// leaving gives the sites that drain no weight, as the program does.
func leaving(peers []Peer, sites []string) []Peer {
	peers = slices.Clone(peers)
	for i := range peers {
		if peers[i].Weight = 1; slices.Contains(sites, peers[i].Name) {
			peers[i].Weight = 0
		}
	}
	return peers
}
