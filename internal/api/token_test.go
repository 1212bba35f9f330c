package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// write makes a file whose time stamp is its own, however quick the test is.
func write(t *testing.T, path, text string, mode os.FileMode, age time.Duration) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
	return path
}

func newToken(t *testing.T, name, word string) (secret, line string) {
	t.Helper()
	secret, line, err := NewToken(name, word)
	if err != nil {
		t.Fatal(err)
	}
	return secret, line
}

func TestTokenFile(t *testing.T) {
	secret, line := newToken(t, "grafana", WordViewer)
	hash := strings.Fields(line)[2]
	dir := t.TempDir()
	for name, c := range map[string]struct {
		text, want string
		mode       os.FileMode
	}{
		"good":           {"# who may\n\n" + line + " # of 2026\n", "", 0o640},
		"empty":          {"# nobody\n", "no token in it", 0o600},
		"two words":      {"grafana viewer\n", "line 1: want NAME ROLE SHA256", 0o600},
		"a role unknown": {"\ngrafana root " + hash, "line 2: role \"root\"", 0o600},
		"the secret":     {"grafana viewer " + secret, "no SHA-256", 0o600},
		"a name twice":   {line + "\n" + line, "line 2: grafana stands twice", 0o600},
		"for all":        {line, "others may write it", 0o666},
	} {
		tokens, err := OpenTokens(write(t, filepath.Join(dir, name), c.text, c.mode, 0), nil)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			} else if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error tells the secret: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if who, ok := tokens.caller(secret); !ok || who != (caller{roleRead, "token grafana"}) {
			t.Errorf("%s: %+v %v", name, who, ok)
		}
	}
	if _, err := OpenTokens(filepath.Join(dir, "none"), nil); err == nil {
		t.Error("a missing file was taken")
	}
	for _, bad := range [][2]string{{"", WordViewer}, {"a b", WordViewer}, {"a#", WordViewer}, {"a", "root"}} {
		if _, _, err := NewToken(bad[0], bad[1]); err == nil {
			t.Errorf("made a token for %q", bad)
		}
	}
}

// A token that is taken out of the file ends at once; a damaged file ends none.
func TestTokensFollowTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	first, line1 := newToken(t, "one", WordOperator)
	second, line2 := newToken(t, "two", WordViewer)
	var log bytes.Buffer
	tokens, err := OpenTokens(write(t, path, line1, 0o600, 3*time.Hour), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	has := func(secret string) bool { _, ok := tokens.caller(secret); return ok }
	if !has(first) || has(second) || has("") {
		t.Error("before: not one alone")
	}
	write(t, path, line1+"\nhalf a li", 0o600, 2*time.Hour)
	if !has(first) || !strings.Contains(log.String(), "token file refused") {
		t.Errorf("a damaged file: %s", &log)
	}
	write(t, path, line2, 0o600, time.Hour)
	if has(first) || !has(second) {
		t.Error("afterwards: not two alone")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !has(second) {
		t.Error("a file that is gone ended a token")
	}
}

func FuzzTokens(f *testing.F) {
	f.Add([]byte("a viewer 0000000000000000000000000000000000000000000000000000000000000000 # x"))
	f.Add([]byte("a operator zz\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseTokens(data)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d tokens, %v", len(got), err)
		}
		for _, c := range got {
			if c.role != roleRead && c.role != roleOperate {
				t.Fatalf("role %d", c.role)
			}
		}
	})
}

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.sign(c, nil, nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(c, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, key
}

// pair makes a certificate for 127.0.0.1, or for a client of some units.
func (a *authority) pair(name string, units ...string) tls.Certificate {
	a.t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, OrganizationalUnit: units},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	cert, key := a.sign(c, a.cert, a.key)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// files writes certificate and key of a pair.
func (a *authority) files(dir string, p tls.Certificate) (cert, key string) {
	a.t.Helper()
	der, err := x509.MarshalECPrivateKey(p.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		a.t.Fatal(err)
	}
	cert = write(a.t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate[0]})), 0o600, 0)
	key = write(a.t, filepath.Join(dir, "key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})), 0o600, 0)
	return cert, key
}

// far lets connections look as if they came from another machine.
type far struct{ net.Listener }

func (l far) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return farConn{c}, err
}

type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711} }

// TestBeyondLoopback: another machine is let in over TLS by a token or by a client
// certificate, each with its role, and by nothing else.
func TestBeyondLoopback(t *testing.T) {
	dir, ours, foreign := t.TempDir(), newAuthority(t), newAuthority(t)
	cert, key := ours.files(dir, ours.pair("server"))
	clients := write(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ours.cert.Raw})), 0o600, 0)
	conf, err := TLS(TLSFiles{Cert: cert, Key: key, Clients: clients})
	if err != nil {
		t.Fatal(err)
	}
	reads, line1 := newToken(t, "grafana", WordViewer)
	operates, line2 := newToken(t, "ci", WordOperator)
	ops := &fakeOps{}
	s := testServer(t, ops)
	if s.cfg.Tokens, err = OpenTokens(write(t, filepath.Join(dir, "tokens"), line1+"\n"+line2+"\n", 0o600, 0), nil); err != nil {
		t.Fatal(err)
	}
	s.handler = s.routes()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	clear, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, tls.NewListener(far{l}, conf), far{clear}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		name, token string
		cert        *tls.Certificate
		read, thaw  int
	}{
		{"nobody", "", nil, 401, 401},
		{"a token to read", reads, nil, 200, 403},
		{"a token to operate", operates, nil, 200, 200},
		{"a token of nobody", reads[:len(reads)-1], nil, 401, 401},
		{"a certificate to read", "", new(ours.pair("ann", "viewer")), 200, 403},
		{"a certificate to operate", "", new(ours.pair("bob", "operator")), 200, 200},
		{"a certificate for nothing", "", new(ours.pair("eve", "kitchen")), 403, 403},
		{"a certificate to read, a token to operate", operates, new(ours.pair("ann", "viewer")), 200, 200},
		{"a certificate to operate, a token of nobody", "rhumb_x", new(ours.pair("bob", "operator")), 401, 401},
		{"a certificate of another authority", "", new(foreign.pair("mal", "operator")), 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &tls.Config{RootCAs: ours.pool}
			if c.cert != nil {
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.cert, nil }
			}
			hc := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
			ask := func(method, url string) int {
				req, err := http.NewRequest(method, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				if c.token != "" {
					req.Header.Set("Authorization", "Bearer "+c.token)
				}
				res, err := hc.Do(req)
				if err != nil {
					return 0
				}
				defer res.Body.Close()
				_, _ = io.Copy(io.Discard, res.Body)
				if (res.StatusCode == 401) != (res.Header.Get("WWW-Authenticate") != "") {
					t.Errorf("%d with challenge %q", res.StatusCode, res.Header.Get("WWW-Authenticate"))
				}
				return res.StatusCode
			}
			base := "https://" + l.Addr().String()
			for _, path := range []string{"/api/v1/status", "/metrics", "/", "/livez"} {
				if got := ask("GET", base+path); got != c.read {
					t.Errorf("GET %s: %d, want %d", path, got, c.read)
				}
			}
			if got := ask("POST", base+"/api/v1/thaw"); got != c.thaw {
				t.Errorf("POST thaw: %d, want %d", got, c.thaw)
			}
			if c.token == "" {
				if got := ask("GET", "http://"+clear.Addr().String()+"/api/v1/status"); got != 403 {
					t.Errorf("in clear: %d, want 403", got)
				}
			}
		})
	}
}

// A renewed certificate is taken in; a key that does not fit is not.
func TestCertificateRenewed(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t)
	cert, key := a.files(dir, a.pair("first"))
	conf, err := TLS(TLSFiles{Cert: cert, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	name := func() string {
		c, err := conf.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		x, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return x.Subject.CommonName
	}
	write(t, key, "half a key", 0o600, 2*time.Hour)
	if got := name(); got != "first" {
		t.Errorf("with half a key: %s", got)
	}
	a.files(dir, a.pair("second"))
	if got := name(); got != "second" {
		t.Errorf("renewed: %s", got)
	}
	for what, f := range map[string]TLSFiles{"no key": {Cert: cert, Key: filepath.Join(dir, "none")}, "a key is no certificate": {Cert: key, Key: key},
		"no authority": {Cert: cert, Key: key, Clients: filepath.Join(dir, "none")}, "a key is no authority": {Cert: cert, Key: key, Clients: key}} {
		if _, err := TLS(f); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}
