//go:build e2e

package tcprepair

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// BenchmarkHandOff is what a session that rests costs the sites which hand it on, beyond
// what they tell each other: each operation is a dump and a silent close here, and a
// restore that speaks. Told of a round trip it is what a service with revival does.
func BenchmarkHandOff(b *testing.B) {
	for _, f := range []struct{ name, server, client string }{{"IPv4", "127.0.0.1:0", "127.0.0.2:0"}, {"IPv6", "[::1]:0", "[::1]:0"}} {
		for _, told := range []bool{false, true} {
			b.Run(f.name+map[bool]string{true: ", with a lesson"}[told], func(b *testing.B) {
				c := restingPair(b, f.server, f.client)
				var wire *Wire
				if told {
					var err error
					if wire, err = OpenWire(); err != nil {
						b.Fatal(err)
					}
					defer wire.Close()
				}
				var dump time.Duration
				b.ReportAllocs()
				for b.Loop() {
					begun := time.Now()
					st := handOn(b, c)
					dump += time.Since(begun)
					c = takeUp(b, st, wire)
				}
				b.ReportMetric(float64(dump.Nanoseconds())/float64(b.N), "ns/dump")
				if told && wire.lessons.missed.Load() > 0 {
					b.Errorf("%d lessons were lost", wire.lessons.missed.Load())
				}
				c.Close()
			})
		}
	}
}

// handOn is the giver's part.
func handOn(b *testing.B, c *net.TCPConn) State {
	d, err := Dump(c)
	if err != nil {
		b.Fatal(err)
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	return d.State
}

// takeUp is the taker's.
func takeUp(b *testing.B, st State, w *Wire) *net.TCPConn {
	st.Options.MSS = min(st.Options.MSS, 1448) // the loopback's own is refused
	if w != nil {
		st.RTT = 40 * time.Millisecond
	}
	r, err := Restore(st, strings.NewReader(""), 0)
	if err == nil {
		err = r.Learn(w)
	}
	if err != nil {
		b.Fatal(err)
	}
	c, err := r.Activate()
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// restingPair is the server's end of a connection whose client waits.
func restingPair(b *testing.B, server, client string) *net.TCPConn {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(b.Context(), "tcp", server)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	local, err := net.ResolveTCPAddr("tcp", client)
	if err != nil {
		b.Fatal(err)
	}
	c, err := (&net.Dialer{LocalAddr: local}).Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	go io.Copy(io.Discard, c)
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	return s.(*net.TCPConn)
}
