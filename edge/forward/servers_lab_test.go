//go:build e2e

package forward

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	nginxTLS   = 443
	haproxyTLS = 8443
	// chunkSize is what a client fetches in one request.
	chunkSize = 64 << 10
)

// newServersLab has nginx and HAProxy with TLS, HTTP/1.1 and HTTP/2 at both
// sites, each as its distribution builds it, HAProxy before nginx.
func newServersLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{size: smallSize}
	for _, vip := range vips() {
		for _, port := range []uint16{nginxTLS, haproxyTLS} {
			l.more = append(l.more, netip.AddrPortFrom(vip.Addr(), port))
		}
	}
	buildLab(t, l, func() {
		l.certificate(t)
		l.nginxMore = fmt.Sprintf(`server {
    listen %[1]d ssl http2 reuseport; listen [::]:%[1]d ssl http2 reuseport ipv6only=on; root %[2]s;
    ssl_certificate %[2]s/cert.pem; ssl_certificate_key %[2]s/cert.pem;
    location / { proxy_pass http://127.0.0.1:80; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; }
    keepalive_timeout 60s; keepalive_requests 1000000;
  }`, nginxTLS, l.dir)
		if err := os.WriteFile(filepath.Join(l.dir, "chunk.bin"), bytes.Repeat([]byte("rhumb..."), chunkSize/8), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	for _, s := range []*site{l.a, l.b} {
		l.startHAProxy(t, s)
	}
	return l
}

// certificate writes a certificate and its key to one file.
func (l *lab) certificate(t *testing.T) {
	t.Helper()
	cert, err := selfSigned()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(filepath.Join(l.dir, "cert.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) startHAProxy(t *testing.T, s *site) {
	t.Helper()
	path := filepath.Join(l.dir, "haproxy-"+s.letter+".cfg")
	text := fmt.Sprintf(`global
  maxconn 4096
defaults
  mode http
  timeout connect 30s
  timeout client 120s
  timeout server 120s
frontend tls
  bind :::%d v4v6 ssl crt %s/cert.pem alpn h2,http/1.1
  default_backend local
backend local
  http-response set-header X-Site %s
  server nginx 127.0.0.1:80
`, haproxyTLS, l.dir, s.letter)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("haproxy", "-db", "-q", "-f", path)
	cmd.Stderr = os.Stderr
	s.start(t, cmd)
	local := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), haproxyTLS)
	if !l.poll(func() bool {
		conn, err := s.dial(local)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}) {
		t.Fatalf("HAProxy of site %s doesn't listen (is the package haproxy installed?)", s.letter)
	}
}

// steady is a client with one connection, on which it makes one request after
// the other.
type steady struct {
	name   string
	do     func(*http.Request) (*http.Response, error)
	close  func()
	url    string
	pause  time.Duration // behind each request
	dials  atomic.Int64
	done   atomic.Int64 // requests
	octets atomic.Int64
}

func (l *lab) newSteady(vip string, port uint16, version int) *steady {
	c := &steady{name: fmt.Sprintf("HTTP/%d to port %d", version, port), url: "https://" + netip.AddrPortFrom(netip.MustParseAddr(vip), port).String()}
	dial := func(context.Context, string, string) (net.Conn, error) {
		c.dials.Add(1)
		return l.client.dial(netip.AddrPortFrom(netip.MustParseAddr(vip), port))
	}
	if version == 1 {
		c.do, c.close = oneConnection(dial)
		return c
	}
	closed := make(chan struct{})
	transport := &http.Transport{MaxConnsPerHost: 1, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return closing{conn, sync.OnceFunc(func() { close(closed) })}, err
		}}
	client := &http.Client{Transport: transport, Timeout: 2 * patience}
	// A connection counts as idle a moment after its last response was read.
	c.do, c.close = client.Do, func() {
		l.poll(func() bool {
			client.CloseIdleConnections()
			select {
			case <-closed:
				return true
			default:
				return false
			}
		})
	}
	return c
}

// closing tells when a connection was closed.
type closing struct {
	net.Conn
	tell func()
}

func (c closing) Close() error {
	c.tell()
	return c.Conn.Close()
}

// oneConnection makes all requests over one connection in HTTP/1.1. A transport of
// net/http gives one up by itself when the goroutine that wrote a request has not said
// so 50 ms after the response: on a busy machine that looks like a lost connection.
func oneConnection(dial func(context.Context, string, string) (net.Conn, error)) (do func(*http.Request) (*http.Response, error), end func()) {
	var conn *tls.Conn
	var in *bufio.Reader
	do = func(request *http.Request) (*http.Response, error) {
		if conn == nil {
			raw, err := dial(request.Context(), "tcp", "")
			if err != nil {
				return nil, err
			}
			conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
			in = bufio.NewReader(conn)
		}
		_ = conn.SetDeadline(time.Now().Add(2 * patience))
		if err := request.Write(conn); err != nil {
			return nil, err
		}
		return http.ReadResponse(in, request)
	}
	return do, func() {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// run makes requests until stop is closed: two to fetch, one to put.
func (c *steady) run(stop <-chan struct{}, id int, version int) error {
	body := bytes.Repeat([]byte("upload.."), chunkSize/8)
	for i := 0; ; i++ {
		select {
		case <-stop:
			c.close()
			return nil
		default:
		}
		request, err := http.NewRequest("GET", c.url+"/chunk.bin", nil)
		if i%3 == 2 {
			request, err = http.NewRequest("PUT", fmt.Sprintf("%s/put/%d", c.url, id), bytes.NewReader(body))
		}
		if err != nil {
			return err
		}
		if err := c.once(request, version); err != nil {
			return fmt.Errorf("%s, request %d: %w", c.name, i, err)
		}
		select {
		case <-stop:
		case <-time.After(c.pause):
		}
	}
}

func (c *steady) once(request *http.Request, version int) error {
	response, err := c.do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	switch site := response.Header.Get("X-Site"); {
	case err != nil:
		return err
	case response.ProtoMajor != version:
		return fmt.Errorf("answered in %s", response.Proto)
	case response.StatusCode >= 300 || request.Method == "GET" && len(body) != chunkSize:
		return fmt.Errorf("%s with %d octets", response.Status, len(body))
	case site != "a":
		return fmt.Errorf("served by %q, want a", site)
	case c.dials.Load() != 1:
		return fmt.Errorf("connected %d times", c.dials.Load())
	}
	c.octets.Add(chunkSize)
	c.done.Add(1)
	return nil
}

// crowd is many steady clients.
type crowd struct {
	clients []*steady
	stop    chan struct{}
	all     sync.WaitGroup
	failed  atomic.Pointer[error]
}

// startCrowd connects each clients to each server in each version. They pause behind each
// request.
func (l *lab) startCrowd(vip string, each int, pause time.Duration) *crowd {
	c := &crowd{stop: make(chan struct{})}
	for _, port := range []uint16{nginxTLS, haproxyTLS} {
		for version := 1; version <= 2; version++ {
			for range each {
				s := l.newSteady(vip, port, version)
				s.pause = pause
				id := len(c.clients)
				c.clients = append(c.clients, s)
				c.all.Go(func() {
					if err := s.run(c.stop, id, version); err != nil {
						c.failed.CompareAndSwap(nil, &err)
					}
				})
			}
		}
	}
	return c
}

// further waits until each client has made n more requests, or one failed. How long that
// takes is a matter of the machine; that a client makes none for patience is not.
func (c *crowd) further(t *testing.T, l *lab, n int64) {
	t.Helper()
	for range n {
		c.oneMore(t, l)
	}
}

// oneMore waits until each client has made another request, or one failed.
func (c *crowd) oneMore(t *testing.T, l *lab) {
	t.Helper()
	began := make([]int64, len(c.clients))
	for i, s := range c.clients {
		began[i] = s.done.Load()
	}
	var stands *steady
	ok := l.poll(func() bool {
		stands = nil
		for i, s := range c.clients {
			if s.done.Load() == began[i] {
				stands = s
			}
		}
		return stands == nil || c.failed.Load() != nil
	})
	if err := c.failed.Load(); err != nil {
		t.Fatal(*err)
	}
	if !ok {
		t.Fatalf("%s made no request in %v and stands at %d; all have made %d", stands.name, patience, stands.done.Load(), c.requests())
	}
}

// requests is how many all have made.
func (c *crowd) requests() (n int64) {
	for _, s := range c.clients {
		n += s.done.Load()
	}
	return n
}

func (c *crowd) octets() (n int64) {
	for _, s := range c.clients {
		n += s.octets.Load()
	}
	return n
}

// end stops all after their request and returns the first error.
func (c *crowd) end() error {
	close(c.stop)
	c.all.Wait()
	if err := c.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// goodput is what the crowd moves in a time, in MB/s.
func (c *crowd) goodput(d time.Duration, meanwhile func()) float64 {
	begin, before := time.Now(), c.octets()
	meanwhile()
	if rest := d - time.Since(begin); rest > 0 {
		time.Sleep(rest)
	}
	return float64(c.octets()-before) / 1e6 / time.Since(begin).Seconds()
}

// TestServersUnderFlips has stock nginx and HAProxy with TLS, HTTP/1.1 and
// HTTP/2, and clients that hold their connections while the route flips and
// then stays at the other site: no error, and no connection made anew, so none
// was reset. (The kernel's count of resets doesn't tell: it has those of clients
// that hang up.)
// The long form has 1,000 connections and flips every 2 seconds for a minute. Its clients
// pause: two cores have processor left for what forwarding costs, and goodput tells what
// the flips cost and not how many processors there are.
func TestServersUnderFlips(t *testing.T) {
	families(t, func(t *testing.T, vip string) {
		l := newServersLab(t)
		l.startAgents(t, true)
		each, flips, pause := 3, 4, time.Duration(0)
		if soak() {
			each, flips, pause = 250, 30, 5*time.Second
		}
		c := l.startCrowd(vip, each, pause)
		curls := l.startCurls(t, vip)
		c.further(t, l, 3)
		quiet := 0.0
		if soak() {
			quiet = c.goodput(20*time.Second, func() {})
		}
		a0, b0 := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		flipped := c.goodput(0, func() { l.flipUnderCrowd(t, c, flips) })
		l.drainTo(t, l.b, c)
		a1, b1 := l.a.agent.tell(t, "stats"), l.b.agent.tell(t, "stats")
		if err := c.end(); err != nil {
			t.Error(err)
		}
		for _, curl := range curls {
			if err := curl.wait(l); err != nil {
				t.Error(err)
			}
		}
		l.report(t, []agentStats{a0, b0, a1, b1}, quiet, flipped)
		l.await(t, func() bool { return l.owned(t, l.a) == 0 }, "A may go")
	})
}

// flipUnderCrowd moves the route to and fro, and lets every client make requests each
// time; in the long form every 2 seconds, wherever they are.
func (l *lab) flipUnderCrowd(t *testing.T, c *crowd, flips int) {
	t.Helper()
	began := time.Now()
	for i := range flips {
		l.routeTo(t, []*site{l.b, l.a}[i%2])
		if soak() {
			time.Sleep(time.Until(began.Add(time.Duration(i+1) * 2 * time.Second)))
			continue
		}
		c.further(t, l, 2)
	}
	c.further(t, l, 2)
}

// drainTo tells the flows ahead, moves the route for good, and lets every client
// go on.
func (l *lab) drainTo(t *testing.T, to *site, c *crowd) {
	t.Helper()
	l.a.agent.tell(t, "announce")
	l.routeTo(t, to)
	c.further(t, l, 4)
	fresh, err := l.client.dial(vips()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if got := get(t, fresh, "/site"); got != to.letter {
		t.Errorf("a new connection is served by %q, want %s", got, to.letter)
	}
}

// owned is the number of clients' sessions at a site, on all VIPs.
func (l *lab) owned(t *testing.T, s *site) (n int) {
	t.Helper()
	for vip, count := range s.agent.tell(t, "stats").Owned {
		if !strings.HasSuffix(vip, ":80") {
			n += count
		}
	}
	return n
}

// report prints what forwarding cost, from the statistics of A and B before and
// after, and fails a long run whose goodput fell.
func (l *lab) report(t *testing.T, s []agentStats, quiet, flipped float64) {
	t.Helper()
	packets := s[3].Metrics["forwarded_packets_total a"] - s[1].Metrics["forwarded_packets_total a"]
	octets := s[3].Metrics["tunnel_bytes_total a"] - s[1].Metrics["tunnel_bytes_total a"]
	ingress, owner := (s[3].CPU - s[1].CPU).Seconds(), (s[2].CPU - s[0].CPU).Seconds()
	t.Logf("goodput %.1f MB/s with flips, quiet %.1f; %.0f packets, %.1f MB forwarded; CPU µs per packet: ingress %.1f, owner %.1f; CPU s per GB: %.2f, %.2f",
		flipped, quiet, packets, octets/1e6, ingress*1e6/packets, owner*1e6/packets, ingress*1e9/octets, owner*1e9/octets)
	if packets < 100 {
		t.Error("hardly anything was forwarded: the test proves nothing")
	}
	if quiet > 0 && flipped < 0.9*quiet {
		t.Errorf("goodput fell to %.0f %%, want at least 90 %%", 100*flipped/quiet)
	}
}

// curl is a download by the distribution's curl.
type curl struct {
	cmd  *exec.Cmd
	out  strings.Builder
	path string
}

// startCurls fetches the big file from each server in each version, so slowly that it
// takes as long as the flips.
func (l *lab) startCurls(t *testing.T, vip string) []*curl {
	t.Helper()
	var list []*curl
	rate := "4M"
	if soak() {
		rate = "80k"
	}
	for _, port := range []uint16{nginxTLS, haproxyTLS} {
		for _, version := range []string{"--http1.1", "--http2"} {
			c := &curl{path: filepath.Join(l.dir, fmt.Sprintf("curl-%d%s", port, version))}
			c.cmd = exec.Command("curl", "-sSgkf", version, "--limit-rate", rate, "--max-time", "300", "-o", c.path,
				"https://"+netip.AddrPortFrom(netip.MustParseAddr(vip), port).String()+"/big.bin")
			c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
			l.client.start(t, c.cmd)
			list = append(list, c)
		}
	}
	return list
}

func (c *curl) wait(l *lab) error {
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(c.path), err, c.out.String())
	}
	return l.same(c.path)
}
