package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func target(addr string, c placement.Check) Target {
	return Target{Object: placement.ClusterID{Site: "ams1", Name: "web"}, Address: netip.MustParseAddrPort(addr), Host: "www.cdn.demo.test", Check: c}
}

func TestProbeHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "host "+r.Host) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/broken", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	mux.HandleFunc("/early", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(103); io.WriteString(w, "late") })
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/slowbody", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "begin")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/far", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", bodyLimit)+"needle")
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for _, c := range []struct {
		name  string
		check placement.HTTPCheck
		kind  string
	}{
		{"200", placement.HTTPCheck{Path: "/ok"}, "ok"},
		{"host of the service", placement.HTTPCheck{Path: "/ok", Body: "host www.cdn.demo.test"}, "ok"},
		{"own host", placement.HTTPCheck{Path: "/ok", Host: "x.test", Body: "host x.test"}, "ok"},
		{"redirect is not followed", placement.HTTPCheck{Path: "/moved"}, "ok"},
		{"503", placement.HTTPCheck{Path: "/broken"}, "status"},
		{"expected 503", placement.HTTPCheck{Path: "/broken", Expect: []int{503}}, "ok"},
		{"unexpected 200", placement.HTTPCheck{Path: "/ok", Expect: []int{204}}, "status"},
		{"1xx before 200", placement.HTTPCheck{Path: "/early", Body: "late"}, "ok"},
		{"no answer", placement.HTTPCheck{Path: "/slow"}, "timeout"},
		{"slow body", placement.HTTPCheck{Path: "/slowbody"}, "timeout"},
		{"body behind the limit", placement.HTTPCheck{Path: "/far", Body: "needle"}, "body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit := 20 * time.Second // a busy machine is no failure
			if c.kind == "timeout" {
				limit = 300 * time.Millisecond
			}
			r := ProbeHTTP(within(t, limit), target(addr, placement.Check{HTTP: &c.check}))
			if r.Kind != c.kind || r.OK() != (c.kind == "ok") || !r.OK() && r.Cause == "" {
				t.Errorf("have %+v, want kind %s", r, c.kind)
			}
		})
	}
}

func TestProbeHTTPS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	r := ProbeHTTP(within(t, 20*time.Second), target(srv.Listener.Addr().String(), placement.Check{HTTP: &placement.HTTPCheck{Path: "/", TLS: true}}))
	if r.OK() || r.Kind != "authority" && r.Kind != "name" {
		t.Errorf("an unknown authority gives %+v", r)
	}
	r = ProbeHTTP(within(t, 20*time.Second), target(srv.Listener.Addr().String(), placement.Check{HTTP: &placement.HTTPCheck{Path: "/", TLS: true, Trust: placement.Trust{Verify: "skip"}}}))
	if !r.OK() {
		t.Errorf("verify: skip gives %+v", r)
	}
	for want, err := range map[string]error{
		"expired":   &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}},
		"name":      &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: srv.Certificate(), Host: "x.test"}},
		"authority": &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
	} {
		if kind, _ := tlsError(err); kind != want {
			t.Errorf("%v is classed %s, want %s", err, kind, want)
		}
	}
}

func TestProbeTCP(t *testing.T) {
	addr := serveTCP(t, func(c *net.TCPConn) { io.WriteString(c, "220 hello\r\n") })
	dead, _ := net.Listen("tcp", "127.0.0.1:0")
	deadAddr := dead.Addr().String()
	dead.Close()
	for _, c := range []struct {
		name, addr string
		check      placement.TCPCheck
		kind       string
	}{
		{"handshake", addr, placement.TCPCheck{}, "ok"},
		{"expected", addr, placement.TCPCheck{Expect: "220"}, "ok"},
		{"unexpected end", addr, placement.TCPCheck{Expect: "554"}, "reset"},
		{"refused", deadAddr, placement.TCPCheck{}, "refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := ProbeTCP(within(t, 20*time.Second), target(c.addr, placement.Check{TCP: &c.check})); r.Kind != c.kind {
				t.Errorf("have %+v, want %s", r, c.kind)
			}
		})
	}
}

func TestProbeDNS(t *testing.T) {
	pc, l := bothPorts(t, false)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Authoritative = true
		switch q.Question[0].Name {
		case "refused.test.":
			m.Rcode = dns.RcodeRefused
		case "lame.test.":
			m.Authoritative = false
		case "cut.test.":
			m.Truncated = w.LocalAddr().Network() == "udp"
			fallthrough
		case "a.test.":
			rr, _ := dns.NewRR(q.Question[0].Name + " 20 IN A 192.0.2.1")
			m.Answer = append(m.Answer, rr)
		}
		w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: l, Handler: handler}} {
		go s.ActivateAndServe()
		defer s.Shutdown()
	}
	for _, c := range []struct {
		name  string
		check placement.DNSCheck
		kind  string
	}{
		{"data", placement.DNSCheck{Name: "a.test", Type: "A", Expect: "192.0.2.1"}, "ok"},
		{"TC then TCP (RFC 7766 5)", placement.DNSCheck{Name: "cut.test", Type: "A"}, "ok"},
		{"other data", placement.DNSCheck{Name: "a.test", Type: "A", Expect: "192.0.2.2"}, "data"},
		{"no record", placement.DNSCheck{Name: "a.test", Type: "SOA"}, "data"},
		{"rcode", placement.DNSCheck{Name: "refused.test", Type: "A"}, "rcode"},
		{"not authoritative", placement.DNSCheck{Name: "lame.test", Type: "A"}, "lame"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := ProbeDNS(within(t, 20*time.Second), target(pc.LocalAddr().String(), placement.Check{DNS: &c.check})); r.Kind != c.kind {
				t.Errorf("have %+v, want %s", r, c.kind)
			}
		})
	}
}

// TestDamper: a table of looks; + is good, - is bad, a digit lets that many
// times ten seconds pass. The states after each look: u unknown, U up, D down.
func TestDamper(t *testing.T) {
	for _, c := range []struct{ name, looks, want string }{
		{"first good look", "+", "U"},
		{"falls after three", "+---", "UUUD"},
		{"two bad ones are nothing", "+--+--+", "UUUUUUU"},
		{"rises after three, when the penalty of one departure is gone", "+---+++9+", "UUUDDDDU"},
		{"never seen: down", "---", "uuD"},
		{"never seen: rises after three", "---+++", "uuDDDU"},
		{"flaps while it is down count too", "+---+++-+++3+", "UUUDDDDDDDDD"},
		{"and comes back when they decayed", "+---+++-+++8+", "UUUDDDDDDDDU"},
		{"fails every third time after its return", "+---+++9++-++-++-++-+", "UUUDDDDUUUUUUUUUUUDD"},
		{"the same without an absence", "+++-++-++-++-++-++-", "UUUUUUUUUUUUUUUUUUU"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, now, have := newDamper(3, 3, 0), time.Unix(0, 0), ""
			for _, x := range c.looks {
				if x >= '0' && x <= '9' {
					now = now.Add(time.Duration(x-'0') * 10 * time.Second)
					continue
				}
				now = now.Add(time.Second)
				d.feed(map[rune]placement.State{'+': placement.Up, '-': placement.Down}[x], false, now)
				have += map[placement.State]string{placement.Unknown: "u", placement.Up: "U", placement.Down: "D"}[d.state]
			}
			if have != c.want {
				t.Errorf("looks %s give %s, want %s", c.looks, have, c.want)
			}
		})
	}
}

// box gathers votes and lets a test wait for one.
type box struct {
	mu    sync.Mutex
	votes []placement.Vote
	bell  chan struct{}
}

func newBox() *box { return &box{bell: make(chan struct{}, 1)} }

func (b *box) put(v placement.Vote) {
	b.mu.Lock()
	b.votes = append(b.votes, v)
	b.mu.Unlock()
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

func (b *box) await(t *testing.T, what string, ok func(placement.Vote) bool) placement.Vote {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		b.mu.Lock()
		for _, v := range b.votes {
			if ok(v) {
				b.mu.Unlock()
				return v
			}
		}
		b.mu.Unlock()
		select {
		case <-b.bell:
		case <-deadline:
			t.Fatalf("no vote: %s; have %+v", what, b.votes)
		}
	}
}

func startAgent(t *testing.T, site string, id uint16, conn net.PacketConn, peers []Peer, stream *Stream) (*box, context.CancelFunc) {
	t.Helper()
	b := newBox()
	a := New(Config{Node: site + "-a", Site: site, Domain: site, NodeID: id, Incarnation: 1, Beat: conn, Interval: 50 * time.Millisecond, Sink: b.put, Stream: stream, Log: quiet()})
	a.Set(peers, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return b, stop
}

func udp(t *testing.T) (net.PacketConn, netip.AddrPort) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestAgentsHearEachOther: two sites vote each other up; when one falls silent
// without a goodbye it is voted down; votes travel on beats to the stream.
func TestAgentsHearEachOther(t *testing.T) {
	ca, aa := udp(t)
	cb, ab := udp(t)
	relay, ar := udp(t) // stands between, so that b can be silenced without a goodbye
	key := [][32]byte{{9}}
	stream := NewStream(filepath.Join(t.TempDir(), "votes.sock"), quiet())
	ctx, cancel := context.WithCancel(context.Background())
	streamed := make(chan struct{})
	go func() { defer close(streamed); stream.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-streamed })
	go func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := relay.ReadFrom(buf)
			if err != nil {
				return
			}
			relay.WriteTo(buf[:n], net.UDPAddrFromAddrPort(aa))
		}
	}()
	boxA, _ := startAgent(t, "ams1", 1, ca, []Peer{{Site: "nyc1", NodeID: 2, Addr: ab, Keys: key}}, stream)
	startAgent(t, "nyc1", 2, cb, []Peer{{Site: "ams1", NodeID: 1, Addr: ar, Keys: key}}, nil)
	nyc := placement.SiteID("nyc1")
	boxA.await(t, "nyc1 up", func(v placement.Vote) bool { return v.Object == nyc && v.State == placement.Up })
	awaitHeard(t, stream, "nyc1-a")
	relay.Close()
	down := boxA.await(t, "nyc1 down", func(v placement.Vote) bool { return v.Object == nyc && v.State == placement.Down })
	if !strings.Contains(down.Cause, "no beat") {
		t.Errorf("cause %q", down.Cause)
	}
}

// awaitHeard connects to the stream as a unit does and waits for a vantage's vote.
func awaitHeard(t *testing.T, s *Stream, vantage string) {
	t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	var have []byte
	buf := make([]byte, 4096)
	for !strings.Contains(string(have), `"vantage":"`+vantage+`"`) {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("the stream has no vote of %s: %v; read %s", vantage, err, have)
		}
		have = append(have, buf[:n]...)
	}
}

func TestForgedBeatsAreRefused(t *testing.T) {
	ca, aa := udp(t)
	cb, ab := udp(t)
	boxA, _ := startAgent(t, "ams1", 1, ca, []Peer{{Site: "nyc1", NodeID: 2, Addr: ab, Keys: [][32]byte{{1}}}}, nil)
	boxB, _ := startAgent(t, "nyc1", 2, cb, []Peer{{Site: "ams1", NodeID: 1, Addr: aa, Keys: [][32]byte{{2}}}}, nil)
	own := func(v placement.Vote) bool { return v.Own() }
	boxA.await(t, "own", own)
	boxB.await(t, "own", own)
	time.Sleep(300 * time.Millisecond) // several beats went both ways; nothing to wait for when all is right
	boxA.mu.Lock()
	defer boxA.mu.Unlock()
	for _, v := range boxA.votes {
		if !v.Own() {
			t.Errorf("a beat under another key made a vote: %+v", v)
		}
	}
}

// TestClusterDown: a listener that goes away takes its cluster down with the
// check's fault, and the votes carry why.
func TestClusterDown(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	b := newBox()
	a := New(Config{Node: "ams1-a", Site: "ams1", Sink: b.put, Log: quiet()})
	check := placement.Check{Name: "web", HTTP: &placement.HTTPCheck{Path: "/"}, Fault: placement.LocalFault,
		Every: placement.Duration(20 * time.Millisecond), Timeout: placement.Duration(20 * time.Second), Rise: 1, Fall: 2}
	tg := target(srv.Listener.Addr().String(), check)
	a.Set(nil, []Probe{{Object: tg.Object, Targets: []Target{tg}}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); a.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	b.await(t, "web up", func(v placement.Vote) bool { return v.Object == tg.Object && v.State == placement.Up })
	srv.Close()
	v := b.await(t, "web down", func(v placement.Vote) bool { return v.Object == tg.Object && v.State == placement.Down })
	if v.Fault != placement.LocalFault || v.Cause == "" {
		t.Errorf("vote %+v lacks fault or cause", v)
	}
}

func TestPackVotes(t *testing.T) {
	var in []placement.Vote
	for range 20 {
		in = append(in, placement.Vote{Object: placement.SiteID("ams1"), Vantage: "nyc1-a", State: placement.Down, Cause: strings.Repeat("é", 200)})
	}
	n := 0
	for _, body := range packVotes(in, 1000) {
		if len(body) > 1000 {
			t.Errorf("body of %d bytes", len(body))
		}
		out, err := unpackVotes(body)
		if err != nil {
			t.Fatal(err)
		}
		n += len(out)
	}
	if n != len(in) {
		t.Errorf("%d of %d votes came back", n, len(in))
	}
}

func FuzzUnpackVotes(f *testing.F) {
	for _, b := range packVotes([]placement.Vote{{Object: placement.SiteID("a"), State: placement.Up}}, 1000) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, body []byte) { unpackVotes(body) })
}
