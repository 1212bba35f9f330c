//go:build e2e

package edge

import (
	"testing"
	"time"
)

// TestFlap switches the route to and fro under running sessions, each switch
// moving them after it: no reset, every byte right.
func TestFlap(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 1<<20)
			x.N, x.VIP, x.Piece, x.Pace = 50, f.vip, 16<<10, 80*time.Millisecond
			a, b := w.sites(nil)
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			for range 3 {
				for _, site := range []string{"b", "a"} {
					w.route(site)
					time.Sleep(600 * time.Millisecond) // the flapping itself
				}
			}
			gaps := w.finish(load, x.N)
			var ra, rb report
			a.ask("state", &ra)
			b.ask("state", &rb)
			t.Logf("a gave %v %v, b gave %v %v, longest gap p50 %v p99 %v", ra.Results, ra.Errors, rb.Results, rb.Errors,
				quantile(gaps, .5), quantile(gaps, .99))
			if ra.Results[resultOK] < 2*x.N || rb.Results[resultOK] < x.N {
				t.Errorf("sessions did not follow the route")
			}
			w.noResets()
		})
	}
}
