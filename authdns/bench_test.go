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
