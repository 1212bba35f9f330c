package authdns

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhumb/authdns/transfer"
	"rhumb/authdns/zone"
)

// certificate makes one that signs itself, for a name.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestTransferOverTLS: a zone goes from one of our servers to another by RFC 9103,
// signed as well; a primary that is somebody else gets no further than the handshake.
func TestTransferOverTLS(t *testing.T) {
	cert, roots := certificate(t, "ns1.demo.test")
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listener{Level: low, Stream: tls.NewListener(plain, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS13})}
	from := start(t, Config{Workers: 1, Listeners: []Listener{l}, Transfers: desk(t)})
	from.Apply(t.Context(), fleet(t, plan{}))
	src := leaving(demoZone)
	for i := range src {
		src[i].Zone.Transfer.Keys = []string{xfrKey}
	}
	if errs := from.SetZones(src); errs != nil {
		t.Fatal(errs)
	}

	changed := make(chan struct{}, 100)
	to := transfer.NewIn(transfer.Config{Dir: t.TempDir(), Keys: desk(t).Keys, TLS: &tls.Config{RootCAs: roots},
		Check: func(name string, text []byte) ([]string, error) {
			z, err := zone.Parse(name, name, bytes.NewReader(text))
			return z.Names(), err
		}, Changed: func() { changed <- struct{}{} }})
	primary := []netip.AddrPort{from.Addrs()[0]}
	to.Set([]transfer.Incoming{
		{Name: "demo.test.", Primaries: primary, Key: xfrKey, TLS: "ns1.demo.test"},
		{Name: "cdn.demo.test.", Primaries: primary, Key: xfrKey, TLS: "ns2.demo.test"},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- to.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	limit := time.After(time.Minute)
	for {
		right, _ := to.Held("demo.test.")
		wrong, _ := to.Held("cdn.demo.test.")
		if right.Serial == 5 && wrong.Fault != "" {
			if !strings.Contains(wrong.Fault, "ns2.demo.test") || wrong.Serial != 0 {
				t.Errorf("a primary of another name: serial %d, fault %q", wrong.Serial, wrong.Fault)
			}
			break
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // a failure changes nothing, and is not told
		case <-limit:
			t.Fatalf("held %d (%s) and %d (%s)", right.Serial, right.Fault, wrong.Serial, wrong.Fault)
		}
	}
	h, _ := to.Held("demo.test.")
	z, err := zone.Parse("copy", "demo.test.", bytes.NewReader(h.Data))
	if err != nil {
		t.Fatal(err)
	}
	if removed, added := zone.Changes(from.copies.views["demo.test."].zone, z); len(removed)+len(added) > 0 {
		t.Errorf("the copy differs: %v, %v", removed, added)
	}
}
