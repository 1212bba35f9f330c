package authdns

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"rhumb/authdns/wire"
	"rhumb/placement"
)

// quickWorker answers from a state without a socket.
func quickWorker(t testing.TB, st *state, l placement.Level) *worker {
	t.Helper()
	s, err := New(Config{Site: "ams1", Node: "ams1-a", Now: testClock, Secrets: testSecrets()})
	if err != nil {
		t.Fatal(err)
	}
	s.current.Store(st)
	w := &worker{server: s, level: l, batch: wire.NewBatch(1), tally: s.tallies.worker()}
	w.ledger.Store(newLedger(st))
	w.guard.begin(s.shield.jar.Load(), testClock(), 1)
	s.udpWorkers = append(s.udpWorkers, w)
	return w
}

// mixedCase spells a name as a resolver may (draft-vixie-dnsext-dns0x20).
func mixedCase(r *rand.Rand, name string) string {
	b := []byte(name)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && r.IntN(2) == 0 {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

// randomQuery asks for a name of the fixture, or near it, in one of many ways.
func randomQuery(t testing.TB, r *rand.Rand) []byte {
	t.Helper()
	names := []string{"demo.test.", "www.demo.test.", "alias.demo.test.", "todyn.demo.test.", "many.demo.test.", "wide.demo.test.", "ns7.wide.demo.test.",
		"a.b.ent.demo.test.", "b.ent.demo.test.", "x.wild.demo.test.", "sub.demo.test.", "x.old.demo.test.", "nix.demo.test.",
		"cdn.demo.test.", "www.cdn.demo.test.", "kept.cdn.demo.test.", "*.any.cdn.demo.test.", "x.any.cdn.demo.test.", "alias.cdn.demo.test.", "ns-ams1.cdn.demo.test.", "test.", ".",
		"x.ns-ams1.cdn.demo.test.", "x.ns-nope.cdn.demo.test.", "hostmaster.demo.test.", "x.hostmaster.demo.test.", "ns.demo.test.", "x.a.ns.demo.test.", "x.ns.sub.demo.test.",
		"ns.sub.demo.test.", "y.x.sub.demo.test.", "d.c.b.a.nix.demo.test.", "x.www.demo.test.", "x.www.cdn.demo.test.", "x.b.ent.demo.test.", "x.ns7.wide.demo.test.",
		"hostmaster.cdn.demo.test.", "x.about.cdn.demo.test.", "other.test.", strings.Repeat("abcdefghij.", 22) + "demo.test."}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeSOA, dns.TypeTXT, dns.TypeHTTPS, dns.TypeSVCB, dns.TypeCNAME, dns.TypeANY, dns.TypeMX, dns.TypeDS, dns.TypeNone, dns.TypeAXFR, 65400}
	m := new(dns.Msg)
	m.SetQuestion(mixedCase(r, names[r.IntN(len(names))]), types[r.IntN(len(types))])
	m.Id, m.RecursionDesired, m.CheckingDisabled = uint16(r.Uint32()), r.IntN(2) == 0, r.IntN(4) == 0
	if r.IntN(3) > 0 {
		m.SetEdns0([]uint16{0, 512, 1232, 4096}[r.IntN(4)], r.IntN(2) == 0)
		opt := m.IsEdns0()
		if r.IntN(3) == 0 {
			opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
		}
		if r.IntN(3) == 0 {
			opt.Option = append(opt.Option, randomCookie(r))
		}
		if r.IntN(2) == 0 {
			opt.Option = append(opt.Option, randomSubnet(r))
		}
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// randomCookie is one of every worth, or malformed.
func randomCookie(r *rand.Rand) dns.EDNS0 {
	client := []string{euResolver, usResolver, elsewhere, euResolverV6}[r.IntN(4)]
	age := []int{0, 1799, 1801, 3601, -299, -301}[r.IntN(6)]
	c := serverCookie(&testSecrets()[r.IntN(2)], client, uint32(int(testClock().Unix())-age))
	switch r.IntN(4) {
	case 0:
		c = c[:8]
	case 1:
		c = c[:r.IntN(len(c)+1)]
	}
	return &dns.EDNS0_LOCAL{Code: optCookie, Data: c}
}

func randomSubnet(r *rand.Rand) dns.EDNS0 {
	clients := []string{euResolver, usResolver, elsewhere, euResolverV6, "2001:db8:f::1", "203.0.113.200"}
	a := netip.MustParseAddr(clients[r.IntN(len(clients))])
	p, err := a.Prefix(r.IntN(a.BitLen() + 1))
	if err != nil {
		panic(err)
	}
	o := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}
	if a.Is6() {
		o.Family = 2
	}
	return o
}

// TestQuickIsTheSlowPath: where the fast path answers, it gives the slow one's
// octets, and both count the same.
func TestQuickIsTheSlowPath(t *testing.T) {
	down := map[string]placement.Out{"ams1": placement.OutDown, "nyc1": placement.OutDown, "tyo1": placement.OutDown}
	for name, snap := range map[string]*placement.Snapshot{
		"no snapshot":       nil,
		"well":              fleet(t, plan{}),
		"one down":          fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}}),
		"one drained":       fleet(t, plan{out: map[string]placement.Out{"nyc1": placement.OutDrained}}),
		"fail open":         fleet(t, plan{out: down, failAll: true}),
		"no data":           fleet(t, plan{out: down, failAll: true, allDown: placement.NoData}),
		"serv fail":         fleet(t, plan{out: down, failAll: true, allDown: placement.ServFail}),
		"observe":           fleet(t, plan{mode: placement.Observe}),
		"bindings":          fleet(t, plan{https: &placement.Binding{ALPN: []string{"h2", "h3"}, Port: 8443}, svcb: &placement.Binding{}}),
		"bindings, no data": fleet(t, plan{out: down, failAll: true, allDown: placement.NoData, https: &placement.Binding{}}),
		"bindings, static":  fleet(t, plan{out: down, failAll: true, allDown: placement.Static, https: &placement.Binding{}}),
		"bindings, observe": fleet(t, plan{mode: placement.Observe, https: &placement.Binding{}}),
		"elsewhere":         fleet(t, plan{elsewhere: "www.cdn.other.test.", https: &placement.Binding{}}),
		"elsewhere, inside": fleet(t, plan{elsewhere: "about.cdn.demo.test."}),
		"elsewhere, open":   fleet(t, plan{elsewhere: "www.cdn.other.test.", out: down, failAll: true}),
		"all":               fleet(t, plan{out: down, failAll: true, allDown: placement.All, https: &placement.Binding{}}),
		"last good":         fleet(t, plan{out: down, failAll: true, allDown: placement.LastGood}),
		"several":           fleet(t, plan{answers: placement.Answers{Nearest: 1, Random: 1}, https: &placement.Binding{}}),
		"several, one down": fleet(t, plan{answers: placement.Answers{Nearest: 2, Random: 1}, out: map[string]placement.Out{"ams1": placement.OutDown}}),
		"several, all down": fleet(t, plan{answers: placement.Answers{Nearest: 2, Random: 1}, out: down, failAll: true, allDown: placement.NoData}),
		"several, others":   fleet(t, plan{answers: placement.Answers{Nearest: 2, Random: 1}, elsewhere: "www.cdn.other.test."}),
		"ECS off":           fleet(t, plan{ecs: placement.ECS{Off: true}}),
		"ECS ignored":       fleet(t, plan{ignoreECS: true}),
		"ECS to /28":        fleet(t, plan{ecs: placement.ECS{Bits4: 28}}),
	} {
		for _, l := range []placement.Level{placement.LowLevel, placement.TopLevel} {
			t.Run(fmt.Sprintf("%s, %s", name, l), func(t *testing.T) {
				comparePaths(t, compiled(t, snap, sources()...), l)
			})
		}
	}
}

func comparePaths(t *testing.T, st *state, l placement.Level) { compareSome(t, st, l, 4000) }

func compareSome(t *testing.T, st *state, l placement.Level, n int) {
	r := rand.New(rand.NewPCG(53, uint64(len(l))))
	p := newPaths(t, st, l)
	resolvers := []string{euResolver, usResolver, elsewhere, euResolverV6}
	for range n {
		p.compare(t, randomQuery(t, r), resolvers[r.IntN(len(resolvers))])
	}
	if p.quick < n/100 {
		t.Errorf("only %d of %d queries took the fast path", p.quick, n)
	}
	p.compareCounts(t)
}

// paths are two workers with one state, of which the second takes the slow path.
type paths struct {
	fast, slow *worker
	got, want  []byte
	quick      int // queries that the fast path answered
}

func newPaths(t testing.TB, st *state, l placement.Level) *paths {
	return &paths{fast: quickWorker(t, st, l), slow: quickWorker(t, st, l), got: make([]byte, maxUDP), want: make([]byte, maxUDP)}
}

// compare asks both and tells whether the fast path answered.
func (p *paths) compare(t *testing.T, q []byte, resolver string) bool {
	t.Helper()
	src := netip.AddrPortFrom(netip.MustParseAddr(resolver), 1053)
	n := p.fast.quickly(p.fast.server.current.Load(), q, p.got, src)
	if n == 0 {
		return false
	}
	p.quick++
	m := p.slow.server.handle(q, p.want, asker{addr: src, level: p.slow.level}, p.slow.tally)
	if !bytes.Equal(p.got[:n], p.want[:m]) {
		t.Fatalf("to %s from %s\nfast %s\nslow %s", unpack(t, q), src, unpack(t, p.got[:n]), unpack(t, p.want[:m]))
	}
	return true
}

func (p *paths) compareCounts(t *testing.T) {
	t.Helper()
	p.fast.server.fold()
	if got, want := p.fast.tally.demand, p.slow.tally.demand; !maps.Equal(got, want) {
		t.Errorf("demand %v, the slow path counts %v", got, want)
	}
	if got, want := p.fast.tally.answers, p.slow.tally.answers; !maps.Equal(got, want) {
		t.Errorf("answers by site %v, the slow path counts %v", got, want)
	}
	if got, want := p.fast.tally.queries, p.slow.tally.queries; got != want {
		t.Errorf("%d queries, the slow path counts %d", got, want)
	}
	for _, family := range []string{"rhumb_dns_requests_total", "rhumb_dns_responses_total", "rhumb_dns_decisions_total", "rhumb_dns_ecs_total", "rhumb_dns_cookies_total"} {
		if got, want := samples(t, p.fast.server, family), samples(t, p.slow.server, family); got != want {
			t.Errorf("%s\nfast path:\n%s\nslow path:\n%s", family, got, want)
		}
	}
}

// TestQuickNeverSteersStatically: what depends on the client is not in the index
// that outlives snapshots.
func TestQuickNeverSteersStatically(t *testing.T) {
	before := compiled(t, nil, sources()...)
	zones := zonesOf(t, sources()...)
	after := compile(self, zones, fleet(t, plan{}), compile(self, zones, nil, nil))
	same := compile(self, zones, fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}}), after)
	if after.quick.low.static != same.quick.low.static || after.quick.top.static != same.quick.top.static {
		t.Error("a new snapshot made the static replies anew")
	}
	if before.quick.low.key == after.quick.low.key {
		t.Error("the first snapshot did not make the static replies anew")
	}
	for _, st := range []*state{before, after, same} {
		for _, name := range []string{"www.cdn.demo.test. A", "alias.cdn.demo.test. A", "todyn.demo.test. A", "cdn.demo.test. NS"} {
			var q wire.Query
			if !q.Parse(ask(t, name)) {
				t.Fatal(name)
			}
			if st.snap != nil && st.quick.low.static.Find(&q) != nil {
				t.Errorf("%s is answered statically in %s", name, st.snapshotName())
			}
		}
	}
}

// TestQuickAllocations: a query costs none, static or steered.
func TestQuickAllocations(t *testing.T) {
	const several = "kept.cdn.demo.test. A"
	st := compiled(t, fleet(t, plan{https: &web}), sources()...)
	for _, c := range []struct {
		question string
		level    placement.Level
	}{{"www.demo.test. A", placement.TopLevel}, {"www.cdn.demo.test. A", placement.LowLevel}, {"www.cdn.demo.test. AAAA", placement.LowLevel}, {"www.cdn.demo.test. HTTPS", placement.LowLevel},
		{"www.cdn.demo.test. A", placement.TopLevel}, {"nix.demo.test. A", placement.TopLevel}, {"x.sub.demo.test. A", placement.TopLevel},
		{several, placement.LowLevel}} {
		st := st
		if c.question == several {
			st = compiled(t, fleet(t, plan{answers: placement.Answers{Nearest: 1, Random: 2}}), sources()...)
		}
		w := quickWorker(t, st, c.level)
		out, src := make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")
		w.server.shield.limiter = newLimiter(&Limits{Rate: maxRate}, testClock())
		good := &dns.EDNS0_LOCAL{Code: optCookie, Data: serverCookie(&testSecrets()[0], euResolver, uint32(testClock().Unix()))}
		first := &dns.EDNS0_LOCAL{Code: optCookie, Data: make([]byte, 8)}
		for i, q := range [][]byte{ask(t, c.question), ask(t, c.question, edns0(ecs("203.0.113.0/24"))), ask(t, c.question, edns0(good)), ask(t, c.question, edns0(first))} {
			if n := testing.AllocsPerRun(200, func() {
				if n := w.quickly(st, q, out, src); n == 0 || w.bound(st, q, out, n, src) == 0 {
					t.Error("the slow path would answer, or nobody")
				}
			}); n != 0 {
				t.Errorf("%s, %d: %v allocations", c.question, i, n)
			}
		}
	}
}

// BenchmarkQuick is BenchmarkAnswer on the fast path.
func BenchmarkQuick(b *testing.B) {
	st := compiled(b, fleet(b, plan{}), sources()...)
	for _, c := range []struct {
		name, question string
		level          placement.Level
	}{
		{"static", "www.demo.test. A", placement.TopLevel},
		{"steered", "www.cdn.demo.test. A", placement.LowLevel},
		{"referral", "www.cdn.demo.test. A", placement.TopLevel},
		{"nxdomain", "nix.demo.test. A", placement.TopLevel},
		{"several", "www.cdn.demo.test. A", placement.LowLevel},
	} {
		b.Run(c.name, func(b *testing.B) {
			st := st
			if c.name == "several" {
				st = compiled(b, fleet(b, plan{answers: placement.Answers{Nearest: 1, Random: 2}}), sources()...)
			}
			w := quickWorker(b, st, c.level)
			q, out, src := ask(b, c.question, edns0(ecs("203.0.113.0/24"))), make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")
			b.ReportAllocs()
			for b.Loop() {
				if w.quickly(st, q, out, src) == 0 {
					b.Fatal("the slow path would answer")
				}
			}
		})
	}
	b.Run("static with a cookie, limited", func(b *testing.B) {
		w := quickWorker(b, st, top)
		w.server.shield.limiter = newLimiter(&Limits{Rate: maxRate}, testClock())
		w.server.shield.limiter.step = 0 // nothing is ever beyond it
		cookie := &dns.EDNS0_LOCAL{Code: optCookie, Data: serverCookie(&testSecrets()[0], euResolver, uint32(testClock().Unix()))}
		cookie.Data[23]++ // a good one would not be limited
		q, out, src := ask(b, "www.demo.test. A", edns0(ecs("203.0.113.0/24"), cookie)), make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")
		b.ReportAllocs()
		for b.Loop() {
			w.bound(st, q, out, w.quickly(st, q, out, src), src)
		}
	})
}

// samples prints the samples of one metric of a Server.
func samples(t *testing.T, s *Server, name string) string {
	t.Helper()
	var lines []string
	for _, m := range metric(t, s, name) {
		lines = append(lines, fmt.Sprint(m.GetLabel(), m.GetCounter().GetValue()))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// metric gathers the samples of one metric of a Server; nil where it has none.
func metric(t *testing.T, s *Server, name string) []*dto.Metric {
	t.Helper()
	reg := prometheus.NewRegistry()
	if err := reg.Register(s.metrics); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}
