package authdns

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/quic-go/quic-go"

	"rhumb/placement"
)

// TestDoQLimits: a client has as many connections as over TCP; when the table is full the
// one that has been idle longest makes room; and one that idles goes.
func TestDoQLimits(t *testing.T) {
	s, _ := startDoQ(t, Config{Limits: Limits{PerClient: 2, Connections: 2, Idle: 2 * time.Second}}, "127.0.0.1:0")
	q := ask(t, "www.demo.test. A")
	first, second := dialQUIC(t, s.Addrs()[0]), dialQUIC(t, s.Addrs()[0])
	for _, c := range []*quic.Conn{first, second} {
		askedQUIC(t, c, q) // so that it is counted
	}
	if e := endOf(t, dialQUIC(t, s.Addrs()[0])); e.ErrorCode != doqExcessiveLoad {
		t.Errorf("a third connection ends with %v", e)
	}
	other := dialFrom(t, "127.0.0.2", s.Addrs()[0])
	askedQUIC(t, other, q)
	if e := endOf(t, first); e.ErrorCode != doqExcessiveLoad {
		t.Errorf("the longest idle one ends with %v", e)
	}
	for _, c := range []*quic.Conn{second, other} {
		if e := endOf(t, c); e.ErrorCode != doqNoError {
			t.Errorf("an idle one ends with %v", e)
		}
	}
	if got := samples(t, s, "rhumb_dns_dropped_total"); !strings.Contains(got, `"tcp_limit"`) {
		t.Errorf("counted as\n%s", got)
	}
}

// dialFrom is dialQUIC from an address of ours.
func dialFrom(t testing.TB, from string, to netip.AddrPort) *quic.Conn {
	t.Helper()
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0)))
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: u}
	t.Cleanup(func() { tr.Close(); u.Close() })
	c, err := tr.Dial(quicContext(t), net.UDPAddrFromAddrPort(to), clientTLS(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseWithError(doqNoError, "") })
	return c
}

// TestDoQCancelled: RFC 9250 section 4.3.1. A client may cancel queries, but not many more
// than it lets us answer.
func TestDoQCancelled(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	c := dialQUIC(t, s.Addrs()[0])
	cancel := func() bool {
		st, err := c.OpenStreamSync(c.Context())
		if err != nil {
			return false
		}
		st.Write([]byte{0, 40})
		st.CancelWrite(doqRequestCancelled)
		st.CancelRead(doqRequestCancelled)
		return true
	}
	for range cancelledFree / 2 {
		if !cancel() {
			t.Fatalf("cancelled: %v", context.Cause(c.Context()))
		}
	}
	if m := askedQUIC(t, c, ask(t, "www.demo.test. A")); len(m.Answer) != 1 {
		t.Errorf("beside cancelled queries: %s", show(m))
	}
	for i := 0; cancel(); i++ {
		if i > 100*cancelledFree {
			t.Fatal("any number of queries can be cancelled")
		}
	}
	if e := endOf(t, c); e.ErrorCode != doqExcessiveLoad {
		t.Error(e)
	}
}

// deafLine writes and hears nothing.
type deafLine struct {
	connectedLine
	to   *net.UDPAddr
	over chan struct{}
	once sync.Once
}

func (l *deafLine) WriteTo(b []byte, _ net.Addr) (int, error) { return l.c.WriteTo(b, l.to) }
func (l *deafLine) ReadFrom([]byte) (int, net.Addr, error) {
	<-l.over
	return 0, nil, net.ErrClosed
}
func (l *deafLine) SetReadDeadline(time.Time) error {
	l.once.Do(func() { close(l.over) })
	return nil
}

// TestDoQRetry: RFC 9250 section 5.3. While many handshakes are under way, which clients
// begin that may not be where they say, others prove their address, and are answered; when
// those are over nobody has to.
func TestDoQRetry(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	to := net.UDPAddrFromAddrPort(s.Addrs()[0])
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 3)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tr := &quic.Transport{Conn: &deafLine{connectedLine{u}, to, make(chan struct{}), sync.Once{}}}
	defer tr.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var deaf sync.WaitGroup
	defer deaf.Wait()
	defer cancel()
	for range handshakesTrusted {
		deaf.Go(func() { tr.Dial(ctx, to, clientTLS(), nil) })
	}
	retried := func() bool {
		return !strings.HasSuffix(strings.TrimSpace(samples(t, s, "rhumb_dns_quic_retries_total")), " 0")
	}
	deadline := time.Now().Add(20 * time.Second)
	for !retried() {
		if time.Now().After(deadline) {
			t.Fatalf("no Retry:\n%s", samples(t, s, "rhumb_dns_quic_retries_total"))
		}
		askedQUIC(t, dialQUIC(t, s.Addrs()[0]), ask(t, "www.demo.test. A"))
	}
}

// TestDoQStop: a server that ends answers what it has read and says goodbye (RFC 9250
// section 5.5.1): no query is lost without its client knowing.
func TestDoQStop(t *testing.T) {
	l, _ := quicOn(t, "127.0.0.1:0")
	s, err := New(Config{Listeners: []Listener{l}})
	if err != nil {
		t.Fatal(err)
	}
	s.SetZones(sources())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	c := dialQUIC(t, s.Addrs()[0])
	askedQUIC(t, c, ask(t, "www.demo.test. A"))
	cancel()
	if e := endOf(t, c); e.ErrorCode != doqNoError {
		t.Error(e)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run does not end")
	}
}

// TestDoQSucceeded: when another process takes over the socket, who is connected goes on
// with the one before, datagrams and all, and who comes anew is served by the next one,
// which has not read before. On one address and on every address, both families.
func TestDoQSucceeded(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"} {
		t.Run(addr, func(t *testing.T) { succeedQUIC(t, addr) })
	}
}

func succeedQUIC(t *testing.T, addr string) {
	l, _ := quicOn(t, addr)
	first, err := New(Config{Listeners: []Listener{l}, Site: "ams1", Node: "first"})
	if err != nil {
		t.Fatal(err)
	}
	run := func(s *Server, ctx context.Context) chan error {
		s.SetZones(sources())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		return done
	}
	ctx, end := context.WithCancelCause(t.Context())
	defer end(nil)
	firstDone := run(first, ctx)
	to := first.Addrs()[0]
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(map[bool]netip.Addr{true: netip.MustParseAddr("127.0.0.9"), false: netip.IPv6Loopback()}[to.Addr().Is4()], to.Port())
	}
	var old []*quic.Conn
	node := func(c *quic.Conn) string {
		return show(askedQUIC(t, c, ask(t, "id.server. TXT", class(dns.ClassCHAOS))))
	}
	for range 8 {
		old = append(old, dialQUIC(t, to))
		if got := node(old[len(old)-1]); !strings.Contains(got, "first") {
			t.Fatal(got)
		}
	}
	held, err := Hold(lent(t, first.Sockets()))
	if err != nil {
		t.Fatal(err)
	}
	settled := make(chan struct{})
	l2, _ := quicOn(t, first.Addrs()[0].String())
	second, err := New(Config{Listeners: []Listener{l2}, Held: held, Site: "ams1", Node: "second", Settled: settled})
	if err != nil {
		t.Fatal(err)
	}
	if left := held.Left(); len(left) != 0 {
		t.Errorf("left %v", left)
	}
	ctx2, end2 := context.WithCancel(t.Context())
	defer end2()
	secondDone := run(second, ctx2)
	for range 8 {
		old = append(old, dialQUIC(t, to))
	}
	for _, c := range old {
		if got := node(c); !strings.Contains(got, "first") {
			t.Errorf("beside the next process: %s", got)
		}
	}
	close(settled)
	end(ErrSucceeded)
	// Whoever comes in this moment may still be the first one's.
	fresh := dialQUIC(t, to)
	for deadline := time.Now().Add(20 * time.Second); strings.Contains(node(fresh), "first"); fresh = dialQUIC(t, to) {
		if old = append(old, fresh); time.Now().After(deadline) {
			t.Fatal("the first one goes on to take who comes anew")
		}
	}
	for range 3 {
		for _, c := range old {
			if got := node(c); !strings.Contains(got, "first") {
				t.Errorf("who was connected: %s", got)
			}
		}
		if got := node(fresh); !strings.Contains(got, "second") {
			t.Errorf("who came anew: %s", got)
		}
	}
	for _, c := range old {
		c.CloseWithError(doqNoError, "")
	}
	for _, d := range []chan error{firstDone, nil, secondDone} {
		if d == nil {
			end2()
			continue
		}
		select {
		case err := <-d:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("Run does not end")
		}
	}
	if e := endOf(t, fresh); e.ErrorCode != doqNoError {
		t.Error(e)
	}
}

// TestDoQTapped: the collector hears of it as dnstap numbers it.
func TestDoQTapped(t *testing.T) {
	if got := tapProtocols[proto(asker{level: placement.TopLevel, tcp: true, tls: true, quic: true})]; got != 7 { // dnstap.proto
		t.Errorf("protocol %d", got)
	}
}

// FuzzQUICQuery holds for what any client puts on a stream: a query comes out as it was
// sent, or the stream is told why not.
func FuzzQUICQuery(f *testing.F) {
	for _, row := range conformanceRows(f) {
		f.Add(framed(row.query))
		f.Add(framed(withoutID(row.query)))
	}
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := readQuery(&oneByOne{in})
		var broken *doqError
		if err != nil && (!errors.As(err, &broken) || broken.code != doqProtocolError || got != nil) {
			t.Fatalf("%x, %v", got, err)
		}
		if err == nil && (string(framed(got)) != string(in) || got[0]|got[1] != 0 || got[2]&0x80 != 0) {
			t.Fatalf("%x became %x", in, got)
		}
	})
}

// oneByOne gives octets as a bad network does.
type oneByOne struct{ b []byte }

func (r *oneByOne) Read(b []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:1], r.b)
	r.b = r.b[n:]
	return n, nil
}

// TestDoQInClear: what is no QUIC gets no answer, and harms nobody.
func TestDoQInClear(t *testing.T) {
	s, _ := startDoQ(t, Config{}, "127.0.0.1:0")
	c, err := net.Dial("udp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, b := range [][]byte{ask(t, "www.demo.test. A"), {0xc0}, make([]byte, 1200), nil} {
		c.Write(b)
	}
	conf := clientTLS()
	conf.MaxVersion = tls.VersionTLS13
	askedQUIC(t, dialQUIC(t, s.Addrs()[0]), ask(t, "www.demo.test. A"))
}
