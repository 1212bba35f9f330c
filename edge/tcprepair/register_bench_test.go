//go:build e2e

package tcprepair

import (
	"net"
	"testing"
)

// BenchmarkRegister is what a new connection costs for its record.
func BenchmarkRegister(b *testing.B) {
	lc := net.ListenConfig{KeepAlive: -1}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(b.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Register(s.(*net.TCPConn)); err != nil {
			b.Fatal(err)
		}
	}
}
