//go:build e2e

package edge

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Allowances of a process that did thousands of hand-offs: what is left of its own
// accord. Counts may differ by a connection between the sites that is being dialled anew.
const (
	goroutinesMore  = 8
	descriptorsMore = 4
	// rssMore is what the heap may have grown after it was given back: free spans that the
	// runtime has not returned, and the ring of the last moves.
	rssMore = 16 << 20
	// settleWithin is how long elements of the kernel's sets and sockets in their last
	// states may need to go.
	settleWithin = 90 * time.Second
)

// TestManyHandOffs passes sessions to and fro between two sites while they are read from,
// and wants everything at both sites to be as before once they are over: descriptors,
// sockets, elements and rules of nftables, goroutines, memory, namespaces.
func TestManyHandOffs(t *testing.T) {
	sessions, flips, waves := 40, 6, 1
	if soak() {
		sessions, flips, waves = 100, 60, 2
	}
	w := newWorld(t)
	x := w.object("film.mp4", 4<<20)
	a, b := w.sites(nil)
	for _, f := range e2eFamilies { // what is made once, and kept, is made by the first waves
		w.wave(a, b, x.Name, f.vip, sessions, 2)
	}
	before, handed := w.census(a, b), 0
	for range waves {
		for _, f := range e2eFamilies {
			handed += w.wave(a, b, x.Name, f.vip, sessions, flips)
		}
	}
	w.asBefore(before, a, b)
	w.noResets()
	if want := len(e2eFamilies) * waves * flips * sessions; handed != want {
		t.Errorf("%d hand-offs, want %d", handed, want)
	}
	t.Logf("%d hand-offs", handed)
}

// TestCensus: what is more than allowed is told, each by its name.
func TestCensus(t *testing.T) {
	was := census{Goroutines: 20, Descriptors: 20, RSS: 20 << 20, Sockets: 5, Rules: 160, Elements: 2}
	if left := was.more(was, ""); len(left) != 0 {
		t.Errorf("the same counts as %q", left)
	}
	now := census{Sessions: 1, Goroutines: 29, Descriptors: 25, RSS: 40 << 20, Sockets: 10, Rules: 161, Elements: 3, Spaces: 1}
	if left := now.more(was, "a"); len(left) != 8 || left[0] != "site a has 29 goroutines, 20 before" {
		t.Errorf("what is left is told as %q", left)
	}
}

// wave opens sessions at one site, flips the route so many times, each time when the
// other site has all of them, and ends them.
func (w *world) wave(a, b *process, name, vip string, sessions, flips int) (handed int) {
	w.t.Helper()
	w.route("a")
	load := w.start("c", "circle", circleArgs{N: sessions, VIP: vip, Name: name, File: filepath.Join(w.dir, "root-a", name)})
	var begun string
	load.next(&begun)
	at := map[string]*process{"a": a, "b": b}
	for i := range flips {
		from, to := "a", "b"
		if i%2 == 1 {
			from, to = to, from
		}
		w.route(to)
		w.holds(at[to], to, sessions)
		w.holds(at[from], from, 0)
		handed += sessions
	}
	var out circled
	load.ask("stop", &out)
	if out.Err != "" || out.Pieces < sessions {
		w.t.Fatalf("clients read %d pieces in %d hand-offs: %s", out.Pieces, handed, out.Err)
	}
	for site, p := range at {
		w.holds(p, site, 0)
	}
	w.route("a")
	return handed
}

// holds waits until a site has so many sessions.
func (w *world) holds(p *process, site string, want int) {
	w.t.Helper()
	var c census
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if p.ask("count", &c); c.Sessions == want {
			return
		}
		if time.Now().After(end) {
			var r report
			p.ask("state", &r)
			w.t.Fatalf("site %s has %d sessions, want %d: %v, moves %v %v", site, c.Sessions, want, r.States, r.Results, r.Errors)
		}
	}
}

// census is what a site has, of the process and of its namespace.
type census struct {
	Sessions, Goroutines, Descriptors int
	RSS                               int // octets
	Sockets, Rules, Elements          int // of the namespace
	Spaces                            int // namespaces that its threads are in
}

// count is what the agent says of itself; of the memory after what is free was given back.
func count(a *Agent, thorough bool) (c census) {
	c.Sessions = len(a.Sessions())
	if !thorough {
		return c
	}
	debug.FreeOSMemory()
	c.Goroutines = runtime.NumGoroutine()
	open, _ := os.ReadDir("/proc/self/fd")
	c.Descriptors = len(open)
	c.Spaces = threadSpaces()
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB"))
			c.RSS = kb << 10
		}
	}
	return c
}

// threadSpaces counts the network namespaces in which this process has threads: one that
// stays in another would keep it alive.
func threadSpaces() int {
	in := map[string]bool{}
	all, _ := filepath.Glob("/proc/self/task/*/ns/net")
	for _, link := range all {
		if ns, err := os.Readlink(link); err == nil { // else the thread has just ended
			in[ns] = true
		}
	}
	return len(in)
}

// census counts at both sites.
func (w *world) census(a, b *process) map[string]census {
	w.t.Helper()
	out := map[string]census{}
	for site, p := range map[string]*process{"a": a, "b": b} {
		var c census
		p.ask("census", &c)
		c.Sockets = strings.Count(w.in(site, "ss -Htuxna"), "\n")
		c.Rules, c.Elements = w.ruleset(site)
		out[site] = c
	}
	return out
}

// ruleset counts the rules and the elements of sets in a namespace.
func (w *world) ruleset(site string) (rules, elements int) {
	w.t.Helper()
	var all struct {
		Nftables []struct {
			Rule *json.RawMessage
			Set  *struct {
				Elem []json.RawMessage
			}
		}
	}
	if err := json.Unmarshal([]byte(w.in(site, "nft -j list ruleset")), &all); err != nil {
		w.t.Fatal(err)
	}
	for _, n := range all.Nftables {
		if n.Rule != nil {
			rules++
		}
		if n.Set != nil {
			elements += len(n.Set.Elem)
		}
	}
	return rules, elements
}

// more tells what a site has beyond what it had.
func (c census) more(was census, site string) (out []string) {
	for _, v := range []struct {
		what            string
		now, was, allow int
	}{
		{"goroutines", c.Goroutines, was.Goroutines, goroutinesMore}, {"descriptors", c.Descriptors, was.Descriptors, descriptorsMore},
		{"octets of memory", c.RSS, was.RSS, rssMore}, {"sockets", c.Sockets, was.Sockets, descriptorsMore},
		{"rules", c.Rules, was.Rules, 0}, {"elements of sets", c.Elements, was.Elements, 0}, {"sessions", c.Sessions, was.Sessions, 0},
		{"namespaces", c.Spaces, was.Spaces, 0},
	} {
		if v.now > v.was+v.allow {
			out = append(out, fmt.Sprintf("site %s has %d %s, %d before", site, v.now, v.what, v.was))
		}
	}
	return out
}

// asBefore waits until nothing is left of the sessions.
func (w *world) asBefore(before map[string]census, a, b *process) {
	w.t.Helper()
	for end := time.Now().Add(settleWithin); ; time.Sleep(100 * time.Millisecond) {
		now := w.census(a, b)
		var left []string
		for _, site := range []string{"a", "b"} {
			left = append(left, now[site].more(before[site], site)...)
		}
		if len(left) == 0 {
			w.t.Logf("before %+v, after %+v", before, now)
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("left after %s:\n%s\nsockets of a:\n%s\nrules of a:\n%s", settleWithin, strings.Join(left, "\n"),
				w.in("a", "ss -Htuxna"), w.in("a", "nft list ruleset"))
		}
	}
}

// circleArgs start N clients which read pieces of an object, round and round, each on one
// connection, until they are told to stop.
type circleArgs struct {
	N               int
	VIP, Name, File string // File holds what the object is
}

// circled is what they saw.
type circled struct {
	Pieces int
	Err    string // the first
}

const (
	circlePiece = 16 << 10
	circlePace  = 20 * time.Millisecond
)

// circleRole runs them: one line when each has its first piece, one at the end.
func circleRole() error {
	var x circleArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	object, err := os.ReadFile(x.File)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	go func() {
		bufio.NewScanner(os.Stdin).Scan()
		close(stop)
	}()
	var pieces atomic.Int64
	errs := make(chan error, x.N)
	var begun, ended sync.WaitGroup
	begun.Add(x.N)
	for i := range x.N {
		ended.Go(func() {
			first := sync.OnceFunc(begun.Done)
			defer first()
			if err := x.client(object, i*circlePiece, func() { pieces.Add(1); first() }, stop); err != nil {
				errs <- fmt.Errorf("client %d: %w", i, err)
			}
		})
	}
	out := json.NewEncoder(os.Stdout)
	begun.Wait()
	out.Encode("begun")
	ended.Wait()
	close(errs)
	res := circled{Pieces: int(pieces.Load())}
	if err := <-errs; err != nil {
		res.Err = err.Error()
	}
	return out.Encode(res)
}

// client reads piece after piece from an offset on and compares each.
func (x circleArgs) client(object []byte, off int, got func(), stop <-chan struct{}) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(x.VIP, "8080"), 20*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	r, buf := bufio.NewReaderSize(c, 32<<10), make([]byte, circlePiece)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		case <-time.After(circlePace):
		}
		off %= len(object)
		end := min(off+circlePiece, len(object))
		c.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: video.test\r\nRange: bytes=%d-%d\r\n\r\n", x.Name, off, end-1)
		if err := skipHead(r); err != nil {
			return fmt.Errorf("piece %d: %w", n, err)
		}
		if _, err := io.ReadFull(r, buf[:end-off]); err != nil {
			return fmt.Errorf("piece %d: %w", n, err)
		}
		if !bytes.Equal(buf[:end-off], object[off:end]) {
			return fmt.Errorf("piece %d, from octet %d on, is wrong", n, off)
		}
		got()
		off = end
	}
}

// skipHead wants the head of a part.
func skipHead(r *bufio.Reader) error { return skipHeadOf(r, "HTTP/1.1 206 ") }

func skipHeadOf(r *bufio.Reader, status string) error {
	for line := 0; ; line++ {
		s, err := r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case line == 0 && !strings.HasPrefix(s, status):
			return fmt.Errorf("status line %q", s)
		case s == "\r\n":
			return nil
		}
	}
}
