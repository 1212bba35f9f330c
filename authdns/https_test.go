package authdns

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// startDoH serves DNS over HTTPS at /dns-query, beside TCP.
func startDoH(t *testing.T, c Config, addr string) *Server {
	t.Helper()
	cert := new(atomic.Pointer[tls.Certificate])
	cert.Store(certWithSerial(t, 1))
	l := loopback(top, addr)
	l.HTTP, l.TLS = "/dns-query", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Load(), nil }}
	c.Listeners = append(c.Listeners, l, loopback(top, addr))
	s := start(t, c)
	if errs := s.SetZones(sources()); errs != nil {
		t.Fatal(errs)
	}
	return s
}

// browser asks over one connection, by HTTP/2 or by HTTP/1.1.
func browser(t *testing.T, two bool) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(!two)
	p.SetHTTP2(two)
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, Protocols: p}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func dohURL(s *Server) string { return "https://" + s.Addrs()[0].String() + "/dns-query" }

// posted asks by POST.
func posted(t testing.TB, c *http.Client, s *Server, query []byte) (*http.Response, []byte) {
	t.Helper()
	return answered(t, c, httpRequest(t, "POST", dohURL(s), mediaType, query))
}

func httpRequest(t testing.TB, method, url, media string, body []byte) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", media)
	return r
}

func answered(t testing.TB, c *http.Client, r *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

func message(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

// TestDoH: RFC 8484, GET and POST, over HTTP/2 and HTTP/1.1, both families.
func TestDoH(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		s := startDoH(t, Config{}, addr)
		for _, two := range []bool{true, false} {
			c := browser(t, two)
			q := ask(t, "www.demo.test. A", option(optKeepalive))
			get := httpRequest(t, "GET", dohURL(s)+"?dns="+base64.RawURLEncoding.EncodeToString(q), "", nil)
			post := httpRequest(t, "POST", dohURL(s), mediaType, q)
			for _, r := range []*http.Request{get, post} {
				resp, b := answered(t, c, r)
				if got := show(message(t, b)); resp.StatusCode != 200 || got != "NOERROR aa | "+wwwA+opt {
					t.Errorf("%s: %s %s", r.Method, resp.Status, got)
				}
				if h := resp.Header; h.Get("Content-Type") != mediaType || h.Get("Cache-Control") != "private, max-age=3600" || (resp.ProtoMajor == 2) != two {
					t.Errorf("%s over %s: %v", r.Method, resp.Proto, h)
				}
			}
		}
		if got := samples(t, s, "rhumb_dns_requests_total"); !strings.Contains(got, `"https"`) || strings.Contains(got, `"tcp"`) {
			t.Errorf("counted as\n%s", got)
		}
	}
}

// TestDoHFreshness: section 5.1, and what the SOA says of what is not there.
func TestDoHFreshness(t *testing.T) {
	s := startDoH(t, Config{}, "127.0.0.1:0")
	c := browser(t, true)
	for question, want := range map[string]string{
		"www.demo.test. A": "3600", "nix.demo.test. A": "60", "www.demo.test. TXT": "60", "www.other.test. A": "0",
	} {
		if resp, _ := posted(t, c, s, ask(t, question)); resp.Header.Get("Cache-Control") != "private, max-age="+want {
			t.Errorf("%s: %q, want %s", question, resp.Header.Get("Cache-Control"), want)
		}
	}
}

// TestDoHTurnsAway: what is no query is told so in HTTP's words, and costs nobody else.
func TestDoHTurnsAway(t *testing.T) {
	s := startDoH(t, Config{}, "127.0.0.1:0")
	c := browser(t, true)
	q := ask(t, "www.demo.test. A")
	text := base64.RawURLEncoding.EncodeToString(q)
	for _, tt := range []struct {
		name, method, url, media string
		body                     []byte
		want                     int
	}{
		{"no parameter", "GET", "", "", nil, 400},
		{"padded", "GET", "?dns=" + text + "==", "", nil, 400},
		{"no base64url", "GET", "?dns=!!!!", "", nil, 400},
		{"short", "GET", "?dns=AAAA", "", nil, 400},
		{"empty", "POST", "", mediaType, nil, 400},
		{"a reply", "POST", "", mediaType, raw(bytes.Clone(q), flags(0x8000)), 400},
		{"another type", "POST", "", "application/json", q, 415},
		{"its type in capitals", "POST", "", "Application/DNS-Message", q, 200},
		{"too long", "POST", "", mediaType, append(bytes.Clone(q), make([]byte, maxTCP)...), 413},
		{"as long as may be", "POST", "", mediaType, append(bytes.Clone(q), make([]byte, maxTCP-len(q))...), 200},
		{"another method", "PUT", "", mediaType, q, 405},
		{"another path", "GET", "x?dns=" + text, "", nil, 404},
		{"good", "GET", "?dns=" + text, "", nil, 200},
	} {
		resp, _ := answered(t, c, httpRequest(t, tt.method, dohURL(s)+tt.url, tt.media, tt.body))
		if resp.StatusCode != tt.want || (resp.Header.Get("Allow") != "") != (tt.want == 405) {
			t.Errorf("%s: %s, want %d; allowed %q", tt.name, resp.Status, tt.want, resp.Header.Get("Allow"))
		}
	}
}

// metered is a body that tells how much of it was read.
type metered struct {
	io.Reader
	n int
}

func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// TestDoHLongQuery: of a connection's streams one alone has the rest of a long query
// read; short ones and other connections go on, and a short one has little room.
func TestDoHLongQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long, other := make(chan struct{}, 1), make(chan struct{}, 1)
		post := func(body io.Reader, long chan struct{}) (done chan int) {
			done = make(chan int, 1)
			r := httptest.NewRequest("POST", "/dns-query", body)
			r.Header.Set("Content-Type", mediaType)
			go func() {
				q, status := queryHTTP(r, long)
				if status == 200 && len(q) < shortQuery && cap(q) > shortQuery {
					t.Errorf("%d octets have room for %d", len(q), cap(q))
				}
				done <- status
			}()
			synctest.Wait()
			return done
		}
		slow, rest := io.Pipe()
		first := post(slow, long)
		rest.Write(make([]byte, shortQuery+1))
		synctest.Wait()
		waits := &metered{Reader: bytes.NewReader(make([]byte, maxTCP))}
		second := post(waits, long)
		if waits.n != shortQuery || len(second) > 0 {
			t.Errorf("%d octets of a second long query are read beside the first", waits.n)
		}
		for name, done := range map[string]chan int{"short": post(bytes.NewReader(make([]byte, 100)), long), "elsewhere": post(bytes.NewReader(make([]byte, maxTCP)), other)} {
			if len(done) == 0 || <-done != 200 {
				t.Errorf("%s: has to wait", name)
			}
		}
		rest.Close()
		if a, b := <-first, <-second; a != 200 || b != 200 || waits.n != maxTCP {
			t.Errorf("first %d, second %d, %d octets read", a, b, waits.n)
		}
	})
}

// TestDoHConformance: each row of the checklist is answered over HTTPS as over TCP.
func TestDoHConformance(t *testing.T) {
	s := startDoH(t, Config{}, "127.0.0.1:0")
	c := browser(t, true)
	for _, row := range conformanceRows(t) {
		if strings.Contains(row.name, "keepalive") {
			continue // TCP's own (TestDoH)
		}
		t.Run(cited(row.name), func(t *testing.T) {
			resp, b := posted(t, c, s, row.query)
			if row.want == "silence" {
				if resp.StatusCode != http.StatusBadRequest {
					t.Errorf("%s", resp.Status)
				}
				return
			}
			tcp, err := net.Dial("tcp", s.Addrs()[1].String())
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			tcp.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := tcp.Write(framed(row.query)); err != nil {
				t.Fatal(err)
			}
			if got, want := show(message(t, b)), show(readTCP(t, tcp)); got != want {
				t.Errorf("\nover HTTPS %s\nover TCP   %s", got, want)
			}
		})
	}
}

// dialHTTP is dialTLS for HTTP/1.1.
func dialHTTP(t *testing.T, to netip.AddrPort, head []byte) *tls.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := raw.Write(head); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDoHLimits: a client has as many connections as over TCP, and one that idles goes.
func TestDoHLimits(t *testing.T) {
	s := startDoH(t, Config{Limits: Limits{PerClient: 2, Idle: 300 * time.Millisecond}}, "127.0.0.1:0")
	q := ask(t, "www.demo.test. A")
	var conns []*tls.Conn
	for range 2 {
		conns = append(conns, dialHTTP(t, s.Addrs()[0], nil))
	}
	raw, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := raw.Read(make([]byte, 1)); err == nil {
		t.Errorf("a third connection gets %d octets", n)
	}
	for _, c := range conns { // they say nothing, and end
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("an idle connection: %v", err)
		}
	}
	if resp, _ := posted(t, browser(t, true), s, q); resp.StatusCode != 200 {
		t.Errorf("after that: %s", resp.Status)
	}
}

// TestDoHProxied: who the client is stands in front of the handshake.
func TestDoHProxied(t *testing.T) {
	s := startDoH(t, Config{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, "127.0.0.1:0")
	c := dialHTTP(t, s.Addrs()[0], proxyHead("203.0.113.7:4711"))
	req := httpRequest(t, "POST", dohURL(s), mediaType, ask(t, "www.demo.test. A", edns0(ecs("203.0.113.0/24"))))
	if err := req.Write(c); err != nil {
		t.Fatal(err)
	}
	if b := make([]byte, 12); true {
		if _, err := io.ReadFull(c, b); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			t.Errorf("%q, %v", b, err)
		}
	}
	if _, err := browser(t, true).Do(httpRequest(t, "GET", dohURL(s), "", nil)); err == nil {
		t.Error("without a header it is answered")
	}
}
