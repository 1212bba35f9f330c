//go:build e2e

package edge

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTLSSiteLoss: a site dies in the middle of records over TLS. From the other one
// each client has every byte of what it asked for: our own clients, and curl by each
// suite. Then the connection ends, which is what HTTP/1.1 lets a server do.
func TestTLSSiteLoss(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 1<<20)
	x.CA = filepath.Join(w.dir, "video.test.crt")
	x.N, x.VIP, x.Pace, x.Buffer, x.Gated = 20, vip6, 10*time.Millisecond, 16<<10, true
	a, b := w.tlsSites(ExportGroup)
	load := w.start("c", "load", x)
	ends := make(chan error)
	suites := []string{"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
	for _, suite := range suites {
		go func() { ends <- w.slowCurl(suite, x.HashHex) }()
	}
	var word string
	load.next(&word)
	w.backed(a, x.N+len(suites))
	load.tell("go")
	w.lose("a", a)
	b.ask("down a", &word)
	gaps := w.finish(load, x.N)
	for range suites {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	var r report
	b.ask("state", &r)
	t.Logf("longest gap p50 %v p99 %v; revivals %v, answers %v", quantile(gaps, .5), quantile(gaps, .99), r.Revivals, r.Answers)
	if r.Revivals[reviveOK] < float64(x.N+len(suites)) {
		t.Errorf("revived %v of %d sessions", r.Revivals, x.N+len(suites))
	}
}

// slowCurl downloads at 1 MB/s, and says what was wrong.
func (w *world) slowCurl(suite, hash string) error {
	out := filepath.Join(w.dir, "got-"+suite)
	_, err := curl(w.t, []string{"ip", "netns", "exec", w.prefix + "c"}, filepath.Join(w.dir, "video.test.crt"), net.JoinHostPort(vip4, "8080"),
		"--tls13-ciphers", suite, "--limit-rate", "1M", "-o", out, "URL/film.mp4")
	if err != nil {
		return fmt.Errorf("%s: %w", suite, err)
	}
	if got, err := os.ReadFile(out); err != nil || fmt.Sprintf("%x", sha256.Sum256(got)) != hash {
		return fmt.Errorf("%s: got %d other bytes, %v", suite, len(got), err)
	}
	return nil
}

// TestTLSAgentCrash: the process dies under sessions over TLS and another takes its
// place. It has their secrets from the Backup, and nowhere else.
func TestTLSAgentCrash(t *testing.T) {
	w := newWorld(t)
	x := w.object("film.mp4", 1<<20)
	x.CA = filepath.Join(w.dir, "video.test.crt")
	x.N, x.VIP, x.Pace, x.Buffer, x.Gated = 20, vip4, 10*time.Millisecond, 16<<10, true
	a, _ := w.tlsSites(ExportGroup)
	load := w.start("c", "load", x)
	var word string
	load.next(&word)
	next := w.agent("a", "b", func(x *agentArgs) { x.Export, x.Backups, x.Standby = ExportGroup, true, true })
	w.backed(a, x.N)
	load.tell("go")
	a.kill()
	next.tell("begin")
	w.finish(load, x.N)
	var r report
	next.ask("state", &r)
	if r.Revivals[reviveOK] < float64(x.N) {
		t.Errorf("revived %v of %d sessions", r.Revivals, x.N)
	}
	w.noResets()
}
