package authdns

import (
	"testing"
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
