//go:build e2e

package edge

import "testing"

// TestDoubtedSiteLoss: a site dies, and the verdict on it is held back, since others are held for
// dead already. Its clients send to the other site, and ask there in vain: their sessions go on. While a
// site that is doubted lives, they stay where they are.
func TestDoubtedSiteLoss(t *testing.T) {
	for _, f := range families(0) {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.crowd(f.vip)
			a, b := w.sites(func(x *agentArgs) { x.Backups = true })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			b.ask("doubt a", &word)
			var r report
			if b.ask("state", &r); r.Revivals[reviveOK] > 0 {
				t.Errorf("revived %v of a site that lives", r.Revivals)
			}
			load.tell("go")
			w.lose("a", a)
			load.tell("end")
			w.finish(load, x.N)
			b.ask("state", &r)
			t.Logf("revivals %v, answers %v", r.Revivals, r.Answers)
			if r.Revivals[reviveOK] < float64(x.N) {
				t.Errorf("revived %v of %d sessions", r.Revivals, x.N)
			}
			w.noResets()
		})
	}
}
