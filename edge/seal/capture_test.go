package seal

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
	_ "unsafe" // for linkname
)

// The standard library offers all suites of TLS 1.3 and lets nobody choose. These
// two lists are open to linkname.
//
//go:linkname suitesTLS13 crypto/tls.defaultCipherSuitesTLS13
var suitesTLS13 []uint16

//go:linkname suitesTLS13NoAES crypto/tls.defaultCipherSuitesTLS13NoAES
var suitesTLS13NoAES []uint16

var suites = []struct {
	name string
	suite
}{
	{"AES-128-GCM", suite{AES128, tls.TLS_AES_128_GCM_SHA256}},
	{"AES-256-GCM", suite{AES256, tls.TLS_AES_256_GCM_SHA384}},
	{"ChaCha20-Poly1305", suite{ChaCha20, tls.TLS_CHACHA20_POLY1305_SHA256}},
}

type suite struct {
	ours Suite
	id   uint16
}

// only makes crypto/tls speak one suite until the test ends.
func (s suite) only(t testing.TB) {
	a, b := suitesTLS13, suitesTLS13NoAES
	suitesTLS13, suitesTLS13NoAES = []uint16{s.id}, []uint16{s.id}
	t.Cleanup(func() { suitesTLS13, suitesTLS13NoAES = a, b })
}

// recorder keeps what a side wrote.
type recorder struct {
	net.Conn
	mu sync.Mutex
	b  bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.b.Write(b)
	r.mu.Unlock()
	return r.Conn.Write(b)
}

func (r *recorder) written() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.b.Bytes())
}

// talk is a connection of crypto/tls with itself, right after the handshake.
type talk struct {
	server, client *tls.Conn
	toServer       *recorder // what the client writes
	toClient       *recorder
	clientAt       int // length of what the client had written
	serverAt       int
	serverKey      Secret
	clientKey      Secret
}

// newTalk shakes hands by the given suite.
func newTalk(t testing.TB, s suite) *talk {
	t.Helper()
	s.only(t)
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	x := &talk{toClient: &recorder{Conn: a}, toServer: &recorder{Conn: b}}
	var log bytes.Buffer
	x.server = tls.Server(x.toClient, &tls.Config{Certificates: []tls.Certificate{certificate(t)}, SessionTicketsDisabled: true,
		DynamicRecordSizingDisabled: true, KeyLogWriter: &log, MinVersion: tls.VersionTLS13})
	x.client = tls.Client(x.toServer, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	done := make(chan error, 1)
	go func() { done <- x.client.Handshake() }()
	if err := x.server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := x.server.ConnectionState().CipherSuite; got != s.id {
		t.Fatalf("suite %s, want %s", tls.CipherSuiteName(got), tls.CipherSuiteName(s.id))
	}
	x.serverAt, x.clientAt = len(x.toClient.written()), len(x.toServer.written())
	x.serverKey, x.clientKey = logged(t, log.String(), "SERVER", s.ours), logged(t, log.String(), "CLIENT", s.ours)
	return x
}

func logged(t testing.TB, log, side string, s Suite) Secret {
	t.Helper()
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); f[0] == side+"_TRAFFIC_SECRET_0" {
			b, err := hex.DecodeString(f[2])
			if err != nil {
				t.Fatal(err)
			}
			out, err := NewSecret(s, b)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
	}
	t.Fatalf("no secret of %s in %q", side, log)
	return Secret{}
}

// send writes text in pieces from one side, closes it, and returns the wire bytes.
func (x *talk) send(t testing.TB, fromServer bool, text []byte, piece func() int) []byte {
	t.Helper()
	from, to, rec, at := x.server, x.client, x.toClient, x.serverAt
	if !fromServer {
		from, to, rec, at = x.client, x.server, x.toServer, x.clientAt
	}
	read := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(to)
		read <- b
	}()
	for left := text; len(left) > 0; {
		n := min(piece(), len(left))
		if _, err := from.Write(left[:n]); err != nil {
			t.Fatal(err)
		}
		left = left[n:]
	}
	if err := from.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := <-read; !bytes.Equal(got, text) {
		t.Fatalf("crypto/tls read %d of its own %d bytes", len(got), len(text))
	}
	return rec.written()[at:]
}

func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"video.test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
