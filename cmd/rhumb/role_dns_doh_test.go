package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns"
	"rhumb/internal/config"
	"rhumb/placement"
)

// TestDoHListener: a node file's words become listeners of DNS over HTTPS, of the right
// level, by HTTP/2 and at the path that is said or the usual one; a renewed certificate is
// shown to the next who connects.
func TestDoHListener(t *testing.T) {
	for said, path := range map[string]string{"": "/dns-query", "/ask": "/ask"} {
		dir := t.TempDir()
		writePair(t, dir, 1)
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer free.Close()
		low := []netip.AddrPort{netip.MustParseAddrPort(free.Addr().String())}
		var c authdns.Config
		if err := listenDoH(&c, &config.DoH{Low: low, Cert: filepath.Join(dir, "dot.crt"), Key: filepath.Join(dir, "dot.key"), Path: said}); err != nil {
			t.Fatal(err)
		}
		if len(c.Listeners) != 1 || c.Listeners[0].Level != placement.LowLevel || c.Listeners[0].Addr != low[0] || c.Listeners[0].HTTP != path {
			t.Fatalf("%+v", c.Listeners)
		}
		c.Listeners[0].Stream = free // its port is known to be free
		defer serveDemo(t, c)()
		for serial := int64(1); serial < 3; serial++ {
			writePair(t, dir, serial)
			resp, m := askHTTPS(t, "https://"+low[0].String()+path)
			if resp.ProtoMajor != 2 || resp.TLS.PeerCertificates[0].SerialNumber.Int64() != serial || len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != "192.0.2.1" {
				t.Errorf("%s, certificate %d, want %d; %v", resp.Proto, resp.TLS.PeerCertificates[0].SerialNumber, serial, m)
			}
		}
	}
	err := listenDoH(&authdns.Config{}, &config.DoH{Low: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:443")}, Cert: "none", Key: "none"})
	if err == nil || !strings.Contains(err.Error(), "listen.doh") {
		t.Errorf("a missing certificate: %v", err)
	}
	if err := listenDoH(&authdns.Config{}, &config.DoH{}); err != nil {
		t.Errorf("where nobody wants it: %v", err)
	}
}

// askHTTPS asks for the address of ns.demo.test by POST, over a connection of its own.
func askHTTPS(t *testing.T, url string) (*http.Response, *dns.Msg) {
	t.Helper()
	q, err := new(dns.Msg).SetQuestion("ns.demo.test.", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: 20 * time.Second}).Post(url, "application/dns-message", bytes.NewReader(q))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	m := new(dns.Msg)
	if err != nil || m.Unpack(b) != nil {
		t.Fatalf("%s: %v: %q", resp.Status, err, b)
	}
	return resp, m
}

// TestTapOfNode: a node that names no collector has no tap, and one that does has one.
func TestTapOfNode(t *testing.T) {
	u := &unit{cfg: &config.Node{}}
	if newTap(u) != nil {
		t.Error("a tap that nobody asked for")
	}
	for _, d := range []config.Dnstap{{Socket: "/run/dnstap.sock"}, {TCP: "192.0.2.1:6000", Sample: 100}} {
		u.cfg.DNS.Dnstap = d
		if newTap(u) == nil {
			t.Errorf("%+v: no tap", d)
		}
	}
}
