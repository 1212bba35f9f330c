package authdns

import (
	"fmt"
	"testing"

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

// BenchmarkLoad tells how long a large zone takes from its text to the replies made
// ahead. A million names take more than ten times as long: the collector's part grows.
func BenchmarkLoad(b *testing.B) {
	const names = 100_000
	text := []byte("@ 3600 SOA ns hostmaster 1 7200 900 1209600 60\n@ NS ns\nns A 192.0.2.1\n")
	for i := range names {
		text = fmt.Appendf(text, "h%d A 198.51.100.%d\n", i, i%254+1)
	}
	src := Source{Zone: placement.Zone{Name: "big.test.", Level: placement.LowLevel}, Data: text}
	zones := zonesOf(b, src)
	for name, run := range map[string]func(){
		"parse":   func() { zonesOf(b, src) },
		"compile": func() { compile(self, zones, nil, nil) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/names, "ns/name")
		})
	}
}
