package detect

import (
	"io"
	"os"
	"sync"
	"testing"
	"time"
)

// drawn plays several draws of one kind of trace, short ones here and hours of
// them, with 300 crashes and more, when RHUMB_SOAK is set.
func drawn(t *testing.T, tr Trace, detector func(io.Reader, io.Writer) error) score {
	t.Helper()
	draws := uint64(3)
	tr.Length, tr.CrashEvery = 4500*tr.Interval, 3*time.Minute // 22 minutes at 300 ms
	if tr.Interval < 200*ms {
		tr.Length *= 2
	}
	if raced {
		tr.Length /= 12
	}
	if os.Getenv("RHUMB_SOAK") != "" {
		tr.Length, tr.CrashEvery = 24*time.Hour, 20*time.Minute
	}
	var sum score
	var mu sync.Mutex
	var wg sync.WaitGroup
	for seed := range draws {
		wg.Go(func() {
			one := tr
			one.Seed = 100 + seed
			s := with(t, one, detector)
			t.Logf("draw %d: %s", one.Seed, s.String())
			mu.Lock()
			defer mu.Unlock()
			sum.add(s)
		})
	}
	wg.Wait()
	t.Logf("all: %s", sum.String())
	return sum
}

func defaults(interval time.Duration) func(io.Reader, io.Writer) error {
	return func(in io.Reader, out io.Writer) error { return Replay(in, out, Defaults(interval)) }
}

// TestGoals: what is promised of verdicts over several paths, with an observer
// which is well and one which is not. Wrong is a verdict on a site that runs and
// is heard by a path, or one given while the observer was sick.
func TestGoals(t *testing.T) {
	for _, c := range []struct {
		name  string
		tr    Trace
		p99   time.Duration
		wrong float64 // a day and peer
	}{
		{"D1 five paths, 300 ms", Trace{Interval: 300 * ms, Targets: 12, Paths: 5}, 500 * ms, .1},
		{"D2 sick observer, 300 ms", Trace{Interval: 300 * ms, Targets: 12, Paths: 5, Sick: true}, 850 * ms, .1},
		{"D3 sick observer, 100 ms", Trace{Interval: 100 * ms, Targets: 12, Paths: 5, Sick: true}, 450 * ms, .1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := drawn(t, c.tr, defaults(c.tr.Interval))
			if s.crashes < 100 && !raced || s.p99() > c.p99 || s.perDay(s.wrong) > c.wrong || s.missed > 0 || s.late > 0 {
				t.Errorf("want p99 up to %v, wrong up to %v, nothing missed or late", c.p99, c.wrong)
			}
		})
	}
}

// TestGoalOnePath: D4, one path at 300 ms. The published figures are those of the
// plain timeout of 2 s, by which the generator is calibrated; ours must be sooner
// and no more often wrong.
func TestGoalOnePath(t *testing.T) {
	tr := Trace{Interval: 300 * ms, Targets: 60, Paths: 1}
	fixed := drawn(t, tr, func(in io.Reader, out io.Writer) error { return plain(in, out, 2*time.Second) })
	ours := drawn(t, tr, defaults(tr.Interval))
	// The mean over long draws is 16.5; short ones scatter.
	if fp := fixed.perDay(fixed.falseDown); !raced && (fp < 12 || fp > 21) || os.Getenv("RHUMB_SOAK") != "" && (fp < 16 || fp > 17) {
		t.Errorf("the generator gives %.1f silences of 2 s a day and path, want 16 to 17", fp)
	}
	if ours.mean() > 1930*ms*95/100 || ours.missed > 0 || ours.late > 0 {
		t.Errorf("TD mean %v, want 5 %% under 1.93 s", ours.mean())
	}
	if ours.falseDown > fixed.falseDown+max(2, fixed.falseDown/100) {
		t.Errorf("%d false verdicts, %d with 2 s", ours.falseDown, fixed.falseDown)
	}
}
