//go:build e2e

package edge

import (
	"fmt"
	"testing"
	"time"
)

// TestGuests drains sessions of a server that is not ours from a to b and back again,
// while each has output in flight and input unread: every octet is right both ways and
// nobody is reset.
func TestGuests(t *testing.T) {
	for _, n := range []int{1, 100} {
		for _, f := range e2eFamilies {
			t.Run(fmt.Sprintf("%d/%s", n, f.name), func(t *testing.T) {
				w := newWorld(t)
				w.deadline = time.Millisecond
				g := w.guests(func(x *agentArgs) { x.PullAfter = time.Hour })
				w.sample("a")
				w.sample("b")
				g.ready(g.a, g.b)
				load := w.start("c", "stream", streamArgs{N: n, VIP: f.vip, Length: 4 << 20, Upload: 256 << 10, Hold: 1 << 20})
				var word string
				load.next(&word)
				for _, hop := range []struct {
					from, to *process
					name     string
				}{{g.a, g.b, "b"}, {g.b, g.a, "a"}, {g.a, g.b, "b"}} {
					w.route(hop.name)
					hop.from.ask("drain "+hop.name, &word)
					w.await("all sessions at "+hop.name, func() bool { return g.flows(hop.to) == n && g.flows(hop.from) == 0 })
					hop.from.ask("undrain", &word)
				}
				load.tell("end")
				w.finish(load, n)
				ra, rb := g.state(g.a), g.state(g.b)
				t.Logf("a: %v %v %+v %v, took %v; b: %v %v %+v %v", ra.Results, ra.Errors, ra.Totals, ra.Takes, quantile(ra.Moved, .5), rb.Results, rb.Errors, rb.Totals, rb.Takes)
				if ra.Totals.Out != int64(2*n) || rb.Totals.Out != int64(n) || ra.Results[resultLost]+rb.Results[resultLost] != 0 {
					t.Errorf("moved %d and %d, want %d and %d", ra.Totals.Out, rb.Totals.Out, 2*n, n)
				}
				w.noResets()
			})
		}
	}
}
