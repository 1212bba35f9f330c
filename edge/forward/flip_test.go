//go:build e2e

package forward

import (
	"testing"
)

// TestDrainWithoutRulesResets shows that the lab can fail.
func TestDrainWithoutRulesResets(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLabWith(t, smallSize)
		d := l.startDownload(t, vip, l.size/4)
		d.reached(t, l.size/10)
		l.routeTo(t, l.b)
		d.open(l.size)
		if err := d.wait(); !isReset(err) {
			t.Fatalf("a download through a drain without forwarding: %v, want a reset", err)
		}
	})
}

// TestFlipForwarded moves the route a dozen times under eight downloads, and
// leaves it at B before they end.
func TestFlipForwarded(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLabWith(t, smallSize)
		l.startAgents(t, true)
		before := l.client.counter(t, "snmp", "Tcp", "EstabResets")
		var downloads []*gate
		for range 8 {
			downloads = append(downloads, l.startDownload(t, vip, 1))
		}
		l.flipUnder(t, 12, downloads)
		for _, d := range downloads {
			if err := d.wait(); err != nil {
				t.Error(err)
			}
		}
		s := l.b.agent.tell(t, "stats")
		if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - before; n != 0 {
			t.Errorf("the client saw %d resets; B: %v", n, s.Metrics)
		}
		if s.Metrics["forwarded_packets_total a"] < 100 {
			t.Errorf("hardly anything was forwarded, the test proves nothing: %v", s.Metrics)
		}
	})
}
