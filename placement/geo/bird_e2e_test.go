//go:build e2e

package geo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestBirdWrites: what a BIRD of this machine dumps is read; it needs neither root
// nor a network.
func TestBirdWrites(t *testing.T) {
	dir := t.TempDir()
	conf, ctl, out := filepath.Join(dir, "bird.conf"), filepath.Join(dir, "ctl"), filepath.Join(dir, "out.mrt")
	if err := os.WriteFile(conf, []byte(birdConf), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	bird := exec.CommandContext(ctx, "bird", "-f", "-c", conf, "-s", ctl, "-P", filepath.Join(dir, "pid"))
	if err := bird.Start(); err != nil {
		t.Fatalf("bird (Debian package bird2): %v", err)
	}
	defer func() { cancel(); _ = bird.Wait() }()
	ask := func(question string) error {
		return exec.CommandContext(ctx, "birdc", "-s", ctl, question).Run()
	}
	var r *Routes
	var err error
	for r == nil && ctx.Err() == nil { // the dump is written behind the answer
		if err = ask(fmt.Sprintf(`mrt dump table "master*" to %q`, out)); err == nil {
			if r, err = OpenRoutes([]string{out}); r != nil && r.Len() < 3 {
				r = nil
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	if r == nil {
		t.Fatalf("nothing to read: %v", err)
	}
	checkBird(t, r)
}

const birdConf = `router id 198.51.100.1;
protocol device {}
protocol static {
  ipv4 { import filter { bgp_path.empty; bgp_path.prepend(64503); bgp_path.prepend(64501); accept; }; };
  route 192.0.2.0/24 blackhole; route 198.51.100.0/25 blackhole;
}
protocol static {
  ipv6 { import filter { bgp_path.empty; bgp_path.prepend(64504); accept; }; };
  route 2001:db8::/32 blackhole;
}
`
