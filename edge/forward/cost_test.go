//go:build e2e

package forward

import (
	"testing"
	"time"
)

// TestCost measures what forwarding costs: a download whose ACKs are forwarded
// and an upload that is forwarded whole, each beside the same without.
func TestCost(t *testing.T) {
	const size = 192 << 20
	l := newLabWith(t, size)
	l.startAgents(t, true)
	run := func(name string, moved bool, transfer func() (start func(), wait func())) float64 {
		l.routeTo(t, l.a)
		start, wait := transfer()
		begin := time.Now()
		start()
		l.await(t, func() bool { return l.a.agent.tell(t, "stats").Owned[vip4+":80"] > 0 }, name+" begins")
		a0, b0 := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		if moved {
			l.routeTo(t, l.b)
		}
		wait()
		took := time.Since(begin).Seconds()
		a, b := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		count := func(name string) float64 { return b.Metrics[name] - b0.Metrics[name] }
		t.Logf("%s: %.0f MB/s; %.0f packets, %.1f MB forwarded; CPU s per GB moved: ingress %.2f, owner %.2f",
			name, size/1e6/took, count("forwarded_packets_total a"), count("tunnel_bytes_total a")/1e6,
			(b.CPU-b0.CPU).Seconds()*1e9/size, (a.CPU-a0.CPU).Seconds()*1e9/size)
		return count("forwarded_packets_total a")
	}
	download := func() (func(), func()) {
		var d *download
		return func() { d = l.startDownload(t, vip4, "0") }, func() {
			if _, err := d.wait(l); err != nil {
				t.Error(err)
			}
		}
	}
	upload := func() (func(), func()) {
		var u *upload
		return func() { u = l.startUpload(t, vip4, "0") }, func() { u.wait(t, l) }
	}
	if n := run("quiet download", false, download); n != 0 {
		t.Errorf("%v packets were forwarded with the route at the owner", n)
	}
	if n := run("forwarded download", true, download); n == 0 {
		t.Error("nothing was forwarded: the figure means nothing")
	}
	run("quiet upload", false, upload)
	if n := run("forwarded upload", true, upload); n < size/1500/2 {
		t.Errorf("%v packets were forwarded: the figure means nothing", n)
	}
}
