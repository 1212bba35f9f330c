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
			time.Sleep(300 * time.Millisecond) // under way, far from its end
			l.routeTo(t, l.b)
			took, err := d.wait(l)
			if err == nil {
				t.Fatalf("a download of %v lived through a drain without forwarding", took)
			}
			t.Logf("after %v: %v", took, err)
		})
	}
}

func TestFlipForwarded(t *testing.T) {
	for _, vip := range []string{vip4, vip6} {
		t.Run(vip, func(t *testing.T) {
			l := newLab(t)
			l.startAgents(t, true)
			quiet, err := l.startDownload(t, vip, "8M").wait(l)
			if err != nil {
				t.Fatalf("without a flip: %v", err)
			}
			before := l.client.counter(t, "snmp", "Tcp", "EstabResets")
			d := l.startDownload(t, vip, "8M")
			f := l.flip(t, 250*time.Millisecond)
			took, err := d.wait(l)
			flips := f.end()
			sa, sb := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
			t.Logf("%d flips: %v, quiet %v; a %+v; b %+v", flips, took, quiet, sa, sb)
			if err != nil {
				t.Fatal(err)
			}
			if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - before; n != 0 {
				t.Errorf("the client saw %d resets", n)
			}
			if sb.Metrics["forwarded_packets_total a"] == 0 {
				t.Error("nothing was forwarded: the test proves nothing")
			}
		})
	}
}
