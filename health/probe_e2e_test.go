//go:build e2e

package health

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"crypto/tls"
	"crypto/x509"

	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// startDaemon runs a foreign server until the test ends.
func startDaemon(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s is needed for this test: %v", name, err)
	}
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, out.String())
		}
	})
	return cmd
}

// awaitPort waits until somebody accepts there.
func awaitPort(t *testing.T, addr string) {
	t.Helper()
	for range 6000 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nobody listens at %s", addr)
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// writeCert writes a chain and its key as servers read them.
func writeCert(t *testing.T, dir, name string, c tls.Certificate) (crt, key string) {
	t.Helper()
	var chain []byte
	for _, raw := range c.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	crt, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, b := range map[string][]byte{crt: chain, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return crt, key
}

const nginxConf = `daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log; events {}
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen %[2]s; server_name other.test; return 404; }
  server { listen %[2]s; server_name www.cdn.demo.test;
    location /healthz { return 200 "well\n"; }
    location /moved { return 302 /nowhere; }
    location /broken { return 503; }
    location /cut { return 444; } }
  server { listen %[3]s ssl http2; server_name www.cdn.demo.test; ssl_certificate %[4]s; ssl_certificate_key %[5]s; return 200 "$server_protocol $ssl_server_name\n"; }
  server { listen %[3]s ssl; server_name old.demo.test; ssl_certificate %[6]s; ssl_certificate_key %[7]s; return 200 "old\n"; }
}
`

// TestProbesOfNginx: HTTP in both versions against a server of the field, with the
// right virtual host only by Host and SNI; and what a stopped process still gives.
func TestProbesOfNginx(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, "ours", 900*day, nil)
	crt, key := writeCert(t, dir, "www", ca.leaf(t, 10*day, []string{wwwHost}))
	oldCrt, oldKey := writeCert(t, dir, "old", ca.leaf(t, -day, []string{"old.demo.test"}))
	plain, sealed := freePort(t), freePort(t)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, nginxConf, dir, plain, sealed, crt, key, oldCrt, oldKey), 0o644); err != nil {
		t.Fatal(err)
	}
	nginx := startDaemon(t, "nginx", "-e", dir+"/error.log", "-c", conf)
	awaitPort(t, sealed)
	ours := placement.Trust{CA: ca.pem}
	for _, c := range []struct {
		name, addr string
		check      placement.HTTPCheck
		kind       string
	}{
		{"by Host", plain, placement.HTTPCheck{Path: "/healthz", Body: "well"}, "ok"},
		{"another Host", plain, placement.HTTPCheck{Path: "/healthz", Host: "other.test"}, "status"},
		{"redirect", plain, placement.HTTPCheck{Path: "/moved"}, "ok"},
		{"503", plain, placement.HTTPCheck{Path: "/broken"}, "status"},
		{"an end without an answer", plain, placement.HTTPCheck{Path: "/cut"}, "reset"},
		{"clear text to the TLS port", sealed, placement.HTTPCheck{Path: "/"}, "status"},
		{"1.1 by SNI", sealed, placement.HTTPCheck{Path: "/", TLS: true, Trust: ours, Body: "HTTP/1.1 " + wwwHost}, "ok"},
		{"2 by SNI", sealed, placement.HTTPCheck{Path: "/", TLS: true, Version: "2", Trust: ours, Body: "HTTP/2.0 " + wwwHost}, "ok"},
		{"ended", sealed, placement.HTTPCheck{Path: "/", TLS: true, Host: "old.demo.test", Trust: ours}, "expired"},
		{"name", sealed, placement.HTTPCheck{Path: "/", TLS: true, Host: "x.demo.test", Trust: ours}, "name"},
		{"stranger", sealed, placement.HTTPCheck{Path: "/", TLS: true}, "authority"},
	} {
		r := ProbeHTTP(within(t, 20*time.Second), target(c.addr, placement.Check{HTTP: &c.check}))
		if r.Kind != c.kind {
			t.Errorf("%s: %+v, want %s", c.name, r, c.kind)
		}
	}
	dates := target(sealed, placement.Check{TLS: &placement.TLSCheck{CA: ca.pem}})
	dates.Hosts = []string{wwwHost}
	if r := ProbeTLS(within(t, 20*time.Second), dates); r.Kind != "warn" || r.State != placement.Up {
		t.Errorf("ten days left: %+v", r)
	}
	dates.Hosts = append(dates.Hosts, "old.demo.test")
	if r := ProbeTLS(within(t, 20*time.Second), dates); r.Kind != "expired" || r.State != placement.Down {
		t.Errorf("one of two names has ended: %+v", r)
	}
	stopped(t, nginx.Process.Pid, plain)
}

// stopped holds a process: its kernel goes on shaking hands, and only what expects
// a word sees that nobody is at home.
func stopped(t *testing.T, pid int, addr string) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	for _, c := range []struct {
		check placement.Check
		probe Prober
		kind  string
	}{
		{tcpCheck("", ""), ProbeTCP, "ok"},
		{tcpCheck("GET /healthz HTTP/1.0\r\nHost: www.cdn.demo.test\r\n\r\n", "200"), ProbeTCP, "timeout"},
		{placement.Check{HTTP: &placement.HTTPCheck{Path: "/healthz"}}, ProbeHTTP, "timeout"},
	} {
		limit := 20 * time.Second
		if c.kind == "timeout" {
			limit = 500 * time.Millisecond
		}
		if r := c.probe(within(t, limit), target(addr, c.check)); r.Kind != c.kind {
			t.Errorf("a stopped process, %s check: %+v, want %s", c.check.Kind(), r, c.kind)
		}
	}
}

// TestProbesOfOpenSSL: certificates as another library serves them.
func TestProbesOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, "ours", 900*day, nil)
	between := newAuthority(t, "between", 5*day, ca)
	for _, c := range []struct {
		name string
		cert tls.Certificate
		kind string // of an HTTPS look
		date string // of a look at the dates
	}{
		{"good", ca.leaf(t, 90*day, []string{wwwHost}), "ok", "ok"},
		{"ended", ca.leaf(t, -time.Hour, []string{wwwHost}), "expired", "expired"},
		{"name", ca.leaf(t, 90*day, []string{"mail.demo.test"}), "name", "ok"},
		{"chain", between.leaf(t, 90*day, []string{wwwHost}, between), "ok", "alarm"},
		{"chain not sent", between.leaf(t, 90*day, []string{wwwHost}), "authority", "ok"},
	} {
		addr := freePort(t)
		crt, key := writeCert(t, dir, strings.ReplaceAll(c.name, " ", "-"), c.cert)
		startDaemon(t, "openssl", "s_server", "-accept", addr, "-cert", crt, "-cert_chain", crt, "-key", key, "-www", "-quiet")
		awaitPort(t, addr)
		tg := target(addr, placement.Check{HTTP: &placement.HTTPCheck{Path: "/", TLS: true, Trust: placement.Trust{CA: ca.pem}}, TLS: &placement.TLSCheck{CA: ca.pem}})
		if r := ProbeHTTP(within(t, 20*time.Second), tg); r.Kind != c.kind {
			t.Errorf("%s: %+v, want %s", c.name, r, c.kind)
		}
		if r := ProbeTLS(within(t, 20*time.Second), tg); r.Kind != c.date {
			t.Errorf("%s: dates %+v, want %s", c.name, r, c.date)
		}
	}
}

const unboundConf = `server:
  interface: %[1]s
  port: %[2]s
  do-daemonize: no
  chroot: ""
  username: ""
  directory: "%[3]s"
  pidfile: "%[3]s/pid"
  use-syslog: no
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "test." nodefault
auth-zone:
  name: "demo.test"
  zonefile: "%[3]s/zone"
  for-upstream: no
remote-control:
  control-enable: no
`

// TestProbesOfUnbound: an authoritative zone of another server, over UDP and TCP,
// with its age.
func TestProbesOfUnbound(t *testing.T) {
	dir := t.TempDir()
	addr := freePort(t)
	ap := netip.MustParseAddrPort(addr)
	zone := fmt.Sprintf("demo.test. 60 IN SOA ns.demo.test. h.demo.test. %d 60 60 600 60\ndemo.test. 60 IN NS ns.demo.test.\nns.demo.test. 60 IN A 192.0.2.53\n", time.Now().Unix()-7200)
	conf := filepath.Join(dir, "unbound.conf")
	for file, text := range map[string]string{conf: fmt.Sprintf(unboundConf, ap.Addr(), strconv.Itoa(int(ap.Port())), dir), filepath.Join(dir, "zone"): zone} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	startDaemon(t, "unbound", "-d", "-c", conf)
	awaitPort(t, addr)
	for _, c := range []struct {
		check placement.DNSCheck
		kind  string
	}{
		{placement.DNSCheck{Name: "demo.test."}, "ok"},
		{placement.DNSCheck{Name: "ns.demo.test.", Type: "A", Expect: "192.0.2.53"}, "ok"},
		{placement.DNSCheck{Name: "ns.demo.test.", Type: "A", Expect: "192.0.2.54"}, "data"},
		{placement.DNSCheck{Name: "demo.test.", MaxAge: placement.Duration(24 * time.Hour)}, "ok"},
		{placement.DNSCheck{Name: "demo.test.", MaxAge: placement.Duration(time.Hour)}, "stale"},
		{placement.DNSCheck{Name: "nothing.demo.test.", Type: "A"}, "rcode"},
	} {
		if r := ProbeDNS(within(t, 20*time.Second), target(addr, placement.Check{DNS: &c.check})); r.Kind != c.kind {
			t.Errorf("%+v: %+v, want %s", c.check, r, c.kind)
		}
	}
}

// inNamespace runs f on a thread in a network namespace of its own, with loopback up;
// thread and namespace end with it.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("a network namespace (this test needs root): %w", err)
			return
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			done <- fmt.Errorf("ip link: %w: %s", err, out)
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestEchoes: with the groups let in, both families answer, an address without a
// host does not, and with the door closed nothing is known. It needs root, as the
// door is a setting of the kernel.
func TestEchoes(t *testing.T) {
	if u, err := user.Current(); err != nil || u.Uid != "0" {
		t.Fatal("this test needs root")
	}
	inNamespace(t, func() {
		door := func(groups string) {
			if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0o644); err != nil {
				t.Error(err)
			}
		}
		within := func(limit time.Duration) func(string) Result {
			return func(addr string) Result {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				return ProbeICMP(ctx, target(addr, placement.Check{ICMP: &placement.ICMPCheck{}}))
			}
		}
		look := within(20 * time.Second) // whatever is seen is seen long before
		door("1 0")
		if r := look("127.0.0.1:80"); r.Kind != "closed" || r.State != placement.Unknown || PingAllowed() == nil {
			t.Errorf("with the door closed: %+v", r)
		}
		door("0 2147483647")
		for addr, want := range map[string]placement.State{"127.0.0.1:80": placement.Up, "[::1]:80": placement.Up, "192.0.2.1:80": placement.Down, "[2001:db8::1]:80": placement.Down} {
			if r := look(addr); r.State != want || (r.Cause == "") != r.OK() {
				t.Errorf("%s: %+v, want %v", addr, r, want)
			}
		}
		if err := PingAllowed(); err != nil {
			t.Error(err)
		}
		dropsEchoes(t, look, within(800*time.Millisecond))
	})
}

// dropsEchoes drops echoes and lets the third of a round through: one of three suffices.
func dropsEchoes(t *testing.T, look, brief func(string) Result) {
	nft := func(rule string) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rule)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("nft: %v: %s", err, out)
		}
	}
	nft("table ip t { chain c { type filter hook output priority 0; icmp type echo-request drop\n}\n}\n")
	if r := brief("127.0.0.1:80"); r.State != placement.Down || r.Kind != "timeout" {
		t.Errorf("echoes are dropped: %+v", r)
	}
	nft("flush ruleset\ntable ip t { chain c { type filter hook input priority 0; icmp type echo-request icmp sequence 1-2 drop\n}\n}\n")
	if r := look("127.0.0.1:80"); r.State != placement.Up || r.First < 2*echoPause {
		t.Errorf("the third echo comes back: %+v", r)
	}
	nft("flush ruleset")
}
