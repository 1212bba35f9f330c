//go:build e2e

package edge

import (
	"path/filepath"
	"testing"
	"time"
)

// TestSuspicionFirst: the origin stands behind the site that dies. A suspicion that
// clears moves nothing; one that comes before the verdict has fetched the object, so
// that the sessions go on at a site which never had it.
func TestSuspicionFirst(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 2<<20)
	x.VIP, x.Pace, x.Buffer, x.Gated, x.Hold = vip4, 10*time.Millisecond, 16<<10, true, 1<<20
	origin := w.start("r", "origin", filepath.Join(w.dir, "root-a"))
	a, b := w.sites(func(x *agentArgs) { x.Backups, x.Root, x.Origin = true, "", "http://"+originAddr })
	var word string
	var ra, rb report
	first := x
	first.N, first.Gated, first.Hold = 1, false, 0
	load := w.start("c", "load", first)
	load.next(&word)
	w.finish(load, 1)
	w.await("whole object at a", func() bool { a.ask("state", &ra); return ra.Copying == 0 })

	x.N = 20
	load = w.start("c", "load", x)
	load.next(&word)
	w.backed(a, x.N)
	w.await("records at b", func() bool { b.ask("state", &rb); return rb.Records == x.N })
	ready := func(n int) func() bool {
		return func() bool { b.ask("state", &rb); return len(rb.Prepared) == 1 && rb.Prepared[0].Ready == n }
	}
	b.ask("suspect a", &word)
	w.await("sessions that are ready before a verdict", ready(x.N))
	b.ask("suspect", &word)
	w.await("end of the suspicion", func() bool { b.ask("state", &rb); return len(rb.Prepared) == 0 && rb.Suspected[PrepareCleared] == 1 })
	if a.ask("state", &ra); ra.Sessions != x.N || rb.Sessions != 0 || rb.Records != x.N || len(rb.Revivals) != 0 || rb.Held != 0 || len(ra.Results)+len(rb.Results) != 0 {
		t.Errorf("after a suspicion that cleared: %d sessions at a, %d at b, %d records there, revivals %v, %v packets held, hand-offs %v %v; want %d, 0, %d, and none",
			ra.Sessions, rb.Sessions, rb.Records, rb.Revivals, rb.Held, ra.Results, rb.Results, x.N, x.N)
	}

	b.ask("suspect a", &word)
	w.await("sessions that are ready again", ready(x.N))
	load.tell("go")
	w.lose("a", a)
	load.tell("end")
	origin.kill()
	b.ask("down a", &word)
	gaps := w.finish(load, x.N)
	b.ask("state", &rb)
	t.Logf("longest gap p50 %v max %v; objects %v, suspicions %v, revivals %v, answers %v", quantile(gaps, .5), quantile(gaps, 1), rb.Objects, rb.Suspected, rb.Revivals, rb.Answers)
	if rb.Revivals[reviveOK] < float64(x.N) || rb.Suspected[PrepareVerdict] != 1 {
		t.Errorf("revivals %v, suspicions %v; want %d ok and one that became a verdict", rb.Revivals, rb.Suspected, x.N)
	}
	w.noResets()
}
