package store

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

const testStoreName = "store.test"

// authority is a group: a CA, and the pair in files which all its members share.
type authority struct {
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	pool    *x509.CertPool
	files   TLSFiles
	serial  int64
	revoked atomic.Int64 // a serial
}

// issue signs a certificate for a name.
func (a *authority) issue(t *testing.T, name string) tls.Certificate {
	t.Helper()
	return a.issueUntil(t, name, a.cert.NotAfter)
}

func (a *authority) issueUntil(t *testing.T, name string, end time.Time) tls.Certificate {
	t.Helper()
	a.serial++
	key := newKey(t)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(a.serial), Subject: pkix.Name{CommonName: "ams1"}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore: a.cert.NotBefore, NotAfter: end}
	return tls.Certificate{Certificate: [][]byte{sign(t, leaf, a.cert, key, a.key)}, PrivateKey: key}
}

// renew replaces the members' pair, key first: for a moment the two do not fit.
func (a *authority) renew(t *testing.T) {
	t.Helper()
	a.put(t, a.files, a.issue(t, testStoreName))
}

// put writes a pair into files.
func (a *authority) put(t *testing.T, files TLSFiles, c tls.Certificate) {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, files.Key, "EC PRIVATE KEY", der)
	writePEM(t, files.Cert, "CERTIFICATE", c.Certificate[0])
}

// member returns how a member of the group guards its ports.
func (a *authority) member(mode TLSMode) *MemberTLS { return a.memberOf(a.files, mode) }

// memberOf is a member that shows another pair than most.
func (a *authority) memberOf(files TLSFiles, mode TLSMode) *MemberTLS {
	server := func() *tls.Config {
		return &tls.Config{ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				c, err := tls.LoadX509KeyPair(files.Cert, files.Key)
				return &c, err
			},
			VerifyConnection: func(c tls.ConnectionState) error {
				if c.PeerCertificates[0].SerialNumber.Int64() == a.revoked.Load() {
					return errors.New("revoked")
				}
				return nil
			}}
	}
	return &MemberTLS{Mode: mode, Peers: server(), Clients: server(), Dial: files, Settle: 1, pace: 50 * time.Millisecond}
}

// client returns how a node guards its connections, with a certificate of its own.
func (a *authority) client(t *testing.T, mode TLSMode, marker string) *ClientTLS {
	return &ClientTLS{Mode: mode, Marker: marker, Config: &tls.Config{RootCAs: a.pool, ServerName: testStoreName,
		Certificates: []tls.Certificate{a.issue(t, "ams1")}}}
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	a := &authority{key: newKey(t), pool: x509.NewCertPool(), files: TLSFiles{Cert: filepath.Join(dir, "cert.pem"),
		Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"), Name: testStoreName}}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca.test"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der := sign(t, tmpl, tmpl, a.key, a.key)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	writePEM(t, a.files.CA, "CERTIFICATE", der)
	a.serial = 1
	a.renew(t)
	return a
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

// writePEM replaces a file whole, as an operator is told to.
func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
