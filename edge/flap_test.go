//go:build e2e

package edge

import (
	"path/filepath"
	"testing"
	"time"
)

// TestFlap switches the route to and fro under running sessions, each switch
// moving them after it: no reset, every byte right. They run for as long as it takes
// them to have followed, which is what a busy machine makes slow.
func TestFlap(t *testing.T) {
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			x := w.object("film.mp4", 1<<20)
			const sessions, least, most = 50, 3, 30 // flips to and fro
			a, b := w.sites(nil)
			load := w.start("c", "circle", circleArgs{N: sessions, VIP: f.vip, Name: x.Name, File: filepath.Join(w.dir, "root-a", x.Name)})
			var word string
			load.next(&word)
			var ra, rb report
			rounds := 0
			for ; rounds < least || ra.Results[resultOK] < 2*sessions || rb.Results[resultOK] < sessions; rounds++ {
				if rounds == most {
					t.Fatalf("in %d flips a gave %v %v, b gave %v %v: sessions do not follow the route", rounds, ra.Results, ra.Errors, rb.Results, rb.Errors)
				}
				for _, site := range []string{"b", "a"} {
					w.route(site)
					time.Sleep(600 * time.Millisecond) // the flapping itself
				}
				a.ask("state", &ra)
				b.ask("state", &rb)
			}
			var out circled
			if load.ask("stop", &out); out.Err != "" {
				t.Errorf("after %d pieces: %s", out.Pieces, out.Err)
			}
			t.Logf("%d flips, %d pieces; a gave %v %v, b gave %v %v", rounds, out.Pieces, ra.Results, ra.Errors, rb.Results, rb.Errors)
			w.noResets()
		})
	}
}
