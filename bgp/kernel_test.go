package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// fakeFIB is a table in memory with a history. It also holds routes of others.
type fakeFIB struct {
	mu      sync.Mutex
	routes  []fibRoute
	foreign []fibRoute
	history []string
	gone    int // how often the last route of a prefix went
}

func (f *fakeFIB) list() ([]fibRoute, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.routes), nil
}

func (f *fakeFIB) add(r fibRoute) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Contains(f.foreign, r) {
		return wrapRoute(r, errTaken)
	}
	if !slices.Contains(f.routes, r) {
		f.routes = append(f.routes, r)
		f.history = append(f.history, fmt.Sprintf("+%s %d", r.prefix, r.metric))
	}
	return nil
}

func (f *fakeFIB) del(r fibRoute) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := slices.Index(f.routes, r); i >= 0 {
		f.routes = slices.Delete(f.routes, i, i+1)
		f.history = append(f.history, fmt.Sprintf("-%s %d", r.prefix, r.metric))
		if !slices.ContainsFunc(f.routes, func(o fibRoute) bool { return o.prefix == r.prefix }) {
			f.gone++
		}
	}
	return nil
}

func (f *fakeFIB) metrics(p netip.Prefix) (out []int) {
	list, _ := f.list()
	for _, r := range list {
		if r.prefix == p {
			out = append(out, r.metric)
		}
	}
	return out
}

// TestKernelSteps holds the contract with the daemons' filters, and the order:
// at no time between two steps is the prefix gone.
func TestKernelSteps(t *testing.T) {
	f := &fakeFIB{}
	k, err := startKernel(KernelConfig{}, f)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []placement.Step{placement.Announce, placement.Prepend, placement.GShut, placement.Prepend, placement.Announce} {
		if err := k.SetAttrs(t.Context(), Route{Prefix: anycast, Step: step}); err != nil {
			t.Fatal(err)
		}
		st, err := k.PeerState(t.Context())
		if err != nil || len(st.Routes) != 1 || st.Routes[0].Step != step {
			t.Errorf("at %s the engine holds %+v (%v)", step, st.Routes, err)
		}
	}
	if err := k.Withdraw(t.Context(), anycast); err != nil {
		t.Fatal(err)
	}
	want := []string{"+192.0.2.0/24 100", "+192.0.2.0/24 200", "-192.0.2.0/24 100", "+192.0.2.0/24 300", "-192.0.2.0/24 200",
		"+192.0.2.0/24 200", "-192.0.2.0/24 300", "+192.0.2.0/24 100", "-192.0.2.0/24 200", "-192.0.2.0/24 100"}
	if !slices.Equal(f.history, want) {
		t.Errorf("the table saw %v\nwant %v", f.history, want)
	}
}

// TestKernelLeftBehind begins on what a predecessor left: the loudest counts.
func TestKernelLeftBehind(t *testing.T) {
	tests := []struct {
		name string
		left []int
		want int
	}{
		{"one route", []int{200}, 200},
		{"died between two steps down", []int{100, 200}, 100},
		{"died between two steps up", []int{300, 200}, 200},
		{"a metric of no step counts as the more careful one", []int{150}, 200},
		{"far above", []int{1024}, 300},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeFIB{}
			for _, m := range tt.left {
				f.routes = append(f.routes, fibRoute{anycast, m})
			}
			if _, err := startKernel(KernelConfig{}, f); err != nil {
				t.Fatal(err)
			}
			if got := f.metrics(anycast); !slices.Equal(got, []int{tt.want}) {
				t.Errorf("left %v, now %v, want %d", tt.left, got, tt.want)
			}
		})
	}
}

func TestKernelTaken(t *testing.T) {
	f := &fakeFIB{foreign: []fibRoute{{anycast, metricAnnounce}}}
	k, err := startKernel(KernelConfig{}, f)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Announce(t.Context(), Route{Prefix: anycast}); !errors.Is(err, errTaken) {
		t.Errorf("a route of somebody else in the place of ours: %v", err)
	}
	if err := k.Withdraw(t.Context(), anycast6); err != nil {
		t.Errorf("withdrawing what is not there: %v", err)
	}
}

// TestPulse has two owners of one table, and a death.
func TestPulse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kernel.pulse")
	if held, _, err := feel(path); held || err != nil {
		t.Fatalf("no file: held %v, %v", held, err)
	}
	k, err := startKernel(KernelConfig{Pulse: path}, &fakeFIB{})
	if err != nil {
		t.Fatal(err)
	}
	if held, beat, err := feel(path); !held || err != nil || time.Since(beat) > time.Minute {
		t.Errorf("alive: held %v, beat %v, %v", held, beat, err)
	}
	if held, _, _ := feel(path); !held {
		t.Error("feeling the pulse stopped it")
	}
	if _, err := startKernel(KernelConfig{Pulse: path}, &fakeFIB{}); err == nil {
		t.Error("two processes write the same routes")
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	if held, _, err := feel(path); held || err != nil {
		t.Errorf("dead: held %v, %v", held, err)
	}
}

func TestWatchdogMissed(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	after := func(s int) time.Time { return at.Add(time.Duration(s) * time.Second) }
	type look struct {
		held bool
		beat int
		now  int
		want bool
	}
	tests := []struct {
		name  string
		looks []look
	}{
		{"alive", []look{{true, 0, 1, false}, {true, 60, 61, false}}},
		{"dead, and not back in time", []look{{true, 0, 1, false}, {false, 0, 2, false}, {false, 0, 6, false}, {false, 0, 7, true}}},
		{"restarted in time", []look{{false, 0, 2, false}, {true, 6, 6, false}, {false, 6, 8, false}, {false, 6, 12, false}}},
		{"hangs", []look{{true, 0, 4, false}, {true, 0, 5, true}}},
		{"hangs and goes on", []look{{true, 0, 5, true}, {true, 6, 6, false}}},
		{"never there", []look{{false, 0, 100, false}, {false, 0, 105, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWatchdog(WatchdogConfig{}, &fakeFIB{})
			for i, l := range tt.looks {
				if got := w.missed(l.held, after(l.beat), after(l.now)); got != l.want {
					t.Errorf("look %d: %v, want %v", i, got, l.want)
				}
			}
		})
	}
}

// TestWatchdogLifts moves what is louder than gshut, never less than a route.
func TestWatchdogLifts(t *testing.T) {
	f := &fakeFIB{routes: []fibRoute{{anycast, 200}, {anycast, 100}, {anycast6, 300}}}
	w := newWatchdog(WatchdogConfig{Pulse: filepath.Join(t.TempDir(), "none")}, f)
	now := time.Now()
	for _, s := range []int{0, 4, 5} {
		if err := w.look(now.Add(time.Duration(s) * time.Second)); err != nil {
			t.Fatal(err)
		}
		want := []int{200, 100}
		if s == 5 {
			want = []int{300}
		}
		if got := f.metrics(anycast); !slices.Equal(got, want) {
			t.Errorf("after %d s: %v, want %v", s, got, want)
		}
	}
	if got := f.metrics(anycast6); !slices.Equal(got, []int{300}) {
		t.Errorf("a route at gshut was touched: %v", got)
	}
}

// TestTakeOver restarts a speaker over routes which stand: they are neither
// withdrawn before the first snapshot nor while it climbs, a prefix which is
// not wanted any more leaves by the rules, and a clean exit leaves the rest.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFIB{routes: []fibRoute{{anycast, metricGShut}}}
		k, err := startKernel(KernelConfig{}, f)
		if err != nil {
			t.Fatal(err)
		}
		s := New(Config{Site: "ams", SiteNumber: 1, Node: "ams1", ASN: 64500, Engine: k})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(10 * time.Second)
		if got := f.metrics(anycast); !slices.Equal(got, []int{metricGShut}) {
			t.Errorf("before the first snapshot: %v", got)
		}
		s.Apply(ctx, &placement.Snapshot{Name: placement.Name{Plan: 1},
			Inventory:     &placement.Inventory{Fleet: placement.Fleet{Mode: placement.Act, Prefixes: []placement.Prefix{{Prefix: anycast, Prepend: 2}}}},
			Announcements: []placement.Announcement{{Prefix: anycast, Site: "ams", Mode: placement.Act}}}, nil)
		time.Sleep(10 * time.Second)
		if got := f.metrics(anycast); !slices.Equal(got, []int{metricAnnounce}) {
			t.Errorf("with everything well: %v", got)
		}
		f.del(fibRoute{anycast, metricAnnounce}) // by hand
		time.Sleep(2 * time.Second)
		if got := f.metrics(anycast); !slices.Equal(got, []int{metricAnnounce}) {
			t.Errorf("a lost route was not put back: %v", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got := f.metrics(anycast); !slices.Equal(got, []int{metricAnnounce}) {
			t.Errorf("after a clean exit: %v", got)
		}
		if f.gone != 1 { // by hand
			t.Errorf("the prefix was gone %d times: %v", f.gone, f.history)
		}
	})
}
