//go:build e2e

package edge

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/fnv"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// world is a client, a router and sites a and b, all with the VIPs on lo; the
// agents and the load run as processes of this test binary.
type world struct {
	t        testing.TB
	prefix   string
	dir      string
	deadline time.Duration // of drains
	binary   string        // of the processes; empty: this one
}

const (
	vip4 = "192.0.2.10"
	vip6 = "2001:db8:100::10"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldFor(t, t.Name())
}

// newWorldFor makes one of several worlds of a test, by a name of its own.
func newWorldFor(t testing.TB, called string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	name := fnv.New32a()
	name.Write([]byte(called)) // some run beside each other
	w := &world{t: t, prefix: fmt.Sprintf("ed%d-%x-", os.Getpid(), name.Sum32()), dir: t.TempDir(), deadline: time.Hour}
	w.host("r")
	for i, n := range []string{"c", "a", "b"} {
		w.host(n)
		w.link(i, n)
	}
	w.in("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	w.route("a")
	w.certificates()
	return w
}

// host makes a network namespace.
func (w *world) host(n string) {
	w.run("ip netns add " + w.prefix + n)
	w.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", w.prefix+n).Run() })
	w.in(n, "ip link set lo up")
}

// link connects the ith host to the router.
func (w *world) link(i int, n string) {
	w.in("r", fmt.Sprintf("ip link add %s0 type veth peer name e0 netns %s%s", n, w.prefix, n))
	w.in("r", fmt.Sprintf("sysctl -qw net.ipv6.conf.%s0.accept_dad=0", n))
	w.in(n, "sysctl -qw net.ipv6.conf.e0.accept_dad=0")
	w.in("r", fmt.Sprintf("ip addr add 198.51.100.%d/30 dev %s0", i*4+1, n))
	w.in("r", fmt.Sprintf("ip addr add 2001:db8:%d::1/64 dev %s0 nodad", i+1, n))
	w.in("r", "ip link set "+n+"0 up")
	w.in(n, fmt.Sprintf("ip addr add 198.51.100.%d/30 dev e0", i*4+2))
	w.in(n, fmt.Sprintf("ip addr add 2001:db8:%d::2/64 dev e0 nodad", i+1))
	w.in(n, "ip link set e0 up")
	w.in(n, fmt.Sprintf("ip route add default via 198.51.100.%d", i*4+1))
	w.in(n, fmt.Sprintf("ip -6 route add default via 2001:db8:%d::1", i+1))
}

// route points the VIPs at a site, for every packet from now on.
func (w *world) route(to string) {
	i := siteNumber(to)
	w.in("r", fmt.Sprintf("ip route replace %s/32 via 198.51.100.%d", vip4, i*4+2))
	w.in("r", fmt.Sprintf("ip -6 route replace %s/128 via 2001:db8:%d::2", vip6, i+1))
}

// siteNumber is that of a site's link.
func siteNumber(site string) int { return map[string]int{"a": 1, "b": 2, "d": 3, "e": 4}[site] }

func control(site string) string { return fmt.Sprintf("198.51.100.%d:7946", siteNumber(site)*4+2) }

func (w *world) run(line string) string {
	w.t.Helper()
	f := strings.Fields(line)
	out, err := exec.Command(f[0], f[1:]...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func (w *world) in(n, line string) string {
	w.t.Helper()
	return w.run("ip netns exec " + w.prefix + n + " " + line)
}

// certificates makes a CA and one certificate a site.
func (w *world) certificates() {
	ca, caKey := w.certificate("ca", nil, nil)
	for _, site := range []string{"a", "b", "d", "e", "s"} {
		w.certificate(site, ca, caKey)
	}
}

func (w *world) certificate(name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true}
	if parent == nil {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		parent, signer = c, key
	} else {
		c.DNSNames = []string{name}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	w.write(name+".key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
	got, err := x509.ParseCertificate(der)
	if err != nil {
		w.t.Fatal(err)
	}
	return got, key
}

func (w *world) write(name string, b []byte) {
	p := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// process is a role of this test binary in a namespace. It is told lines and
// answers each by one line of JSON.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (w *world) start(n, role string, args any) *process {
	w.t.Helper()
	b, err := json.Marshal(args)
	if err != nil {
		w.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	if w.binary != "" {
		self = w.binary
	}
	p := &process{t: w.t, cmd: exec.Command("ip", "netns", "exec", w.prefix+n, self)}
	p.cmd.Env = append(os.Environ(), "EDGE_ROLE="+role, "EDGE_ARGS="+string(b))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	p.out.Buffer(nil, 64<<20)
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		p.in.Close() // the role ends at the end of its input
		end := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
		defer end.Stop()
		p.cmd.Wait()
	})
	return p
}

// tell sends a line.
func (p *process) tell(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
}

// next reads an answer; the test's own timeout bounds it.
func (p *process) next(v any) {
	p.t.Helper()
	late := time.AfterFunc(90*time.Second, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	if !p.out.Scan() {
		p.t.Fatalf("process ended without an answer: %v", p.out.Err())
	}
	if err := json.Unmarshal(p.out.Bytes(), v); err != nil {
		p.t.Fatalf("answer %q: %v", p.out.Text(), err)
	}
}

// ask is tell and next.
func (p *process) ask(line string, v any) {
	p.t.Helper()
	p.tell(line)
	p.next(v)
}
