package config

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// group makes a group with the identities of some sites.
func group(t *testing.T, sites ...string) (dir string, ids map[string]*Identity, certs map[string]string) {
	t.Helper()
	dir = t.TempDir()
	if err := InitGroup(filepath.Join(dir, "group"), time.Now()); err != nil {
		t.Fatal(err)
	}
	ids, certs = make(map[string]*Identity), make(map[string]string)
	for _, s := range sites {
		out := filepath.Join(dir, s)
		if err := JoinGroup(filepath.Join(dir, "group"), s, out, time.Now()); err != nil {
			t.Fatal(err)
		}
		id, err := LoadIdentity(out)
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(filepath.Join(out, siteCertFile))
		if err != nil {
			t.Fatal(err)
		}
		if ids[s], certs[s] = id, string(pem); id.Site != s {
			t.Errorf("identity of %s names %s", s, id.Site)
		}
	}
	return dir, ids, certs
}

// TestPairKeys: both ends come to one key; every pair and every purpose has its own.
func TestPairKeys(t *testing.T) {
	_, ids, certs := group(t, "ams1", "nyc1", "tyo1")
	seen := make(map[[32]byte]string)
	for _, pair := range [][2]string{{"ams1", "nyc1"}, {"ams1", "tyo1"}, {"nyc1", "tyo1"}} {
		for _, purpose := range []string{"beat", "tunnel"} {
			a, err1 := ids[pair[0]].PairKey(pair[1], certs[pair[1]], purpose)
			b, err2 := ids[pair[1]].PairKey(pair[0], certs[pair[0]], purpose)
			if err1 != nil || err2 != nil || a != b || a == [32]byte{} {
				t.Errorf("%v %s: %x and %x (%v, %v)", pair, purpose, a, b, err1, err2)
			}
			what := pair[0] + pair[1] + purpose
			if other := seen[a]; other != "" {
				t.Errorf("%s and %s have one key", other, what)
			}
			seen[a] = what
		}
	}
}

// TestPairKeyRefuses: no key comes of a certificate that is not the peer's own and
// the group's.
func TestPairKeyRefuses(t *testing.T) {
	_, ids, certs := group(t, "ams1", "nyc1")
	_, _, foreign := group(t, "nyc1")
	for _, c := range []struct{ name, pem, want string }{
		{"none", "", "no certificate in the fleet"},
		{"another group's", foreign["nyc1"], "unknown authority"},
		{"another site's", certs["ams1"], "names ams1"},
		{"no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x509"},
	} {
		key, err := ids["ams1"].PairKey("nyc1", c.pem, "beat")
		if err == nil || !strings.Contains(err.Error(), c.want) || key != [32]byte{} {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestRevokedPeer: a certificate that the fleet revokes gives no key, from the
// moment it does; the others are not concerned.
func TestRevokedPeer(t *testing.T) {
	dir, ids, certs := group(t, "ams1", "nyc1", "tyo1")
	var revoked []string
	ids["ams1"].Revoked = func() []string { return revoked }
	if _, err := ids["ams1"].PairKey("nyc1", certs["nyc1"], "beat"); err != nil {
		t.Fatal(err)
	}
	revoked = serialsOf(t, dir, "nyc1")
	if _, err := ids["ams1"].PairKey("nyc1", certs["nyc1"], "beat"); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Errorf("%v", err)
	}
	if _, err := ids["ams1"].PairKey("tyo1", certs["tyo1"], "beat"); err != nil {
		t.Error(err)
	}
}

func serialsOf(t *testing.T, dir, site string) (out []string) {
	t.Helper()
	issued, err := IssuedTo(filepath.Join(dir, "group"), site)
	if err != nil || len(issued) == 0 {
		t.Fatalf("%v (%v)", issued, err)
	}
	for _, one := range issued {
		out = append(out, one.Serial)
	}
	return out
}

// TestIssuedTo: the group knows every certificate that it signed for a site, and
// takes ams1-b for another one than ams1.
func TestIssuedTo(t *testing.T) {
	dir, _, _ := group(t, "ams1", "ams1-b")
	again := filepath.Join(dir, "again")
	if err := JoinGroup(filepath.Join(dir, "group"), "ams1", again, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	issued, err := IssuedTo(filepath.Join(dir, "group"), "ams1")
	if err != nil || len(issued) != 2 || issued[0].Made.After(issued[1].Made) || issued[0].Serial == issued[1].Serial {
		t.Errorf("%v (%v)", issued, err)
	}
	one, err := ReadIssued(filepath.Join(again, siteCertFile))
	if err != nil || one != issued[1] {
		t.Errorf("%v (%v), want %v", one, err, issued[1])
	}
	if none, err := IssuedTo(filepath.Join(dir, "group"), "xxx1"); err != nil || len(none) != 0 {
		t.Errorf("%v (%v)", none, err)
	}
	if _, err := IssuedTo(dir, "ams1"); err == nil {
		t.Error("a directory without a group knows certificates")
	}
}

// TestFileModes: keys are for their owner alone, also where a file with a wider
// mode lay before; who lets everybody read them is told so.
func TestFileModes(t *testing.T) {
	dir, _, _ := group(t, "ams1")
	for file, want := range map[string]os.FileMode{"group/" + groupKeyFile: 0o600, "ams1/" + siteKeyFile: 0o600, "ams1/" + pairKeyFile: 0o600, "ams1/" + siteCertFile: 0o644} {
		info, err := os.Stat(filepath.Join(dir, file))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v (%v), want %v", file, info.Mode(), err, want)
		}
	}
	pair := filepath.Join(dir, "ams1", pairKeyFile)
	if err := os.Chmod(pair, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(filepath.Join(dir, "ams1")); err == nil || !strings.Contains(err.Error(), "everybody can read it") {
		t.Errorf("%v", err)
	}
	if err := JoinGroup(filepath.Join(dir, "group"), "ams1", filepath.Join(dir, "ams1"), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(filepath.Join(dir, "ams1")); err != nil {
		t.Errorf("joined again: %v", err)
	}
}

// TestIdentityRefused: a group is never made twice over, names are checked, and a
// directory that is not of one piece does not load.
func TestIdentityRefused(t *testing.T) {
	dir, _, _ := group(t, "ams1", "nyc1")
	g := filepath.Join(dir, "group")
	before, _ := os.ReadFile(filepath.Join(g, groupKeyFile))
	if err := InitGroup(g, time.Now()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second group: %v", err)
	}
	if after, _ := os.ReadFile(filepath.Join(g, groupKeyFile)); string(after) != string(before) {
		t.Error("the group's key changed")
	}
	for _, site := range []string{"", "AMS1", "ams1/../x", "-", "a b"} {
		if err := JoinGroup(g, site, filepath.Join(dir, "out"), time.Now()); err == nil {
			t.Errorf("site %q joined", site)
		}
	}
	if err := JoinGroup(dir, "ams1", filepath.Join(dir, "out"), time.Now()); err == nil {
		t.Error("joined a group that is not there")
	}
	other, _, _ := group(t, "ams1")
	for file, from := range map[string]string{
		pairKeyFile:   filepath.Join(dir, "nyc1", pairKeyFile),     // another site's
		siteKeyFile:   filepath.Join(dir, "nyc1", siteKeyFile),     // another site's
		groupCertFile: filepath.Join(other, "ams1", groupCertFile), // another group's
		siteCertFile:  filepath.Join(dir, "nyc1", pairKeyFile),     // no certificate
	} {
		mixed := filepath.Join(t.TempDir(), "id")
		if err := os.CopyFS(mixed, os.DirFS(filepath.Join(dir, "ams1"))); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mixed, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{siteKeyFile, pairKeyFile} {
			os.Chmod(filepath.Join(mixed, key), 0o600)
		}
		if _, err := LoadIdentity(mixed); err == nil {
			t.Errorf("an identity with another %s loads", file)
		}
	}
}

// handshake connects two identities over a pipe.
func handshake(client, server *tls.Config) (clientErr, serverErr error) {
	a, b := net.Pipe()
	a.SetDeadline(time.Now().Add(time.Minute))
	b.SetDeadline(time.Now().Add(time.Minute))
	done := make(chan error)
	go func() {
		s := tls.Server(b, server)
		err := s.Handshake()
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		b.Close()
		done <- err
	}()
	c := tls.Client(a, client)
	clientErr = c.Handshake()
	if clientErr == nil { // in TLS 1.3 the client learns by reading that it was refused
		_, clientErr = c.Read(make([]byte, 1))
	}
	a.Close()
	return clientErr, <-done
}

// TestTLSBetweenSites: sites of a group meet; strangers, wrong names and revoked
// certificates do not, whichever side refuses.
func TestTLSBetweenSites(t *testing.T) {
	dir, ids, _ := group(t, "ams1", "nyc1")
	_, foreign, _ := group(t, "ams1")
	revokes := func(id *Identity, site string) *Identity {
		serials := serialsOf(t, dir, site)
		out := *id
		out.Revoked = func() []string { return serials }
		return &out
	}
	for _, c := range []struct {
		name           string
		client, server *tls.Config
		ok             bool
	}{
		{"of one group", ids["ams1"].TLS("nyc1"), ids["nyc1"].TLS(""), true},
		{"another name than dialled", ids["ams1"].TLS("tyo1"), ids["nyc1"].TLS(""), false},
		{"client of another group", foreign["ams1"].TLS("nyc1"), ids["nyc1"].TLS(""), false},
		{"server of another group", ids["nyc1"].TLS("ams1"), foreign["ams1"].TLS(""), false},
		{"client without a certificate", &tls.Config{InsecureSkipVerify: true}, ids["nyc1"].TLS(""), false},
		{"server revoked", revokes(ids["ams1"], "nyc1").TLS("nyc1"), ids["nyc1"].TLS(""), false},
		{"client revoked", ids["ams1"].TLS("nyc1"), revokes(ids["nyc1"], "ams1").TLS(""), false},
		{"somebody else revoked", revokes(ids["ams1"], "ams1").TLS("nyc1"), ids["nyc1"].TLS(""), true},
		{"TLS 1.2", func() *tls.Config {
			c := ids["ams1"].TLS("nyc1")
			c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
			return c
		}(), ids["nyc1"].TLS(""), false},
	} {
		a, b := handshake(c.client, c.server)
		if (errors.Join(a, b) == nil) != c.ok {
			t.Errorf("%s: client %v, server %v", c.name, a, b)
		}
	}
}

// TestRevokedInFleet: serials are brought into one form, whatever tool printed them.
func TestRevokedInFleet(t *testing.T) {
	small, err := os.ReadFile("testdata/good/small/fleet.yaml")
	if err != nil {
		t.Fatal(err)
	}
	load := func(line string) (*builder, error) {
		src, err := newSource("testdata/good/small/fleet.yaml", append(small[:len(small):len(small)], line...))
		if err != nil {
			return nil, err
		}
		b := newBuilder(os.ReadFile)
		if err := b.add(src, true); err != nil {
			return nil, err
		}
		b.build(readZone)
		return b, b.err()
	}
	b, err := load("revoked: ['0F:a1', fa1, 1, \"00ff\"]\n")
	if err != nil || strings.Join(b.out.Revoked, " ") != "1 fa1 ff" {
		t.Errorf("%v (%v)", b.out.Revoked, err)
	}
	for _, bad := range []string{"''", "xyz", "'-1'", "'0'", "'" + strings.Repeat("f", 41) + "'"} {
		if _, err := load("revoked: [" + bad + "]\n"); err == nil || !strings.Contains(err.Error(), "is not a serial number") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
