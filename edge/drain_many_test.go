//go:build e2e

package edge

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Bars of a drain, judged in the long form.
const (
	drainWithin = 5 * time.Second       // 10,000 sessions are elsewhere
	drainStall  = 60 * time.Millisecond // more than without, at the 99th percentile
)

// drained waits for the end of a drain that has begun, by looks that cost nothing.
func drained(a *Agent) time.Duration {
	d := a.drain.Load()
	for end := d.since.Add(60 * time.Second); a.tab.len() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return time.Since(d.since)
}

// usage is what the processes of a drain have used: seconds of CPU by name.
type usage map[string]float64

// used reads proc(5): in clock ticks, of which Linux has 100 a second for whoever asks. All is the
// whole machine's, with what the kernel does for nobody in particular.
func (w *world) used(of map[string]*process) usage {
	w.t.Helper()
	u := usage{}
	for name, p := range of {
		u[name] = w.ticks(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid), 11, 12)
	}
	u["all"] = w.ticks("/proc/stat", 0, 1, 2, 5, 6)
	return u
}

// ticks sums fields of the first line of a file, counted behind its name.
func (w *world) ticks(file string, at ...int) (seconds float64) {
	w.t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if _, behind, ok := strings.Cut(line, ") "); ok { // a process has its name in brackets
		line = "name " + behind
	}
	f := strings.Fields(line)
	for _, i := range at {
		v, err := strconv.Atoi(f[1+i])
		if err != nil {
			w.t.Fatalf("%s: %q", file, line)
		}
		seconds += float64(v) / 100
	}
	return seconds
}

func (u usage) since(was usage) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(u)) {
		out = append(out, fmt.Sprintf("%s %.2f", name, u[name]-was[name]))
	}
	return strings.Join(out, ", ")
}

// profiled profiles some processes until what it returns is called, if EDGE_PROFILE names
// a directory.
func (w *world) profiled(of map[string]*process) (end func()) {
	dir := os.Getenv("EDGE_PROFILE")
	if dir == "" {
		return func() {}
	}
	var word string
	for name, p := range of {
		p.ask("profile "+filepath.Join(dir, w.t.Name()+"-"+name+".prof"), &word)
	}
	return func() {
		for _, p := range of {
			p.ask("profile ", &word)
		}
	}
}

// TestDrainOfThousands: a site gives all its sessions away at once. The long form has
// 10,000 of them and judges how long that takes.
func TestDrainOfThousands(t *testing.T) {
	n := 300
	if soak() {
		n = 10_000
	}
	w := newWorld(t)
	w.deadline = time.Millisecond
	x := w.object("film.mp4", 64<<10)
	x.N, x.VIP, x.Piece, x.Hold = n, vip4, 32<<10, 32<<10
	a, b := w.sites(func(x *agentArgs) { x.PullAfter, x.Backups = time.Hour, true })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	w.backed(a, n)
	all, sites := map[string]*process{"a": a, "b": b, "clients": load}, map[string]*process{"a": a, "b": b}
	w.route("b")
	was, end := w.used(all), w.profiled(sites)
	a.ask("drain b", &word)
	var took time.Duration
	a.ask("drained", &took)
	used := w.used(all).since(was)
	end()
	var r, rb report
	a.ask("state", &r)
	b.ask("state", &rb)
	t.Logf("%d sessions went in %v, each in p50 %v p99 %v; seconds of CPU: %s", r.Drain.Moved, took,
		quantile(r.Moved, .5), quantile(r.Moved, .99), used)
	if r.Drain.Moved != int64(n) || rb.Sessions != n {
		t.Errorf("%d sessions moved, %d are at b, want %d: %v %v", r.Drain.Moved, rb.Sessions, n, r.Results, r.Errors)
	}
	if soak() && took > drainWithin {
		t.Errorf("the drain took %v, want at most %v", took, drainWithin)
	}
	load.tell("end")
	w.finish(load, n)
	w.noResets()
}

// TestDrainFar: a site is drained under clients 40 ms away that go on asking for a piece
// each half second: more often, 1,000 of them are more than two processors can serve, and
// their waits tell nothing. The long form has 1,000 and judges how much longer they wait
// than without.
func TestDrainFar(t *testing.T) {
	n := 40
	if soak() {
		n = 1000
	}
	w := newWorld(t)
	w.deadline = 2 * time.Second
	x := w.object("film.mp4", 12*8<<10)
	x.N, x.VIP, x.Piece, x.Pace, x.Gated, x.Hold = n, vip6, 8<<10, 500*time.Millisecond, true, 10*8<<10
	a, b := w.sites(func(x *agentArgs) { x.Backups, x.PullAfter = true, time.Second })
	path := w.through(pathArgs{Delay: farDelay})
	var gaps [2][]time.Duration
	var word string
	var r report
	for i, drain := range []bool{false, true} {
		load := w.start("c", "load", x)
		load.next(&word)
		w.backed(a, n)
		load.tell("go")
		all := map[string]*process{"a": a, "b": b, "clients": load, "path": path}
		was, begun := w.used(all), time.Now()
		if drain {
			end := w.profiled(map[string]*process{"a": a, "b": b})
			w.route("b")
			a.ask("drain b", &word)
			var took time.Duration
			a.ask("drained", &took)
			end()
			a.ask("state", &r)
			t.Logf("drained in %v", took)
		}
		load.tell("end")
		gaps[i] = w.finish(load, n)
		t.Logf("%v; seconds of CPU: %s", time.Since(begun), w.used(map[string]*process{"a": a, "b": b, "path": path}).since(was))
	}
	for i, name := range []string{"baseline", "drained"} {
		t.Logf("%s: longest answer p50 %v p99 %v max %v", name, quantile(gaps[i], .5), quantile(gaps[i], .99), quantile(gaps[i], 1))
	}
	t.Logf("moved %d, each in p50 %v p99 %v: %v %v", len(r.Moved), quantile(r.Moved, .5), quantile(r.Moved, .99), r.Results, r.Errors)
	if stall := quantile(gaps[1], .99) - quantile(gaps[0], .99); soak() && stall > drainStall {
		t.Errorf("p99 waited %v longer than without a drain, want at most %v", stall, drainStall)
	}
	if r.Results[resultLost] > 0 || r.Results[resultOK] == 0 {
		t.Errorf("moves %v %v", r.Results, r.Errors)
	}
	w.noResets()
}
