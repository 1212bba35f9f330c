//go:build e2e

package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// The lab: a client, a router and two sites, each a network namespace, with
// the same VIP on the loopback device of both sites.
//
//	client ── router ─┬─ A
//	                  └─ B
const agentEnv = "RHUMB_FORWARD_TEST_AGENT"

// TestMain runs the tests, or, started by them with agentEnv set, a forwarder.
func TestMain(m *testing.M) {
	if site := os.Getenv(quicEnv); site != "" {
		if err := serveQUIC(site); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if config := os.Getenv(agentEnv); config != "" {
		if err := runAgent(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// site is a PoP of the lab.
type site struct {
	*space
	letter   string
	via4     string // its address as seen by the router
	via6     string
	tunnelAt netip.AddrPort
	agent    *agent
}

// addVIPs puts the VIPs on the loopback device.
func (s *site) addVIPs(t *testing.T) {
	t.Helper()
	s.must(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := addAddress(lo, vip4+"/32"); err != nil {
			return err
		}
		return addAddress(lo, vip6+"/128")
	})
}

// lab is the whole topology.
type lab struct {
	dir            string
	pathMTU        int // told to the forwarders; 0 for their default
	quic           QUIC
	near           bool             // all forwarders are of one site
	more           []netip.AddrPort // VIPs beside vips()
	nginxMore      string           // in the http block of its configuration
	client, router *space
	a, b           *site
	sum            string // SHA-256 of the big file
	size           int64
}

const (
	vip4 = "192.0.2.10"
	vip6 = "2001:db8:100::10"

	// smallSize is much more than the buffers on the way hold.
	smallSize = 8 << 20
)

func vips() []netip.AddrPort {
	return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(vip4), 80), netip.AddrPortFrom(netip.MustParseAddr(vip6), 80)}
}

// newLab builds the topology with nginx at both sites and the route at A.
func newLab(t *testing.T) *lab {
	t.Helper()
	return newLabWith(t, 1<<20)
}

// newLabWith serves a big file of this size.
func newLabWith(t *testing.T, size int64) *lab {
	t.Helper()
	return buildLab(t, &lab{size: size}, func() {})
}

// buildLab makes the topology around what is set in l already. Before the
// servers start it calls prepare.
func buildLab(t *testing.T, l *lab, prepare func()) *lab {
	t.Helper()
	dir, err := os.MkdirTemp("", "rhumb-forward-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l.dir, l.client, l.router = dir, newSpace(t, "client"), newSpace(t, "router")
	prepare()
	l.a = &site{space: newSpace(t, "a"), letter: "a", via4: "203.0.113.2", via6: "2001:db8:a::2"}
	l.b = &site{space: newSpace(t, "b"), letter: "b", via4: "203.0.113.10", via6: "2001:db8:b::2"}
	join(t, l.client, l.router, []string{"198.51.100.2/24", "2001:db8:1::2/64"}, []string{"198.51.100.1/24", "2001:db8:1::1/64"})
	join(t, l.a.space, l.router, []string{"203.0.113.2/29", "2001:db8:a::2/64"}, []string{"203.0.113.1/29", "2001:db8:a::1/64"})
	join(t, l.b.space, l.router, []string{"203.0.113.10/29", "2001:db8:b::2/64"}, []string{"203.0.113.9/29", "2001:db8:b::1/64"})
	l.router.sysctl(t, "ipv4/ip_forward", "1")
	l.router.sysctl(t, "ipv6/conf/all/forwarding", "1")
	for _, e := range []struct {
		s        *space
		gw4, gw6 string
	}{{l.client, "198.51.100.1", "2001:db8:1::1"}, {l.a.space, "203.0.113.1", "2001:db8:a::1"}, {l.b.space, "203.0.113.9", "2001:db8:b::1"}} {
		if err := e.s.route("0.0.0.0/0", e.gw4); err != nil {
			t.Fatal(err)
		}
		if err := e.s.route("::/0", e.gw6); err != nil {
			t.Fatal(err)
		}
	}
	l.bigFile(t)
	for _, s := range []*site{l.a, l.b} {
		s.tunnelAt = netip.AddrPortFrom(netip.MustParseAddr(s.via4), 4790)
		s.sysctl(t, "ipv4/conf/all/rp_filter", "1") // the strictest a host may have
		s.addVIPs(t)
		l.startNginx(t, s)
	}
	for _, s := range []*site{l.b, l.a} {
		l.routeTo(t, s)
		l.warm(t)
	}
	return l
}

// warm connects once, so that neighbours know each other and no test waits
// for a SYN to be repeated.
func (l *lab) warm(t *testing.T) {
	t.Helper()
	for _, vip := range vips() {
		conn, err := l.client.dial(vip)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}

func (l *lab) bigFile(t *testing.T) {
	t.Helper()
	file, err := os.Create(filepath.Join(l.dir, "big.bin"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.New()
	source := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(io.MultiWriter(file, hash), source, l.size); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	l.sum = hex.EncodeToString(hash.Sum(nil))
}

// startNginx runs the distribution's nginx, unchanged, with a wildcard listener.
func (l *lab) startNginx(t *testing.T, s *site) {
	t.Helper()
	prefix := filepath.Join(l.dir, "nginx-"+s.letter)
	if err := os.MkdirAll(filepath.Join(l.dir, "put"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(prefix, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(`user root; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
  access_log off; sendfile on; client_max_body_size 0;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen 80 reuseport; listen [::]:80 reuseport ipv6only=on; root %[2]s;
    location /put/ { dav_methods PUT; }
    location = /site { return 200 "%[3]s"; }
    location = /idle { return 200 "ok"; }
    keepalive_timeout 60s; keepalive_requests 1000000;
    add_header X-Site %[3]s always;
  }
  %[4]s
}`, prefix, l.dir, s.letter, l.nginxMore)
	path := filepath.Join(prefix, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `ulimit -n 8192; exec nginx "$@"`, "nginx",
		"-p", prefix, "-c", path, "-e", filepath.Join(prefix, "error.log"), "-g", "daemon off; master_process off;")
	cmd.Stderr = os.Stderr
	s.start(t, cmd)
	local := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 80)
	for deadline := time.Now().Add(patience); ; {
		conn, err := s.dial(local)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx of site %s doesn't listen: %v", s.letter, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// routeTo points the router's routes to the VIPs at a site.
func (l *lab) routeTo(t *testing.T, s *site) {
	t.Helper()
	if err := l.router.route(vip4+"/32", s.via4); err != nil {
		t.Fatal(err)
	}
	if err := l.router.route(vip6+"/128", s.via6); err != nil {
		t.Fatal(err)
	}
}
