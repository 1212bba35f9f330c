//go:build e2e

package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// upload is a PUT by curl, of the big file.
type upload struct {
	cmd *exec.Cmd
	out strings.Builder
	got string
}

func (l *lab) startUpload(t *testing.T, vip, limit string) *upload {
	t.Helper()
	host := vip
	if strings.Contains(vip, ":") {
		host = "[" + vip + "]"
	}
	u := &upload{got: filepath.Join(l.dir, "put", "up.bin")}
	u.cmd = exec.Command("curl", "-sS", "-g", "--limit-rate", limit, "--max-time", "25", "-f",
		"-T", filepath.Join(l.dir, "big.bin"), "http://"+host+"/put/up.bin")
	u.cmd.Stdout, u.cmd.Stderr = &u.out, &u.out
	l.client.start(t, u.cmd)
	return u
}

func (u *upload) wait(t *testing.T, l *lab) {
	t.Helper()
	if err := u.cmd.Wait(); err != nil {
		t.Fatalf("curl: %v: %s", err, u.out.String())
	}
	b, err := os.ReadFile(u.got)
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(u.got)
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != l.sum {
		t.Fatalf("the server has %d octets with the wrong sum", len(b))
	}
}

// TestUploadForwarded forwards every octet of an upload: over a path that
// carries the packets whole, over one known to need parts, and over one that
// turns out to carry less than was said.
func TestUploadForwarded(t *testing.T) {
	for _, path := range []struct{ said, real int }{{1500, 1500}, {1400, 1500}, {1500, 1400}} {
		mtu := path.said
		families(t, func(t *testing.T, vip string) {
			l := newLab(t)
			l.pathMTU = mtu
			l.router.must(t, func() error {
				link, err := netlink.LinkByName("to-a")
				if err != nil {
					return err
				}
				return netlink.LinkSetMTU(link, path.real)
			})
			l.startAgents(t, true)
			u := l.startUpload(t, vip, "16M")
			key := netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String()
			l.await(t, func() bool { return l.a.agent.tell(t, "stats").Owned[key] == 1 }, "A has the upload")
			l.routeTo(t, l.b)
			start := time.Now()
			u.wait(t, l)
			s, o := l.b.agent.tell(t, "stats"), l.a.agent.tell(t, "stats")
			octets := s.Metrics["tunnel_bytes_total a"]
			t.Logf("path %d, said %d: %.0f packets, %.1f MB/s, CPU s per GB %.2f + %.2f", path.real, mtu, s.Metrics["forwarded_packets_total a"],
				octets/1e6/time.Since(start).Seconds(), s.CPU.Seconds()*1e9/octets, o.CPU.Seconds()*1e9/octets)
			if octets < bigSize/2 {
				t.Errorf("%.0f octets were forwarded: the test proves nothing", octets)
			}
			for name, n := range o.Metrics {
				if strings.HasPrefix(name, "tunnel_refused") && n > 0 {
					t.Errorf("the owner refused: %s %v", name, n)
				}
			}
		})
	}
}

// TestUploadUnderFlips sends data by both ways in turn, so that it also
// overtakes itself.
func TestUploadUnderFlips(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newLab(t)
		l.startAgents(t, true)
		before := l.client.counter(t, "snmp", "Tcp", "EstabResets")
		u := l.startUpload(t, vip, "12M")
		key := netip.AddrPortFrom(netip.MustParseAddr(vip), 80).String()
		l.await(t, func() bool { return l.a.agent.tell(t, "stats").Owned[key] == 1 }, "A has the upload")
		f := l.flip(t, 60*time.Millisecond)
		u.wait(t, l)
		flips := f.end()
		s := l.b.agent.tell(t, "stats")
		t.Logf("%d flips, %.0f packets forwarded", flips, s.Metrics["forwarded_packets_total a"])
		if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - before; n != 0 {
			t.Errorf("the client saw %d resets", n)
		}
		if s.Metrics["forwarded_packets_total a"] < 100 || flips < 10 {
			t.Error("hardly anything was forwarded: the test proves nothing")
		}
	})
}
