//go:build e2e

package bgp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// lab is one bridge in a namespace and hosts around it, each a namespace.
type lab struct {
	t   *testing.T
	dir string
	id  string
}

// Addresses of the lab: 198.51.100.N and 2001:db8:1::N.
func addr4(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("198.51.100.%d", n)) }
func addr6(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8:1::%d", n)) }

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root: run the e2e tests as root")
	}
	dir, err := os.MkdirTemp("", "rhumb-bgp-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // FRR's daemons enter it as another user
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{t: t, dir: dir, id: "rb" + strconv.Itoa(os.Getpid()%100000) + strings.ToLower(t.Name()[4:6])}
	l.netns("sw")
	l.ip("-n", l.ns("sw"), "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.ns("sw"), "link", "set", "br0", "up")
	return l
}

func (l *lab) ns(host string) string { return l.id + host }

func (l *lab) netns(host string) {
	l.t.Helper()
	l.ip("netns", "add", l.ns(host))
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", l.ns(host)).Run() })
	l.ip("-n", l.ns(host), "link", "set", "lo", "up")
	// Without a search for duplicates link-local addresses stand as soon as the link
	// does: a router that begins before has no IPv6 next hop for the whole session.
	for _, key := range []string{"all", "default"} {
		l.run("ip", "netns", "exec", l.ns(host), "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/"+key+"/accept_dad")
	}
}

func (l *lab) ip(args ...string) string { l.t.Helper(); return l.run("ip", args...) }

func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// host adds a namespace with e0 on the bridge and the given addresses.
func (l *lab) host(name string, numbers ...int) {
	l.t.Helper()
	l.netns(name)
	peer := "p" + name
	l.ip("-n", l.ns(name), "link", "add", "e0", "type", "veth", "peer", "name", peer, "netns", l.ns("sw"))
	l.ip("-n", l.ns("sw"), "link", "set", peer, "master", "br0", "up")
	for _, n := range numbers {
		l.ip("-n", l.ns(name), "addr", "add", addr4(n).String()+"/24", "dev", "e0")
		l.ip("-n", l.ns(name), "addr", "add", addr6(n).String()+"/64", "dev", "e0", "nodad")
	}
	l.ip("-n", l.ns(name), "link", "set", "e0", "up")
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		l.run("ip", "netns", "exec", l.ns(name), "sh", "-c", "echo 1 > /proc/sys/net/"+key)
	}
}

// process is a child in a namespace whose stdout lines can be awaited.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	mu    sync.Mutex
	lines []line
	more  chan struct{} // closed by the next line; under mu
	done  chan struct{}
}

type line struct {
	at   time.Time
	text string
}

func (l *lab) start(host, name string, env []string, args ...string) *process {
	l.t.Helper()
	p := &process{t: l.t, name: host + "/" + filepath.Base(name), more: make(chan struct{}), done: make(chan struct{})}
	p.cmd = exec.Command("ip", append([]string{"netns", "exec", l.ns(host), name}, args...)...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = &tail{p: p}
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		p.in, err = p.cmd.StdinPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		l.t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		in := bufio.NewScanner(out)
		for in.Scan() {
			p.add(in.Text())
		}
		p.cmd.Wait()
		close(p.done)
	}()
	l.t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if l.t.Failed() {
			l.t.Logf("%s said:\n%s", p.name, p.text())
		}
	})
	return p
}

// tail puts a process's stderr between its lines.
type tail struct{ p *process }

func (w *tail) Write(b []byte) (int, error) {
	for text := range strings.Lines(string(b)) { // several may come at once
		w.p.add("! " + strings.TrimRight(text, "\n"))
	}
	return len(b), nil
}

func (p *process) add(text string) {
	p.mu.Lock()
	p.lines = append(p.lines, line{time.Now(), text})
	close(p.more)
	p.more = make(chan struct{})
	p.mu.Unlock()
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	for _, l := range p.lines {
		fmt.Fprintf(&b, "%s %s\n", l.at.Format("05.000"), l.text)
	}
	return b.String()
}

// mark returns a position after which expect looks.
func (p *process) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.lines)
}

// patience is how long an event is awaited: it costs nothing when the event comes, and a
// busy machine may take its time. A bound which is what a test shows is compared with the
// time at which the event came.
const patience = time.Minute

// expect waits for a line with all the words, said after the mark, and returns when it came.
func (p *process) expect(from int, words ...string) time.Time {
	p.t.Helper()
	return p.expectIn(p.t, from, words...)
}

// expectIn is expect in a test which is not the one that started the process.
func (p *process) expectIn(t *testing.T, from int, words ...string) time.Time {
	t.Helper()
	deadline := time.After(patience)
	for ended := false; ; {
		p.mu.Lock()
		for _, l := range p.lines[from:] {
			if containsAll(l.text, words) {
				p.mu.Unlock()
				return l.at
			}
		}
		more := p.more
		p.mu.Unlock()
		if ended {
			t.Fatalf("%s ended before it said %q:\n%s", p.name, words, p.text())
		}
		select {
		case <-more:
		case <-p.done: // all that it said is there now: look once more
			ended = true
		case <-deadline:
			t.Fatalf("%s did not say %q in %v:\n%s", p.name, words, patience, p.text())
		}
	}
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// tell sends a command line and waits until it is done.
func (p *process) tell(cmd string) time.Time {
	p.t.Helper()
	from, at := p.mark(), time.Now()
	if _, err := io.WriteString(p.in, cmd+"\n"); err != nil {
		p.t.Fatalf("%s: %v", p.name, err)
	}
	p.expect(from, "done "+cmd)
	return at
}

// helper starts this test binary as a speaker, engine or transit router.
func (l *lab) helper(host string, c helperConfig, env ...string) *process {
	l.t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		l.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	// The race detector otherwise keeps an ending process for a second.
	return l.start(host, self, append(env, "GORACE=atexit_sleep_ms=0", helperEnv+"="+string(raw)))
}

// fib follows the kernel routes of a host.
func (l *lab) fib(host string) *process {
	l.t.Helper()
	p := l.start(host, "ip", nil, "-o", "monitor", "route")
	probe := "203.0.113." + strconv.Itoa(1+p.cmd.Process.Pid%250) // seen once the monitor listens
	until(l.t, "route monitor", func() bool {
		exec.Command("ip", "-n", l.ns(host), "route", "replace", "blackhole", probe).Run()
		exec.Command("ip", "-n", l.ns(host), "route", "del", "blackhole", probe).Run()
		return strings.Contains(p.text(), probe)
	})
	return p
}

// routes returns the kernel's routes for a prefix.
func (l *lab) routes(host, prefix string) string {
	l.t.Helper()
	return l.ip("-n", l.ns(host), family(prefix), "route", "show", prefix)
}

func family(prefix string) string {
	if strings.Contains(prefix, ":") {
		return "-6"
	}
	return "-4"
}

// until polls a condition which no event reports.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// bird starts BIRD with our shipped filters and the given protocols.
func (l *lab) bird(host string, config string) (query func(...string) string) {
	l.t.Helper()
	return l.birdOf(host, `protocol direct { ipv4; ipv6; }
protocol kernel { merge paths on limit 8; ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { merge paths on limit 8; ipv6 { import none; export where source = RTS_BGP; }; }
include "`+shipped(l.t, "bird/rhumb-peer.conf")+`";
`+config)
}

// shipped returns where a file of etc lies.
func shipped(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs("../etc/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// birdOf starts BIRD with a configuration of its own.
func (l *lab) birdOf(host string, config string) (query func(...string) string) {
	l.t.Helper()
	conf, ctl := filepath.Join(l.dir, host+".conf"), filepath.Join(l.dir, host+".ctl")
	head := `log "` + filepath.Join(l.dir, host+".log") + `" all;
protocol device {}
`
	if err := os.WriteFile(conf, []byte(head+config), 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.start(host, "bird", nil, "-f", "-c", conf, "-s", ctl)
	until(l.t, "bird's socket", func() bool { _, err := os.Stat(ctl); return err == nil })
	l.t.Cleanup(func() {
		if l.t.Failed() {
			out, _ := exec.Command("birdc", "-s", ctl, "show", "route", "all").CombinedOutput()
			log, _ := os.ReadFile(filepath.Join(l.dir, host+".log"))
			l.t.Logf("bird's routes:\n%s\nbird's log:\n%s", out, log)
		}
	})
	return func(args ...string) string {
		out, _ := exec.Command("birdc", append([]string{"-s", ctl}, args...)...).CombinedOutput()
		return string(out)
	}
}

// frr starts zebra, bfdd and bgpd by hand with the given configuration.
func (l *lab) frr(host, config string) (query func(string) string) {
	l.t.Helper()
	dir := filepath.Join(l.dir, host)
	u, err := user.Lookup("frr")
	if err != nil {
		l.t.Fatal("FRR is not installed: ", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Mkdir(dir, 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		l.t.Fatal(err)
	}
	for _, d := range []struct{ name, conf string }{{"zebra", ""}, {"bfdd", ""}, {"bgpd", config}} {
		conf := filepath.Join(dir, d.name+".conf")
		if err := os.WriteFile(conf, []byte(d.conf), 0o644); err != nil {
			l.t.Fatal(err)
		}
		args := []string{"-f", conf, "-i", filepath.Join(dir, d.name+".pid"), "-z", filepath.Join(dir, "zserv.api"), "--vty_socket", dir}
		if d.name == "bfdd" {
			args = append(args, "--bfdctl", filepath.Join(dir, "bfdd.ctl"))
		}
		l.start(host, "/usr/lib/frr/"+d.name, nil, args...)
		until(l.t, d.name, func() bool { _, err := os.Stat(filepath.Join(dir, d.name+".vty")); return err == nil })
	}
	l.t.Cleanup(func() {
		if l.t.Failed() {
			out, _ := exec.Command("vtysh", "--vty_socket", dir, "-c", "show bgp ipv4 unicast", "-c", "show bgp ipv6 unicast", "-c", "show ip route", "-c", "show bgp summary", "-c", "show bfd peers").CombinedOutput()
			l.t.Logf("frr's routes:\n%s", out)
		}
	})
	return func(cmd string) string {
		out, _ := exec.Command("vtysh", "--vty_socket", dir, "-c", cmd).CombinedOutput()
		return string(out)
	}
}

// shippedFRR is our example configuration for FRR with another password.
func shippedFRR(t *testing.T, password string) string {
	t.Helper()
	b, err := os.ReadFile("../etc/frr/rhumb-peer.conf")
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "change-me", password)
}

func (p *process) signal(s syscall.Signal) time.Time {
	at := time.Now()
	p.cmd.Process.Signal(s)
	return at
}
