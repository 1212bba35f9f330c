package config

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
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
	if err := ids["ams1"].StorePair(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an identity without a pair: %v", err)
	}
	join := func() {
		t.Helper()
		if err := JoinStore(filepath.Join(dir, "group"), "ams1", filepath.Join(dir, "ams1"), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	join()
	member, err := LoadIdentity(filepath.Join(dir, "ams1"))
	if err := errors.Join(err, member.StorePair()); err != nil {
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

// TestStorePairUnfit: a member's pair that is not the own one takes nothing away from a
// unit that shows none, and is not shown by one that does; the last good one is.
func TestStorePairUnfit(t *testing.T) {
	dir, _, _ := group(t, "ams1", "nyc1")
	foreign, _, _ := group(t, "ams1")
	at := filepath.Join(dir, "ams1")
	join := func(group, site string, now time.Time) {
		t.Helper()
		if err := JoinStore(filepath.Join(group, "group"), site, at, now); err != nil {
			t.Fatal(err)
		}
	}
	join(dir, "ams1", time.Now())
	member, err := LoadIdentity(at)
	if err := errors.Join(err, member.StorePair()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, group, site, want string
	}{
		{"of another site", dir, "nyc1", "it is that of [store.rhumb] at nyc1"},
		{"of another group", foreign, "ams1", "unknown authority"},
	} {
		join(c.group, c.site, time.Now())
		id, err := LoadIdentity(at)
		if err != nil {
			t.Errorf("%s: a unit without a member does not start: %v", c.name, err)
			continue
		}
		if err := id.StorePair(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		own := member.Certificates(true)
		if len(own) != 2 || own[0].Refused != nil || own[1].File != storeCertFile || own[1].Refused == nil || !strings.Contains(own[1].Refused.Error(), c.want) {
			t.Errorf("%s: shown are %+v, want the last good one, and why", c.name, own)
		}
	}
	join(dir, "ams1", time.Now())
	if own := member.Certificates(true); len(own) != 2 || own[1].Refused != nil {
		t.Errorf("after a good one: %+v", own)
	}
	if err := os.Chmod(filepath.Join(at, storeKeyFile), 0o604); err != nil {
		t.Fatal(err)
	}
	if err := member.StorePair(); err == nil || !strings.Contains(err.Error(), "everybody can read it") {
		t.Errorf("a key for everybody: %v", err)
	}
	if err := JoinStore(filepath.Join(dir, "group"), "Ams.1", dir, time.Now()); err == nil {
		t.Error("a pair for what is no site's name")
	}
}

// TestRunOut: a site whose certificates have run out starts all the same and is refused
// by others, who say why; with new files it is taken again.
func TestRunOut(t *testing.T) {
	dir, ids, _ := group(t, "ams1")
	old, at := time.Now().AddDate(-5, 0, -1), filepath.Join(dir, "nyc1")
	join := func(now time.Time) {
		t.Helper()
		if err := errors.Join(JoinGroup(filepath.Join(dir, "group"), "nyc1", at, now), JoinStore(filepath.Join(dir, "group"), "nyc1", at, now)); err != nil {
			t.Fatal(err)
		}
	}
	join(old)
	if _, err := LoadIdentity(at); err == nil {
		t.Fatal("a certificate from before its group")
	}
	backdate(t, filepath.Join(dir, "group"), old)
	join(old)
	late, err := LoadIdentity(at)
	if err != nil {
		t.Fatalf("want it to start: %v", err)
	}
	if err := late.StorePair(); err != nil {
		t.Fatalf("want it to start: %v", err)
	}
	if own := late.Certificates(true); len(own) != 2 || time.Until(own[0].Ends) > 0 || time.Until(own[1].Ends) > 0 {
		t.Errorf("shown are %+v, want two that have run out", own)
	}
	if err := JoinStore(filepath.Join(dir, "group"), "ams1", filepath.Join(dir, "ams1"), time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name           string
		server, client *Identity
		want           string
	}{{"as a client", ids["ams1"], late, "expired"}, {"as a member", late, ids["ams1"], "expired"}} {
		if _, err := meet(t, c.server.StoreServer(false), c.client.StoreClient()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	join(time.Now())
	for _, pair := range [][2]*Identity{{ids["ams1"], late}, {late, ids["ams1"]}} {
		if _, err := meet(t, pair[0].StoreServer(false), pair[1].StoreClient()); err != nil {
			t.Errorf("with new files: %v", err)
		}
	}
}

// backdate makes a group older, with the same key.
func backdate(t *testing.T, dir string, now time.Time) {
	t.Helper()
	ca, key, err := loadGroup(dir)
	if err != nil {
		t.Fatal(err)
	}
	ca.NotBefore = now.Add(-time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := writePEM(filepath.Join(dir, groupCertFile), "CERTIFICATE", der, 0o644); err != nil {
		t.Fatal(err)
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
	l, err := net.Listen("tcp", "127.0.0.1:0") // a pipe would block an alert that crosses the server's words
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(time.Minute))
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
	if err := c.Handshake(); err != nil {
		b.Close()
		<-judged
		return nil, err
	}
	if err := <-judged; err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}
