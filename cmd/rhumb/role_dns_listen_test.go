package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"rhumb/authdns"
	"rhumb/internal/config"
	"rhumb/placement"
)

// TestFollowSecrets: new secrets are taken in while running, wrong ones are told
// once and change nothing.
func TestFollowSecrets(t *testing.T) {
	const a, b = "000102030405060708090a0b0c0d0e0f", "f0e0d0c0b0a090807060504030201000"
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cookies")
		write := func(text string, mode os.FileMode) {
			t.Helper()
			// Whole or not at all: who follows the file may look at this very moment.
			fresh := file + ".new"
			if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Chmod(fresh, mode), os.Rename(fresh, file)); err != nil { // whatever the umask
				t.Fatal(err)
			}
			time.Sleep(2 * secretPace)
			synctest.Wait()
		}
		if err := os.WriteFile(file, []byte(a), 0o600); err != nil {
			t.Fatal(err)
		}
		held, err := readSecrets(file)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		var set [][]authdns.Secret
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- followSecrets(ctx, "cookie secrets", file, readSecrets, held, func(s []authdns.Secret) { set = append(set, s) }, slog.New(slog.NewTextHandler(&log, nil)))
		}()
		time.Sleep(2 * secretPace)
		synctest.Wait()
		if len(set) != 0 {
			t.Errorf("set without a change: %v", set)
		}
		write(b+"\n"+a+"\n", 0o600)
		if len(set) != 1 || len(set[0]) != 2 || set[0][1] != held[0] {
			t.Errorf("after the roll: %v", set)
		}
		write("nonsense", 0o600)
		time.Sleep(time.Minute)
		write(b+"\n#\n", 0o644)
		if n := strings.Count(log.String(), "last good ones stay"); len(set) != 1 || n != 2 {
			t.Errorf("%d sets, %d complaints:\n%s", len(set), n, log.String())
		}
		if !strings.Contains(log.String(), "line 1") || !strings.Contains(log.String(), "everybody can read it") || strings.Contains(log.String(), "nonsense") {
			t.Errorf("complaints:\n%s", log.String())
		}
		write(b, 0o600)
		if len(set) != 2 || len(set[1]) != 1 {
			t.Errorf("in the end: %v", set)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// writePair writes a certificate of its own with a serial number, and its key.
func writePair(t *testing.T, dir string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"dot.crt": {Type: "CERTIFICATE", Bytes: der}, "dot.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		stamp := time.Unix(1_700_000_000+serial, 0) // whatever the clock of the file system
		if err := os.Chtimes(filepath.Join(dir, name), stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDoTListener: a node file's words become listeners of the right level, and a
// renewed certificate is shown to the next who asks, by `rhumb query` for one.
func TestDoTListener(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, 1)
	var c authdns.Config
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	low := []netip.AddrPort{netip.MustParseAddrPort(free.Addr().String())}
	if err := listenDoT(&c, &config.DoT{Low: low, Cert: filepath.Join(dir, "dot.crt"), Key: filepath.Join(dir, "dot.key")}); err != nil {
		t.Fatal(err)
	}
	if len(c.Listeners) != 1 || c.Listeners[0].Level != placement.LowLevel || c.Listeners[0].Addr != low[0] || c.Listeners[0].TLS == nil {
		t.Fatalf("%+v", c.Listeners)
	}
	c.Listeners[0].Stream = free // its port is known to be free
	defer serveDemo(t, c)()
	code, out, errs := cli(t.Context(), "query", "ns.demo.test", "+tls", "+cookie=0102030405060708", "+padding", "@"+low[0].String())
	if code != exitOK || !strings.Contains(out, "192.0.2.1") || !strings.Contains(out, ";; cookie 010203040506070801000000") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	for serial := int64(1); serial < 3; serial++ {
		writePair(t, dir, serial)
		conn, err := tls.Dial("tcp", low[0].String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"dot"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState(); got.PeerCertificates[0].SerialNumber.Int64() != serial || got.NegotiatedProtocol != "dot" {
			t.Errorf("certificate %d, want %d; %q", got.PeerCertificates[0].SerialNumber, serial, got.NegotiatedProtocol)
		}
		conn.Close()
	}
	if err := listenDoT(&c, &config.DoT{Low: low, Cert: filepath.Join(dir, "none"), Key: filepath.Join(dir, "dot.key")}); err == nil || !strings.Contains(err.Error(), "listen.dot") {
		t.Errorf("a missing certificate: %v", err)
	}
}

// TestDoQListener: the same of DNS over QUIC.
func TestDoQListener(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir, 1)
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	low := []netip.AddrPort{netip.MustParseAddrPort(free.LocalAddr().String())}
	var c authdns.Config
	if err := listenDoQ(&c, &config.DoQ{Low: low, Cert: filepath.Join(dir, "dot.crt"), Key: filepath.Join(dir, "dot.key")}); err != nil {
		t.Fatal(err)
	}
	if len(c.Listeners) != 1 || c.Listeners[0].Level != placement.LowLevel || c.Listeners[0].Addr != low[0] || c.Listeners[0].TLS == nil || !c.Listeners[0].QUIC {
		t.Fatalf("%+v", c.Listeners)
	}
	c.Listeners[0].Packet = free
	defer serveDemo(t, c)()
	for serial := int64(1); serial < 3; serial++ {
		writePair(t, dir, serial)
		code, out, errs := cli(t.Context(), "query", "ns.demo.test", "+quic", "+cookie=0102030405060708", "+padding", "@"+low[0].String())
		if code != exitOK || !strings.Contains(out, "192.0.2.1") || !strings.Contains(out, ";; cookie 010203040506070801000000") {
			t.Errorf("exit %d\n%s%s", code, out, errs)
		}
		conn, err := quic.DialAddr(t.Context(), low[0].String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"doq"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().TLS.PeerCertificates[0].SerialNumber.Int64(); got != serial {
			t.Errorf("certificate %d, want %d", got, serial)
		}
		conn.CloseWithError(0, "")
	}
	if code, _, errs := cli(t.Context(), "query", "ns.demo.test", "+quic", "@127.0.0.1:1", "--timeout", "300ms"); code != exitUnreachable {
		t.Errorf("nobody there: exit %d %s", code, errs)
	}
	if err := listenDoQ(&c, &config.DoQ{Low: low, Cert: filepath.Join(dir, "none"), Key: filepath.Join(dir, "dot.key")}); err == nil || !strings.Contains(err.Error(), "listen.doq") {
		t.Errorf("a missing certificate: %v", err)
	}
}

// TestQUICQuery: a query over QUIC has the ID 0 and comes to whole blocks (RFC 9250
// sections 4.2.1 and 5.4), and what is no one reply is told.
func TestQUICQuery(t *testing.T) {
	for _, line := range []string{"www.test +quic", "www.test +quic +padding +cookie", "www.test +quic +subnet=192.0.2.0/24 +dnssec"} {
		q, err := parseQuestion(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		m := q.message()
		if err := padQuery(m); err != nil {
			t.Fatal(err)
		}
		if b, err := m.Pack(); err != nil || len(b)%queryBlock != 0 {
			t.Errorf("%s: %d octets, %v", line, len(b), err)
		}
	}
	good := make([]byte, 14)
	good[1], good[4] = 12, 0x80
	if m, err := onlyMessage(good); err != nil || !m.Response {
		t.Errorf("%v, %v", m, err)
	}
	for want, b := range map[string][]byte{"without a reply": {0}, "for a reply of": append(slices.Clone(good), 0), "over QUIC is 0": slices.Concat(good[:3], []byte{7}, good[4:]), "unpacking": {0, 1, 0}} {
		if _, err := onlyMessage(b); err == nil || want != "unpacking" && !strings.Contains(err.Error(), want) {
			t.Errorf("%x: %v, want %q", b, err, want)
		}
	}
}

// FuzzQUICReply: whatever a server sends.
func FuzzQUICReply(f *testing.F) {
	f.Add([]byte{0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := onlyMessage(b); (m == nil) == (err == nil) || err == nil && m.Id != 0 {
			t.Fatalf("%v, %v", m, err)
		}
	})
}

func TestQueryEDNSWords(t *testing.T) {
	for line, want := range map[string]string{
		"www.test +cookie=zz": "+cookie=zz", "www.test +cookie=0102": "8 to 40", "www.test +tls @192.0.2.1": "", "www.test @192.0.2.1:5300 +tls": "", "www.test +cookie +padding +keepalive": "",
		"www.test +quic @192.0.2.1": "", "www.test +quic +tls": "two transports", "www.test +quic +keepalive": "5.5.2",
	} {
		q, err := parseQuestion(strings.Fields(line))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
		if err == nil && strings.Contains(line, "@") && !slices.Contains([]string{"192.0.2.1:853", "192.0.2.1:5300"}, q.server) {
			t.Errorf("%q asks %s", line, q.server)
		}
	}
}

// TestQueryLearns: asked for a cookie, query asks again with the one it was given.
func TestQueryLearns(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	const given = "1112131415161718"
	s := &dns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		c := replyCookie(q)
		if !strings.HasSuffix(c, given) {
			m.Rcode = dns.RcodeBadCookie
			c = c[:16] + given
		}
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = append(m.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: c},
			&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeOther, ExtraText: "a test"})
		_ = w.WriteMsg(m) // the test sees what is missing
	})}
	go s.ActivateAndServe()
	<-started
	defer s.Shutdown()
	_, out, errs := cli(t.Context(), "query", "www.test", "+cookie", "@"+pc.LocalAddr().String())
	if !strings.Contains(out, "NOERROR") || !strings.Contains(out, given) || !strings.Contains(out, ";; error 0 Other: a test") {
		t.Errorf("%s%s", out, errs)
	}
}

// serveDemo serves demo.test. where a configuration says, until what it returns is called.
func serveDemo(t *testing.T, c authdns.Config) (end func()) {
	t.Helper()
	srv, err := authdns.New(c)
	if err != nil {
		t.Fatal(err)
	}
	zone := []byte("$ORIGIN demo.test.\n$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n")
	if errs := srv.SetZones([]authdns.Source{{Zone: placement.Zone{Name: "demo.test."}, Data: zone}}); errs != nil {
		t.Fatal(errs)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
