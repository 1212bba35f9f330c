//go:build e2e

package forward

import (
	"sync"
	"testing"
	"time"
)

// flipper moves the route between the sites until stopped.
type flipper struct {
	stop  chan struct{}
	done  sync.WaitGroup
	count int
}

func (l *lab) flip(t *testing.T, every time.Duration) *flipper {
	f := &flipper{stop: make(chan struct{})}
	f.done.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for sites := []*site{l.b, l.a}; ; f.count++ {
			select {
			case <-f.stop:
				return
			case <-ticker.C:
				l.routeTo(t, sites[f.count%2])
			}
		}
	})
	return f
}

func (f *flipper) end() int {
	close(f.stop)
	f.done.Wait()
	return f.count
}

// TestDrainWithoutRulesResets shows that the lab can fail.
func TestDrainWithoutRulesResets(t *testing.T) {
	for _, vip := range []string{vip4, vip6} {
		t.Run(vip, func(t *testing.T) {
			l := newLab(t)
			d := l.startDownload(t, vip, "8M")
			d.reached(t, bigSize/10)
			l.routeTo(t, l.b)
			took, err := d.wait(l)
			if err == nil {
				t.Fatalf("a download of %v lived through a drain without forwarding", took)
			}
			t.Logf("after %v: %v", took, err)
		})
	}
}

// TestFlipForwarded moves the route several times a second under eight
// downloads, and leaves it at B before they end.
func TestFlipForwarded(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, true)
		// Other work on the machine can slow down either run, so the goal
		// counts as met if one repetition of three meets it. Resets and
		// errors are never forgiven.
		best := 0.0
		for range 3 {
			best = max(best, l.flipRatio(t, vip))
			if best >= 0.9 || t.Failed() {
				break
			}
		}
		if best < 0.9 {
			t.Errorf("goodput fell to %.0f %%, want at least 90 %%", 100*best)
		}
	})
}

// flipRatio compares the goodput of downloads under flips with a quiet run's.
func (l *lab) flipRatio(t *testing.T, vip string) float64 {
	t.Helper()
	quiet := l.goodput(t, vip, func([]*download) {})
	before, b0 := l.client.counter(t, "snmp", "Tcp", "EstabResets"), l.b.agent.tell(t, "stats")
	var flips int
	moved := l.goodput(t, vip, func(downloads []*download) {
		f := l.flip(t, 150*time.Millisecond)
		for _, d := range downloads {
			d.reached(t, bigSize*6/10)
		}
		flips = f.end()
		l.routeTo(t, l.b)
	})
	s := l.b.agent.tell(t, "stats")
	forwarded := s.Metrics["forwarded_packets_total a"] - b0.Metrics["forwarded_packets_total a"]
	t.Logf("%d flips, then left at B: %.1f MB/s, quiet %.1f MB/s; %.0f packets forwarded", flips, moved, quiet, forwarded)
	if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - before; n != 0 {
		t.Errorf("the client saw %d resets", n)
	}
	if flips < 6 || forwarded < 100 {
		t.Errorf("%d flips, %.0f packets forwarded: the test proves nothing", flips, forwarded)
	}
	return moved / quiet
}

// goodput runs eight downloads from A's route and returns their MB/s together.
func (l *lab) goodput(t *testing.T, vip string, meanwhile func([]*download)) float64 {
	t.Helper()
	l.routeTo(t, l.a)
	start := time.Now()
	var downloads []*download
	for range 8 {
		downloads = append(downloads, l.startDownload(t, vip, "6M"))
	}
	for _, d := range downloads {
		d.reached(t, bigSize/10)
	}
	meanwhile(downloads)
	for _, d := range downloads {
		if _, err := d.wait(l); err != nil {
			t.Error(err)
		}
	}
	return 8 * bigSize / 1e6 / time.Since(start).Seconds()
}
