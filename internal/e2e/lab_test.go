//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rhumb/internal/netlab"
	"rhumb/placement"
)

// lab is one running `rhumb lab`.
type lab struct {
	t    testing.TB
	dir  string
	dns  netip.AddrPort // the host's DNS listener, UDP and TCP
	http netip.AddrPort // the host's page
	// took is the time from the start of the process to `lab ready`.
	took  time.Duration
	began time.Time
	line  *timeline

	mark string // in the environment of every process of this lab
	cmd  *exec.Cmd
	out  labOutput
	end  chan struct{} // closed when the process has ended

	applied string // the fleet applied last; "": the one of the start
	gates   int    // of downloads, so far

	ownerOnce sync.Once
	owner     map[netip.Addr]string // unicast address → site
	first     map[string]netip.Addr // site → its first own address
}

// readyIn bounds a start: longer than the lab's own patience of two minutes, so that it
// is the lab which says what is missing.
const readyIn = 150 * time.Second

// startLab starts a lab with more arguments and waits until it is ready. It ends
// with the test, which fails if anything of it stays.
func startLab(t testing.TB, args ...string) *lab {
	t.Helper()
	l := newLab(t, stateDir(t))
	l.start(exec.Command(binary(t), append([]string{"lab", "--dir", l.dir}, args...)...))
	l.awaitReady()
	return l
}

// stateDir makes a directory for a lab, which all users may enter: some daemons
// give up root before they open their files.
func stateDir(t testing.TB) string {
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newLab(t testing.TB, dir string) *lab {
	return &lab{t: t, dir: dir, line: newTimeline(t), end: make(chan struct{}), mark: fmt.Sprintf("RHUMB_E2E=%d.%d", os.Getpid(), time.Now().UnixNano())}
}

func binary(t testing.TB) string {
	bin, err := filepath.Abs(os.Getenv("RHUMB_BIN"))
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// start runs the command on a thread which lives as long as it does, so that the
// lab dies with this process, however that happens.
func (l *lab) start(cmd *exec.Cmd) {
	l.t.Helper()
	l.cmd = cmd
	l.out.ready = make(chan struct{})
	cmd.Stdout, cmd.Stderr = &l.out, &l.out
	cmd.Env = append(os.Environ(), l.mark)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig, cmd.SysProcAttr.Setpgid = syscall.SIGKILL, true
	began, started := time.Now(), make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(l.end)
		}
	}()
	if err := <-started; err != nil {
		l.t.Fatalf("start the lab: %v", err)
	}
	l.began = began
	l.t.Cleanup(l.finish)
}

var (
	pageLine = regexp.MustCompile(`page\s+http://([0-9.:]+)/`)
	digLine  = regexp.MustCompile(`dig @(\S+) -p (\d+)`)
)

// awaitReady waits for the last line of the start and reads the ports before it.
func (l *lab) awaitReady() {
	l.t.Helper()
	select {
	case <-l.out.ready:
	case <-l.end:
		l.t.Fatalf("the lab ended before it was ready:\n%s", l.out.text())
	case <-time.After(readyIn):
		l.t.Fatalf("the lab is not ready after %s:\n%s", readyIn, l.out.text())
	}
	text := l.out.text()
	page, dig := pageLine.FindStringSubmatch(text), digLine.FindStringSubmatch(text)
	if page == nil || dig == nil {
		l.t.Fatalf("the lab does not print its ports:\n%s", text)
	}
	l.http = netip.MustParseAddrPort(page[1])
	l.dns = netip.MustParseAddrPort(dig[1] + ":" + dig[2])
	l.took = l.out.readyAt.Sub(l.began)
	l.line.eventf("lab ready after %.1f s", l.took.Seconds())
}

// finish ends the lab as Ctrl-C does, if it still runs, and asserts that nothing
// stays; after a failure it keeps the logs.
func (l *lab) finish() {
	if l.t.Failed() && l.running() {
		l.asLeft()
	}
	before := l.inventory()
	if l.running() {
		l.line.eventf("SIGINT")
		l.cmd.Process.Signal(syscall.SIGINT)
	}
	select {
	case <-l.end:
	case <-time.After(patience):
		l.t.Errorf("the lab does not end on SIGINT")
		l.cmd.Process.Kill()
		<-l.end
	}
	l.assertGone(before)
	if l.t.Failed() {
		l.keepLogs()
	}
}

// asLeft tells how a failed test leaves its lab: whoever reads the output later may
// have nothing else.
func (l *lab) asLeft() {
	server := []string{"--server", filepath.Join(l.dir, "admin.sock")}
	for _, args := range [][]string{append(server, "status"), append(server, "peers"), append(server, "prefixes")} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		out, err := exec.CommandContext(ctx, binary(l.t), args...).CombinedOutput()
		cancel()
		l.t.Logf("as it was left: rhumb %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
}

func (l *lab) running() bool {
	select {
	case <-l.end:
		return false
	default:
		return true
	}
}

// hurry has what failed come back at once: the ramp is not what the test is about.
func (l *lab) hurry() {
	l.t.Helper()
	before, after, ok := strings.Cut(l.fleetText(), "\nsafety:")
	if !ok {
		l.t.Fatal("the lab's fleet has no safety to stand behind the recovery")
	}
	l.applyText(before + "\nrecovery: {delay: 1s, ramp: 2s, floor: 0.5, half_life: 1s}\nsafety:" + after)
}

// keepLogs copies what the lab wrote beside the timeline.
func (l *lab) keepLogs() {
	dst := outputFile(l.t, ".logs")
	err := errors.Join(os.RemoveAll(dst), os.MkdirAll(dst, 0o755), os.CopyFS(dst, os.DirFS(filepath.Join(l.dir, "logs"))),
		os.WriteFile(filepath.Join(dst, "lab.out"), []byte(l.out.text()), 0o644))
	if b, e := os.ReadFile(filepath.Join(l.dir, "rhumb.log")); e == nil {
		err = errors.Join(err, os.WriteFile(filepath.Join(dst, "rhumb.log"), b, 0o644))
	}
	l.t.Logf("logs of the lab: %s (%v)", dst, err)
}

// control asks the lab through its control socket, as `rhumb lab VERB` does.
func (l *lab) control(verb, node string, args map[string]string, onData func(json.RawMessage) error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	code, err := netlab.Ask(ctx, l.socket(), netlab.Request{Verb: verb, Node: node, Args: args}, onData, nil)
	if err != nil || code != 0 {
		l.t.Fatalf("lab %s %s: code %d: %v", verb, node, code, err)
	}
}

func (l *lab) socket() string { return filepath.Join(l.dir, "control.sock") }

// kill takes a site down: SIGKILL to its processes, its links cut.
func (l *lab) kill(site string) time.Time { return l.fault("kill", site, nil) }

// killUnit sends SIGKILL to one process of a site.
func (l *lab) killUnit(site, unit string) time.Time {
	return l.fault("kill", site, map[string]string{"unit": unit})
}

// heal undoes what was broken at a site, or everywhere for the empty name.
func (l *lab) heal(site string) time.Time { return l.fault("heal", site, nil) }

// fault does what a verb of `rhumb lab` does and returns the time just before.
func (l *lab) fault(verb, site string, args map[string]string) time.Time {
	l.t.Helper()
	at := time.Now()
	l.control(verb, site, args, nil)
	l.line.event(at, strings.TrimSpace(verb+" "+site+" "+args["unit"]))
	return at
}

// nodes lists the lab's nodes.
func (l *lab) nodes() []netlab.NodeView {
	l.t.Helper()
	var all []netlab.NodeView
	l.control("nodes", "", nil, func(b json.RawMessage) error {
		var v netlab.NodeView
		err := json.Unmarshal(b, &v)
		all = append(all, v)
		return err
	})
	return all
}

// node returns one node.
func (l *lab) node(name string) netlab.NodeView {
	l.t.Helper()
	for _, n := range l.nodes() {
		if n.Name == name {
			return n
		}
	}
	l.t.Fatalf("the lab has no node %s", name)
	return netlab.NodeView{}
}

// exec runs a program inside a node and returns what it printed.
func (l *lab) exec(node string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	code, err := l.execTo(ctx, &out, node, argv...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s in %s: exit %d: %s", argv[0], node, code, out.String())
	}
	return out.String(), err
}

// execTo copies the program's output to w and returns its exit code.
func (l *lab) execTo(ctx context.Context, w io.Writer, node string, argv ...string) (int, error) {
	r, pipe, err := os.Pipe()
	if err != nil {
		return -1, err
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		pipe.Close()
		return -1, err
	}
	defer null.Close()
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		io.Copy(w, r)
	}()
	code, err := netlab.ExecIn(ctx, l.socket(), node, argv, [3]*os.File{null, pipe, pipe}, nil)
	pipe.Close()
	<-copied
	return code, err
}

// labState is what the lab's console sees of the fleet.
type labState struct {
	Connected bool                  `json:"connected"`
	Leader    string                `json:"leader"`
	Inventory int64                 `json:"inventory"`
	Plan      int64                 `json:"plan"`
	Nodes     []placement.Node      `json:"nodes"`
	Announced []placement.Announced `json:"announced"`
}

// state reads the fleet's state from the console.
func (l *lab) state() (*labState, error) {
	s := &labState{}
	return s, l.getJSON(filepath.Join("console", "run", "state.sock"), "/", s)
}

// api reads a document of the admin API.
func (l *lab) api(path string, v any) error { return l.getJSON("admin.sock", path, v) }

func (l *lab) getJSON(socket, path string, v any) error {
	var d net.Dialer
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return d.DialContext(ctx, "unix", filepath.Join(l.dir, socket))
	}}
	c := http.Client{Transport: tr, Timeout: 30 * time.Second}
	resp, err := c.Get("http://lab" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s", socket, path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// await asks again and again, briefly, until the answer is yes, and returns how
// long that took; the last "no" is what the test fails with.
func (l *lab) await(limit time.Duration, what string, ok func() error) time.Duration {
	l.t.Helper()
	began := time.Now()
	for {
		err := ok()
		took := time.Since(began)
		if err == nil {
			l.line.eventf("%s: after %.2f s", what, took.Seconds())
			return took
		}
		if took > limit {
			l.t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// within awaits what has a bound, with patience beyond it, and judges the bound.
func (l *lab) within(bound time.Duration, what string, ok func() error) time.Duration {
	l.t.Helper()
	took := l.await(promised(bound)+patience, what, ok)
	if took > promised(bound) {
		l.t.Errorf("%s: after %.2f s, want at most %s", what, took.Seconds(), promised(bound))
	}
	return took
}

// labOutput gathers what the lab prints and notices the last line of its start.
type labOutput struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	ready   chan struct{}
	readyAt time.Time
}

func (o *labOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf.Write(p)
	if o.readyAt.IsZero() && hasLine(o.buf.Bytes(), "lab ready") {
		o.readyAt = time.Now()
		close(o.ready)
	}
	return len(p), nil
}

func (o *labOutput) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func hasLine(text []byte, want string) bool {
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		if s.Text() == want {
			return true
		}
	}
	return false
}
