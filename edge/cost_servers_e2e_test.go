//go:build e2e

package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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

// costServer is a server that is measured, in a world of its own.
type costServer struct {
	name string
	w    *world
	load *process
	site *process       // nil: not ours
	cpu  func() float64 // seconds used so far
	end  func() float64 // the same of its Backup; nil without
}

func (s *costServer) backup() float64 {
	if s.end == nil {
		return 0
	}
	return s.end()
}

// costServers starts what is compared; nil is a server that there cannot be, or that is not
// asked for: EDGE_WAS is this test of other code, whose servers stand in the place of L1 and
// L2 then.
func costServers(t *testing.T, export string) []*costServer {
	t.Helper()
	root := costRoot(t)
	servers := []*costServer{
		costOff:     costAgent(t, "off", "", root, export, ReviveOff, FreshL0, false),
		costControl: costAgent(t, "control", "", root, export, ReviveOff, FreshL0, false),
		costL0:      costAgent(t, "L0", "", root, export, ModeAct, FreshL0, false),
		costL1:      nil,
		costL2:      nil,
	}
	if was := os.Getenv("EDGE_WAS"); was != "" {
		servers[costL1] = costAgent(t, "was off", was, root, export, ReviveOff, FreshL0, false)
		servers[costL2] = costAgent(t, "was L0", was, root, export, ModeAct, FreshL0, false)
		return append(servers, costNginx(t, root, export))
	}
	servers[costL1] = costAgent(t, "L1", "", root, export, ModeAct, FreshL1, false)
	if export == "" { // with uploads, or nothing of it would differ from L1
		servers[costL2] = costAgent(t, "L2", "", root, export, ModeAct, FreshL2, true)
	}
	if soak() {
		servers = append(servers, costNginx(t, root, export))
	}
	return servers
}

// costRoot is a directory with an object of each size.
func costRoot(t *testing.T) string {
	root := t.TempDir()
	for _, c := range append(slices.Concat(costCases()...), costUploads()...) {
		b := bytes.Repeat([]byte("seven s"), c.size/7+1)[:c.size] // a period that divides no block
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(c.size)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// costAgent is a server of ours, and its Backup.
func costAgent(t *testing.T, name, binary, root, export, revival, freshness string, uploads bool) *costServer {
	t.Helper()
	w := newWorldFor(t, t.Name()+name)
	w.binary = binary
	pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	a, b := w.sites(func(x *agentArgs) {
		x.Root, x.Export, x.Revival, x.Freshness, x.Backups = root, export, revival, freshness, true
		x.Uploads = uploads
	})
	seconds := func(p *process) func() float64 {
		return func() (v float64) { p.ask("cpu", &v); return v }
	}
	s := &costServer{name: name, w: w, site: a, cpu: seconds(a), end: seconds(b)}
	return s.client(root, "8080", export)
}

// costNginx has one worker, sendfile, and the suite that our server has.
func costNginx(t *testing.T, root, export string) *costServer {
	t.Helper()
	w := newWorldFor(t, t.Name()+"nginx")
	pairFor(t, w.dir, "video.test", 1, time.Now().Add(time.Hour))
	w.in("a", "ip addr add "+vip4+"/32 dev lo")
	tls := ""
	if export != "" {
		tls = fmt.Sprintf(`ssl_certificate %s/video.test.crt; ssl_certificate_key %s/video.test.key; ssl_protocols TLSv1.3;
ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; ssl_session_tickets off;`, w.dir, w.dir)
	}
	w.write("nginx.conf", fmt.Appendf(nil, `daemon off; master_process off; pid %[1]s/nginx.pid; error_log stderr error; user root;
events { worker_connections 10000; }
http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; open_file_cache max=100; client_body_temp_path %[1]s; proxy_temp_path %[1]s;
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
	// What has ended leaves its port at once: a round may have more connections than there are ports.
	s.w.in("c", "sysctl -qw net.ipv4.tcp_max_tw_buckets=100")
	s.load = s.w.start("c", "fetch", x)
	return s
}

// fetchArgs say where objects are asked for, which are files of Root.
type fetchArgs struct {
	Addr, Root, CA string

	trust *tls.Config // nil: in clear
}

// secure makes the client's half of TLS: with the one key exchange that all servers have.
func (x *fetchArgs) secure() error {
	if x.CA == "" {
		return nil
	}
	ca, err := os.ReadFile(x.CA)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	x.trust = &tls.Config{RootCAs: pool, ServerName: "video.test", MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}
	return nil
}

// fetchRole answers each line "size connections times", with "put" for uploads, when all is done, with the
// first error or nothing.
func fetchRole() error {
	var x fetchArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	if err := x.secure(); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var c costCase
		var how string
		if n, err := fmt.Sscan(in.Text(), &c.size, &c.conns, &c.times, &how); n < 3 {
			return err
		}
		c.put = how == "put"
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
	todo, errs := make(chan int, c.conns), make(chan error, c.conns)
	for i := range c.conns {
		todo <- i
	}
	close(todo)
	var wg sync.WaitGroup
	for range min(c.conns, fetchAtOnce) {
		wg.Go(func() {
			buf := make([]byte, min(c.size, 256<<10))
			for i := range todo {
				err := error(nil)
				if c.put {
					err = x.store(uploadName(c.size, i), want, c.times)
				} else {
					err = x.fetch(want, c.times, buf)
				}
				if err != nil {
					errs <- err
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// dial connects, over TLS if that is asked for.
func (x fetchArgs) dial() (net.Conn, error) {
	c, err := net.Dial("tcp", x.Addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(80 * time.Second))
	if x.trust == nil {
		return c, nil
	}
	t := tls.Client(c, x.trust)
	if err := t.Handshake(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

// store uploads one object again and again on one connection.
func (x fetchArgs) store(name string, body []byte, times int) error {
	c, err := x.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for range times {
		if _, err := fmt.Fprintf(c, "PUT /%s HTTP/1.1\r\nHost: video.test\r\nContent-Length: %d\r\n\r\n", name, len(body)); err != nil {
			return err
		}
		if _, err := c.Write(body); err != nil {
			return err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
			return fmt.Errorf("%s: %s, %w", name, resp.Status, err)
		}
	}
	return nil
}

// fetch asks for one object again and again on one connection, and compares.
func (x fetchArgs) fetch(want []byte, times int, buf []byte) error {
	c, err := x.dial()
	if err != nil {
		return err
	}
	defer c.Close()
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
