//go:build e2e

package forward

import (
	"testing"
	"time"
)

// TestCost measures what forwarding costs: a download whose ACKs are forwarded
// and an upload that is forwarded whole, each beside the same without.
func TestCost(t *testing.T) {
	size := int64(32 << 20)
	if soak() {
		size = 512 << 20
	}
	l := newLabWith(t, size)
	l.startAgents(t, true)
	run := func(name string, moved bool, start func(*testing.T, string, int64) *gate) float64 {
		l.routeTo(t, l.a)
		g := start(t, vip4, size/100)
		g.reached(t, size/100)
		if moved {
			l.routeTo(t, l.b)
		}
		a0, b0 := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		begin := time.Now()
		g.open(size)
		if err := g.wait(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		took := time.Since(begin).Seconds()
		a, b := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		count := func(name string) float64 { return b.Metrics[name] - b0.Metrics[name] }
		packets, cpuA, cpuB := count("forwarded_packets_total a"), (a.CPU - a0.CPU).Seconds(), (b.CPU - b0.CPU).Seconds()
		t.Logf("%s: %.0f MB/s; %.0f packets, %.1f MB forwarded; CPU s per GB moved: ingress %.2f, owner %.2f; µs per packet: %.1f, %.1f",
			name, float64(size)/1e6/took, packets, count("tunnel_bytes_total a")/1e6,
			cpuB*1e9/float64(size), cpuA*1e9/float64(size), cpuB*1e6/max(1, packets), cpuA*1e6/max(1, packets))
		return packets
	}
	if n := run("quiet download", false, l.startDownload); n != 0 {
		t.Errorf("%v packets were forwarded with the route at the owner", n)
	}
	if n := run("forwarded download", true, l.startDownload); n == 0 {
		t.Error("nothing was forwarded: the figure means nothing")
	}
	run("quiet upload", false, l.startUpload)
	if n := run("forwarded upload", true, l.startUpload); n < float64(size)/1500/2 {
		t.Errorf("%v packets were forwarded: the figure means nothing", n)
	}
}
