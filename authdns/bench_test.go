package authdns

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"rhumb/placement"
)

// BenchmarkAnswer tells what one reply costs without a socket.
func BenchmarkAnswer(b *testing.B) {
	s := compiled(b, fleet(b, plan{}), sources()...)
	for _, c := range []struct {
		name, question, client string
		level                  string
	}{
		{"static", "www.demo.test. A", usResolver, "top"},
		{"steered", "www.cdn.demo.test. A", usResolver, "low"},
		{"referral", "www.cdn.demo.test. A", usResolver, "top"},
		{"nxdomain", "nix.demo.test. A", usResolver, "top"},
	} {
		b.Run(c.name, func(b *testing.B) {
			q := ask(b, c.question, edns0(ecs("203.0.113.0/24")))
			a := from(c.client, top)
			if c.level == "low" {
				a = from(c.client, low)
			}
			out := make([]byte, maxUDP)
			b.ReportAllocs()
			for b.Loop() {
				s.answer(q, out, a)
			}
		})
	}
}

// BenchmarkCompile tells how long a new state takes with 1000 steered names at 30
// sites: of a new Inventory, and of new votes.
func BenchmarkCompile(b *testing.B) {
	snap := fleet(b, plan{})
	inv := *snap.Inventory
	for i := range 27 {
		s := fixtureSites[i%3]
		s.Name = fmt.Sprintf("s%d", i)
		inv.Sites = append(inv.Sites, s)
	}
	www := inv.Services[1]
	www.Names = nil
	for i := range 1000 {
		www.Names = append(www.Names, fmt.Sprintf("n%d.cdn.demo.test.", i))
	}
	inv.Services = []placement.Service{inv.Services[0], www}
	snap.Inventory = &inv
	snap.Maps[1].Service, snap.Maps[1].Clusters = &inv.Services[1], inv.Eligible(&inv.Services[1])
	zones := zonesOf(b, sources()...)
	before := compile(self, zones, snap, nil)
	for name, last := range map[string]*state{"inventory": nil, "votes": before} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				compile(self, zones, snap, last)
			}
		})
	}
}

// largeSource is a zone of so many names with an address each.
func largeSource(names int) Source {
	text := []byte("@ 3600 SOA ns hostmaster 1 7200 900 1209600 60\n@ NS ns\nns A 192.0.2.1\n")
	for i := range names {
		text = fmt.Appendf(text, "h%d A 198.51.100.%d\n", i, i%254+1)
	}
	return Source{Zone: placement.Zone{Name: "big.test.", Level: placement.LowLevel}, Data: text}
}

// BenchmarkLoad tells how long a large zone takes from its text to being served: in all,
// in time of all cores, and how much memory it leaves behind.
func BenchmarkLoad(b *testing.B) {
	for _, names := range []int{100_000, 1_000_000} {
		src := largeSource(names)
		zones := zonesOf(b, src)
		for _, c := range []struct {
			name string
			run  func() any
		}{
			{"parse", func() any { return zonesOf(b, src) }},
			{"compile", func() any { return compile(self, zones, nil, nil) }},
			{"serve", func() any { return serving(b, src) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, names), func(b *testing.B) {
				b.ReportAllocs()
				var last any
				cpu, heap := cpuTime(b), heapSize()
				for b.Loop() {
					last = c.run()
				}
				b.ReportMetric((cpuTime(b)-cpu).Seconds()/float64(b.N), "cpu-s/op")
				b.ReportMetric(float64(heapSize()-heap)/float64(names), "heap-B/name")
				runtime.KeepAlive(last)
			})
		}
	}
}

// serving is a Server that has begun to serve one zone.
func serving(b *testing.B, src Source) *Server {
	s, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	if errs := s.SetZones([]Source{src}); len(errs) > 0 {
		b.Fatal(errs)
	}
	return s
}

// heapSize is what is in use after all garbage is gone.
func heapSize() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// cpuTime is what this process has had of all cores.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
