package main

import (
	"context"
	"runtime/debug"
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
// operator leaves more, and that the setting is as before afterwards.
func TestCollectLess(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	for _, c := range []struct{ set, want int }{{100, gcWhileLoading}, {20, gcWhileLoading}, {500, 500}, {-1, -1}} {
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
