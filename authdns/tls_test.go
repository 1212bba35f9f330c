package authdns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// certWithSerial makes one of its own for a serial number.
func certWithSerial(t *testing.T, serial int64) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "ns.demo.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"ns.demo.test"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// startTLS serves over TLS with whatever certificate is in the pointer.
func startTLS(t *testing.T, c Config, addr string) (*Server, *atomic.Pointer[tls.Certificate]) {
	t.Helper()
	cert := new(atomic.Pointer[tls.Certificate])
	cert.Store(certWithSerial(t, 1))
	l := loopback(top, addr)
	l.TLS = &tls.Config{NextProtos: []string{"dot"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Load(), nil }}
	c.Listeners = append(c.Listeners, l)
	s := start(t, c)
	if errs := s.SetZones(sources()); errs != nil {
		t.Fatal(errs)
	}
	return s, cert
}

// dialTLS opens a connection which the test's end, or its deadline, ends.
func dialTLS(t *testing.T, to netip.AddrPort, head []byte) *tls.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	raw.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := raw.Write(head); err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"dot"}})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestDoT: RFC 7858. A new certificate is shown from the next connection on, and
// ends none that stands.
func TestDoT(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		s, cert := startTLS(t, Config{}, addr)
		q := framed(ask(t, "www.demo.test. A", option(optKeepalive)))
		first := dialTLS(t, s.Addrs()[0], nil)
		answered := func(c *tls.Conn) {
			t.Helper()
			if _, err := c.Write(q); err != nil {
				t.Fatal(err)
			}
			if got := show(readTCP(t, c)); got != "NOERROR aa | "+wwwA+opt+" keepalive=100" {
				t.Error(got)
			}
		}
		answered(first)
		cert.Store(certWithSerial(t, 2))
		second := dialTLS(t, s.Addrs()[0], nil)
		answered(second)
		answered(first)
		for want, c := range map[int64]*tls.Conn{1: first, 2: second} {
			if got := c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != want || c.ConnectionState().NegotiatedProtocol != "dot" {
				t.Errorf("certificate %d, want %d, %q", got, want, c.ConnectionState().NegotiatedProtocol)
			}
		}
		if got := samples(t, s, "rhumb_dns_requests_total"); !strings.Contains(got, `"tls"`) || strings.Contains(got, `"tcp"`) {
			t.Errorf("counted as\n%s", got)
		}
	}
}

// TestDoTInClear: what is no TLS gets no answer, and the connection ends.
func TestDoTInClear(t *testing.T) {
	s, _ := startTLS(t, Config{}, "127.0.0.1:0")
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write(framed(ask(t, "www.demo.test. A")))
	got, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); len(got) > 7 || ok && ne.Timeout() { // a TLS alert at most, then the end
		t.Errorf("got %x, %v", got, err)
	}
}

// TestPadding is row 43: RFC 7830, RFC 8467 section 4.1.
func TestPadding(t *testing.T) {
	s, _ := startTLS(t, Config{Listeners: []Listener{loopback(top, "127.0.0.1:0")}}, "127.0.0.1:0")
	plain, secure := s.Addrs()[0], s.Addrs()[1]
	size := func(c io.ReadWriter, q []byte) (int, *dns.Msg) {
		t.Helper()
		if _, err := c.Write(framed(q)); err != nil {
			t.Fatal(err)
		}
		n, err := readLength(c)
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n, unpack(t, b)
	}
	c := dialTLS(t, secure, nil)
	padding := &dns.EDNS0_PADDING{Padding: make([]byte, 7)}
	for _, question := range []string{"www.demo.test. A", "many.demo.test. A", "nix.demo.test. A", "x.wide.demo.test. A", "www.other.test. A"} {
		n, m := size(c, ask(t, question, edns0(padding, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})))
		if n%padBlock != 0 || m.IsEdns0() == nil || !strings.Contains(show(m), "padding=") {
			t.Errorf("%s: %d octets: %s", question, n, show(m))
		}
		if n, m := size(c, ask(t, question, edns0())); n%padBlock == 0 || strings.Contains(show(m), "padding=") {
			t.Errorf("%s, not asked for: %d octets: %s", question, n, show(m))
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := exchange(t, network, plain, ask(t, "www.demo.test. A", edns0(padding))); show(m) != "NOERROR aa | "+wwwA+opt {
			t.Errorf("over %s: %s", network, show(m))
		}
	}
}

// TestPadLengths: every length of a message comes to whole blocks, or to the limit.
func TestPadLengths(t *testing.T) {
	for end := headerLen + 15; end < 3*padBlock; end++ {
		out := make([]byte, 3*padBlock)
		opt := end - 15 // an OPT record with an empty padding option
		out[opt+2], out[opt+12] = byte(dns.TypeOPT), optPadding
		out[11], out[opt+10] = 1, 4
		got := pad(out, opt, end)
		if got%padBlock != 0 || got < end || got-end >= padBlock {
			t.Fatalf("%d octets became %d", end, got)
		}
		if n := int(binary.BigEndian.Uint16(out[opt+13:])); n != got-end || int(binary.BigEndian.Uint16(out[opt+9:])) != 4+n {
			t.Fatalf("%d octets: padding of %d, record of %d", end, n, binary.BigEndian.Uint16(out[opt+9:]))
		}
		if got := pad(out[:end+1], opt, end); got > end+1 {
			t.Fatalf("%d octets became %d, past the limit", end, got)
		}
	}
}
