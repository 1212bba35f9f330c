//go:build e2e

package rpki

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestStayRTR follows a real cache: all of its data, then a difference.
func TestStayRTR(t *testing.T) {
	bin, err := exec.LookPath("stayrtr")
	if err != nil {
		t.Fatal("stayrtr is not installed (Debian package stayrtr)")
	}
	file := filepath.Join(t.TempDir(), "vrps.json")
	write := func(asns ...int) {
		t.Helper()
		text := fmt.Sprintf(`{"metadata":{"generated":%d,"valid":%d,"counts":%d},"roas":[`, time.Now().Unix(), time.Now().Unix()+3600, len(asns))
		for i, a := range asns {
			if i > 0 {
				text += ","
			}
			text += fmt.Sprintf(`{"asn":"AS%d","prefix":"192.0.2.0/24","maxLength":24,"ta":"test"}`, a)
		}
		if err := os.WriteFile(file+".new", []byte(text+"]}"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(64501)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	cmd := exec.Command(bin, "-bind", addr, "-cache", file, "-refresh", "1", "-checktime=false", "-metrics.addr", "")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	s := NewSource(Config{Caches: []string{addr}, Every: 100 * time.Millisecond})
	run(t, s)
	route := netip.MustParsePrefix("192.0.2.0/24")
	word := func(want string) {
		t.Helper()
		eventually(t, "our origin is "+want, func() bool { return s.Judge(route, 64500, time.Now()).Word() == want })
	}
	word("invalid")
	write(64501, 64500)
	word("valid")
}
