//go:build e2e

package edge

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

type syscallConn = syscall.RawConn

func (w *world) object(name string, size int) loadArgs {
	b := make([]byte, size)
	x := uint64(88172645463325252)
	for i := 0; i+8 <= size; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		for j := range 8 {
			b[i+j] = byte(x >> (8 * j))
		}
	}
	for _, site := range []string{"a", "b"} {
		w.write(filepath.Join("root-"+site, name), b)
	}
	return loadArgs{Name: "/" + name, Size: int64(size), HashHex: fmt.Sprintf("%x", sha256.Sum256(b))}
}

// sites starts both agents, each with its forwarder.
func (w *world) sites(change func(*agentArgs)) (a, b *process) {
	w.t.Helper()
	a, b = w.agent("a", "b", change), w.agent("b", "a", change)
	w.serving("a")
	w.serving("b")
	return a, b
}

// serving waits until a site listens and judges strays.
func (w *world) serving(n string) {
	w.t.Helper()
	w.await("listener at "+n, func() bool { return strings.Count(w.in(n, "ss -Htln sport = :8080"), "LISTEN") == 2 })
	w.await("rules at "+n, func() bool { return strings.Contains(w.in(n, "nft list ruleset"), vip6) })
}

// agent starts one of them.
func (w *world) agent(site, other string, change func(*agentArgs)) *process {
	w.t.Helper()
	x := agentArgs{Dir: w.dir, Mode: ModeAct, Deadline: w.deadline, PullAfter: time.Nanosecond,
		Site: site, Other: other, Root: filepath.Join(w.dir, "root-"+site)}
	if change != nil {
		change(&x)
	}
	return w.start(site, "agent", x)
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("no %s", what)
		}
	}
}

// noResets fails when a live connection of the client was reset. RST segments
// sent by the sites are logged only: some may go to sessions already over.
func (w *world) noResets() {
	w.t.Helper()
	if n := w.counter("c", "TcpEstabResets"); n != 0 {
		w.t.Errorf("%d live connections of the client were reset", n)
	}
	w.t.Logf("RST segments sent: %d by a, %d by b", w.counter("a", "TcpOutRsts"), w.counter("b", "TcpOutRsts"))
}

// counter reads a host's TCP counter (RFC 4022).
func (w *world) counter(n, name string) int {
	w.t.Helper()
	for line := range strings.Lines(w.in(n, "nstat -asz "+name)) {
		var v int
		if _, err := fmt.Sscanf(line, name+" %d", &v); err == nil {
			return v
		}
	}
	w.t.Fatalf("%s has no counter %s", n, name)
	return 0
}

func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(int(q*float64(len(d))), len(d)-1)]
}

// finish waits for the load, fails on any wrong byte, and returns the gaps.
func (w *world) finish(load *process, n int) []time.Duration {
	w.t.Helper()
	var gaps []time.Duration
	for _, r := range w.clients(load, n) {
		gaps = append(gaps, r.Gap)
	}
	return gaps
}

// clients are the results of a load's clients, who must all have ended well.
func (w *world) clients(load *process, n int) []result {
	w.t.Helper()
	var rs []result
	load.next(&rs)
	bad := map[string]int{}
	for _, r := range rs {
		if r.Err != "" {
			kind := r.Err[strings.LastIndex(r.Err, ": ")+1:] // without offsets and ports
			bad[kind]++
		}
	}
	if len(rs) != n || len(bad) > 0 {
		w.t.Errorf("%d clients, want %d; failed: %v", len(rs), n, bad)
	}
	return rs
}

var e2eFamilies = []struct{ name, vip string }{{"IPv4", vip4}, {"IPv6", vip6}}

// TestPull flips the route under running sessions: they are pulled to where
// their packets come, every byte is right, nobody is reset. The same load
// without a flip is the baseline. The long form has each load in both families.
func TestPull(t *testing.T) {
	for i, tc := range []struct {
		name string
		size int
		load loadArgs
	}{
		{"100 unpaced downloads", 32 << 20, loadArgs{N: 100, Hold: 8 << 20}},
		{"100 slow downloads", 2 << 20, loadArgs{N: 100, Pace: 20 * time.Millisecond, Buffer: 16 << 10, Hold: 1 << 20}},
		{"1000 keep-alive sessions, a range each 100 ms", 640 << 10, loadArgs{N: 1000, Piece: 16 << 10, Pace: 100 * time.Millisecond, Hold: 320 << 10}},
	} {
		for _, f := range families(i % 2) {
			t.Run(tc.name+"/"+f.name, func(t *testing.T) {
				w := newWorld(t)
				x := w.object("film.mp4", tc.size)
				x.N, x.Pace, x.Piece, x.Buffer, x.Hold, x.VIP = tc.load.N, tc.load.Pace, tc.load.Piece, tc.load.Buffer, tc.load.Hold, f.vip
				a, b := w.sites(nil)
				var gaps [2][]time.Duration
				for i, flip := range []bool{false, true} {
					load := w.start("c", "load", x)
					var begun string
					load.next(&begun)
					if flip {
						w.route("b")
					}
					load.tell("end")
					gaps[i] = w.finish(load, x.N)
				}
				var r report
				a.ask("state", &r)
				t.Logf("moved %d (took p50 %v p99 %v), results %v, stays %v", len(r.Moved), quantile(r.Moved, .5), quantile(r.Moved, .99), r.Results, r.Errors)
				var rb report
				b.ask("state", &rb)
				t.Logf("strays at b: %v", rb.Strays)
				for i, name := range []string{"baseline", "moved"} {
					t.Logf("%s: longest gap p50 %v p99 %v max %v", name, quantile(gaps[i], .5), quantile(gaps[i], .99), quantile(gaps[i], 1))
				}
				if len(r.Moved) < x.N*9/10 || r.Results[resultLost] > 0 {
					t.Errorf("moved %d of %d sessions: %v", len(r.Moved), x.N, r.Results)
				}
				w.noResets()
			})
		}
	}
}
