//go:build e2e

package edge

import (
	"testing"
	"time"
)

// Bars of a drain, judged in the long form.
const (
	drainWithin = 5 * time.Second       // 10,000 sessions are elsewhere
	drainStall  = 60 * time.Millisecond // more than without, at the 99th percentile
)

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
	var was, wasB, r, rb report
	a.ask("state", &was)
	b.ask("state", &wasB)
	w.route("b")
	begun := time.Now()
	a.ask("drain b", &word)
	w.await("end of the drain", func() bool { a.ask("state", &r); return r.Drain.Left == 0 })
	took := time.Since(begun)
	b.ask("state", &rb)
	t.Logf("%d sessions went in %v, each in p50 %v p99 %v; %.2f s of CPU at a, %.2f at b", r.Drain.Moved, took,
		quantile(r.Moved, .5), quantile(r.Moved, .99), r.CPU-was.CPU, rb.CPU-wasB.CPU)
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

// TestDrainFar: a site is drained under clients 40 ms away that ask for a piece each
// 100 ms. The long form has 1,000 and judges how much longer they wait than without.
func TestDrainFar(t *testing.T) {
	n := 40
	if soak() {
		n = 1000
	}
	w := newWorld(t)
	w.deadline = 2 * time.Second
	x := w.object("film.mp4", 320<<10)
	x.N, x.VIP, x.Piece, x.Pace, x.Hold = n, vip6, 8<<10, 100*time.Millisecond, 160<<10
	a, _ := w.sites(func(x *agentArgs) { x.Backups, x.PullAfter = true, time.Second })
	w.through(pathArgs{Delay: farDelay})
	var gaps [2][]time.Duration
	var word string
	var r report
	for i, drain := range []bool{false, true} {
		load := w.start("c", "load", x)
		load.next(&word)
		w.backed(a, n)
		if drain {
			a.ask("drain b", &word)
			w.route("b")
			w.await("end of the drain", func() bool { a.ask("state", &r); return r.Sessions == 0 })
		}
		load.tell("end")
		gaps[i] = w.finish(load, n)
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
