package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testCA writes a CA and one certificate for loopback, and returns the files
// with a client's configuration made of them.
func testCA(t *testing.T) (*TLSFiles, *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	caKey, key := newKey(t), newKey(t)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca.test"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   ca.NotBefore, NotAfter: ca.NotAfter}
	files := &TLSFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem")}
	writePEM(t, files.CA, "CERTIFICATE", sign(t, ca, ca, caKey, caKey))
	writePEM(t, files.Cert, "CERTIFICATE", sign(t, leaf, ca, key, caKey))
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, files.Key, "EC PRIVATE KEY", der)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	return files, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, c, by *x509.Certificate, key, byKey *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// With TLS nobody without a certificate of the CA reads or writes.
func TestEmbeddedTLS(t *testing.T) {
	files, client := testCA(t)
	m := membersFor(t, 1)
	m[0].PeerURL = strings.Replace(m[0].PeerURL, "http:", "https:", 1)
	m[0].ClientURLs[0] = strings.Replace(m[0].ClientURLs[0], "http:", "https:", 1)
	e, err := StartEmbedded(ctxFor(t), EmbeddedConfig{Name: "m1", Dir: t.TempDir(), Members: m, PeerTLS: files, ClientTLS: files})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Ready(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		tls  *tls.Config
		ok   bool
	}{
		{"a node's certificate", client, true},
		{"no certificate", &tls.Config{RootCAs: client.RootCAs}, false},
		{"a CA of its own", &tls.Config{RootCAs: x509.NewCertPool(), Certificates: client.Certificates}, false},
	} {
		s, err := Open(t.Context(), Config{Etcd: &Etcd{Endpoints: e.Endpoints(), TLS: tt.tls}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if !tt.ok {
			ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
		}
		if err := s.Heartbeat(ctx); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		cancel()
		s.Close()
	}
}
