package authdns

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"
)

// quicOn is a listener for DNS over QUIC with a certificate of its own.
func quicOn(t *testing.T, addr string) (Listener, *atomic.Pointer[tls.Certificate]) {
	t.Helper()
	cert := new(atomic.Pointer[tls.Certificate])
	cert.Store(certWithSerial(t, 1))
	l := loopback(top, addr)
	l.QUIC, l.TLS = true, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Load(), nil }}
	return l, cert
}

// startDoQ serves DNS over QUIC, beside UDP and TCP.
func startDoQ(t *testing.T, c Config, addr string) (*Server, *atomic.Pointer[tls.Certificate]) {
	t.Helper()
	l, cert := quicOn(t, addr)
	c.Listeners = append(c.Listeners, l, loopback(top, addr))
	s := start(t, c)
	if errs := s.SetZones(sources()); errs != nil {
		t.Fatal(errs)
	}
	return s, cert
}

// clientTLS trusts everybody.
func clientTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpnDoQ}}
}

func quicContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// dialQUIC opens a connection, which the test's end ends.
func dialQUIC(t testing.TB, to netip.AddrPort) *quic.Conn {
	t.Helper()
	c, err := quic.DialAddr(quicContext(t), to.String(), clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseWithError(doqNoError, "") })
	return c
}

// withoutID is a query as it is sent over QUIC (RFC 9250 section 4.2.1).
func withoutID(query []byte) []byte {
	q := bytes.Clone(query)
	if len(q) > 1 {
		q[0], q[1] = 0, 0
	}
	return q
}

// sendQUIC puts octets on a stream of their own, and ends it.
func sendQUIC(t testing.TB, c *quic.Conn, octets []byte) *quic.Stream {
	t.Helper()
	st, err := c.OpenStreamSync(quicContext(t))
	if err != nil {
		t.Fatal(err)
	}
	st.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := st.Write(octets); err != nil {
		t.Fatal(err)
	}
	st.Close()
	return st
}

// heardQUIC reads the messages of a stream, which must end behind the last.
func heardQUIC(t testing.TB, st *quic.Stream) (out []*dns.Msg) {
	t.Helper()
	b, err := io.ReadAll(st)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := 0
		if len(b) > 2 {
			n = int(binary.BigEndian.Uint16(b))
		}
		if n == 0 || len(b) < 2+n {
			t.Fatalf("%d octets behind the last message", len(b))
		}
		out, b = append(out, message(t, b[2:2+n])), b[2+n:]
	}
	return out
}

// askedQUIC asks one question.
func askedQUIC(t testing.TB, c *quic.Conn, query []byte) *dns.Msg {
	t.Helper()
	out := heardQUIC(t, sendQUIC(t, c, framed(withoutID(query))))
	if len(out) != 1 {
		t.Fatalf("%d replies", len(out))
	}
	return out[0]
}

// endOf waits for the end of a connection, and returns what it was told.
func endOf(t testing.TB, c *quic.Conn) *quic.ApplicationError {
	t.Helper()
	select {
	case <-c.Context().Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the connection does not end")
	}
	var e *quic.ApplicationError
	if !errors.As(context.Cause(c.Context()), &e) || !e.Remote {
		t.Fatalf("it ends with %v", context.Cause(c.Context()))
	}
	return e
}

// TestDoQ: RFC 9250 sections 4.1, 4.2 and 5.4, both families. A new certificate is shown
// from the next connection on, and ends none that stands.
func TestDoQ(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		s, cert := startDoQ(t, Config{}, addr)
		first := dialQUIC(t, s.Addrs()[0])
		answered := func(c *quic.Conn) {
			t.Helper()
			if m := askedQUIC(t, c, ask(t, "www.demo.test. A")); show(m) != "NOERROR aa | "+wwwA || m.Id != 0 {
				t.Error(show(m))
			}
			b, err := io.ReadAll(sendQUIC(t, c, framed(withoutID(ask(t, "www.demo.test. A", edns0())))))
			if err != nil || len(b) != 2+padBlock || !strings.Contains(show(message(t, b[2:])), "padding=") {
				t.Errorf("%d octets: %x, %v", len(b), b, err)
			}
		}
		answered(first)
		cert.Store(certWithSerial(t, 2))
		second := dialQUIC(t, s.Addrs()[0])
		answered(second)
		answered(first)
		for want, c := range map[int64]*quic.Conn{1: first, 2: second} {
			state := c.ConnectionState().TLS
			if got := state.PeerCertificates[0].SerialNumber.Int64(); got != want || state.NegotiatedProtocol != "doq" {
				t.Errorf("certificate %d, want %d, %q", got, want, state.NegotiatedProtocol)
			}
		}
		if got := samples(t, s, "rhumb_dns_requests_total"); !strings.Contains(got, `"quic"`) || strings.Contains(got, `"tcp"`) {
			t.Errorf("counted as\n%s", got)
		}
	}
}

// TestDoQALPN: who does not speak the protocol gets no connection (RFC 9250 section 4.1.1).
func TestDoQALPN(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	conf := clientTLS()
	conf.NextProtos = []string{"h3"}
	c, err := quic.DialAddr(quicContext(t), s.Addrs()[0].String(), conf, nil)
	if err == nil {
		t.Errorf("connected with %q", c.ConnectionState().TLS.NegotiatedProtocol)
	}
	askedQUIC(t, dialQUIC(t, s.Addrs()[0]), ask(t, "www.demo.test. A"))
}

// TestDoQProtocolErrors: RFC 9250 section 4.3.3. What is forbidden ends the connection, and
// no other one.
func TestDoQProtocolErrors(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	other := dialQUIC(t, s.Addrs()[0])
	q := withoutID(ask(t, "www.demo.test. A"))
	for _, tt := range []struct {
		name   string
		octets []byte
		want   string
	}{
		{"R95_message_ID", framed(ask(t, "www.demo.test. A")), "message ID"},
		{"R97_FIN_before_all_octets", framed(q)[:len(q)], "cut short"},
		{"R97_FIN_within_the_length", []byte{0}, "without a query"},
		{"R97_FIN_alone", nil, "without a query"},
		{"R97_length_0", []byte{0, 0}, "no query"},
		{"R97_two_queries", append(framed(q), framed(q)...), "more than one"},
		{"R97_octets_behind_a_query", append(framed(q), 0), "more than one"},
		{"R102_keepalive", framed(withoutID(ask(t, "www.demo.test. A", option(optKeepalive)))), "keepalive"},
		{"R102_keepalive_with_a_time", framed(withoutID(ask(t, "www.demo.test. A", option(optKeepalive, 0, 1)))), "keepalive"},
		{"R97_a_reply", framed(raw(bytes.Clone(q), flags(0x8000))), "no query"},
		{"R97_11_octets", framed(make([]byte, headerLen-1)), "no query"},
	} {
		t.Run(cited(tt.name), func(t *testing.T) {
			c := dialQUIC(t, s.Addrs()[0])
			sendQUIC(t, c, tt.octets)
			if e := endOf(t, c); e.ErrorCode != doqProtocolError || !strings.Contains(e.ErrorMessage, tt.want) {
				t.Errorf("%v, want %q", e, tt.want)
			}
		})
	}
	// R97: a client opens no unidirectional streams. There is no room for one.
	if st, err := other.OpenUniStream(); err == nil {
		t.Errorf("unidirectional stream %d", st.StreamID())
	}
	if m := askedQUIC(t, other, q); show(m) != "NOERROR aa | "+wwwA {
		t.Errorf("another connection: %s", show(m))
	}
	if got := samples(t, s, "rhumb_dns_dropped_total"); !strings.Contains(got, `"quic"`) {
		t.Errorf("counted as\n%s", got)
	}
}

// TestDoQEnd: a query is answered at the end of its stream, not before (RFC 9250 section
// 4.2); one that does not end in time is no query.
func TestDoQEnd(t *testing.T) {
	s, _ := startDoQ(t, Config{Limits: Limits{Idle: 2 * time.Second}}, "127.0.0.1:0")
	c := dialQUIC(t, s.Addrs()[0])
	st, err := c.OpenStreamSync(quicContext(t))
	if err != nil {
		t.Fatal(err)
	}
	q := framed(withoutID(ask(t, "www.demo.test. A")))
	for i := range q { // however it is cut
		if _, err := st.Write(q[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	askedQUIC(t, c, ask(t, "www.demo.test. AAAA")) // another overtakes it
	if got := samples(t, s, "rhumb_dns_requests_total"); strings.Contains(got, `"A"`) {
		t.Errorf("it is answered before its end:\n%s", got)
	}
	if e := endOf(t, c); e.ErrorCode != doqProtocolError || !strings.Contains(e.ErrorMessage, "does not end") {
		t.Error(e)
	}
	c = dialQUIC(t, s.Addrs()[0])
	if st, err = c.OpenStreamSync(quicContext(t)); err != nil {
		t.Fatal(err)
	}
	st.Write(q)
	st.Close()
	if out := heardQUIC(t, st); len(out) != 1 || show(out[0]) != "NOERROR aa | "+wwwA {
		t.Errorf("%v", out)
	}
	if e := endOf(t, c); e.ErrorCode != doqNoError { // and then it idles (section 5.5.1)
		t.Error(e)
	}
}

// TestDoQStreams: as many queries at once as there are streams, each with its own reply.
func TestDoQStreams(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	c := dialQUIC(t, s.Addrs()[0])
	names := []string{"www.demo.test. A", "many.demo.test. A", "nix.demo.test. A", "x.wide.demo.test. A", "www.other.test. A"}
	var streams []*quic.Stream
	for i := range 3 * maxStreams {
		streams = append(streams, sendQUIC(t, c, framed(withoutID(ask(t, names[i%len(names)])))))
		if i >= maxStreams-1 { // room for the next
			at := i - maxStreams + 1
			if out := heardQUIC(t, streams[at]); len(out) != 1 || len(out[0].Question) != 1 || !strings.HasPrefix(names[at%len(names)], out[0].Question[0].Name) {
				t.Fatalf("stream %d: %v", at, out)
			}
		}
	}
}

// TestDoQConformance: each row of the checklist is answered over QUIC as over TCP, but for
// the padding.
func TestDoQConformance(t *testing.T) {
	s, _ := startDoQ(t, Config{Limits: Limits{PerClient: 1000}}, "127.0.0.1:0")
	for _, row := range conformanceRows(t) {
		if strings.Contains(row.name, "keepalive") {
			continue // TestDoQProtocolErrors
		}
		t.Run(cited(row.name), func(t *testing.T) {
			c := dialQUIC(t, s.Addrs()[0])
			query := withoutID(row.query)
			st := sendQUIC(t, c, framed(query))
			if row.want == "silence" {
				if e := endOf(t, c); e.ErrorCode != doqProtocolError {
					t.Error(e)
				}
				return
			}
			tcp, err := net.Dial("tcp", s.Addrs()[1].String())
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			tcp.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := tcp.Write(framed(query)); err != nil {
				t.Fatal(err)
			}
			got, want := heardQUIC(t, st), unpadded(readTCP(t, tcp))
			if len(got) != 1 || show(unpadded(got[0])) != show(want) {
				t.Errorf("\nover QUIC %v\nover TCP  %s", got, show(want))
			}
		})
	}
}

// unpadded takes the padding out of a message.
func unpadded(m *dns.Msg) *dns.Msg {
	if opt := m.IsEdns0(); opt != nil {
		var kept []dns.EDNS0
		for _, o := range opt.Option {
			if o.Option() != dns.EDNS0PADDING {
				kept = append(kept, o)
			}
		}
		opt.Option = kept
	}
	return m
}

// TestDoQReplyFromAddressAsked: a client of a listener on every address hears from the one
// that it asked, and the collector is told which that is.
func TestDoQReplyFromAddressAsked(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "0.0.0.0:0")
	v6, _ := quicOn(t, "[::]:0")
	s6 := start(t, Config{Listeners: []Listener{v6}})
	s6.SetZones(sources())
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), s.Addrs()[0].Port()), netip.AddrPortFrom(netip.IPv6Loopback(), s6.Addrs()[0].Port())} {
		raw, err := net.Dial("udp", to.String()) // connected: the kernel drops what others send
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		tr := &quic.Transport{Conn: connectedLine{raw.(*net.UDPConn)}}
		defer tr.Close()
		c, err := tr.Dial(quicContext(t), net.UDPAddrFromAddrPort(to), clientTLS(), nil)
		if err != nil {
			t.Fatalf("%s: %v", to, err)
		}
		if m := askedQUIC(t, c, ask(t, "www.demo.test. A")); show(m) != "NOERROR aa | "+wwwA {
			t.Errorf("%s: %s", to, show(m))
		}
		c.CloseWithError(doqNoError, "")
	}
}

// connectedLine lets the library write to a connected socket.
type connectedLine struct{ c *net.UDPConn }

func (l connectedLine) ReadFrom(b []byte) (int, net.Addr, error)  { return l.c.ReadFrom(b) }
func (l connectedLine) WriteTo(b []byte, _ net.Addr) (int, error) { return l.c.Write(b) }
func (l connectedLine) Close() error                              { return l.c.Close() }
func (l connectedLine) LocalAddr() net.Addr                       { return l.c.LocalAddr() }
func (l connectedLine) SetDeadline(t time.Time) error             { return l.c.SetDeadline(t) }
func (l connectedLine) SetReadDeadline(t time.Time) error         { return l.c.SetReadDeadline(t) }
func (l connectedLine) SetWriteDeadline(t time.Time) error        { return l.c.SetWriteDeadline(t) }

// TestDoQEarlyData: nothing is taken from 0-RTT data (RFC 9250 section 4.5); a session is
// resumed all the same.
func TestDoQEarlyData(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	conf := clientTLS()
	conf.ServerName = "ns.demo.test"
	put := make(chan struct{}, 8)
	conf.ClientSessionCache = &toldCache{tls.NewLRUClientSessionCache(8), put}
	for resumed := range 2 {
		c, err := quic.DialAddrEarly(quicContext(t), s.Addrs()[0].String(), conf, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m := askedQUIC(t, c, ask(t, "www.demo.test. A")); show(m) != "NOERROR aa | "+wwwA {
			t.Error(show(m))
		}
		if state := c.ConnectionState(); state.Used0RTT || state.TLS.DidResume != (resumed == 1) {
			t.Errorf("connection %d: 0-RTT %v, resumed %v", resumed, state.Used0RTT, state.TLS.DidResume)
		}
		<-put
		c.CloseWithError(doqNoError, "")
	}
}

// toldCache tells when a ticket has come.
type toldCache struct {
	tls.ClientSessionCache
	put chan struct{}
}

func (c *toldCache) Put(key string, s *tls.ClientSessionState) {
	c.ClientSessionCache.Put(key, s)
	if s != nil {
		c.put <- struct{}{}
	}
}

// TestDoQTransfer: zones leave over QUIC as over TCP, message by message on one stream (RFC
// 9250 section 4.2), to those who may have them.
func TestDoQTransfer(t *testing.T) {
	l, _ := quicOn(t, "127.0.0.1:0")
	l.Level = low
	s := start(t, Config{Listeners: []Listener{l}, Transfers: desk(t)})
	large := strings.Builder{}
	large.WriteString(demoZone)
	for i := range 4000 {
		fmt.Fprintf(&large, "\nhost%d IN TXT \"%030d\"", i, i)
	}
	if errs := s.SetZones(leaving(large.String() + "\n")); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	c := dialQUIC(t, s.Addrs()[0])
	for _, key := range []string{xfrKey, ""} {
		st, err := c.OpenStreamSync(quicContext(t))
		if err != nil {
			t.Fatal(err)
		}
		m := axfr("demo.test.")
		m.Id = 0
		tr := &dns.Transfer{Conn: &dns.Conn{Conn: &streamLine{Stream: st, on: c}}, TsigSecret: map[string]string{xfrKey: xfrSecret}}
		if key != "" {
			m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
		}
		envelopes, err := tr.In(m, "")
		if err != nil {
			t.Fatal(err)
		}
		messages, records := 0, 0
		for e := range envelopes {
			if err = e.Error; err != nil {
				break
			}
			messages, records = messages+1, records+len(e.RR)
		}
		if (key != "") != (err == nil) || key != "" && (messages < 2 || records < 4190) {
			t.Errorf("key %q: %d records in %d messages, %v", key, records, messages, err)
		}
		if rest, err := io.ReadAll(st); len(rest) > 0 || err != nil {
			t.Errorf("behind it %d octets, %v; want FIN", len(rest), err)
		}
	}
	if m := askedQUIC(t, c, ask(t, "ns-ams1.cdn.demo.test. A")); len(m.Answer) != 1 {
		t.Errorf("on the same connection: %s", show(m))
	}
}

// streamLine is a stream as a connection of a client that sends one query.
type streamLine struct {
	*quic.Stream
	on *quic.Conn
}

func (l *streamLine) LocalAddr() net.Addr  { return l.on.LocalAddr() }
func (l *streamLine) RemoteAddr() net.Addr { return l.on.RemoteAddr() }
func (l *streamLine) Write(b []byte) (int, error) {
	n, err := l.Stream.Write(b)
	return n, errors.Join(err, l.Stream.Close())
}
