//go:build e2e

package edge

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPush: idle keep-alive sessions send nothing, so nothing pulls them; the
// deadline of the drain pushes them, and their next request is answered by
// the other site.
func TestPush(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.deadline = 200 * time.Millisecond
			x := w.object("film.mp4", 64<<10)
			x.N, x.VIP, x.Piece, x.Hold = 100, f.vip, 32<<10, 32<<10
			a, b := w.sites(func(x *agentArgs) { x.PullAfter = time.Hour })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.route("b")
			a.ask("drain b", &word)
			w.await("end of the drain", func() bool {
				var r report
				a.ask("state", &r)
				return r.Drain.Left == 0 && r.Drain.Moved == int64(x.N)
			})
			var r report
			if b.ask("state", &r); r.Sessions != x.N {
				t.Errorf("%d sessions at b", r.Sessions)
			}
			load.tell("end")
			w.finish(load, x.N)
			w.noResets()
		})
	}
}

// TestPushBeforeTheRoute: the target is given sessions whose packets still
// arrive at the old site, which sends them after.
func TestPushBeforeTheRoute(t *testing.T) {
	w := newWorld(t)
	w.deadline = time.Millisecond
	x := w.object("film.mp4", 1<<20)
	x.N, x.VIP, x.Piece, x.Pace, x.Hold = 50, vip4, 16<<10, 50*time.Millisecond, 512<<10
	a, b := w.sites(func(x *agentArgs) { x.PullAfter = time.Hour })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	a.ask("drain b", &word)
	w.await("all sessions at b", func() bool {
		var r report
		b.ask("state", &r)
		return r.Sessions == x.N
	})
	load.tell("end")
	w.finish(load, x.N)
}

// TestTakerHangs: a site that does not answer an offer costs its limit and no
// session, and must not take up later what was called off.
func TestTakerHangs(t *testing.T) {
	w := newWorld(t)
	w.deadline = time.Millisecond
	x := w.object("film.mp4", 1<<20)
	x.N, x.VIP, x.Piece, x.Pace, x.Hold = 20, vip4, 16<<10, 50*time.Millisecond, 512<<10
	a, b := w.sites(func(x *agentArgs) { x.PullAfter, x.Backups = time.Hour, true })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	var r report
	w.await("a link", func() bool { b.ask("state", &r); return r.Records == x.N })
	b.stop()
	t.Cleanup(func() { b.cmd.Process.Signal(syscall.SIGCONT) })
	a.ask("drain b", &word)
	w.await("offers without an answer", func() bool { a.ask("state", &r); return r.Results[resultTimeout] >= x.N })
	a.ask("undrain", &word)
	if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	load.tell("end")
	w.finish(load, x.N)
	if a.ask("state", &r); r.Results[resultLost] != 0 {
		t.Errorf("results %v %v", r.Results, r.Errors)
	}
}

// TestTakerDies: killed in the middle of everything, B loses what it had
// already taken; what A had not given away goes on.
func TestTakerDies(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 512<<10)
	x.N, x.VIP, x.Piece, x.Pace, x.Hold = 50, vip4, 16<<10, 50*time.Millisecond, 256<<10
	w.deadline = time.Millisecond
	a, b := w.sites(func(x *agentArgs) { x.PullAfter = time.Hour })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.ask("drain b", &word)
	var r report
	w.await("attempts", func() bool { a.ask("state", &r); return r.Drain.Kept >= int64(x.N) })
	load.tell("end")
	w.finish(load, x.N)
	if a.ask("state", &r); r.Results[resultOK] != 0 || r.Results[resultLost] != 0 {
		t.Errorf("results %v %v", r.Results, r.Errors)
	}
}

// TestRefusedAndObserved: where a session cannot or may not move it is served
// where it is, its packets forwarded, to the end.
func TestRefusedAndObserved(t *testing.T) {
	for name, change := range map[string]func(*world, *agentArgs){
		"other bytes under the name at b": func(w *world, x *agentArgs) {
			if x.Site == "b" {
				w.write("root-b/film.mp4", []byte("something else"))
			}
		},
		"no object at b": func(w *world, x *agentArgs) { os.Remove(filepath.Join(w.dir, "root-b/film.mp4")) },
		"observe":        func(_ *world, x *agentArgs) { x.Mode = ModeObserve },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 1<<20)
			x.N, x.VIP, x.Pace, x.Buffer, x.Hold = 20, vip4, 20*time.Millisecond, 16<<10, 512<<10
			a, _ := w.sites(func(x *agentArgs) { change(w, x) })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.route("b")
			load.tell("end")
			w.finish(load, x.N)
			var r report
			if a.ask("state", &r); r.Results[resultOK] != 0 || r.Results[resultRefused] == 0 && name != "observe" {
				t.Errorf("results %v %v", r.Results, r.Errors)
			}
			w.noResets()
		})
	}
}

// TestRecords: the Backup has each session's record, the new owner of a moved
// one finds a Backup of its own, and at the end nothing is left.
func TestRecords(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 1<<20)
	x.N, x.VIP, x.Piece, x.Pace, x.Gated, x.Hold = 50, vip6, 16<<10, 100*time.Millisecond, true, 1<<20-16<<10
	a, b := w.sites(func(x *agentArgs) { x.Backups = true })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	records := func(p *process) int {
		var r report
		p.ask("state", &r)
		return r.Records
	}
	w.await("records at b", func() bool { return records(b) == x.N })
	w.route("b")
	load.tell("go")
	w.await("records at a instead", func() bool { return records(a) == x.N && records(b) == 0 })
	load.tell("end")
	w.finish(load, x.N)
	w.await("end of the records", func() bool { return records(a) == 0 && records(b) == 0 })
}

// TestOrigin: while an object's first copy is on its way its sessions are
// pinned and forwarded; once both sites have it whole they move.
func TestOrigin(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 4<<20)
	x.N, x.VIP, x.Pace, x.Buffer, x.Gated = 10, vip4, 5*time.Millisecond, 16<<10, true
	origin := w.start("r", "origin", filepath.Join(w.dir, "root-a"))
	a, b := w.sites(func(x *agentArgs) { x.Root, x.Origin = "", "http://"+originAddr })
	var word string
	var r, next report
	for round, to := range []string{"b", "a"} { // to where the sessions' packets go
		at, other := a, b
		if to == "a" {
			at, other = b, a
		}
		origin.ask("hold", &word)
		load := w.start("c", "load", x)
		load.next(&word)
		if at.ask("state", &r); r.States["pinned"] != x.N {
			t.Errorf("round %d: states while the copy is on its way: %v", round, r.States)
		}
		w.route(to)
		load.tell("go")
		w.await("packets of pinned sessions tunnelled", func() bool {
			other.ask("state", &next)
			return next.Strays["group"]+next.Strays["announced"]+next.Strays["hint"] >= float64(x.N)
		})
		at.ask("state", &r)
		t.Logf("round %d: states %v, results %v, strays %v", round, r.States, r.Results, next.Strays)
		if r.Results[resultOK] != 0 || r.States["pinned"] != x.N {
			t.Errorf("round %d: pinned sessions moved: %v, states %v", round, r.Results, r.States)
		}
		origin.ask("pass", &word)
		w.finish(load, x.N)
	}
	load := w.start("c", "load", x)
	load.next(&word)
	a.ask("state", &r)
	w.route("b")
	load.tell("go")
	w.finish(load, x.N)
	if a.ask("state", &next); next.Results[resultOK] == r.Results[resultOK] {
		t.Errorf("nothing moved with the object whole at both sites: %v", next.Results)
	}
	w.noResets()
}

// stop halts a role, and returns when it has halted: a signal that is sent may take its time.
func (p *process) stop() {
	p.t.Helper()
	pid := p.cmd.Process.Pid
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); !halted(p.t, pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("process %d does not stop", pid)
		}
	}
}

// halted reports whether all threads of a process are stopped, proc(5).
func halted(t testing.TB, pid int) bool {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("threads of process %d: %v %v", pid, files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return false // it came or went meanwhile
		}
		if _, rest, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(rest, "T") {
			return false
		}
	}
	return true
}
