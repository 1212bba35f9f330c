//go:build e2e

package forward

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"rhumb/placement"
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

// agentConfig is what a forwarder's process is told.
type agentConfig struct {
	Site    string
	Local   netip.AddrPort
	Peer    string
	PeerAt  netip.AddrPort
	VIPs    []netip.AddrPort
	Act     bool
	PathMTU int
	QUIC    QUIC
	Others  []Peer // beside Peer, without keys
	Near    bool   // all of them are edges of one site
}

// agentStats is its answer to "stats".
type agentStats struct {
	Metrics map[string]float64
	Flows   []Forwarded
	Owned   map[string]int
	CPU     time.Duration
	Foreign int
	Known   int // flows that the peer announced
	Relays  []Relay
}

// runAgent runs a forwarder until SIGTERM and obeys lines on standard input.
func runAgent(text string) error {
	var c agentConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	mode := Observe
	if c.Act {
		mode = Act
	}
	told := make(chan struct{}, 1<<16)
	key := sha256.Sum256([]byte("the lab's pair key"))
	peers := []Peer{{Site: c.Peer, Near: c.Near, Addr: c.PeerAt, Key: key}}
	for _, p := range c.Others {
		peers = append(peers, Peer{Site: p.Site, Near: c.Near, Addr: p.Addr, Key: key})
	}
	f, err := New(Config{Site: c.Site, Local: c.Local, VIPs: c.VIPs, Mode: mode, Registerer: registry, PathMTU: c.PathMTU,
		Peers:     peers,
		OnForeign: func(Flow, string, time.Time) { told <- struct{}{} },
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	if err := f.SetQUIC(c.QUIC); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	go obey(f, registry, told)
	return <-done
}

func obey(f *Forwarder, registry *prometheus.Registry, told chan struct{}) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		command, rest, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case "hears":
			var list []placement.Hearing
			if err := json.Unmarshal([]byte(rest), &list); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			f.SetHearing(list)
			fmt.Println("{}")
		case "ready":
			for f.ends.Load() == nil {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("{}")
		case "silent":
			f.SetSilent(strings.Fields(rest))
			fmt.Println("{}")
		case "announce-near":
			n, err := f.AnnounceNear()
			fmt.Printf("{\"Foreign\":%d}\n", n)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		case "announce":
			n, err := f.Announce()
			fmt.Printf("{\"Foreign\":%d}\n", n)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		case "stats":
			s := agentStats{Metrics: gather(registry), Flows: f.Flows(), Owned: map[string]int{}, Foreign: len(told), Known: f.known(), Relays: f.Relays()}
			owned, err := f.Owned()
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			for vip, n := range owned {
				s.Owned[vip.String()] = n
			}
			var usage unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &usage)
			s.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
			b, _ := json.Marshal(s)
			fmt.Println(string(b))
		}
	}
}

// known counts the flows which peers announced.
func (f *Forwarder) known() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, p := range f.peers.Load().bySite {
		n += len(p.digests)
	}
	return n
}

func gather(registry *prometheus.Registry) map[string]float64 {
	values := map[string]float64{}
	families, _ := registry.Gather()
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "rhumb_edge_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// space is a network namespace with a thread that lives in it.
type space struct {
	name string
	work chan func()
	fd   int
}

// newSpace makes a namespace. It goes when its thread and processes have gone.
func newSpace(t *testing.T, name string) *space {
	t.Helper()
	s := &space{name: name, work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}
		ready <- err
		for f := range s.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("make network namespace %s (root, or a user namespace, is needed): %v", name, err)
	}
	t.Cleanup(func() { close(s.work); _ = unix.Close(s.fd) })
	s.must(t, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	s.sysctl(t, "ipv6/conf/default/accept_dad", "0") // addresses work at once
	return s
}

// do runs f inside the namespace.
func (s *space) do(f func() error) error {
	done := make(chan error)
	s.work <- func() { done <- f() }
	return <-done
}

func (s *space) must(t *testing.T, f func() error) {
	t.Helper()
	if err := s.do(f); err != nil {
		t.Fatalf("in namespace %s: %v", s.name, err)
	}
}

// start runs a program inside the namespace and ends it with the test.
func (s *space) start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.must(t, cmd.Start)
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// run runs a program inside the namespace to its end.
func (s *space) run(name string, args ...string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	defer stop()
	cmd := exec.CommandContext(ctx, name, args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := s.do(cmd.Start); err != nil {
		return "", err
	}
	err := cmd.Wait()
	return out.String(), err
}

func (s *space) dial(to netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := s.do(func() (err error) {
		conn, err = net.DialTimeout("tcp", to.String(), patience)
		return err
	})
	return conn, err
}

// join makes a link between two namespaces, with an address pair per family.
func join(t *testing.T, a, b *space, aAddrs, bAddrs []string) {
	t.Helper()
	aName, bName := "to-"+b.name, "to-"+a.name
	a.must(t, func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: aName, MTU: 1500},
			PeerName: bName, PeerMTU: 1500, PeerNamespace: netlink.NsFd(b.fd)})
	})
	address := func(s *space, name string, addrs []string) {
		s.must(t, func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			for _, text := range addrs {
				if err := addAddress(link, text); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(link)
		})
	}
	address(a, aName, aAddrs)
	address(b, bName, bAddrs)
}

func addAddress(link netlink.Link, text string) error {
	addr, err := netlink.ParseAddr(text)
	if err != nil {
		return err
	}
	addr.Flags = unix.IFA_F_NODAD
	return netlink.AddrAdd(link, addr)
}

// route points a destination at a gateway.
func (s *space) route(dst, via string) error {
	return s.do(func() error {
		_, net4, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{Dst: net4, Gw: net.ParseIP(via)})
	})
}

func (s *space) sysctl(t *testing.T, path, value string) {
	t.Helper()
	s.must(t, func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) })
}

// counter reads a value of /proc/net/snmp, snmp6 or netstat inside the namespace.
func (s *space) counter(t *testing.T, file, group, name string) int {
	t.Helper()
	var text []byte
	s.must(t, func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/" + file)
		return err
	})
	var names []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if group == "" && len(fields) == 2 && fields[0] == name { // snmp6 has a line for each
			v, _ := strconv.Atoi(fields[1])
			return v
		}
		if len(fields) == 0 || fields[0] != group+":" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, n := range names {
			if n == name {
				v, _ := strconv.Atoi(fields[i])
				return v
			}
		}
	}
	t.Fatalf("no counter %s %s in %s", group, name, file)
	return 0
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

// agent is a forwarder in a process of its own.
type agent struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	site *site
}

// startAgents runs a forwarder at both sites.
func (l *lab) startAgents(t *testing.T, act bool) {
	t.Helper()
	l.a.agent = l.startAgent(t, l.a, l.b, act)
	l.b.agent = l.startAgent(t, l.b, l.a, act)
}

func (l *lab) startAgent(t *testing.T, s, other *site, act bool, others ...*site) *agent {
	t.Helper()
	var more []Peer
	for _, o := range others {
		more = append(more, Peer{Site: o.letter, Addr: o.tunnelAt})
	}
	config, err := json.Marshal(agentConfig{Site: s.letter, Local: s.tunnelAt, Peer: other.letter, PeerAt: other.tunnelAt, VIPs: append(vips(), l.more...), Act: act, PathMTU: l.pathMTU, QUIC: l.quic, Others: more, Near: l.near})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), agentEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.start(t, cmd)
	a := &agent{cmd: cmd, in: in, out: bufio.NewReader(out), site: s}
	a.tell(t, "ready")
	return a
}

// tell sends a command and reads the answer. A forwarder that doesn't answer is
// killed: its stack tells why.
func (a *agent) tell(t *testing.T, command string) agentStats {
	t.Helper()
	var s agentStats
	bound := time.AfterFunc(30*time.Second, func() { _ = a.cmd.Process.Signal(syscall.SIGABRT) })
	defer bound.Stop()
	if _, err := fmt.Fprintln(a.in, command); err != nil {
		t.Fatalf("agent of site %s: %v", a.site.letter, err)
	}
	line, err := a.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s)
	}
	if err != nil {
		t.Fatalf("agent of site %s answers %q: %v", a.site.letter, line, err)
	}
	return s
}
