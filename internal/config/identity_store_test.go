package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStorePair: a member and a client of one group take each other; nobody else does,
// a member's port for members takes members alone, and new files count at once.
func TestStorePair(t *testing.T) {
	dir, ids, _ := group(t, "ams1", "nyc1")
	_, foreign, _ := group(t, "ams1")
	if ids["ams1"].CarriesStore() {
		t.Fatal("an identity without a pair carries a member")
	}
	join := func() {
		t.Helper()
		if err := JoinStore(filepath.Join(dir, "group"), "ams1", filepath.Join(dir, "ams1"), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	join()
	member, err := LoadIdentity(filepath.Join(dir, "ams1"))
	if err != nil || !member.CarriesStore() {
		t.Fatalf("with a pair: %v", err)
	}
	asMember := member.StoreClient()
	asMember.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return member.store.get() }
	for _, c := range []struct {
		name   string
		client *tls.Config
		peers  bool
		want   string
	}{
		{"a node", ids["nyc1"].StoreClient(), false, ""},
		{"a node at the port for members", ids["nyc1"].StoreClient(), true, "no member's"},
		{"a member at the port for members", asMember, true, ""},
		{"another group", foreign["ams1"].StoreClient(), false, "unknown authority"},
	} {
		if _, err := meet(t, member.StoreServer(c.peers), c.client); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	server := member.StoreServer(false)
	before, err := meet(t, server, ids["nyc1"].StoreClient())
	if err != nil {
		t.Fatal(err)
	}
	join()
	after, err := meet(t, server, ids["nyc1"].StoreClient())
	if err != nil || after.Equal(before) {
		t.Errorf("after a new pair: the same certificate, or %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ams1", storeKeyFile), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if still, err := meet(t, server, ids["nyc1"].StoreClient()); err != nil || !still.Equal(after) {
		t.Errorf("a pair that does not fit: %v, want the last good one", err)
	}
	if issued, err := IssuedTo(filepath.Join(dir, "group"), "ams1"); err != nil || len(issued) != 3 {
		t.Errorf("recorded for revoking: %d (%v), want the site's and two of its member", len(issued), err)
	}
	member.Revoked = func() []string { return []string{ids["nyc1"].leaf(t).SerialNumber.Text(16)} }
	if _, err := meet(t, server, ids["nyc1"].StoreClient()); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked node: %v", err)
	}
}

// TestStorePairRefused: a pair of another site is a mistake at the start.
func TestStorePairRefused(t *testing.T) {
	dir, _, _ := group(t, "ams1")
	if err := JoinStore(filepath.Join(dir, "group"), "nyc1", filepath.Join(dir, "ams1"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(filepath.Join(dir, "ams1")); err == nil || !strings.Contains(err.Error(), "at nyc1") {
		t.Errorf("%v", err)
	}
	if err := JoinStore(filepath.Join(dir, "group"), "Ams.1", dir, time.Now()); err == nil {
		t.Error("a pair for what is no site's name")
	}
}

func (id *Identity) leaf(t *testing.T) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(id.Cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meet has two ends shake hands, and returns the server's certificate, or what either
// of them objects to.
func meet(t *testing.T, server, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	a, b := net.Pipe()
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(15 * time.Second))
		defer c.Close()
	}
	s, c := tls.Server(a, server), tls.Client(b, client)
	judged := make(chan error, 1)
	go func() {
		err := s.Handshake()
		if err != nil {
			a.Close()
		}
		judged <- err
	}()
	err := c.Handshake()
	if err != nil {
		b.Close()
		<-judged
		return nil, err
	}
	go c.Read(make([]byte, 1)) // takes the server's tickets, or its alert
	if err := <-judged; err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}
