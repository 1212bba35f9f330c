package authdns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	rtm "runtime/metrics"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestReloadLatency asks a Server at a steady pace, from another process as clients are,
// first left alone and then while one of its zones is loaded anew over and over, with
// garbage collected beside the loads and between them. Every query is answered; the long
// form has a zone of 100,000 names and loads that follow one another, and holds p99 with
// them, collected between, against p99 without. That needs a machine which does nothing else; what
// the server computed while a query waited (asked) means as much on any.
func TestReloadLatency(t *testing.T) {
	span, pace := time.Duration(rounds(1, 50))*200*time.Millisecond, time.Second/time.Duration(rounds(500, 2000))
	if addr := os.Getenv("RHUMB_TEST_ASK"); addr != "" { // the other process
		ctx, cancel := context.WithTimeout(t.Context(), span)
		defer cancel()
		var f figures
		f.Took, f.Computed = steadily(ctx, t, addr, pace, processClock(t, os.Getppid()))
		out, err := json.Marshal(f)
		if err == nil {
			err = os.WriteFile(os.Getenv("RHUMB_TEST_ASKED"), out, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	s := start(t, Config{Workers: 2, Listeners: []Listener{loopback(low, "127.0.0.1:0")}})
	s.Apply(t.Context(), fleet(t, plan{}))
	names := rounds(2000, 100_000)
	versions := [2][]Source{append(sources(), largeSource(names)), append(sources(), largeSource(names-1))}
	load := func(i int) {
		if errs := s.SetZones(versions[i%2]); errs != nil {
			t.Error(errs)
		}
	}
	load(0)
	measure := func(load func(int), how string) figures {
		before, n := waitsNow(t), 0
		f := asked(t, s.Addrs()[0].String(), func(ctx context.Context) {
			for ; load != nil && (n == 0 || ctx.Err() == nil); n++ {
				load(n + 1)
			}
		})
		p99Of(t, f.Took, fmt.Sprintf("a zone was loaded %d times%s", n, how))
		t.Logf("meanwhile the server computed %v (p50), %v (p99); %s", f.of(50, f.Computed), f.of(99, f.Computed), before.until(waitsNow(t)))
		return f
	}
	alone := measure(nil, "")
	measure(load, ", garbage collected beside")
	loaded := measure(func(i int) {
		defer debug.SetGCPercent(debug.SetGCPercent(300))
		load(i)
		debug.FreeOSMemory()
	}, ", garbage collected between")
	if os.Getenv("RHUMB_SOAK") == "" {
		return
	}
	if a, l := alone.of(99, alone.Took), loaded.of(99, loaded.Took); l > max(5*a, 15*time.Millisecond) {
		t.Errorf("p99 %v while a zone is loaded, %v without: it shows", l, a)
	}
}

// figures are what is known of replies, each in ascending order: how long one took from
// when it was due, and what the server had computed from then on, on all cores together.
type figures struct{ Took, Computed []time.Duration }

// of is a percentile.
func (f figures) of(percent int, d []time.Duration) time.Duration { return d[len(d)*percent/100] }

// asked lets another process ask the Server at an address, while something goes on here,
// whose context ends with the asking.
func asked(t *testing.T, addr string, meanwhile func(context.Context)) (f figures) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "took")
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { meanwhile(ctx) })
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "RHUMB_TEST_ASK="+addr, "RHUMB_TEST_ASKED="+out)
	said, err := cmd.CombinedOutput()
	cancel()
	group.Wait()
	if err != nil {
		t.Fatalf("the process that asks: %v\n%s", err, said)
	}
	text, err := os.ReadFile(out)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		t.Fatalf("the process that asks left no figures: %v\n%s", err, said)
	}
	return f
}

// processClock reads how much of all cores a process has had.
func processClock(t *testing.T, pid int) func() time.Duration {
	id := int32(^pid<<3 | 2) // as clock_getcpuclockid(3) makes it
	return func() time.Duration {
		var ts unix.Timespec
		if err := unix.ClockGettime(id, &ts); err != nil {
			t.Error(err)
		}
		return time.Duration(ts.Nano())
	}
}

// waits is what stood between work and a core up to now, summed over threads, or
// counted by how long goroutines waited for one; and how often garbage was collected.
type waits struct {
	ran, delayed time.Duration
	goroutines   *rtm.Float64Histogram
	collections  uint64
}

func waitsNow(t *testing.T) (w waits) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil || len(files) == 0 {
		t.Fatalf("no thread has a schedstat: %v", err)
	}
	for _, f := range files {
		var ran, delayed time.Duration
		if text, err := os.ReadFile(f); err == nil { // else the thread has ended
			fmt.Sscan(string(text), &ran, &delayed)
		}
		w.ran, w.delayed = w.ran+ran, w.delayed+delayed
	}
	samples := []rtm.Sample{{Name: "/sched/latencies:seconds"}, {Name: "/gc/cycles/total:gc-cycles"}}
	rtm.Read(samples)
	w.goroutines, w.collections = samples[0].Value.Float64Histogram(), samples[1].Value.Uint64()
	return w
}

// until tells what came between two readings.
func (w waits) until(now waits) string {
	n := uint64(0)
	for i := range now.goroutines.Counts {
		n += now.goroutines.Counts[i] - w.goroutines.Counts[i]
	}
	p99, seen := 0., uint64(0)
	for i := range now.goroutines.Counts {
		if seen += now.goroutines.Counts[i] - w.goroutines.Counts[i]; n > 0 && seen >= n-n/100 {
			p99 = now.goroutines.Buckets[i+1]
			break
		}
	}
	return fmt.Sprintf("threads ran for %v and were kept waiting for %v; goroutines waited for %.3f ms (p99) for one of them; %d collections",
		now.ran-w.ran, now.delayed-w.delayed, 1000*p99, now.collections-w.collections)
}
