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
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// costMost is what protection may cost: of CPU and time, as a part of what the same
// server needs without.
const costMost = 1.10

// costCase is one size of a response, and how many of them a round has.
type costCase struct {
	size         int
	conns, times int // on so many connections, so many requests on each
}

func (c costCase) String() string {
	return fmt.Sprintf("%d B, %d connections with %d requests", c.size, c.conns, c.times)
}

// costCases: the short form has few requests and judges that each answer is right. For
// who looks for what costs: EDGE_CASE is another case, as "size connections times", and
// EDGE_PROFILE a directory for profiles of the first round.
func costCases() []costCase {
	if os.Getenv("EDGE_CASE") != "" {
		var c costCase
		fmt.Sscan(os.Getenv("EDGE_CASE"), &c.size, &c.conns, &c.times)
		return []costCase{c}
	}
	if soak() {
		return []costCase{{1 << 10, 8, 1500}, {1 << 10, 1000, 1}, {10 << 10, 8, 1000}, {1 << 20, 4, 60}, {100 << 20, 1, 4}}
	}
	return []costCase{{1 << 10, 4, 20}, {10 << 10, 20, 1}, {1 << 20, 2, 2}}
}

// costServer is a server that is measured, in a world of its own.
type costServer struct {
	name string
	w    *world
	load *process
	site *process       // nil: not ours
	cpu  func() float64 // seconds used so far
	end  func() float64 // the same of its Backup; nil without
}

// TestCostOfProtection asks servers that differ in protection alone for the same, in
// turns, and compares the CPU seconds of their processes. Two without protection show
// what the machine adds by itself; nginx stands beside them.
func TestCostOfProtection(t *testing.T) {
	for _, export := range []string{"", ExportGroup} {
		name := map[string]string{"": "in clear", ExportGroup: "TLS"}[export]
		t.Run(name, func(t *testing.T) {
			root, cases := costRoot(t), costCases()
			servers := []*costServer{costAgent(t, "off", root, export, ReviveOff, FreshL0), costAgent(t, "off, once more", root, export, ReviveOff, FreshL0),
				costAgent(t, "L0", root, export, ModeAct, FreshL0), costAgent(t, "L1", root, export, ModeAct, FreshL1)}
			if soak() {
				servers = append(servers, costNginx(t, root, export))
			}
			for _, c := range cases {
				costRounds(t, c, servers)
			}
		})
	}
}

// costRounds measures one case and judges what a round of L0 costs.
func costRounds(t *testing.T, c costCase, servers []*costServer) {
	t.Helper()
	rounds := 1
	if soak() {
		rounds = 5
	}
	cpu, wall, backup := make([][]float64, len(servers)), make([][]float64, len(servers)), make([]float64, len(servers))
	for r := range rounds {
		for i := range servers {
			i = (i + r) % len(servers) // none is always the first
			s := servers[i]
			was, wasEnd, begun := s.cpu(), s.backup(), time.Now()
			if dir := os.Getenv("EDGE_PROFILE"); dir != "" && r == 0 && s.end != nil {
				s.profile(filepath.Join(dir, fmt.Sprintf("%s-%d-%d.prof", s.name, c.size, c.times)))
			}
			var out string
			s.load.ask(fmt.Sprintf("%d %d %d", c.size, c.conns, c.times), &out)
			if out != "" {
				t.Fatalf("%s, %v: %s", s.name, c, out)
			}
			if os.Getenv("EDGE_PROFILE") != "" && r == 0 && s.end != nil {
				s.profile("")
			}
			wall[i] = append(wall[i], time.Since(begun).Seconds())
			cpu[i] = append(cpu[i], s.cpu()-was)
			backup[i] += s.backup() - wasEnd
		}
	}
	gb := float64(c.size) * float64(c.conns*c.times) / (1 << 30)
	t.Logf("%v, %d rounds", c, rounds)
	for i, s := range servers {
		t.Logf("  %-15s %.3f of the CPU, %.3f of the time; %6.2f CPU s per GB, %5.0f us a request; Backup %.3f CPU s a round",
			s.name, ratio(cpu[i], cpu[0]), ratio(wall[i], wall[0]), median(cpu[i])/gb, median(cpu[i])/float64(c.conns*c.times)*1e6, backup[i]/float64(rounds))
	}
	noise := max(ratio(cpu[1], cpu[0]), 1/ratio(cpu[1], cpu[0]))
	if got := ratio(cpu[2], cpu[0]); soak() && got > costMost*noise {
		t.Errorf("%v: L0 costs %.3f of the CPU without, want at most %.2f; two without differ by %.3f", c, got, costMost, noise)
	}
}

// profile begins a profile of the site's CPU, or ends it.
func (s *costServer) profile(file string) {
	var word string
	s.site.ask("profile "+file, &word)
}

func (s *costServer) backup() float64 {
	if s.end == nil {
		return 0
	}
	return s.end()
}

// ratio is the median of what the rounds say.
func ratio(a, b []float64) float64 {
	var all []float64
	for i := range a {
		all = append(all, a[i]/b[i])
	}
	return median(all)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

// costRoot is a directory with an object of each size.
func costRoot(t *testing.T) string {
	root := t.TempDir()
	for _, c := range costCases() {
		b := bytes.Repeat([]byte("seven s"), c.size/7+1)[:c.size] // a period that divides no block
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(c.size)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func costAgent(t *testing.T, name, root, export, revival, freshness string) *costServer {
	t.Helper()
	w := newWorldFor(t, t.Name()+name)
	pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	a, b := w.sites(func(x *agentArgs) {
		x.Root, x.Export, x.Revival, x.Freshness, x.Backups = root, export, revival, freshness, true
	})
	seconds := func(p *process) func() float64 {
		return func() (v float64) { p.ask("cpu", &v); return v }
	}
	s := &costServer{name: name, w: w, site: a, cpu: seconds(a), end: seconds(b)}
	return s.client(root, "8080", export)
}

// costNginx has one worker and sendfile.
func costNginx(t *testing.T, root, export string) *costServer {
	t.Helper()
	w := newWorldFor(t, t.Name()+"nginx")
	pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	w.in("a", "ip addr add "+vip4+"/32 dev lo")
	tls := ""
	if export != "" {
		tls = fmt.Sprintf("ssl_certificate %s/video.test.crt; ssl_certificate_key %s/video.test.key; ssl_protocols TLSv1.3;", w.dir, w.dir)
	}
	w.write("nginx.conf", fmt.Appendf(nil, `daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr error; user root;
events { worker_connections 10000; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_body_temp_path %[1]s; proxy_temp_path %[1]s;
fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
server { listen 8080 reuseport%[2]s backlog=4096; root %[3]s; %[4]s } }`, w.dir, map[bool]string{true: " ssl"}[tls != ""], root, tls))
	cmd := exec.Command("ip", "netns", "exec", w.prefix+"a", "nginx", "-c", filepath.Join(w.dir, "nginx.conf"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	w.await("nginx", func() bool { return strings.Contains(w.in("a", "ss -Htln sport = :8080"), "LISTEN") })
	s := &costServer{name: "nginx", w: w, cpu: func() float64 {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", cmd.Process.Pid))
		var ns int64
		fmt.Sscan(string(b), &ns)
		return time.Duration(ns).Seconds()
	}}
	return s.client(root, "8080", export)
}

func (s *costServer) client(root, port, export string) *costServer {
	x := fetchArgs{Addr: net.JoinHostPort(vip4, port), Root: root}
	if export != "" {
		x.CA = filepath.Join(s.w.dir, "video.test.crt")
	}
	s.load = s.w.start("c", "fetch", x)
	return s
}

// fetchArgs say where objects are asked for, which are files of Root.
type fetchArgs struct{ Addr, Root, CA string }

// fetchRole answers each line "size connections times" when all is read, with the
// first error or nothing.
func fetchRole() error {
	var x fetchArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var c costCase
		if _, err := fmt.Sscan(in.Text(), &c.size, &c.conns, &c.times); err != nil {
			return err
		}
		word := ""
		if err := x.round(c); err != nil {
			word = err.Error()
		}
		out.Encode(word)
	}
	return nil
}

// fetchAtOnce bounds the connections that are open.
const fetchAtOnce = 8

func (x fetchArgs) round(c costCase) error {
	want, err := os.ReadFile(filepath.Join(x.Root, strconv.Itoa(c.size)))
	if err != nil {
		return err
	}
	todo, errs := make(chan struct{}, c.conns), make(chan error, c.conns)
	for range c.conns {
		todo <- struct{}{}
	}
	close(todo)
	var wg sync.WaitGroup
	for range min(c.conns, fetchAtOnce) {
		wg.Go(func() {
			buf := make([]byte, min(c.size, 256<<10))
			for range todo {
				if err := x.fetch(want, c.times, buf); err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// fetch asks for one object again and again on one connection, and compares.
func (x fetchArgs) fetch(want []byte, times int, buf []byte) error {
	c, err := net.Dial("tcp", x.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if x.CA != "" {
		if c, err = clientTLS(c, x.CA); err != nil {
			return err
		}
	}
	c.SetDeadline(time.Now().Add(80 * time.Second))
	r := bufio.NewReaderSize(c, 32<<10)
	for range times {
		fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: video.test\r\n\r\n", len(want))
		if err := skipHeadOf(r, "HTTP/1.1 200 "); err != nil {
			return err
		}
		for rest := want; len(rest) > 0; {
			b := buf[:min(len(buf), len(rest))]
			if _, err := io.ReadFull(r, b); err != nil {
				return err
			}
			if !bytes.Equal(b, rest[:len(b)]) {
				return fmt.Errorf("wrong octets within %d", len(want))
			}
			rest = rest[len(b):]
		}
	}
	return nil
}
