//go:build e2e

package edge

import (
	"path/filepath"
	"testing"
	"time"
)

// TestThirdSite: a site dies, and the routes turn its clients to a third one, which
// has never heard of their sessions, before anybody has a verdict. There they wait
// longer than a stray that nobody owns, and go on at their Backup, by way of the third.
func TestThirdSite(t *testing.T) {
	t.Parallel() // it waits for a while
	for _, f := range families(1) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.host("d")
			w.link(3, "d")
			x := w.object("film.mp4", 1<<20)
			x.N, x.VIP, x.Pace, x.Buffer, x.Gated = 20, f.vip, 5*time.Millisecond, 16<<10, true
			a, b := w.sites(func(x *agentArgs) { x.Backups, x.Third = true, "d" })
			d := w.agent("d", "b", func(x *agentArgs) { x.Backups, x.Third, x.Root = true, "a", filepath.Join(w.dir, "root-b") })
			w.serving("d")
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			w.in("r", "ip link set a0 down")
			a.kill()
			w.route("d")
			load.tell("go")
			var r report
			w.await("packets that wait at the third site", func() bool { d.ask("state", &r); return r.Held >= float64(x.N) })
			time.Sleep(2500 * time.Millisecond) // to be wrong in: strays of nobody are reset after 2 s
			if d.ask("state", &r); r.Strays["nobody"] > 0 {
				t.Errorf("the third site has given packets up: %v", r.Strays)
			}
			b.ask("down a", &word)
			w.finish(load, x.N)
			d.ask("state", &r)
			var at report
			if b.ask("state", &at); at.Revivals[reviveOK] < float64(x.N) {
				t.Errorf("revivals %v, want %d ok", at.Revivals, x.N)
			}
			t.Logf("strays at the third site %v; revivals %v", r.Strays, at.Revivals)
			w.noResets()
		})
	}
}
