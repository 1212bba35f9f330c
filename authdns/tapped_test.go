package authdns

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rhumb/authdns/tap"
)

// TestTapIsFree: a worker that tells of every query allocates nothing, whether the reply
// is at hand, was kept, or the query is turned away; and each of them is told.
func TestTapIsFree(t *testing.T) {
	out := tap.New(tap.Config{Network: "unix", Address: "/nowhere", Size: 1 << 18})
	r := newRig(t, Config{SignBudget: 100, Tap: out})
	fd := r.fd()
	for _, c := range []struct{ from, question string }{{"127.1.0.1", "www.demo.test. A"}, {"127.4.0.1", "alias.demo.test. A"}} {
		q := ask(t, c.question, do)
		r.send(c.from, q)
		r.run()
		r.replies(c.from)
		client := r.client(c.from)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := client.Write(q); err != nil {
				t.Fatal(err)
			}
			n := 0
			for began := time.Now(); n == 0 && time.Since(began) < 20*time.Second; {
				n, _ = r.w.batch.Receive(fd)
			}
			r.w.answer(n, func() error { return r.w.send(fd) })
			r.w.send(fd)
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.question, n)
		}
	}
	if _, dropped, _ := out.Counts(); dropped != 0 {
		t.Errorf("%d dropped", dropped)
	}
	for range 2000 { // until there is no room, and after
		r.send("127.1.0.1", ask(t, "www.demo.test. A", do))
		r.run()
		r.replies("127.1.0.1")
	}
	if _, dropped, _ := out.Counts(); dropped == 0 {
		t.Error("more was told than there is room for")
	}
}

// TestSpecified: an address that is every one tells nobody which was asked.
func TestSpecified(t *testing.T) {
	for in, want := range map[string]string{"0.0.0.0:53": "invalid AddrPort", "[::]:53": "invalid AddrPort", "192.0.2.1:53": "192.0.2.1:53", "[::ffff:192.0.2.1]:53": "192.0.2.1:53"} {
		if got := specified(netip.MustParseAddrPort(in)).String(); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// BenchmarkTap tells what it costs to tell of every query, of one in a hundred, and of
// none, with the socket.
func BenchmarkTap(b *testing.B) {
	for name, c := range map[string]*tap.Config{"off": nil, "1 in 100": {Every: 100, Size: 1 << 20}, "all": {Size: 1 << 26}} {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			conf := Config{SignBudget: 100}
			if c != nil {
				c.Network, c.Address = "unix", "/nowhere"
				conf.Tap = tap.New(*c)
			}
			r := newRig(b, conf)
			q := ask(b, "www.demo.test. A", do)
			var served atomic.Int64
			b.ReportAllocs()
			for b.Loop() {
				for range batchSize - 1 {
					r.send("127.2.0.1", q)
				}
				r.run()
				served.Add(batchSize - 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(served.Load()), "ns/query")
		})
	}
}
