package authdns

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// proxyHead makes a PROXY v2 header for a client.
func proxyHead(client string, more ...byte) []byte {
	a := netip.MustParseAddrPort(client)
	b := append([]byte(proxySignature), proxyOther, proxyTCP4, 0, 0)
	dst := netip.MustParseAddr("192.0.2.53")
	if a.Addr().Is6() {
		b[13], dst = proxyTCP6, netip.MustParseAddr("2001:db8::53")
	}
	b = append(append(b, a.Addr().AsSlice()...), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, a.Port()), 53)
	b = append(b, more...)
	binary.BigEndian.PutUint16(b[14:], uint16(len(b)-proxyHeader))
	return b
}

// proxyWith changes one octet of a header.
func proxyWith(at int, v byte) []byte {
	b := proxyHead("198.51.100.5:4242")
	b[at] = v
	return b
}

func TestReadProxy(t *testing.T) {
	proxy := netip.MustParseAddrPort("192.0.2.1:999")
	for _, c := range []struct{ name, head, want string }{
		{"IPv4", string(proxyHead("198.51.100.5:4242")), "198.51.100.5:4242"},
		{"IPv6", string(proxyHead("[2001:db8:e::5]:4242")), "[2001:db8:e::5]:4242"},
		{"extensions", string(proxyHead("198.51.100.5:4242", 4, 0, 1, 9)), "198.51.100.5:4242"},
		{"of the proxy itself", proxySignature + "\x20\x00\x00\x00", "192.0.2.1:999"},
		{"of the proxy itself, with addresses", string(proxyWith(12, proxyLocal)), "192.0.2.1:999"},
		{"a family without addresses", proxySignature + "\x21\x00\x00\x00", "192.0.2.1:999"},
		{"version 1", string(proxyWith(12, 0x11)), ""},
		{"text of version 1", "PROXY TCP4 198.51.100.5 192.0.2.53 4242 53\r\n", ""},
		{"another command", string(proxyWith(12, 0x22)), ""},
		{"UDP", string(proxyWith(13, 0x12)), ""},
		{"a unix socket", string(proxyWith(13, 0x31)), ""},
		{"IPv6 in the room of IPv4", string(proxyWith(13, proxyTCP6)), ""},
		{"a query", string(framed(ask(t, "www.demo.test. A"))), ""},
		{"too long", proxySignature + "\x21\x11\x40\x00", ""},
		{"cut short", string(proxyHead("198.51.100.5:4242")[:20]), ""},
		{"nothing", "", ""},
	} {
		r := strings.NewReader(c.head + "rest")
		if c.name == "cut short" || c.name == "nothing" {
			r = strings.NewReader(c.head)
		}
		got, err := readProxy(r, proxy)
		if (err != nil) != (c.want == "") || err == nil && got.String() != c.want {
			t.Errorf("%s: %s, %v", c.name, got, err)
		}
		if rest, _ := io.ReadAll(r); err == nil && string(rest) != "rest" {
			t.Errorf("%s: %q is left", c.name, rest)
		}
	}
}

// FuzzProxy holds for any octets: no panic, and no more is read than the header says.
func FuzzProxy(f *testing.F) {
	f.Add(proxyHead("198.51.100.5:4242"))
	f.Add(proxyHead("[2001:db8:e::5]:4242", 4, 0, 1, 9))
	f.Add([]byte(proxySignature + "\x20\x00\x00\x00"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		a, err := readProxy(r, netip.MustParseAddrPort("192.0.2.1:999"))
		if err == nil && (!a.IsValid() || len(in)-r.Len() != proxyHeader+int(binary.BigEndian.Uint16(in[14:]))) {
			t.Fatalf("%s after %d octets", a, len(in)-r.Len())
		}
	})
}

// TestProxied: behind a proxy the client is who the header names, in clear and over
// TLS: its site is chosen, and it is counted, by that address.
func TestProxied(t *testing.T) {
	s, _ := startTLS(t, Config{Listeners: []Listener{loopback(low, "127.0.0.1:0"), loopback(low, "[::1]:0")},
		Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Limits: Limits{PerClient: 1}}, "127.0.0.1:0")
	s.Apply(t.Context(), fleet(t, plan{}))
	q := framed(ask(t, "www.cdn.demo.test. A"))
	through := func(to netip.AddrPort, head []byte) net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(append(head, q...)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	if m := readTCP(t, through(s.Addrs()[0], proxyHead(euResolver+":1"))); !strings.Contains(show(m), "198.51.100.1") {
		t.Errorf("a client beside ams1 got %s", show(m))
	}
	if m := readTCP(t, through(s.Addrs()[0], proxyHead(usResolver+":1"))); !strings.Contains(show(m), "198.51.100.74") {
		t.Errorf("a client beside nyc1 got %s", show(m))
	}
	if m := readTCP(t, through(s.Addrs()[0], proxyHead("["+euResolverV6+"]:1"))); !strings.Contains(show(m), "198.51.100.1") {
		t.Errorf("a client with IPv6 got %s", show(m))
	}
	if got, err := io.ReadAll(through(s.Addrs()[0], proxyHead(euResolver+":2"))); len(got) != 0 {
		t.Errorf("a second connection of one client: %x, %v", got, err)
	}
	if got, err := io.ReadAll(through(s.Addrs()[0], nil)); len(got) != 0 {
		t.Errorf("a proxy without a header: %x, %v", got, err)
	}
	if m := readTCP(t, through(s.Addrs()[1], nil)); m.Rcode != 0 {
		t.Errorf("who is no proxy: %s", show(m))
	}
	c := dialTLS(t, s.Addrs()[2], proxyHead("203.0.113.77:1"))
	c.Write(framed(ask(t, "www.cdn.demo.test. A")))
	if m := readTCP(t, c); len(m.Ns) == 0 {
		t.Errorf("over TLS: %s", show(m))
	}
}
