package authdns

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// verdicts asks for n at one moment and counts what becomes of them.
func (l *limiter) verdicts(client string, subject uint64, at time.Time, n int) (out [3]int) {
	a := netip.MustParseAddr(client)
	for range n {
		out[l.judge(a, kindAnswer, subject, at)]++
	}
	return out
}

// TestLimiter is row 81: a second's worth at once, then the rate, every second one
// beyond it truncated.
func TestLimiter(t *testing.T) {
	t0 := testClock()
	l := newLimiter(&Limits{Rate: 20, Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, t0)
	for _, c := range []struct {
		name, client string
		subject      uint64
		after        time.Duration
		want         [3]int
	}{
		{"the burst", "198.51.100.5", 1, 0, [3]int{20, 5, 5}},
		{"its neighbour in the /24", "198.51.100.200", 1, 0, [3]int{0, 15, 15}},
		{"another network", "198.51.101.5", 1, 0, [3]int{20, 5, 5}},
		{"another subject", "198.51.100.5", 2, 0, [3]int{20, 5, 5}},
		{"a tenth of a second later", "198.51.100.5", 1, 100 * time.Millisecond, [3]int{2, 14, 14}},
		{"a clock set back", "198.51.100.5", 1, 0, [3]int{0, 15, 15}},
		{"a minute later", "198.51.100.5", 1, time.Minute, [3]int{20, 5, 5}},
		{"a day later", "198.51.100.5", 1, 24 * time.Hour, [3]int{20, 5, 5}},
		{"two years later", "198.51.100.5", 1, 2 * 365 * 24 * time.Hour, [3]int{20, 5, 5}},
		{"an exempt network", "192.0.2.5", 1, 0, [3]int{30, 0, 0}},
		{"IPv6", "2001:db8:0:100::5", 1, 0, [3]int{20, 5, 5}},
		{"its neighbour in the /56", "2001:db8:0:1ff::5", 1, 0, [3]int{0, 15, 15}},
		{"another /56", "2001:db8:0:200::5", 1, 0, [3]int{20, 5, 5}},
		{"IPv6 with the octets of an IPv4 network", "c633:6400::", 1, 0, [3]int{20, 5, 5}},
	} {
		if got := l.verdicts(c.client, c.subject, t0.Add(c.after), 30); got != c.want {
			t.Errorf("%s: passed, truncated, dropped %v, want %v", c.name, got, c.want)
		}
	}
	for slip, want := range map[int][3]int{1: {20, 30, 0}, 3: {20, 10, 20}, 10: {20, 3, 27}, 99: {20, 3, 27}} {
		if got := newLimiter(&Limits{Rate: 20, Slip: slip}, t0).verdicts(euResolver, 1, t0, 50); got != want {
			t.Errorf("slip %d: %v, want %v", slip, got, want)
		}
	}
	if newLimiter(&Limits{}, t0) != nil {
		t.Error("limits without a rate")
	}
}

// TestLimiterFull: in a full table the quiet make room, and who floods stays known.
func TestLimiterFull(t *testing.T) {
	l := newLimiter(&Limits{Rate: 10}, testClock())
	for range 100 {
		l.judge(netip.MustParseAddr(euResolver), kindAnswer, 7, testClock())
	}
	for i := range 2 * len(l.cells) {
		l.judge(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), kindAnswer, uint64(i), testClock())
	}
	if got := l.verdicts(euResolver, 7, testClock(), 10); got[limitPass] != 0 {
		t.Errorf("the flood was forgotten: %v", got)
	}
	if got := l.verdicts(euResolver, 8, testClock(), 10); got[limitPass] == 0 {
		t.Errorf("nobody new is known: %v", got)
	}
}

// TestLimiterTogether: workers count in one table, and lose next to nothing.
func TestLimiterTogether(t *testing.T) {
	l := newLimiter(&Limits{Rate: 1000}, testClock())
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 4 {
		wg.Go(func() {
			got := l.verdicts(euResolver, 1, testClock(), 1000)
			mu.Lock()
			passed += got[limitPass]
			mu.Unlock()
		})
	}
	wg.Wait()
	if passed < 1000 || passed > 1100 {
		t.Errorf("%d passed of 4000 at a rate of 1000", passed)
	}
}

// TestLimitSubjects is row 81: what is one thing and what is another.
func TestLimitSubjects(t *testing.T) {
	st := compiled(t, fleet(t, plan{}), sources()...)
	l := newLimiter(&Limits{Rate: 1}, testClock())
	about := func(question string) string {
		t.Helper()
		w := quickWorker(t, st, top)
		in, out := ask(t, question), make([]byte, maxUDP)
		src := netip.MustParseAddrPort(euResolver + ":53")
		n, o := st.answer(in, out, asker{addr: src, level: top})
		kind, subject := l.about(out[:n], o.zone, o.wildcard)
		if n := w.quickly(st, in, out, src); n > 0 { // both paths count in one cell
			k, s := l.about(out[:n], st.quick.zones[w.guard.zone], false)
			if k != kind || s != subject {
				t.Errorf("%s: the fast path counts elsewhere", question)
			}
		}
		return fmt.Sprint(kind, subject)
	}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"www.demo.test. A", "wWW.dEMO.tEST. A", true},
		{"www.demo.test. A", "alias.demo.test. A", false},
		{"www.demo.test. A", "www.demo.test. AAAA", false},
		{"nix.demo.test. A", "a.b.nix.demo.test. TXT", true},
		{"nix.demo.test. A", "nix.other.test. A", false},
		{"nix.other.test. A", "nix.another.test. A", true},
		{"x.sub.demo.test. A", "y.sub.demo.test. AAAA", true},
		{"x.wild.demo.test. A", "y.wild.demo.test. A", true},
		{"x.wild.demo.test. A", "www.demo.test. A", false},
		{"x.wild.demo.test. MX", "y.wild.demo.test. MX", true},
		{"x.old.demo.test. CNAME", "y.old.demo.test. CNAME", true},
		{"x.cw.demo.test. A", "y.cw.demo.test. A", true},
	} {
		if got := about(c.a) == about(c.b); got != c.same {
			t.Errorf("%s and %s: one thing %t, want %t", c.a, c.b, got, c.same)
		}
	}
}

// TestLimited is row 81 through sockets: dropped and truncated over UDP, on either
// path; not over TCP, and not with a good cookie. The clock stands, so nothing comes back.
func TestLimited(t *testing.T) {
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(top, "127.0.0.1:0")}, Now: testClock, Secrets: testSecrets(), Limits: Limits{Rate: 3}})
	s.SetZones(sources())
	addr := s.Addrs()[0]
	good := option(optCookie, serverCookie(&testSecrets()[0], "127.0.0.1", uint32(testClock().Unix()))...)
	for _, c := range []struct{ name, question, want string }{
		{"fast path", "www.demo.test. A", "NOERROR aa | " + wwwA},
		{"slow path", "x.wild.demo.test. A", "NOERROR aa | x.wild.demo.test. 3600 A 192.0.2.12"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := ask(t, c.question)
			for range 3 {
				if got := show(exchange(t, "udp", addr, q)); got != c.want {
					t.Errorf("within the rate: %s", got)
				}
			}
			sendOnly(t, s, q) // the first beyond is dropped
			if got := show(exchange(t, "udp", addr, ask(t, c.question))); got != "NOERROR aa tc" {
				t.Errorf("the second beyond: %s", got)
			}
			sendOnly(t, s, q)
			if got := show(exchange(t, "udp", addr, ask(t, c.question, edns0(&dns.EDNS0_NSID{Code: dns.EDNS0NSID})))); !strings.HasPrefix(got, "NOERROR aa tc"+opt+" nsid=") {
				t.Errorf("with OPT: %s", got)
			}
			sendOnly(t, s, q)
			if got := show(exchange(t, "udp", addr, ask(t, c.question, option(optCookie, make([]byte, 8)...)))); !strings.HasPrefix(got, "BADCOOKIE"+opt+" cookie=") {
				t.Errorf("with a client's cookie: %s", got)
			}
			if got := show(exchange(t, "tcp", addr, q)); got != c.want {
				t.Errorf("over TCP: %s", got)
			}
			if got := show(exchange(t, "udp", addr, ask(t, c.question, good))); !strings.HasPrefix(got, c.want) {
				t.Errorf("with a good cookie: %s", got)
			}
		})
	}
	want := `[name:"action"  value:"drop"] 6` + "\n" + `[name:"action"  value:"slip"] 6`
	if got := samples(t, s, "rhumb_dns_limited_total"); strings.ReplaceAll(got, "  ", " ") != strings.ReplaceAll(want, "  ", " ") {
		t.Errorf("counted\n%s, want\n%s", got, want)
	}
}

// sendOnly sends a query whose reply is dropped, and waits until it was: under load
// the kernel may let a later datagram overtake it.
func sendOnly(t *testing.T, s *Server, query []byte) {
	t.Helper()
	before := samples(t, s, "rhumb_dns_limited_total")
	c, err := net.Dial("udp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(query); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); samples(t, s, "rhumb_dns_limited_total") == before; time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("nothing was limited for 20 s after a query beyond the rate; counted:\n%s", before)
		}
	}
}

// TestCutShort: question and OPT stay, whatever the reply.
func TestCutShort(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), sources()...)
	for _, c := range conformanceRows(t) {
		out := make([]byte, maxTCP)
		n, o := s.answer(c.query, out, from(euResolver, top))
		if o.silent {
			continue
		}
		before := unpack(t, out[:n])
		after := unpack(t, out[:cutShort(out[:n])])
		if !after.Truncated || len(after.Answer)+len(after.Ns) > 0 || len(after.Question) != len(before.Question) || after.Rcode != before.Rcode {
			t.Errorf("%s: %s", c.name, show(after))
		}
		if a, b := before.IsEdns0(), after.IsEdns0(); (a == nil) != (b == nil) || a != nil && a.String() != b.String() {
			t.Errorf("%s: OPT %v, then %v", c.name, a, b)
		}
	}
}
