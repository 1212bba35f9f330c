//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// replayed is one run of `rhumb lab replay`, as its lines tell it.
type replayed struct {
	ran
	blow, end time.Time
	verdict   string
}

// replayWithin bounds one replay, undoing included, on a busy machine.
const replayWithin = 8 * time.Minute

// replay runs the command as a person does, but for reading its lines as JSON.
func (l *lab) replay(t *testing.T, args ...string) replayed {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), replayWithin)
	defer cancel()
	args = append([]string{"lab", "--dir", l.dir, "replay", "-o", "ndjson"}, args...)
	cmd := exec.CommandContext(ctx, binary(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r := replayed{ran: ran{args: args, code: cmd.ProcessState.ExitCode(), out: out.String(), err: errs.String()}}
	if ctx.Err() != nil {
		t.Fatalf("rhumb %s hangs: %v\n%s", strings.Join(args, " "), err, r.ran)
	}
	for text := range strings.Lines(out.String()) {
		var line struct {
			At         time.Time
			Kind, Text string
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		switch line.Kind {
		case "mark":
			r.blow = line.At
		case "end":
			r.end, r.verdict = line.At, line.Text
		}
		if line.Kind != "" {
			l.line.event(line.At, line.Text)
		}
	}
	return r
}

// TestE2EReplay plays known outages, in one lab, one after the other: with the
// guard the prefixes stay. What the command says is compared with what a watcher of
// its own sees in the routers' kernels. The long form plays each without the guard,
// too, which takes the prefixes off the world, watches longer, and sees the command
// tell a replay that does not end as it should.
func TestE2EReplay(t *testing.T) {
	t.Parallel()
	l := startLab(t)
	l.owners()
	soak := os.Getenv("RHUMB_SOAK") != ""
	watch := map[string]*routeWatch{}
	for _, r := range regions() {
		w := l.watchFIB("t-"+r, anycast()...)
		w.before = map[netip.Prefix]bool{}
		for _, p := range anycast() {
			routes, err := l.fib("t-"+r, p)
			if err != nil {
				t.Fatal(err)
			}
			w.before[p] = len(routes) > 0
		}
		watch["t-"+r] = w
	}
	customers := []netip.Prefix{}
	for i := range 6 {
		customers = append(customers, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0xb0, byte(i + 1)}), 48))
	}
	for _, tt := range []struct {
		name     string
		prefixes []netip.Prefix
		guarded  bool // played in the short form
	}{
		{"facebook-2021", anycast(), true},
		{"cloudflare-2025-07", anycast(), true},
		{"cloudflare-2026-02", customers, true},
		{"probers-all-fail", anycast(), false}, // TestE2EProbersAllFail is its short form
	} {
		if soak {
			t.Run(tt.name+" naive", func(t *testing.T) { testReplayNaive(t, l, watch, tt.name, tt.prefixes) })
		}
		if !tt.guarded && !soak {
			continue
		}
		t.Run(tt.name, func(t *testing.T) { testReplayGuarded(t, l, watch, tt.name, tt.prefixes, soak) })
	}
	if soak {
		t.Run("not as told", func(t *testing.T) { testReplayFails(t, l) })
	}
}

// testReplayNaive wants exit 0 and, at the end, no route anywhere.
func testReplayNaive(t *testing.T, l *lab, watch map[string]*routeWatch, name string, prefixes []netip.Prefix) {
	r := l.replay(t, name, "--naive")
	if r.code != 0 || !strings.HasPrefix(r.verdict, "gone") {
		t.Fatalf("verdict %q\n%s", r.verdict, r.ran)
	}
	for router, w := range watch {
		for _, p := range prefixes {
			if l.leads(watch, router, p, r.end, nil) {
				t.Errorf("%s had a way to %s when it was said to be gone", router, p)
			}
			if !w.routed(p, r.blow) {
				t.Errorf("%s had no route to %s before the blow: nothing was shown", router, p)
			}
		}
	}
	l.kept(t, name+"-naive.svg")
	l.asFound(t)
}

// testReplayGuarded wants exit 0 and, from the blow to the end, a route at every
// router all the time.
func testReplayGuarded(t *testing.T, l *lab, watch map[string]*routeWatch, name string, prefixes []netip.Prefix, soak bool) {
	args := []string{name}
	if !soak {
		args = append(args, "--watch", "4s")
	}
	r := l.replay(t, args...)
	if r.code != 0 || !strings.HasPrefix(r.verdict, "kept") {
		t.Fatalf("verdict %q\n%s", r.verdict, r.ran)
	}
	for router, w := range watch {
		for _, p := range prefixes {
			if !w.routed(p, r.blow) || w.goneBetween(p, r.blow, r.end) {
				t.Errorf("%s lost its route to %s", router, p)
			}
		}
	}
	l.kept(t, name+".svg")
	l.asFound(t)
}

// testReplayFails kills what announces at two sites while a replay watches: the
// prefix is then at one site only, which is less than told.
func testReplayFails(t *testing.T, l *lab) {
	done := make(chan replayed, 1)
	go func() { done <- l.replay(t, "probers-all-fail", "--watch", "20s") }()
	l.await(patience, "the sites ask to be avoided", func() error {
		s, err := l.state()
		if err != nil {
			return err
		}
		for _, a := range s.Announced {
			if a.Step >= placement.GShut {
				return nil
			}
		}
		return errors.New("none does")
	})
	for _, site := range sites() {
		l.killUnit(site, "bgp")
	}
	if r := <-done; r.code != 1 || !strings.HasPrefix(r.verdict, "NOT AS TOLD") {
		t.Errorf("verdict %q\n%s", r.verdict, r.ran)
	}
	l.asFound(t)
}

// kept copies the picture that a replay leaves beside the timelines.
func (l *lab) kept(t *testing.T, file string) {
	t.Helper()
	svg, err := os.ReadFile(filepath.Join(l.dir, "replays", file))
	if err != nil || !bytes.HasPrefix(svg, []byte("<svg")) {
		t.Errorf("no picture: %v", err)
		return
	}
	if err := os.WriteFile(outputFile(l.t, "-"+file), svg, 0o644); err != nil {
		t.Error(err)
	}
}

// asFound wants the lab as it was before a replay: its own two prefixes, announced
// everywhere, and no fault. The command has seen that; a session which a busy machine
// loses after it comes back, so that is awaited.
func (l *lab) asFound(t *testing.T) {
	t.Helper()
	l.await(healWithin, "after the replay all is announced", l.announcedEverywhere)
	for _, n := range l.nodes() {
		if len(n.Faults) > 0 {
			t.Errorf("after the replay %s has faults: %v", n.Name, n.Faults)
		}
	}
}

// routed tells whether there was a route to p at a time.
func (w *routeWatch) routed(p netip.Prefix, at time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	up := w.before[p]
	for _, c := range w.changes {
		if c.Prefix == p && !c.At.After(at) {
			up = !c.Gone
		}
	}
	return up
}

// leads tells whether a router's route to p ended at a site, at a time. A route to a
// router which has none is no way.
func (l *lab) leads(watch map[string]*routeWatch, router string, p netip.Prefix, at time.Time, over []string) bool {
	for _, hop := range watch[router].hops(p, at) {
		owner := l.owner[hop]
		switch {
		case slices.Contains(sites(), owner):
			return true
		case watch[owner] != nil && !slices.Contains(over, owner) && l.leads(watch, owner, p, at, append(over, router)):
			return true
		}
	}
	return false
}

// hops is where the route to p led at a time, as far as it was seen to change.
func (w *routeWatch) hops(p netip.Prefix, at time.Time) []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []netip.Addr
	for _, c := range w.changes {
		if c.Prefix == p && !c.At.After(at) {
			out = nil
			if !c.Gone {
				out = c.Via
			}
		}
	}
	return out
}

// goneBetween tells whether the route to p went away between two times.
func (w *routeWatch) goneBetween(p netip.Prefix, from, to time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.changes {
		if c.Prefix == p && c.Gone && c.At.After(from) && c.At.Before(to) {
			return true
		}
	}
	return false
}
