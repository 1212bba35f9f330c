//go:build e2e

package edge

import (
	"strings"
	"testing"
	"time"
)

// TestWindowOpensBetween: the window of each client opens while its session is
// between two sites. The client says so once, and the session must go on with it;
// or, where the word is lost, with the answer to a question of its own: what the
// kernel would ask, and when, is not waited for. The clients' kernel answers window
// probes every 5 s here, and has just answered one of the old owner.
func TestWindowOpensBetween(t *testing.T) {
	for _, tc := range []struct{ name, vip, route string }{
		{"the word comes to the new owner, and goes to the old one", vip4, "b"},
		{"the word is lost at the old owner", vip6, "a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.deadline = time.Millisecond
			w.in("c", "sysctl -qw net.ipv4.tcp_invalid_ratelimit=5000")
			x := w.object("film.mp4", 1<<20)
			x.N, x.VIP, x.Buffer, x.Gated = 20, tc.vip, 16<<10, true
			a, b := w.sites(func(x *agentArgs) { x.Backups, x.PullAfter, x.Slow = true, time.Hour, x.Site == "b" })
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.await("probes of closed windows", func() bool { return w.counter("c", "TcpExtTCPACKSkippedSeq") >= x.N })
			w.route(tc.route)
			a.ask("drain b", &word)
			var r report
			// An offer that waits for too long is called off; that must cost nobody more.
			w.await("offers", func() bool { a.ask("state", &r); return r.States["dumped"] == x.N || r.Results[resultTimeout] > 0 })
			load.tell("go")
			w.await("clients that have read all", func() bool { return w.unread() == 0 })
			b.ask("pass", &word)
			gaps := w.finish(load, x.N)
			a.ask("state", &r)
			t.Logf("results %v, longest gap p50 %v max %v", r.Results, quantile(gaps, .5), quantile(gaps, 1))
			if longest := quantile(gaps, 1); longest > 2*time.Second {
				t.Errorf("longest gap %v, want less than 2 s: a session has waited for a timer", longest)
			}
			if r.Results[resultLost] > 0 {
				t.Errorf("results %v, want none lost", r.Results)
			}
			w.noResets()
		})
	}
}

// unread counts the clients' connections that hold bytes which nobody has read.
func (w *world) unread() (n int) {
	w.t.Helper()
	for line := range strings.Lines(w.in("c", "ss -Htn dport = :8080")) {
		if f := strings.Fields(line); len(f) > 1 && f[1] != "0" {
			n++
		}
	}
	return n
}
