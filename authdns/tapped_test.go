package authdns

import (
	"context"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// BenchmarkTap tells what it costs a worker to tell of every query, of one in a hundred,
// and of none, to a collector that listens, and what, where there is no room. Each of its
// steps but the system calls is in the figure, by the processor's time of the thread: what
// else the machine does is not in it.
func BenchmarkTap(b *testing.B) {
	for _, c := range []struct {
		name  string
		every int // 0: none
		size  int
	}{{"off", 0, 0}, {"1-in-100", 100, 1 << 23}, {"all", 1, 1 << 23}, {"no-room", 1, 1 << 12}} {
		b.Run(c.name, func(b *testing.B) {
			conf := Config{SignBudget: 100}
			if c.every > 0 {
				address := "/nowhere"
				if c.name != "no-room" {
					address = discard(b)
				}
				conf.Tap = tap.New(tap.Config{Network: "unix", Address: address, Every: c.every, Size: c.size})
				ctx, cancel := context.WithCancel(b.Context())
				var all sync.WaitGroup
				all.Go(func() { conf.Tap.Run(ctx) })
				defer all.Wait()
				defer cancel()
			}
			r := newRig(b, conf)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			start := time.Now()
			r.server.now = func() time.Time { return signedAt.Add(time.Since(start)) } // it costs what it costs
			fd, q := r.fd(), ask(b, "www.demo.test. A", do)
			var spent time.Duration
			served := 0
			b.ReportAllocs()
			for b.Loop() {
				for range batchSize - 1 {
					r.send("127.2.0.1", q)
				}
				for r.pending > 0 {
					n, err := r.w.batch.Receive(fd)
					if err != nil {
						b.Fatal(err)
					}
					if n == 0 {
						runtime.Gosched()
						continue
					}
					began := threadTime(b)
					r.w.answer(n, func() error { return r.w.send(fd) })
					spent += threadTime(b) - began
					r.w.send(fd)
					r.pending, served = r.pending-n, served+n
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(served), "ns/query")
			if c.every > 0 {
				sent, dropped, _ := conf.Tap.Counts()
				b.ReportMetric(100*float64(dropped)/float64(max(1, sent+dropped)), "%dropped")
			}
		})
	}
}

// threadTime is for how long this thread has been on a processor.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// discard is a collector that takes all and keeps nothing.
func discard(b *testing.B) (address string) {
	b.Helper()
	l, err := net.Listen("unix", filepath.Join(b.TempDir(), "tap.sock"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	const ready = 8 + 4 + 8 + 22 // octets of READY, and of the ACCEPT that answers it
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var said [ready]byte
		if _, err := io.ReadFull(c, said[:]); err != nil {
			return
		}
		said[11] = 1 // its type; the content is the same
		c.Write(said[:])
		io.Copy(io.Discard, c)
	}()
	return l.Addr().String()
}
