package authdns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

// TestSignedReplies: whatever is asked of the fixture with DO, a validator believes the
// answer; without DO nothing has changed but for the types of the apex.
func TestSignedReplies(t *testing.T) {
	down := map[string]placement.Out{"ams1": placement.OutDown, "nyc1": placement.OutDown, "tyo1": placement.OutDown}
	src := signedSources(t)
	plainSrc := sources()
	for name, snap := range map[string]*placement.Snapshot{
		"well": fleet(t, plan{}), "no data": fleet(t, plan{out: down, failAll: true, allDown: placement.NoData}), "observe": fleet(t, plan{mode: placement.Observe}),
	} {
		st, plain := signedState(t, snap, src...), compiled(t, snap, plainSrc...)
		r := rand.New(rand.NewPCG(9824, 1))
		seen := 0
		for range rounds(400, 20000) {
			l := []placement.Level{top, low}[r.IntN(2)]
			query := randomQuery(t, r)
			in := unpack(t, query)
			if in.Question[0].Qtype == dns.TypeAXFR || in.Question[0].Qtype == dns.TypeANY {
				continue
			}
			a := from([]string{euResolver, usResolver, elsewhere}[r.IntN(3)], l)
			a.tcp = true
			m := st.reply(t, query, a)
			o := in.IsEdns0()
			z := st.forest(l).find(zone.Canonical(in.Question[0].Name), in.Question[0].Qtype)
			if m.Rcode == dns.RcodeFormatError {
				continue // an option that is no option
			}
			if o == nil || !o.Do() || z == nil {
				if in.Question[0].Qtype == dns.TypeDS {
					continue // of a child that is signed here
				}
				if got, want := show(m), show(plain.reply(t, query, a)); got != want {
					t.Fatalf("%s without DO: %s, want %s", in.Question[0].String(), got, want)
				}
				continue
			}
			seen++
			if why := bogus(z, m, signedAt); why != "" {
				t.Fatalf("%s, %s: %s\n%s", name, l, why, m)
			}
		}
		if seen < 60 {
			t.Errorf("only %d queries with DO", seen)
		}
	}
}

// TestSignedShapes: each shape of answer in one line, signatures as their types.
func TestSignedShapes(t *testing.T) {
	st := signedState(t, fleet(t, plan{}), signedSources(t)...)
	const soa = "SOA RRSIG(SOA) "
	for _, c := range []struct {
		name, question string
		level          placement.Level
		change         func(*dns.Msg)
		want           string
	}{
		{"R83 positive", "www.demo.test. A", top, do, "NOERROR A RRSIG(A)"},
		{"R83 steered", "www.cdn.demo.test. A", low, do, "NOERROR A A RRSIG(A)"},
		{"R83 wildcard", "a.b.wild.demo.test. A", top, do, "NOERROR A RRSIG(A)"},
		{"R83 CNAME at a wildcard", "x.cw.demo.test. A", top, do, "NOERROR CNAME RRSIG(CNAME) A RRSIG(A)"},
		{"RFC 6672 5.3.1", "a.old.demo.test. A", top, do, "NOERROR DNAME RRSIG(DNAME) CNAME A RRSIG(A)"},
		{"RFC 9824 3.1", "nix.demo.test. A", top, do, "NOERROR " + soa + "NSEC[RRSIG NSEC NXNAME] RRSIG(NSEC)"},
		{"RFC 9824 5.1", "nix.demo.test. A", top, co, "NXDOMAIN " + soa + "NSEC[RRSIG NSEC NXNAME] RRSIG(NSEC) co"},
		{"CO without DO", "nix.demo.test. A", top, func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetCo() }, "NXDOMAIN SOA"},
		{"RFC 9824 3.2", "www.demo.test. MX", top, co, "NOERROR " + soa + "NSEC[A RRSIG NSEC TYPE65400] RRSIG(NSEC) co"},
		{"RFC 9824 3.3 empty non-terminal", "b.ent.demo.test. A", top, do, "NOERROR " + soa + "NSEC[RRSIG NSEC] RRSIG(NSEC)"},
		{"NODATA of a wildcard", "x.wild.demo.test. MX", top, do, "NOERROR " + soa + "NSEC[A RRSIG NSEC] RRSIG(NSEC)"},
		{"an alias to nothing", "dangling.demo.test. A", top, do, "NOERROR CNAME RRSIG(CNAME) " + soa + "NSEC[RRSIG NSEC NXNAME] RRSIG(NSEC)"},
		{"R84 types of a steered name", "www.cdn.demo.test. MX", low, do, "NOERROR " + soa + "NSEC[A AAAA RRSIG NSEC] RRSIG(NSEC)"},
		{"R85 secure cut", "x.sub.demo.test. A", top, do, "NOERROR NS NS DS RRSIG(DS) A"},
		{"R85 insecure cut", "x.wide.demo.test. A", top, func(m *dns.Msg) { do(m) }, "NOERROR tc"},
		{"a steered cut vouches for its child", "www.cdn.demo.test. A", top, do, "NOERROR NS NS DS RRSIG(DS) A AAAA A AAAA"},
		{"DS of a steered cut", "cdn.demo.test. DS", top, do, "NOERROR DS RRSIG(DS)"},
		{"no DS", "wide.demo.test. DS", top, do, "NOERROR " + soa + "NSEC[NS RRSIG NSEC] RRSIG(NSEC)"},
		{"R86 CDS", "demo.test. CDS", top, do, "NOERROR CDS RRSIG(CDS)"},
		{"R86 CDNSKEY", "demo.test. CDNSKEY", top, do, "NOERROR CDNSKEY RRSIG(CDNSKEY)"},
		{"DNSKEY", "demo.test. DNSKEY", top, do, "NOERROR DNSKEY DNSKEY RRSIG(DNSKEY)"},
		{"apex NS chosen for the resolver", "cdn.demo.test. NS", low, do, "NOERROR NS NS RRSIG(NS)"},
		{"R23 NSEC", "www.demo.test. NSEC", top, do, "NOERROR NSEC[A RRSIG NSEC TYPE65400] RRSIG(NSEC)"},
		{"R23 NSEC of no name", "nix.demo.test. NSEC", top, do, "NOERROR NSEC[RRSIG NSEC NXNAME] RRSIG(NSEC)"},
		{"R23 RRSIG", "www.demo.test. RRSIG", top, do, "NOERROR RRSIG(NSEC)"},
		{"RFC 9824 3.5", "www.demo.test. NXNAME", top, do, "FORMERR"},
		{"R82 without DO", "www.demo.test. A", top, edns0(), "NOERROR A"},
	} {
		m := st.reply(t, ask(t, c.question, c.change), from(euResolver, c.level))
		if got := shape(m); got != c.want {
			t.Errorf("%s: %s %s\ngot  %s\nwant %s", c.name, c.level, c.question, got, c.want)
		}
	}
}

// shape writes RCODE, the types of all records in order, and flags.
func shape(m *dns.Msg) string {
	out := []string{rcodeLabel(m.Rcode)}
	if m.Truncated {
		out = append(out, "tc")
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		switch rr := rr.(type) {
		case *dns.RRSIG:
			out = append(out, "RRSIG("+dns.Type(rr.TypeCovered).String()+")")
		case *dns.NSEC:
			var types []string
			for _, t := range rr.TypeBitMap {
				types = append(types, dns.Type(t).String())
			}
			out = append(out, "NSEC["+strings.Join(types, " ")+"]")
		case *dns.OPT:
			if rr.Co() {
				out = append(out, "co")
			}
		default:
			out = append(out, dns.Type(rr.Header().Rrtype).String())
		}
	}
	return strings.Join(out, " ")
}

// TestSignedQuick: the fast path gives the slow one's octets for signed zones too, in
// every state, also when it has seen the question before.
func TestSignedQuick(t *testing.T) {
	src := signedSources(t)
	half := append(sources()[:1:1], src[1]) // a signed child of a zone that is not
	for name, c := range map[string]struct {
		snap *placement.Snapshot
		src  []Source
	}{
		"well": {fleet(t, plan{}), src}, "no snapshot": {nil, src}, "no data": {fleet(t, plan{out: allOut, failAll: true, allDown: placement.NoData}), src},
		"half": {fleet(t, plan{}), half}, "observe": {fleet(t, plan{mode: placement.Observe}), src},
	} {
		for _, l := range []placement.Level{low, top} {
			t.Run(fmt.Sprintf("%s, %s", name, l), func(t *testing.T) {
				compareSome(t, signedState(t, c.snap, c.src...), l, rounds(500, 20000))
			})
		}
	}
}

// TestSignedRandomZones: whatever the zones are and whichever of them are signed, the
// fast path says what the slow one does, and validators believe it.
func TestSignedRandomZones(t *testing.T) {
	r := rand.New(rand.NewPCG(4035, 53))
	keys := map[string][]*dnssec.Key{}
	for i, origin := range []string{"demo.test.", "cdn.demo.test.", "a.cdn.demo.test.", "x.demo.test."} {
		keys[origin] = keysOf(t, origin, i%2 == 0)
	}
	labels := []string{"a", "x", "xx", "ns", "*", "cdn", "yy", "ns-ams1", "www"}
	types := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeMX, dns.TypeCNAME, dns.TypeDS, dns.TypeNSEC}
	snaps := []*placement.Snapshot{nil, fleet(t, plan{}), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}})}
	var before *state
	quick, rounds := 0, rounds(12, 1000)
	for range rounds {
		zones, text := randomZones(r)
		s := loadedBy(t, at(signedAt), 1<<20)
		for name, l := range zones {
			if l.file, l.meta.Name, l.keys = l.zone, name, keys[name]; r.IntN(4) > 0 {
				l.meta.DNSSEC = placement.Online
			}
			if err := s.sign(l, nil); err != nil {
				t.Fatal(err)
			}
		}
		st := compile(self, zones, snaps[r.IntN(len(snaps))], before)
		before = st
		for _, l := range []placement.Level{top, low} {
			p := newPaths(t, st, l)
			for range 80 {
				name := "demo.test."
				for range 1 + r.IntN(4) {
					name = labels[r.IntN(len(labels))] + "." + name
				}
				qtype, client := types[r.IntN(len(types))], []string{euResolver, usResolver, elsewhere}[r.IntN(3)]
				q := ask(t, name+" "+dns.TypeToString[qtype], []func(*dns.Msg){do, co}[r.IntN(2)])
				if p.compare(t, q, client) {
					quick++
				}
				z := st.forest(l).find(name, qtype)
				if z == nil || z.zone == nil || z.sign == nil {
					continue
				}
				a := from(client, l)
				a.tcp = true
				if m := st.reply(t, q, a); m.Rcode != dns.RcodeServerFailure {
					if why := bogus(z, m, signedAt); why != "" {
						t.Fatalf("%s\n%s\n%s", why, m, text)
					}
				}
			}
		}
	}
	if quick < rounds*20 {
		t.Errorf("only %d queries took the fast path", quick)
	}
}

// TestSignedQuickServes: signed answers of every kind take the fast path, and cost no
// allocation once they were asked for.
func TestSignedQuickServes(t *testing.T) {
	st := signedState(t, fleet(t, plan{}), signedSources(t)...)
	for _, c := range []struct {
		question string
		level    placement.Level
	}{{"www.demo.test. A", top}, {"www.demo.test. AAAA", top}, {"www.cdn.demo.test. A", low}, {"www.cdn.demo.test. AAAA", low},
		{"www.cdn.demo.test. A", top}, {"nix.demo.test. A", top}, {"x.sub.demo.test. A", top}, {"x.wild.demo.test. A", top},
		{"cdn.demo.test. NS", low}, {"demo.test. DNSKEY", top}, {"x.cw.demo.test. A", top}, {"sub.demo.test. DS", top}} {
		for _, change := range []func(*dns.Msg){do, co} {
			w := quickWorker(t, st, c.level)
			q, out, src := ask(t, c.question, change, func(m *dns.Msg) { m.IsEdns0().Option = []dns.EDNS0{ecs("203.0.113.0/24")} }), make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")
			w.quickly(st, q, out, src)
			if n := testing.AllocsPerRun(100, func() {
				if w.quickly(st, q, out, src) == 0 {
					t.Error("the slow path would answer")
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", c.question, n)
			}
		}
	}
}

// BenchmarkSigned is BenchmarkQuick for those who validate; nothing is signed in it but
// in the last, where each name is new.
func BenchmarkSigned(b *testing.B) {
	st := signedState(b, fleet(b, plan{}), signedSources(b)...)
	for _, c := range []struct {
		name, question string
		level          placement.Level
	}{
		{"static", "www.demo.test. A", top}, {"steered", "www.cdn.demo.test. A", low}, {"referral", "www.cdn.demo.test. A", top},
		{"nxdomain", "nix.demo.test. A", top}, {"nxdomain, new", "%d.demo.test. A", top},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := quickWorker(b, st, c.level)
			q, out, src := ask(b, c.question, do), make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if strings.Contains(c.question, "%") {
					q = ask(b, fmt.Sprintf(c.question, i), do)
				}
				if w.quickly(st, q, out, src) == 0 {
					b.Fatal("the slow path would answer")
				}
			}
		})
	}
}
