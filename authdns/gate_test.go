package authdns

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/wire"
	"rhumb/placement"
)

// rig is one worker of a Server at a socket of its own, whose batches the test begins,
// and whose clock it sets.
type rig struct {
	t       testing.TB
	server  *Server
	w       *worker
	socket  *net.UDPConn
	now     time.Time
	clients map[string]*net.UDPConn
	floods  int // each asks for names of its own
	// pending are sent and not received, due are replies which nobody has read.
	pending, due int
}

// newRig makes one with signed zones and a budget of signatures.
func newRig(t testing.TB, c Config) *rig {
	t.Helper()
	r := &rig{t: t, now: signedAt, clients: map[string]*net.UDPConn{}}
	c.Now, c.Secrets, c.Workers = func() time.Time { return r.now }, testSecrets(), 1
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if errs := s.SetZones(signedSources(t)); errs != nil {
		t.Fatal(errs)
	}
	p, err := listenUDP(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	r.server, r.w, r.socket = s, s.worker(top), p.(*net.UDPConn)
	return r
}

// fd is the descriptor of the worker's socket.
func (r *rig) fd() (fd uintptr) {
	r.t.Helper()
	raw, err := r.socket.SyscallConn()
	if err == nil {
		err = raw.Control(func(f uintptr) { fd = f })
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return fd
}

// run answers all that has been sent, batch by batch.
func (r *rig) run() {
	r.t.Helper()
	fd := r.fd()
	send := func() error {
		r.due += r.w.batch.Replies()
		return r.w.send(fd)
	}
	for began := time.Now(); r.pending > 0; {
		n, err := r.w.batch.Receive(fd)
		if err != nil || n == 0 && time.Since(began) > 20*time.Second { // the kernel may be late
			r.t.Fatalf("%d datagrams did not arrive: %v", r.pending, err)
		}
		if n == 0 {
			runtime.Gosched()
			continue
		}
		r.pending -= n
		r.w.answer(n, send)
		if err := send(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// client is a socket at a loopback address, made at its first use.
func (r *rig) client(addr string) *net.UDPConn {
	r.t.Helper()
	c, ok := r.clients[addr]
	if !ok {
		var err error
		if c, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(addr)}, r.socket.LocalAddr().(*net.UDPAddr)); err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { c.Close() })
		r.clients[addr] = c
	}
	return c
}

func (r *rig) send(addr string, query []byte) {
	r.t.Helper()
	if _, err := r.client(addr).Write(query); err != nil {
		r.t.Fatal(err)
	}
	r.pending++
}

// replies are all that were sent since the last call, which must be for one client.
func (r *rig) replies(addr string) (out []*dns.Msg) {
	r.t.Helper()
	c, buf := r.client(addr), make([]byte, 4096)
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for ; r.due > 0; r.due-- {
		n, err := c.Read(buf)
		if err != nil {
			r.t.Fatalf("%d replies to %s did not arrive: %v", r.due, addr, err)
		}
		m := new(dns.Msg)
		if err := m.Unpack(buf[:n]); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

// flood asks for n names below a parent, each once, and counts what becomes of them.
func (r *rig) flood(addr, parent string, n int, cookie []byte) string {
	r.t.Helper()
	seen := map[string]int{}
	r.floods++
	for i := 0; i < n; {
		for range min(n-i, batchSize-1) { // a batch that is not full is not pressed
			r.send(addr, ask(r.t, fmt.Sprintf("x%d-%d.%s A", r.floods, i, parent), signedWith(cookie)))
			i++
		}
		r.run()
		for _, m := range r.replies(addr) {
			switch {
			case m.Truncated:
				seen["tc"]++
			case len(m.Ns) > 0:
				seen["signed"]++
			default:
				seen[rcodeLabel(m.Rcode)]++
			}
		}
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(seen)) {
		out = append(out, fmt.Sprint(k, ":", seen[k]))
		n -= seen[k]
	}
	if n > 0 {
		out = append(out, fmt.Sprint("silence:", n))
	}
	return strings.Join(out, " ")
}

// signedWith asks for signatures, and shows a cookie if there is one.
func signedWith(cookie []byte) func(*dns.Msg) {
	return func(m *dns.Msg) {
		do(m)
		if cookie != nil {
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: optCookie, Data: cookie}}
		}
	}
}

// befriend lets a network ask in calm minutes until it is known.
func (r *rig) befriend(addr string) {
	r.t.Helper()
	for range 4 {
		for range knownSampling {
			r.send(addr, ask(r.t, "www.demo.test. A", do))
		}
		r.run()
		r.now = r.now.Add(time.Minute)
	}
	if n := len(r.replies(addr)); n != 4*knownSampling {
		r.t.Fatalf("%d of %d questions in calm times were answered", n, 4*knownSampling)
	}
	if !r.server.shield.overload.known.has(netip.MustParseAddr(addr), r.now.UnixNano()) {
		r.t.Fatalf("%s is not known after four minutes", addr)
	}
}

// good is a cookie that an address may show now.
func (r *rig) good(addr string) []byte {
	return serverCookie(&testSecrets()[0], addr, uint32(r.now.Unix()))
}

// TestGate: with 800 signatures and more to sign, each class has its part, and no more;
// within a class whoever asks for an attacked name comes last. The clock stands, so
// nothing comes back meanwhile.
func TestGate(t *testing.T) {
	r := newRig(t, Config{SignBudget: 800})
	r.befriend("127.1.0.1")
	for _, c := range []struct {
		name, from, parent string
		n                  int
		cookie             []byte
		want               string
	}{
		{"a flood: a quarter is signed, as many are sent to TCP", "127.2.0.1", "demo.test.", 900, nil, "signed:200 tc:200 silence:500"},
		{"from elsewhere", "127.3.0.1", "demo.test.", 20, nil, "silence:20"},
		{"from there, for another name", "127.3.0.1", "www.demo.test.", 20, nil, "signed:20"},
		{"RFC 7873 5.2.3 who speaks cookies", "127.3.0.1", "demo.test.", 20, []byte("clientCC"), "BADCOOKIE:20"},
		{"a cookie of another address", "127.3.0.1", "demo.test.", 20, r.good("127.3.0.2"), "BADCOOKIE:20"},
		{"a known network", "127.1.0.1", "demo.test.", 100, nil, "signed:100"},
		{"who shows a good cookie", "127.4.0.1", "demo.test.", 100, r.good("127.4.0.1"), "signed:100"},
		{"one of the good ones beyond his share", "127.4.0.9", "many.demo.test.", 150, r.good("127.4.0.9"), "signed:100 silence:50"},
		{"the known ones' part ends", "127.1.0.1", "www.demo.test.", 100, nil, "signed:100"},
		{"others have none any more", "127.5.0.1", "alias.demo.test.", 5, nil, "tc:5"},
		{"a cookie has", "127.6.0.1", "demo.test.", 150, r.good("127.6.0.1"), "signed:150"},
		{"until all is gone", "127.7.0.1", "demo.test.", 35, r.good("127.7.0.1"), "signed:30 tc:5"},
	} {
		if got := r.flood(c.from, c.parent, c.n, c.cookie); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	r.send("127.2.0.1", ask(t, "www.demo.test. A", do))
	r.send("127.2.0.1", ask(t, "x1-0.demo.test. A", do))
	r.send("127.2.0.1", ask(t, "www.demo.test. MX", do))
	r.send("127.2.0.1", ask(t, "nix.demo.test. A"))
	r.run()
	if got := r.replies("127.2.0.1"); len(got) != 4 || slices.ContainsFunc(got, func(m *dns.Msg) bool { return m.Truncated }) {
		t.Errorf("what is at hand, or exists, or needs no signature, has %d of 4 replies: %v", len(got), got)
	}
	r.server.fold()
	if got := samples(t, r.server, "rhumb_dns_overload_queries_total"); !strings.Contains(got, `"dropped"`) || !strings.Contains(got, `"attack"`) || !strings.Contains(got, `"cookie"`) {
		t.Errorf("counted:\n%s", got)
	}
}

// TestGateReturns: a second later there is as much as before, and ten later the story is over.
func TestGateReturns(t *testing.T) {
	r := newRig(t, Config{SignBudget: 400})
	told := func(when, want string) {
		t.Helper()
		r.server.lookAtStrain(r.now)
		if got := r.server.Overload().String(); !strings.Contains(got, want) {
			t.Errorf("%s: told %q, want %q", when, got, want)
		}
	}
	told("before", "none")
	if got := r.flood("127.2.0.1", "demo.test.", 300, nil); got != "signed:100 tc:100 silence:100" {
		t.Errorf("the flood: %s", got)
	}
	told("in the flood", "100 % of them below demo.test.")
	r.now = r.now.Add(time.Second)
	if got := r.flood("127.2.0.1", "www.demo.test.", 60, nil); got != "signed:60" {
		t.Errorf("a second later: %s", got)
	}
	told("a second later", "83 % of them below demo.test.")
	if r.w.gate.learn(netip.MustParseAddr("127.9.0.1"), false); r.server.shield.overload.known.count(r.now.UnixNano()) != 0 {
		t.Error("somebody got known in the flood")
	}
	r.now = r.now.Add(overloadLinger)
	told("ten seconds later", "none")
	if got := r.flood("127.2.0.1", "nix.demo.test.", 90, nil); got != "signed:90" {
		t.Errorf("afterwards: %s", got)
	}
}

// TestGateObserves: in mode observe, and by the policy, all are served alike as long as
// there is anything, and what would be done is counted; with the policy off it is not.
func TestGateObserves(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string
		would  bool
	}{
		"mode":   {Config{Mode: placement.Observe}, "signed:400 tc:50", true},
		"policy": {Config{Overload: OverloadObserve}, "signed:400 tc:50", true},
		"off":    {Config{Overload: OverloadOff}, "signed:400 tc:50", false},
	} {
		c.config.SignBudget = 400
		r := newRig(t, c.config)
		if got := r.flood("127.2.0.1", "demo.test.", 450, nil); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		r.server.fold()
		if got := samples(t, r.server, "rhumb_observe_would_total"); strings.Contains(got, "overload_drop") != c.would {
			t.Errorf("%s: counted\n%s", name, got)
		}
		r.server.lookAtStrain(r.now)
		if o := r.server.Overload(); o.Observed != c.would || o.Since.IsZero() == c.would {
			t.Errorf("%s: told %q", name, o)
		}
	}
}

// TestGateOrder: what is at hand leaves first, then the good class; among equals who
// came first.
func TestGateOrder(t *testing.T) {
	r := newRig(t, Config{SignBudget: 400})
	r.flood("127.2.0.1", "www.demo.test.", 80, nil) // from now on classes are told apart
	cookie := r.good("127.1.0.1")
	for _, q := range []struct {
		question string
		cookie   []byte
	}{{"a.demo.test.", nil}, {"b.demo.test.", cookie}, {"www.demo.test.", nil}, {"c.demo.test.", nil}, {"d.demo.test.", cookie}, {"alias.demo.test.", nil}} {
		r.send("127.1.0.1", ask(t, q.question+" A", signedWith(q.cookie)))
	}
	r.run()
	var got []string
	for _, m := range r.replies("127.1.0.1") {
		got = append(got, strings.TrimSuffix(m.Question[0].Name, ".demo.test."))
	}
	if want := "www alias b d a c"; strings.Join(got, " ") != want {
		t.Errorf("replies left as %v, want %s", got, want)
	}
}

// TestShedOctets: what is said to those who are not served is what the slow path would
// have said, octet for octet.
func TestShedOctets(t *testing.T) {
	spent := loadedBy(t, at(signedAt), 1, signedSources(t)...)
	st := spent.current.Load()
	st.reply(t, ask(t, "spend.demo.test. A", do), from(euResolver, top))
	jar := &jar{testSecrets()}
	now := uint32(signedAt.Unix())
	client := netip.MustParseAddr(euResolver)
	for i, change := range []func(*dns.Msg){do, co, signedWith(serverCookie(&testSecrets()[0], euResolver, now)), signedWith([]byte("clientCC")),
		func(m *dns.Msg) {
			do(m)
			m.RecursionDesired, m.CheckingDisabled = true, true
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}, ecs("203.0.113.0/24"), &dns.EDNS0_LOCAL{Code: optCookie, Data: []byte("clientCC")}}
		}} {
		for _, pressed := range []bool{false, true} {
			in, want, got := ask(t, "NiX.demo.test. A", change), make([]byte, maxUDP), make([]byte, maxUDP)
			a := from(euResolver, top)
			a.jar, a.now, a.pressed = jar, now, pressed
			n, o := st.answer(in, want, a)
			var q wire.Query
			if !q.Parse(in) {
				t.Fatal("no common query")
			}
			options := st.quick.options
			var cookie [cookieLen]byte
			if jar.judge(&cookie, q.EDNS.Cookie, client, now) != cookieNone {
				options.Cookie = cookie[:]
			}
			flags, rcode := uint16(wire.AA|wire.TC), dns.RcodeSuccess
			if o.rcode == dns.RcodeBadCookie {
				flags, rcode = 0, dns.RcodeBadCookie
			} else if !o.truncated {
				t.Fatalf("%d: the slow path says %s", i, rcodeLabel(o.rcode))
			}
			if m := wire.Short(got, &q, flags, rcode, &options); !bytes.Equal(got[:m], want[:n]) {
				t.Errorf("%d, pressed %t:\n got %x\nwant %x", i, pressed, got[:m], want[:n])
			}
		}
	}
}

// TestGateAllocations: finding a reply, and turning a query away, allocate nothing,
// whoever asks.
func TestGateAllocations(t *testing.T) {
	r := newRig(t, Config{SignBudget: 100})
	r.befriend("127.1.0.1")
	r.flood("127.2.0.1", "demo.test.", 100, nil)
	for _, c := range []struct {
		name, from, question string
		cookie               []byte
	}{
		{"at hand", "127.2.0.1", "www.demo.test. A", nil},
		{"at hand, known", "127.1.0.1", "www.demo.test. A", nil},
		{"kept", "127.4.0.1", "x1-0.demo.test. A", r.good("127.4.0.1")},
		{"turned away", "127.3.0.1", "y.demo.test. A", nil},
		{"asked for a cookie", "127.3.0.1", "y.demo.test. A", []byte("clientCC")},
	} {
		q := ask(t, c.question, signedWith(c.cookie))
		fd := r.fd()
		send := func() error { return r.w.send(fd) }
		r.send(c.from, q)
		r.run() // zones have their counters from now on
		r.replies(c.from)
		client := r.client(c.from)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := client.Write(q); err != nil {
				t.Fatal(err)
			}
			n := 0
			for began := time.Now(); n == 0 && time.Since(began) < 20*time.Second; {
				n, _ = r.w.batch.Receive(fd)
			}
			if n == 0 {
				t.Fatalf("%s: the query did not arrive", c.name)
			}
			r.w.answer(n, send)
			send()
		}); n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

// TestEncloser: what a name is below, as far as the fast path holds all names of its zone.
func TestEncloser(t *testing.T) {
	zones := zonesOf(t, sources()[0])
	zones["away.demo.test."] = &loaded{meta: placement.Zone{Name: "away.demo.test.", Level: top}}
	st := compile(self, zones, nil, nil)
	w := quickWorker(t, st, top)
	for name, want := range map[string]string{
		"www.demo.test.": "www.demo.test.", "X.wWw.demo.test.": "www.demo.test.", "c.b.a.demo.test.": "demo.test.",
		"x.wild.demo.test.": "wild.demo.test.", "x.away.demo.test.": "", "away.demo.test.": "", "other.test.": "", ".": "",
	} {
		if !w.query.Parse(ask(t, name+" A", do)) {
			t.Fatalf("%s is no common query", name)
		}
		got, zone := w.encloser(st)
		if string(got) != string(wireNameOr(want)) || zone >= 0 != (want != "") {
			t.Errorf("%s is below %q of zone %d, want %q", name, got, zone, want)
		}
	}
}

// wireNameOr is wireName, and nothing of nothing.
func wireNameOr(name string) []byte {
	if name == "" {
		return nil
	}
	return wireName(name)
}

// BenchmarkGate tells what a query costs in calm times and in a flood, with the socket,
// and without a gate.
func BenchmarkGate(b *testing.B) {
	for _, c := range []struct {
		name, question string
		policy         OverloadPolicy
		flooded        bool
	}{
		{"calm", "www.demo.test. A", OverloadAct, false},
		{"calm/off", "www.demo.test. A", OverloadOff, false},
		{"flood/at-hand", "www.demo.test. A", OverloadAct, true},
		{"flood/turned-away", "y.demo.test. A", OverloadAct, true},
		{"flood/turned-away/off", "y.demo.test. A", OverloadOff, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, Config{SignBudget: 100, Overload: c.policy})
			if c.flooded {
				r.flood("127.2.0.1", "demo.test.", 300, nil)
			}
			q := ask(b, c.question, do)
			var served atomic.Int64
			b.ReportAllocs()
			for b.Loop() {
				for range batchSize - 1 {
					r.send("127.2.0.1", q)
				}
				r.run()
				served.Add(batchSize - 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(served.Load()), "ns/query")
		})
	}
}
