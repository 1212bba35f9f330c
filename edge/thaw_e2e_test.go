//go:build e2e

package edge

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"rhumb/edge/tcprepair"
)

// TestWindowOpensBetween: the window of each client opens while its session is
// between two sites. The client says so once, and the session must go on with it;
// or, where the word is lost, with the answer to a question of its own: what the
// kernel would ask, and when, is not waited for. The clients' kernel answers window
// probes every 30 s here, and has just answered one of the old owner.
func TestWindowOpensBetween(t *testing.T) {
	for _, tc := range []struct {
		name, vip, route string
		kept             bool // a word of a closed window, before the one that is lost
		short            bool
	}{
		{"the word comes to the new owner, and goes to the old one", vip4, "b", false, false},
		{"the word is lost at the old owner", vip6, "a", false, false},
		{"the word is lost, and an older one was kept", vip4, "a", true, true},
	} {
		if !tc.short && !soak() {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			w.deadline = time.Millisecond
			w.in("c", "sysctl -qw net.ipv4.tcp_invalid_ratelimit=30000")
			x := w.object("film.mp4", 1<<20)
			x.N, x.VIP, x.Buffer, x.Gated = 20, tc.vip, 16<<10, true
			a, b := w.sites(func(x *agentArgs) {
				x.Backups, x.PullAfter, x.Patience, x.Slow = true, time.Hour, time.Minute, x.Site == "b"
			})
			tap, wire := w.start("c", "tap", 0), w.start("b", "wire", 0)
			var word string
			tap.next(&word)
			load := w.start("c", "load", x)
			load.next(&word)
			w.await("probes of closed windows", func() bool { return w.counter("c", "TcpExtTCPACKSkippedSeq") >= x.N })
			w.route(tc.route)
			a.ask("drain b", &word)
			var r report
			w.await("offers", func() bool { a.ask("state", &r); return r.States["dumped"] == x.N })
			var seen []tapped
			tap.ask("take", &seen)
			if tc.kept {
				w.route("b")
				provoke(wire, seen)
				w.await("packets kept at the old owner", func() bool { a.ask("state", &r); return r.Held >= float64(x.N) })
				w.route("a")
				tap.ask("take", &seen)
			}
			let := time.Now()
			load.tell("go")
			w.await("clients that have read all", func() bool { return w.unread() == 0 })
			b.ask("pass", &word)
			own := time.Since(let) // that the clients wait until here is the test's doing
			gaps := w.finish(load, x.N)
			w.await("hand-offs", func() bool { a.ask("state", &r); return r.Results[resultOK] == x.N })
			tap.ask("take", &seen)
			b.ask("state", &r)
			t.Logf("questions %v, longest gap p50 %v max %v", r.Questions, quantile(gaps, .5), quantile(gaps, 1))
			askedAll(t, seen, x.N, tc.route == "a")
			if longest := quantile(gaps, 1); longest-own > 10*time.Second {
				t.Errorf("longest gap %v, %v of it before the hand-offs; want less than 10 s more: a session has waited for a timer", longest, own)
			}
			w.noResets()
		})
	}
}

// TestLostFlight: what a site has on its way when its sessions leave is lost, and what
// the next one sends at first. Its kernel has measured no round trip and would send it
// again after a second; the clients' answers tell before.
func TestLostFlight(t *testing.T) {
	if !long(t) {
		return
	}
	for _, f := range e2eFamilies {
		t.Run(f.name, func(t *testing.T) {
			w := newWorld(t)
			w.deadline = time.Millisecond
			x := w.object("film.mp4", 4<<20)
			x.N, x.VIP, x.Pace, x.Buffer, x.Gated = 10, f.vip, 5*time.Millisecond, 16<<10, true
			a, b := w.sites(func(x *agentArgs) { x.Backups = true })
			p := w.through(pathArgs{Delay: 5 * time.Millisecond})
			load := w.start("c", "load", x)
			var word string
			load.next(&word)
			w.backed(a, x.N)
			var base, n int
			p.ask("count", &base)
			load.tell("go")
			w.await("downloads under way", func() bool { p.ask("count", &n); return n > base+20*x.N })
			p.ask("hold", &base)
			w.await("packets on their way", func() bool { p.ask("count", &n); return n >= base+x.N })
			w.route("b")
			a.ask("drain b", &word)
			var r report
			w.await("hand-offs", func() bool { a.ask("state", &r); return r.Results[resultOK] == x.N })
			p.ask("drop", &n)
			gaps := w.finish(load, x.N)
			b.ask("state", &r)
			t.Logf("revivals %v, questions %v, longest gap p50 %v max %v", r.Revivals, r.Questions, quantile(gaps, .5), quantile(gaps, 1))
			if r.Revivals[reviveAgain] == 0 {
				t.Errorf("revivals %v, want some sessions begun again from where their clients stood", r.Revivals)
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

// provoked marks our own segments among those of the sites.
const provoked = 511

// provoke makes each client say that its window is closed: by a segment from a site
// with a byte that it has had.
func provoke(wire *process, seen []tapped) {
	last := map[netip.AddrPort]tapped{}
	for _, s := range seen {
		if s.Out && s.Dst.Port() == 8080 {
			last[s.Src] = s
		}
	}
	for _, s := range last {
		var word string
		wire.ask(line(tcprepair.Segment{Src: s.Dst, Dst: s.Src, Seq: s.Ack - 1, Ack: s.Seq, Flags: tcprepair.ACK,
			Window: provoked, Timestamps: s.Timestamps, TSVal: s.TSEcr + 1, Data: 1}), &word)
	}
}

// askedAll wants each client to have been asked where it stands. Where its word was
// lost it has answered before anything else came: that is what its session went
// on with.
func askedAll(t *testing.T, seen []tapped, want int, lost bool) {
	t.Helper()
	asked, answered, early := map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}, map[netip.AddrPort]bool{}
	for _, s := range seen {
		switch {
		case s.Out:
			answered[s.Src] = answered[s.Src] || asked[s.Src] && s.Window > 0
		case s.Data == 1 && s.Window != provoked:
			asked[s.Dst] = true
		case s.Data > 1 && !answered[s.Dst]:
			early[s.Dst] = true
		}
	}
	if len(asked) != want {
		t.Errorf("%d of %d clients were asked", len(asked), want)
	}
	if lost && len(early) > 0 {
		t.Errorf("%d of %d sessions went on before their clients had answered", len(early), want)
	}
}

// TestShutWindowAtTheEnd: an agent ends in order while the windows of its clients
// are shut upon the rest of their responses. The kernel keeps what is left for as
// long as it does for any server, so who reads on later has every byte.
func TestShutWindowAtTheEnd(t *testing.T) {
	if !long(t) {
		return
	}
	w := newWorld(t)
	const size = 24 << 10
	x := w.object("film.mp4", size)
	x.N, x.VIP, x.Buffer, x.Gated = 10, vip4, 4<<10, true
	w.in("a", "ip addr add "+vip4+"/32 dev lo") // what an agent has not put there stays
	a, _ := w.sites(func(x *agentArgs) { x.Backups = true })
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	w.backed(a, x.N)
	left := func() int { return w.queued("a", size/2) }
	w.await("responses that wait in the kernel", func() bool { return left() == x.N })
	a.in.Close()
	if err := a.cmd.Wait(); err != nil {
		t.Fatalf("the agent ended with %v, want an end in order", err)
	}
	// A hastened orphan is given up at its next probe, within a second.
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if n := left(); n != x.N {
			t.Fatalf("the kernel has %d of %d connections left", n, x.N)
		}
	}
	load.tell("go")
	w.finish(load, x.N)
	w.noResets()
}

// queued counts a site's connections with at least so many bytes that no client
// has acknowledged.
func (w *world) queued(n string, least int) (count int) {
	w.t.Helper()
	for l := range strings.Lines(w.in(n, "ss -Htn sport = :8080")) {
		if f := strings.Fields(l); len(f) > 2 {
			if q, err := strconv.Atoi(f[2]); err == nil && q >= least {
				count++
			}
		}
	}
	return count
}
