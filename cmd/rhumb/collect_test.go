package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"

	"rhumb/authdns"
	"rhumb/placement"
)

// gcSeen is a server which notes by how much garbage is collected while it loads.
type gcSeen struct{ percent int }

func (g *gcSeen) SetZones([]authdns.Source) []error {
	g.percent = debug.SetGCPercent(-1)
	debug.SetGCPercent(g.percent)
	return nil
}

func (g *gcSeen) Apply(context.Context, *placement.Snapshot) {}

// TestCollectLess holds that zones are loaded with garbage left for later, unless the
// operator leaves more, and that his setting is as before afterwards.
func TestCollectLess(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for _, c := range []struct{ set, want int }{{100, gcWhileLoading}, {20, gcWhileLoading}, {500, 500}, {-1, -1}} {
		t.Setenv("GOGC", strconv.Itoa(c.set)) // as the runtime reads it at the start
		debug.SetGCPercent(c.set)
		seen := &gcSeen{}
		if err := (&zoneKeeper{zones: seen}).renew(t.Context(), &placement.Inventory{}); err != nil {
			t.Fatal(err)
		}
		if after := debug.SetGCPercent(c.set); seen.percent != c.want || after != c.set {
			t.Errorf("with GOGC=%d: %d while zones are loaded and %d afterwards, want %d and %d", c.set, seen.percent, after, c.want, c.set)
		}
	}
}

// TestCollectServing holds that a process with much in use may have little garbage beside
// it, over one load after the other, and that one with little in use is as ever.
func TestCollectServing(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{{0, 100}, {4 << 20, 100}, {16 << 20, 100}, {32 << 20, 50}, {50 << 20, 32}, {64 << 20, 25}, {8 << 30, 25}} {
		if got := gcServing(c.live); got != c.want {
			t.Errorf("with %d MB in use %d, want %d", c.live>>20, got, c.want)
		}
	}
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	held := make([]byte, 200<<20)
	loaded := 0
	z := &zoneKeeper{zones: &gcSeen{}, loaded: func() { loaded++ }}
	for range 2 {
		if err := z.renew(t.Context(), &placement.Inventory{}); err != nil {
			t.Fatal(err)
		}
		if after := debug.SetGCPercent(100); after != gcLeast {
			t.Errorf("with 200 MB in use %d after a load, want %d", after, gcLeast)
		}
	}
	runtime.KeepAlive(held)
	if loaded != 2 {
		t.Errorf("told %d times", loaded)
	}
}
