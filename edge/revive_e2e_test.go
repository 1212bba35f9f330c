//go:build e2e

package edge

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// lose cuts a site off and kills its agent, and the routes turn to the other.
func (w *world) lose(site string, p *process) {
	w.t.Helper()
	w.in("r", "ip link set "+site+"0 down")
	p.kill()
	w.route(map[string]string{"a": "b", "b": "a"}[site])
}

// kill ends a role as a crash does.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Wait()
}

// backed waits until all of the load's sessions have a Backup and silence.
func (w *world) backed(p *process, n int) {
	w.t.Helper()
	var r report
	w.await("backups", func() bool { p.ask("state", &r); return r.Backed == n && r.Quiet == n })
}

func soak() bool { return os.Getenv("RHUMB_SOAK") == "1" }

// TestSiteLoss: a site dies under running downloads. Every client has every
// byte from the other site, and none was reset.
func TestSiteLoss(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 2<<20)
			x.N, x.VIP, x.Pace, x.Buffer = 60, f.vip, 10*time.Millisecond, 16<<10
			a, b := w.sites(func(x *agentArgs) { x.Backups = true })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			w.lose("a", a)
			b.ask("down a", &word)
			gaps := w.finish(load, x.N)
			var r report
			b.ask("state", &r)
			t.Logf("longest gap p50 %v p99 %v; revivals %v, answers %v", quantile(gaps, .5), quantile(gaps, .99), r.Revivals, r.Answers)
			if r.Revivals[reviveOK] < float64(x.N) {
				t.Errorf("revived %v of %d sessions", r.Revivals, x.N)
			}
			w.noResets()
		})
	}
}

// TestAgentCrash: the process dies and another takes its place while the host
// lives: no client hears the end of the first.
func TestAgentCrash(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 2<<20)
			x.N, x.VIP, x.Pace, x.Buffer = 60, f.vip, 10*time.Millisecond, 16<<10
			args := func(x *agentArgs) { x.Backups = true }
			a, b := w.sites(args)
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			a.kill()
			a = w.agent("a", "b", args)
			gaps := w.finish(load, x.N)
			var r report
			a.ask("state", &r)
			t.Logf("longest gap p50 %v p99 %v; revivals %v, answers %v", quantile(gaps, .5), quantile(gaps, .99), r.Revivals, r.Answers)
			if r.Revivals[reviveOK] < float64(x.N) {
				t.Errorf("revived %v of %d sessions", r.Revivals, x.N)
			}
			b.ask("state", &r)
			w.noResets()
		})
	}
}

// TestAgentGone: nobody takes the place of a dead process. Its clients learn of
// the end within three seconds; none waits for more.
func TestAgentGone(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 8<<20)
			x.N, x.VIP, x.Pace, x.Buffer = 20, f.vip, 10*time.Millisecond, 16<<10
			a, _ := w.sites(func(x *agentArgs) { x.Backups = true })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			killed := time.Now()
			a.kill()
			var rs []result
			load.next(&rs)
			errs := map[string]int{}
			early, late := time.Duration(time.Hour), time.Duration(0)
			for _, r := range rs {
				if r.Err == "" || strings.Contains(r.Err, "timeout") {
					t.Errorf("a client ended with %q, want the connection's end", r.Err)
				}
				errs[r.Err[strings.LastIndex(r.Err, ": ")+1:]]++
				early, late = min(early, r.Ended.Sub(killed)), max(late, r.Ended.Sub(killed))
			}
			t.Logf("connections ended %v to %v after the process: %v", early, late, errs)
			// Two seconds of silence, a second until the FIN is sent again,
			// and as much for a busy machine.
			if late > 4*time.Second || early < time.Second {
				t.Errorf("ends %v to %v after the kill, want silence and then an end within 3 s", early, late)
			}
		})
	}
}
