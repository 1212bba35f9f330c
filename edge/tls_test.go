package edge

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pairFor makes a certificate by itself and writes it as site.crt and site.key.
func pairFor(t testing.TB, dir, site string, serial int64, end time.Time) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: site}, DNSNames: []string{site},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: end, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, site+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	put(t, filepath.Join(dir, site+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}))
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, site+".crt"), filepath.Join(dir, site+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func put(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// desk of one content service over TLS on a loopback address; its client is no
// local one, since it comes from another.
type tlsSite struct {
	*Agent
	addr  string
	roots *x509.CertPool
	dir   string
	gone  *session // dumped last
}

func newTLSSite(t testing.TB, export string, files map[string][]byte) *tlsSite {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		put(t, filepath.Join(root, name), b)
	}
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	a, pool := newTLSAgent(t, dir, export, netip.MustParseAddrPort(ln.Addr().String()))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { a.accept(ctx, ln) })
	wg.Go(func() { _ = a.view.Load().services[0].tls.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		ln.Close()
		wg.Wait()
		a.wg.Wait()
	})
	return &tlsSite{Agent: a, addr: ln.Addr().String(), roots: pool, dir: dir}
}

// newTLSAgent makes the agent of a site which serves dir/root at a VIP, and
// returns who signed its certificate.
func newTLSAgent(t testing.TB, dir, export string, vip netip.AddrPort) (*Agent, *x509.CertPool) {
	t.Helper()
	pair := pairFor(t, dir, "video.test", 1, time.Now().Add(time.Hour))
	pool := x509.NewCertPool()
	pool.AddCert(pair.Leaf)
	a, err := New(Config{Site: "a", Control: netip.MustParseAddrPort("127.0.0.2:1"), Log: slog.New(slog.DiscardHandler),
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool},
		Services: []Service{{Name: "video", Kind: KindContent, Mode: ModeAct, Root: filepath.Join(dir, "root"), VIPs: []netip.AddrPort{vip},
			Cert: filepath.Join(dir, "video.test.crt"), Key: filepath.Join(dir, "video.test.key"), Export: export}}})
	if err != nil {
		t.Fatal(err)
	}
	return a, pool
}

// dial makes a connection from 127.0.0.1, which wrap may change under the TLS.
// Its receive buffer is small, so that the kernels between hold little.
func (s *tlsSite) dial(t testing.TB, cfg *tls.Config, wrap func(net.Conn) net.Conn) *tls.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 32<<10) })
	}}
	raw, err := d.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(time.Minute))
	if wrap != nil {
		raw = wrap(raw)
	}
	cfg.RootCAs, cfg.ServerName = s.roots, "video.test"
	return tls.Client(raw, cfg)
}

// only returns the one session of the site once ok accepts it.
func (s *tlsSite) only(t testing.TB, ok func(*session) bool) *session {
	t.Helper()
	var found *session
	until(t, "the one session as wanted", func() bool {
		if all := s.tab.all(); len(all) == 1 && ok(all[0]) {
			found = all[0]
		}
		return found != nil
	})
	return found
}

// until bounds the wait for an event of another goroutine.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within 20 s", what)
		}
	}
}

func get(t testing.TB, c io.ReadWriter, r *bufio.Reader, fields string) (*http.Response, []byte) {
	t.Helper()
	if _, err := fmt.Fprintf(c, "GET /film.mp4 HTTP/1.1\r\nHost: video.test\r\n%s\r\n", fields); err != nil {
		t.Fatal(err)
	}
	return answerOf(t, r)
}

func answerOf(t testing.TB, r *bufio.Reader) (*http.Response, []byte) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, b
}

// TestSealedSession: one connection, many requests, whole and in ranges, to its
// end by close_notify. The client is crypto/tls.
func TestSealedSession(t *testing.T) {
	film := random(1<<20 + 77)
	s := newTLSSite(t, ExportGroup, map[string][]byte{"film.mp4": film})
	c := s.dial(t, &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, nil)
	r := bufio.NewReader(c)
	for i, tc := range []struct {
		fields string
		want   []byte
	}{{"", film}, {"Range: bytes=100-1048600\r\n", film[100:1048601]}, {"Range: bytes=5-5\r\n", film[5:6]}, {"", film}} {
		if _, b := get(t, c, r, tc.fields); !bytes.Equal(b, tc.want) {
			t.Fatalf("request %d: %d bytes differ, want %d", i, len(b), len(tc.want))
		}
	}
	if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("protocol %q", p)
	}
	live := s.only(t, func(x *session) bool { return x.cover != nil })
	if State(live.state.Load()) != Active {
		t.Error("the session cannot be moved")
	}
	if _, b := get(t, c, r, "Connection: close\r\n"); !bytes.Equal(b, film) {
		t.Error("the last response differs")
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the end is %v, not a close_notify", err)
	}
	c.Close()
	s.wait(t)
	s.wg.Wait()
	if x := live.cover; x.write.Suite() != 0 || x.read.Suite() != 0 || x.opener.Raw() != nil {
		t.Error("secrets are left behind the session's end")
	}
}

// TestDumpable: no core file and no other process of the user reads secrets.
func TestDumpable(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		export string
		want   int
	}{{ExportNone, 1}, {ExportGroup, 0}} {
		newTLSSite(t, tc.export, nil)
		if got, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || got != tc.want {
			t.Errorf("export %s: dumpable %d, want %d, %v", tc.export, got, tc.want, err)
		}
	}
}

// withFirst holds the client's Finished back until there is a request to send with it.
type withFirst struct {
	net.Conn
	writes int
	held   []byte
}

func (c *withFirst) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 2 { // ClientHello was the first
		c.held = bytes.Clone(b)
		return len(b), nil
	}
	_, err := c.Conn.Write(append(c.held, b...))
	c.held = nil
	return len(b), err
}

// TestRequestBehindFinished: in one segment with the end of the handshake, and
// crypto/tls on our side must not have read it.
func TestRequestBehindFinished(t *testing.T) {
	film := random(40_000)
	s := newTLSSite(t, ExportGroup, map[string][]byte{"film.mp4": film})
	for range 5 {
		c := s.dial(t, &tls.Config{}, func(raw net.Conn) net.Conn { return &withFirst{Conn: raw} })
		if _, b := get(t, c, bufio.NewReader(c), ""); !bytes.Equal(b, film) {
			t.Fatal("differs")
		}
		c.Close()
	}
}

// TestRequestsInPieces: requests cut into records anywhere, and several in one.
func TestRequestsInPieces(t *testing.T) {
	film := random(100_000)
	s := newTLSSite(t, ExportGroup, map[string][]byte{"film.mp4": film})
	for _, piece := range []int{1, 7, 40, 64, 100, 1000} {
		c := s.dial(t, &tls.Config{}, nil)
		r := bufio.NewReader(c)
		const one = "GET /film.mp4 HTTP/1.1\r\nHost: video.test\r\n\r\n"
		all := strings.Repeat(one, 4)
		for off := 0; off < len(all); off += piece {
			if _, err := io.WriteString(c, all[off:min(off+piece, len(all))]); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 4 {
			if _, b := answerOf(t, r); !bytes.Equal(b, film) {
				t.Fatalf("pieces of %d: answer %d differs", piece, i)
			}
		}
		// All is answered: the numbers for a Backup are known again.
		x := s.only(t, func(x *session) bool { return x.cover != nil && x.turn.Load().seat.known })
		if got := x.turn.Load().seat.client; got != uint32((len(all)+piece-1)/piece) {
			t.Errorf("pieces of %d: client record number %d", piece, got)
		}
		c.Close()
		s.wait(t)
	}
}

// wait returns when no session is left.
func (s *tlsSite) wait(t testing.TB) {
	t.Helper()
	until(t, "end of all sessions", func() bool { return s.tab.len() == 0 })
}

// flips changes one byte of what the client sends once it is armed.
type flips struct {
	net.Conn
	armed bool
}

func (c *flips) Write(b []byte) (int, error) {
	if c.armed {
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
	}
	return c.Conn.Write(b)
}

// TestSealedEnds: how a session ends over what the client sends.
func TestSealedEnds(t *testing.T) {
	film := random(20_000)
	s := newTLSSite(t, ExportGroup, map[string][]byte{"film.mp4": film})
	t.Run("RFC 8446 5.2: a forged record", func(t *testing.T) {
		f := &flips{}
		c := s.dial(t, &tls.Config{}, func(raw net.Conn) net.Conn { f.Conn = raw; return f })
		r := bufio.NewReader(c)
		get(t, c, r, "")
		f.armed = true
		io.WriteString(c, "GET /film.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
		if b, err := io.ReadAll(r); len(b) > 0 || err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("%d bytes and %v, want the alert bad_record_mac", len(b), err)
		}
	})
	t.Run("RFC 8446 6.1: the client's close_notify", func(t *testing.T) {
		c := s.dial(t, &tls.Config{}, nil)
		r := bufio.NewReader(c)
		get(t, c, r, "")
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); len(b) > 0 || err != nil {
			t.Errorf("%d bytes and %v, want a close_notify", len(b), err)
		}
	})
	t.Run("a broken request", func(t *testing.T) {
		c := s.dial(t, &tls.Config{}, nil)
		io.WriteString(c, "BREW pot\r\n\r\n")
		b, err := io.ReadAll(c)
		if !strings.HasPrefix(string(b), "HTTP/1.1 400 ") || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("no TLS", func(t *testing.T) {
		raw, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(raw, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if b, _ := io.ReadAll(raw); bytes.Contains(b, []byte("HTTP/1.1 2")) {
			t.Errorf("answered in clear: %q", b)
		}
	})
}

// TestKeptSessions: what crypto/tls serves has the same answers, HTTP/2 too,
// and stays here.
func TestKeptSessions(t *testing.T) {
	film := random(1<<20 + 99)
	for _, tc := range []struct {
		name, export string
		cfg          *tls.Config
		http2        bool
	}{
		{"HTTP/2", ExportNone, &tls.Config{}, true},
		{"HTTP/1.1", ExportNone, &tls.Config{}, false},
		{"TLS 1.2 where 1.3 is sealed", ExportGroup, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newTLSSite(t, tc.export, map[string][]byte{"film.mp4": film, "index.html": []byte("<p>")})
			tc.cfg.RootCAs, tc.cfg.ServerName = s.roots, "video.test"
			tr := &http.Transport{TLSClientConfig: tc.cfg, ForceAttemptHTTP2: tc.http2,
				DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}).DialContext}
			defer tr.CloseIdleConnections()
			for _, q := range []struct {
				method, path, rng string
				status            int
				body              []byte
			}{
				{"GET", "/film.mp4", "", 200, film}, {"GET", "/film.mp4", "bytes=7-1048600", 206, film[7:1048601]},
				{"HEAD", "/film.mp4", "", 200, nil}, {"GET", "/", "", 200, []byte("<p>")}, {"GET", "/none", "", 404, []byte("Not Found\n")},
				{"DELETE", "/film.mp4", "", 405, []byte("Method Not Allowed\n")}, {"GET", "/film.mp4", "bytes=99999999-", 416, []byte("Requested Range Not Satisfiable\n")},
			} {
				req, _ := http.NewRequestWithContext(t.Context(), q.method, "https://"+s.addr+q.path, nil)
				if q.rng != "" {
					req.Header.Set("Range", q.rng)
				}
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != q.status || !bytes.Equal(b, q.body) || (resp.ProtoMajor == 2) != tc.http2 {
					t.Errorf("%s %s %s: %s %d, %d bytes, %v", q.method, q.path, q.rng, resp.Proto, resp.StatusCode, len(b), err)
				}
				if q.method == "HEAD" && resp.ContentLength != int64(len(film)) {
					t.Errorf("HEAD: length %d", resp.ContentLength)
				}
			}
			if x := s.only(t, func(*session) bool { return true }); State(x.state.Load()) != Pinned || x.claim() {
				t.Error("the session could be moved")
			}
			tr.CloseIdleConnections()
			s.wait(t)
		})
	}
}

// TestExportSite: our record layer, and no other site gets the session.
func TestExportSite(t *testing.T) {
	s := newTLSSite(t, ExportSite, map[string][]byte{"film.mp4": random(10)})
	c := s.dial(t, &tls.Config{}, nil)
	get(t, c, bufio.NewReader(c), "")
	if x := s.only(t, func(x *session) bool { return x.cover != nil }); x.claim() {
		t.Error("the session could be moved")
	}
}

// TestCertificateReload: a good new pair is served, a bad one leaves the old one
// in service and says so once, until the files are good again.
func TestCertificateReload(t *testing.T) {
	dir := t.TempDir()
	pairFor(t, dir, "video.test", 1, time.Now().Add(time.Hour))
	var said bytes.Buffer
	m := newTLSMetrics(nil)
	crt, key := filepath.Join(dir, "video.test.crt"), filepath.Join(dir, "video.test.key")
	c, err := newCertificates("video", crt, key, m, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	serial := func() int64 { p, _ := c.get(nil); return p.Leaf.SerialNumber.Int64() }
	step := func(name string, want int64, bad bool, errors int) {
		t.Helper()
		c.look(now)
		c.look(now)
		c.look(now)
		if got := serial(); got != want || (c.rejected() != "") != bad || strings.Count(said.String(), "level=ERROR") != errors {
			t.Errorf("%s: serial %d, want %d; rejected %q; log:\n%s", name, got, want, c.rejected(), said.String())
		}
	}
	step("unchanged", 1, false, 0)
	pairFor(t, dir, "video.test", 2, time.Now().Add(time.Hour))
	step("renewed", 2, false, 0)
	good, _ := os.ReadFile(crt)
	put(t, crt, []byte("-----BEGIN CERTIFICATE-----\nnonsense\n"))
	step("broken file", 2, true, 1)
	put(t, crt, good)
	step("mended", 2, false, 1)
	pairFor(t, dir, "other.test", 3, time.Now().Add(time.Hour))
	if err := os.Rename(filepath.Join(dir, "other.test.key"), key); err != nil {
		t.Fatal(err)
	}
	c.look(now)
	if c.rejected() != "" {
		t.Error("a pair between its two files is told at once")
	}
	step("key of another certificate", 2, true, 2)
	if err := os.Rename(filepath.Join(dir, "other.test.crt"), crt); err != nil {
		t.Fatal(err)
	}
	step("its certificate too", 3, false, 2)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	step("a file is gone", 3, true, 3)
	pairFor(t, dir, "video.test", 4, time.Now().Add(-time.Hour))
	step("expired", 3, true, 4)
	if _, err := newCertificates("video", filepath.Join(dir, "none"), key, m, discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("begun without a certificate: %v", err)
	}
}

// TestOneRecord: however much there is to read, never more than a record.
func TestOneRecord(t *testing.T) {
	text := bytes.Join([][]byte{{22, 3, 1, 0, 3, 'a', 'b', 'c'}, {20, 3, 3, 0, 1, 1}, {23, 3, 3, 0, 0}, {23, 3, 3, 0, 2, 'x', 'y'}}, nil)
	a, b := net.Pipe()
	go func() { b.Write(append(text, "behind"...)) }()
	c := &oneRecord{Conn: a}
	for _, want := range []int{8, 6, 5, 7} {
		got := 0
		for got < want {
			n, err := c.Read(make([]byte, 1000))
			if err != nil || got+n > want {
				t.Fatalf("%d + %d bytes of a record of %d, %v", got, n, want, err)
			}
			got += n
		}
	}
	b.Close()
}
