package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// envItself makes this test binary rhumb itself, with the words behind "--".
const envItself = "RHUMB_TEST_ITSELF"

// TestItself is no test: it is rhumb, in a process of its own.
func TestItself(t *testing.T) {
	if os.Getenv(envItself) == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for i, word := range os.Args {
		if word == "--" {
			os.Exit(run(ctx, os.Args[i+1:], os.Stdin, os.Stdout, os.Stderr))
		}
	}
	os.Exit(exitUsage)
}

// manager stands in for systemd: it starts a name server, hears what that says, and
// keeps the sockets that it is given until the next start.
type manager struct {
	t       *testing.T
	dir     string
	program string
	addr    string // of its listener for DNS
	log     logBuffer
	words   *net.UnixConn

	mu   sync.Mutex
	kept []*os.File
	main int // process number
	done sync.WaitGroup
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir := t.TempDir()
	words, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, dir: dir, words: words, program: filepath.Join(dir, "rhumb")}
	host := fmt.Sprintf("127.83.%d.%d", os.Getpid()>>8&255, os.Getpid()&255) // nobody else's
	m.addr = host + ":5300"
	m.install("1")
	// A small database, which is compiled at each start; and a long idle time, so that
	// on a busy machine as well a connection ends by the upgrade or not at all.
	database, err := filepath.Abs("../../placement/geo/testdata/GeoIP2-City-Test.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	m.write("node.yaml", fmt.Sprintf(`version: 1
node: {name: ns1, site: ams1, roles: [authdns], data_dir: %s}
listen: {low: ["%s"], http: "%s:8053", admin: %s}
dns: {tcp: {idle: 10m}}
geo: {databases: [%s]}
store: file
`, filepath.Join(dir, "data"), m.addr, host, dir, database))
	m.zone("192.0.2.10")
	reading := make(chan struct{})
	go func() { defer close(reading); m.read() }()
	t.Cleanup(func() {
		m.stop(syscall.SIGKILL)
		words.Close()
		<-reading
		for _, f := range m.kept {
			f.Close()
		}
		if t.Failed() {
			t.Logf("the log of rhumb ends with:\n%s", lastLines(m.log.String(), 30))
		}
	})
	return m
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(len(lines)-n, 0):], "\n")
}

func (m *manager) write(name, text string) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *manager) replace(name, old, text string) {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil || !strings.Contains(string(b), old) {
		m.t.Fatalf("%s has no %q: %v", name, old, err)
	}
	m.write(name, strings.Replace(string(b), old, text, 1))
}

// install puts a version of the program where it is started from, as a package does:
// a new file under the old name.
func (m *manager) install(v string) {
	m.t.Helper()
	real := m.program + "-" + v
	self, err := os.Executable()
	if err == nil {
		if err = os.Link(self, real); err != nil {
			err = copyProgram(self, real)
		}
	}
	if err == nil {
		os.Remove(m.program + ".new")
		err = os.Symlink(real, m.program+".new")
	}
	if err == nil {
		err = os.Rename(m.program+".new", m.program)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// zone applies a fleet whose one zone says what www is.
func (m *manager) zone(www string) {
	m.t.Helper()
	serial := time.Now().UnixNano() / 1000 % (1 << 31)
	m.write("demo.test.zone", fmt.Sprintf("$ORIGIN demo.test.\n$TTL 60\n@ SOA ns hostmaster %d 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww A %s\n", serial, www))
	m.apply()
}

// apply applies the fleet of the zone as its file is now.
func (m *manager) apply() {
	m.t.Helper()
	m.write("fleet.yaml", `version: 1
mode: act
zones: {dir: ., serve: {demo.test: {level: low}}}
sites: {ams1: {at: [52.3, 4.9], number: 1, region: europe}}
`)
	if err := os.MkdirAll(filepath.Join(m.dir, "data"), 0o755); err != nil {
		m.t.Fatal(err)
	}
	code, _, errs := cli(m.t.Context(), "apply", filepath.Join(m.dir, "fleet.yaml"), "--store", filepath.Join(m.dir, "data", "state.json"), "--yes")
	if code != exitOK {
		m.t.Fatalf("apply: exit %d: %s", code, errs)
	}
}

// start starts the server with all sockets that are kept. The shell only puts the
// number of the process where systemd puts it.
func (m *manager) start() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, m.program, "-test.run", "^TestItself$", "--", "serve", "--config", filepath.Join(m.dir, "node.yaml"))
	cmd.Env = append(os.Environ(), envItself+"=1", "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"), "LISTEN_FDS="+strconv.Itoa(len(m.kept)))
	cmd.ExtraFiles = m.kept
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	cmd.WaitDelay = 10 * time.Second // a successor has the same log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.main = cmd.Process.Pid
	m.done.Go(func() { cmd.Wait() })
}

// stop ends the main process and waits until it is gone.
func (m *manager) stop(sig syscall.Signal) {
	m.mu.Lock()
	pid := m.main
	m.mu.Unlock()
	if pid == 0 {
		return
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err == nil {
		defer unix.Close(fd)
		unix.PidfdSendSignal(fd, sig, nil, 0)
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30_000)
	}
}

// read takes what the main process says, until the socket is closed.
func (m *manager) read() {
	data, control := make([]byte, 4096), make([]byte, unix.CmsgSpace(4*64))
	for {
		n, cn, _, _, err := m.words.ReadMsgUnix(data, control)
		if err != nil {
			return
		}
		m.mu.Lock()
		messages, _ := unix.ParseSocketControlMessage(control[:cn])
		for _, message := range messages {
			fds, _ := unix.ParseUnixRights(&message)
			for _, fd := range fds {
				m.keep(os.NewFile(uintptr(fd), "kept"))
			}
		}
		for _, line := range strings.Split(string(data[:n]), "\n") {
			if pid, ok := strings.CutPrefix(line, "MAINPID="); ok {
				m.main, _ = strconv.Atoi(pid)
			}
		}
		m.mu.Unlock()
	}
}

// keep drops a socket that is kept already, as systemd does.
func (m *manager) keep(f *os.File) {
	for _, k := range m.kept {
		a, aerr := k.Stat()
		b, berr := f.Stat()
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			f.Close()
			return
		}
	}
	m.kept = append(m.kept, f)
}

func (m *manager) pid() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.main
}

func (m *manager) sockets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.kept)
}

// open counts the sockets which the kernel has for our address: all for UDP and those
// for TCP that listen (proc_net(5)).
func (m *manager) open() (n int) {
	m.t.Helper()
	at := netip.MustParseAddrPort(m.addr)
	ip := at.Addr().As4()
	local := fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(ip[:]), at.Port())
	for file, state := range map[string]string{"udp": "", "tcp": "0A"} {
		b, err := os.ReadFile("/proc/self/net/" + file)
		if err != nil {
			m.t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); f[1] == local && (state == "" || f[3] == state) {
				n++
			}
		}
	}
	return n
}

// ask asks for www once and returns the address; empty without an answer.
func (m *manager) ask() string {
	c := dns.Client{Timeout: time.Second}
	r, _, err := c.Exchange(new(dns.Msg).SetQuestion("www.demo.test.", dns.TypeA), m.addr)
	if err != nil || len(r.Answer) != 1 {
		return ""
	}
	return r.Answer[0].(*dns.A).A.String()
}

// crowd asks all the time, a query after the answer to the one before in each lane.
type crowd struct {
	stop           chan struct{}
	lanes          sync.WaitGroup
	answered, lost atomic.Int64
	odd            atomic.Int64 // answers that are not a good one
}

// lanes is how many queries may be in flight.
const lanes = 8

// patience is when a query counts as lost: long after any resolver has asked again,
// since what is shown is that none is lost, and not how fast this machine is.
const patience = 20 * time.Second

func newCrowd(t *testing.T, addr string) *crowd {
	t.Helper()
	c := &crowd{stop: make(chan struct{})}
	for range lanes {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		c.lanes.Go(func() {
			defer conn.Close()
			c.lane(conn)
		})
	}
	t.Cleanup(c.end)
	return c
}

func (c *crowd) lane(conn net.Conn) {
	query, err := new(dns.Msg).SetQuestion("www.demo.test.", dns.TypeA).Pack()
	if err != nil {
		panic(err)
	}
	buf := make([]byte, 1500)
	for id := uint16(1); ; id++ {
		select {
		case <-c.stop:
			return
		default:
		}
		binary.BigEndian.PutUint16(query, id)
		conn.SetDeadline(time.Now().Add(patience))
		n := 0
		if _, err = conn.Write(query); err == nil {
			for n, err = conn.Read(buf); err == nil && binary.BigEndian.Uint16(buf) != id; {
				n, err = conn.Read(buf)
			}
		}
		switch {
		case err != nil: // none in time, or the kernel says that nobody is there
			c.lost.Add(1)
		case n < 12 || buf[3]&15 != dns.RcodeSuccess || buf[7] != 1:
			c.odd.Add(1)
		default:
			c.answered.Add(1)
		}
		time.Sleep(500 * time.Microsecond) // the rate is not what is tested
	}
}

// more waits until so many queries more are answered.
func (c *crowd) more(t *testing.T, n int64) {
	t.Helper()
	want := c.answered.Load() + n
	eventually(t, fmt.Sprintf("%d queries more are answered", n), func() bool { return c.answered.Load() >= want })
}

// end stops asking; it may be called twice.
func (c *crowd) end() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.lanes.Wait()
}

// TestUpgradeLosesNothing: while a thousand queries and more are asked a second, a new
// fleet, a reload, an upgrade to another program and two more lose none; a connection
// over TCP is served to its end by the process that took it. A crash and a restart lose
// what was in flight and no more, where somebody holds the sockets.
func TestUpgradeLosesNothing(t *testing.T) {
	m := newManager(t)
	m.start()
	eventually(t, "the server answers", func() bool { return m.ask() == "192.0.2.10" })
	held := m.open() // after an answer all are
	if held < 2 {
		t.Fatalf("the kernel has %d sockets of %s, want one for UDP and one for TCP at least", held, m.addr)
	}
	eventually(t, "all sockets are kept outside", func() bool { return m.sockets() == held })
	c := newCrowd(t, m.addr)
	c.more(t, 500)

	m.zone("192.0.2.20")
	eventually(t, "the new fleet is served", func() bool { return m.ask() == "192.0.2.20" })
	syscall.Kill(m.pid(), syscall.SIGHUP)
	eventually(t, "the reload is told", func() bool { return strings.Contains(m.log.String(), "the node file is as it was") })
	c.more(t, 200)

	for v := 2; v <= 3; v++ {
		m.upgradeTo(strconv.Itoa(v))
		c.more(t, 300)
	}
	c.end()
	t.Logf("fleet, reload and two upgrades: %d answered, %d lost, %d odd", c.answered.Load(), c.lost.Load(), c.odd.Load())
	if c.lost.Load() != 0 || c.odd.Load() != 0 {
		t.Errorf("fleet, reload and two upgrades: %d of %d queries lost, %d answered with something else; want none", c.lost.Load(), c.answered.Load(), c.odd.Load())
	}
	if got := m.sockets(); got != held {
		t.Errorf("%d sockets are kept after the upgrades, want the same %d", got, held)
	}

	for name, sig := range map[string]syscall.Signal{"restart": syscall.SIGTERM, "kill": syscall.SIGKILL} {
		c := newCrowd(t, m.addr)
		c.more(t, 300)
		m.stop(sig)
		m.start()
		c.more(t, 300)
		c.end()
		t.Logf("%s: %d answered, %d lost", name, c.answered.Load(), c.lost.Load())
		// At SIGTERM what was read is answered; at SIGKILL a batch is lost at most.
		if most := map[string]int64{"kill": lanes}[name]; c.lost.Load() > most || c.odd.Load() != 0 {
			t.Errorf("%s: %d of %d queries lost, %d answered with something else; want at most %d lost", name, c.lost.Load(), c.answered.Load(), c.odd.Load(), most)
		}
	}
}

// upgradeTo installs a program and has it take over, with a connection open.
func (m *manager) upgradeTo(v string) {
	t := m.t
	t.Helper()
	conn, err := net.Dial("tcp", m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tcp := &dns.Conn{Conn: conn}
	overTCP := func(when string) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(patience))
		if err := tcp.WriteMsg(new(dns.Msg).SetQuestion("www.demo.test.", dns.TypeA)); err != nil {
			t.Errorf("over TCP %s: %v", when, err)
		} else if r, err := tcp.ReadMsg(); err != nil || len(r.Answer) != 1 {
			t.Errorf("over TCP %s: %v, %v; want an answer", when, r, err)
		}
	}
	overTCP("before the upgrade")
	before := m.pid()
	m.install(v)
	code, out, errs := cli(t.Context(), "upgrade", "dns", "--config", filepath.Join(m.dir, "node.yaml"))
	if code != exitOK {
		t.Fatalf("upgrade: exit %d, %q, %q", code, out, errs)
	}
	eventually(t, "the service manager hears of another main process", func() bool { return m.pid() != before })
	if want := fmt.Sprintf("process %d answers now\n", m.pid()); out != want {
		t.Errorf("upgrade says %q, want %q", out, want)
	}
	overTCP("after the upgrade, by the process before")
	conn.Close()
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", m.pid())); err != nil || filepath.Base(exe) != "rhumb-"+v {
		t.Errorf("process %d runs %s (%v), want rhumb-%s", m.pid(), exe, err, v)
	}
	eventually(t, "the process before has ended", func() bool { return syscall.Kill(before, 0) != nil })
	if code, out, errs := cli(t.Context(), "status", "--server", filepath.Join(m.dir, "rhumb-dns.sock")); code != exitOK {
		t.Errorf("status of the successor: exit %d\n%s%s", code, out, errs)
	}
	host, _, _ := net.SplitHostPort(m.addr)
	eventually(t, "the successor counts queries", func() bool { return m.ask() != "" && counts("http://"+host+":8053/metrics") })
}

// counts tells whether a server has counted a query.
func counts(url string) bool {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Host = "localhost" // loopback is served under no other name
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return err == nil && strings.Contains(string(b), "\nrhumb_dns_requests_total{")
}

// TestUpgradeFails: a successor that cannot start leaves everything as it was.
func TestUpgradeFails(t *testing.T) {
	m := newManager(t)
	m.start()
	eventually(t, "the server answers", func() bool { return m.ask() == "192.0.2.10" })
	c := newCrowd(t, m.addr)
	before := m.pid()
	m.replace("node.yaml", "store: file", "store: file\nnonsense: 1")
	// The command itself reads the good file; what the successor reads is the other.
	good := filepath.Join(m.dir, "good.yaml")
	m.write("good.yaml", fmt.Sprintf("version: 1\nnode: {name: ns1, site: ams1, roles: [authdns], data_dir: %s}\nlisten: {low: [\"%s\"], admin: %s}\nstore: file\n", m.dir, m.addr, m.dir))
	code, _, errs := cli(t.Context(), "upgrade", "dns", "--config", good)
	if code != exitFailed || !strings.Contains(errs, "ended before it answered") {
		t.Errorf("upgrade: exit %d, %q; want %d and that it ended", code, errs, exitFailed)
	}
	c.more(t, 300)
	c.end()
	if m.pid() != before || m.ask() != "192.0.2.10" || c.lost.Load() != 0 {
		t.Errorf("after the failed upgrade: process %d (was %d), answer %q, %d lost", m.pid(), before, m.ask(), c.lost.Load())
	}
	m.replace("node.yaml", "\nnonsense: 1", "")
	m.upgradeTo("2")
	if code, _, _ := cli(t.Context(), "upgrade", "everything", "--config", good); code != exitUsage {
		t.Errorf("upgrade everything: exit %d, want %d", code, exitUsage)
	}
	m.stop(syscall.SIGTERM)
	if code, _, errs := cli(t.Context(), "upgrade", "dns", "--config", good); code != exitUnreachable {
		t.Errorf("upgrade of nobody: exit %d, %q; want %d", code, errs, exitUnreachable)
	}
}

// TestProgramOf: the file behind the name it was started by, or else the one that runs.
func TestProgramOf(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "rhumb")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{link: link, "a-name-that-no-file-has": self} {
		if got, err := programOf(name); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, want)
		}
	}
}
