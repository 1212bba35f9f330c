package health

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

const (
	day     = 24 * time.Hour
	wwwHost = "www.cdn.demo.test"
)

// authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

// newAuthority makes one that ends after left; by nil it signs itself.
func newAuthority(t *testing.T, name string, left time.Duration, by *authority) *authority {
	t.Helper()
	a := &authority{}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-1000 * day), NotAfter: time.Now().Add(left),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key = newKey(t)
	a.cert = sign(t, tmpl, a.key, by)
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t *testing.T, tmpl *x509.Certificate, key *ecdsa.PrivateKey, by *authority) *x509.Certificate {
	t.Helper()
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// leaf is a server's certificate for names that ends after left; with are sent along.
func (a *authority) leaf(t *testing.T, left time.Duration, names []string, with ...*authority) tls.Certificate {
	t.Helper()
	key := newKey(t)
	c := sign(t, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: names, NotBefore: time.Now().Add(-999 * day), NotAfter: time.Now().Add(left)}, key, a)
	out := tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
	for _, w := range with {
		out.Certificate = append(out.Certificate, w.cert.Raw)
	}
	return out
}

func pinOf(c tls.Certificate) string {
	sum := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// serveTLS serves HTTPS with certificates, by name, in either version.
func serveTLS(t *testing.T, certs ...tls.Certificate) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto+" "+r.Host+" "+r.TLS.ServerName)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{Certificates: certs}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// TestCertificatesTellThreePeople: an ended certificate, one for another name and
// one of a stranger are three reasons, and the switch rules which count.
func TestCertificatesTellThreePeople(t *testing.T) {
	ca, other := newAuthority(t, "ours", 900*day, nil), newAuthority(t, "theirs", 900*day, nil)
	old := newAuthority(t, "old between", -day, ca)
	www := []string{wwwHost}
	good, stranger := ca.leaf(t, 90*day, www), other.leaf(t, 90*day, www)
	for _, c := range []struct {
		name  string
		cert  tls.Certificate
		trust placement.Trust
		kind  string
		words string
	}{
		{"good", good, placement.Trust{CA: ca.pem}, "ok", ""},
		{"ended", ca.leaf(t, -time.Hour, www), placement.Trust{CA: ca.pem}, "expired", "valid from"},
		{"ended in between", old.leaf(t, 90*day, www, old), placement.Trust{CA: ca.pem}, "expired", ""},
		{"other name", ca.leaf(t, 90*day, []string{"mail.demo.test"}), placement.Trust{CA: ca.pem}, "name", "mail.demo.test"},
		{"no name", ca.leaf(t, 90*day, nil), placement.Trust{CA: ca.pem}, "name", ""},
		{"stranger", stranger, placement.Trust{CA: ca.pem}, "authority", ""},
		{"stranger, the system's authorities", stranger, placement.Trust{}, "authority", ""},
		{"a text that is no authority", good, placement.Trust{CA: "nobody"}, "authority", ""},
		{"skip", ca.leaf(t, -time.Hour, nil), placement.Trust{Verify: "skip"}, "ok", ""},
		{"pinned", stranger, placement.Trust{Verify: "pin", Pins: []string{pinOf(good), pinOf(stranger)}}, "ok", ""},
		{"other pin", stranger, placement.Trust{Verify: "pin", Pins: []string{pinOf(good)}}, "pin", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			check := placement.Check{HTTP: &placement.HTTPCheck{Path: "/", TLS: true, Trust: c.trust}}
			r := ProbeHTTP(within(t, 20*time.Second), target(serveTLS(t, c.cert), check))
			if r.Kind != c.kind || r.OK() != (c.kind == "ok") || !strings.Contains(r.Cause, c.words) {
				t.Errorf("%+v, want kind %s with %q", r, c.kind, c.words)
			}
			if r.OK() && !r.Expires.Equal(c.cert.Leaf.NotAfter) {
				t.Errorf("expires %v, want %v", r.Expires, c.cert.Leaf.NotAfter)
			}
		})
	}
}

// TestHTTPVersions: the version asked for and no other, with Host and SNI those of
// the service, and the phases in their order.
func TestHTTPVersions(t *testing.T) {
	ca := newAuthority(t, "ours", 900*day, nil)
	both := serveTLS(t, ca.leaf(t, 90*day, []string{wwwHost}))
	plain := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto+" "+r.Host) }))
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Config.Protocols.SetHTTP1(true)
	plain.Start()
	t.Cleanup(plain.Close)
	one := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	t.Cleanup(one.Close)
	for _, c := range []struct {
		name, addr string
		check      placement.HTTPCheck
		ok         bool
	}{
		{"TLS, 1.1", both, placement.HTTPCheck{TLS: true, Body: "HTTP/1.1 " + wwwHost + " " + wwwHost}, true},
		{"TLS, 2", both, placement.HTTPCheck{TLS: true, Version: "2", Body: "HTTP/2.0 " + wwwHost + " " + wwwHost}, true},
		{"clear, 1.1", plain.Listener.Addr().String(), placement.HTTPCheck{Body: "HTTP/1.1 " + wwwHost}, true},
		{"clear, 2 (RFC 9113 3.3)", plain.Listener.Addr().String(), placement.HTTPCheck{Version: "2", Body: "HTTP/2.0 " + wwwHost}, true},
		{"2 of a server that knows 1.1", one.Listener.Addr().String(), placement.HTTPCheck{Version: "2"}, false},
	} {
		c.check.Path = "/"
		c.check.CA = ca.pem
		r := ProbeHTTP(within(t, 20*time.Second), target(c.addr, placement.Check{HTTP: &c.check}))
		if r.OK() != c.ok {
			t.Errorf("%s: %+v", c.name, r)
		}
		if c.ok && (r.Connect <= 0 || r.First <= r.Connect || r.Took < r.First || c.check.TLS && (r.Handshake <= r.Connect || r.First <= r.Handshake) || r.Bytes == 0) {
			t.Errorf("%s: phases %+v, %d bytes", c.name, r.Phases, r.Bytes)
		}
	}
}

// TestCertificateDates: the check of dates is up until one has passed, says when
// somebody should know, and asks for every name.
func TestCertificateDates(t *testing.T) {
	ca := newAuthority(t, "ours", 900*day, nil)
	soon := newAuthority(t, "soon over", 5*day, ca)
	useless := newAuthority(t, "needed by nobody", -day, newAuthority(t, "gone", 900*day, nil))
	names := func(n ...string) []string { return n }
	for _, c := range []struct {
		name  string
		certs []tls.Certificate
		hosts []string
		ca    string
		kind  string
		state placement.State
		days  int
	}{
		{"long", []tls.Certificate{ca.leaf(t, 90*day, names("a.test"))}, names("a.test"), ca.pem, "ok", placement.Up, 89},
		{"three weeks", []tls.Certificate{ca.leaf(t, 20*day, names("a.test"))}, names("a.test"), ca.pem, "warn", placement.Up, 19},
		{"one week", []tls.Certificate{ca.leaf(t, 6*day, names("a.test"))}, names("a.test"), ca.pem, "alarm", placement.Up, 5},
		{"the last hour", []tls.Certificate{ca.leaf(t, time.Hour, names("a.test"))}, names("a.test"), ca.pem, "alarm", placement.Up, 0},
		{"over", []tls.Certificate{ca.leaf(t, -time.Hour, names("a.test"))}, names("a.test"), ca.pem, "expired", placement.Down, 0},
		{"over, of a stranger", []tls.Certificate{ca.leaf(t, -time.Hour, names("a.test"))}, names("a.test"), "", "expired", placement.Down, 0},
		{"the chain's earliest date", []tls.Certificate{soon.leaf(t, 90*day, names("a.test"), soon)}, names("a.test"), ca.pem, "alarm", placement.Up, 4},
		{"the earliest date of a stranger's chain", []tls.Certificate{soon.leaf(t, 90*day, names("a.test"), soon)}, names("a.test"), "", "alarm", placement.Up, 4},
		{"what nobody needs may end", []tls.Certificate{ca.leaf(t, 90*day, names("a.test"), useless)}, names("a.test"), ca.pem, "ok", placement.Up, 89},
		{"another name is the business of others", []tls.Certificate{ca.leaf(t, 90*day, names("b.test"))}, names("a.test"), ca.pem, "ok", placement.Up, 89},
		{"every name", []tls.Certificate{ca.leaf(t, 90*day, names("a.test")), ca.leaf(t, 3*day, names("b.test"))}, names("a.test", "b.test"), ca.pem, "alarm", placement.Up, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			tg := target(serveTLS(t, c.certs...), placement.Check{TLS: &placement.TLSCheck{CA: c.ca}})
			tg.Hosts = c.hosts
			r := ProbeTLS(within(t, 20*time.Second), tg)
			if r.Kind != c.kind || r.State != c.state || (r.Cause == "") != (c.kind == "ok") {
				t.Errorf("%+v, want %s, %v", r, c.kind, c.state)
			}
			if have := int(time.Until(r.Expires) / day); have != c.days {
				t.Errorf("%d days left, want %d", have, c.days)
			}
		})
	}
}

// TestDatesOfNobody: a server that cannot be reached has no certificate that ended.
func TestDatesOfNobody(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	addr := plain.Listener.Addr().String()
	check := placement.Check{TLS: &placement.TLSCheck{}}
	for _, when := range []string{"clear text", "closed"} {
		if r := ProbeTLS(within(t, 20*time.Second), target(addr, check)); r.State != placement.Unknown || r.Cause == "" || !r.Expires.IsZero() {
			t.Errorf("%s: %+v", when, r)
		}
		plain.Close()
	}
}

// TestNamesThatAreRefused: a server that ends the handshake for one of the names hides
// nothing of the others.
func TestNamesThatAreRefused(t *testing.T) {
	ca := newAuthority(t, "ours", 900*day, nil)
	for left, want := range map[time.Duration]placement.State{-time.Hour: placement.Down, 90 * day: placement.Unknown} {
		cert := ca.leaf(t, left, []string{"a.test"})
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		srv.Config.ErrorLog = log.New(io.Discard, "", 0)
		srv.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			if h.ServerName != "a.test" {
				return nil, errors.New("no such name")
			}
			return &tls.Config{Certificates: []tls.Certificate{cert}}, nil
		}, Certificates: []tls.Certificate{cert}}
		srv.StartTLS()
		tg := target(srv.Listener.Addr().String(), placement.Check{TLS: &placement.TLSCheck{CA: ca.pem}})
		for _, hosts := range [][]string{{"a.test", "b.test"}, {"b.test", "a.test"}} {
			tg.Hosts = hosts
			if r := ProbeTLS(within(t, 20*time.Second), tg); r.State != want || !r.Expires.Equal(cert.Leaf.NotAfter) || r.Cause == "" {
				t.Errorf("%v left, %v: %+v, want %v", left, hosts, r, want)
			}
		}
		srv.Close()
	}
}

func TestEarliest(t *testing.T) {
	a, b := time.Unix(100, 0), time.Unix(200, 0)
	chain := []*x509.Certificate{{NotAfter: b}, {NotAfter: a}}
	if e := earliest(chain); !e.Equal(a) {
		t.Errorf("earliest %v", e)
	}
	slices.Reverse(chain)
	if e := earliest(chain); !e.Equal(a) {
		t.Errorf("earliest %v", e)
	}
	if !earliest(nil).IsZero() {
		t.Error("no chain has a date")
	}
}
