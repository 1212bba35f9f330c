package authdns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/dnssec"
	"rhumb/authdns/zone"
	"rhumb/placement"
)

var signedAt = time.Date(2026, 11, 22, 12, 20, 0, 0, time.UTC)

// keysOf makes the keys of a zone: of one that is a CSK by Ed25519, else a KSK and a
// ZSK by P-256.
func keysOf(t testing.TB, name string, csk bool) []*dnssec.Key {
	t.Helper()
	var out []*dnssec.Key
	for _, k := range map[bool][]struct {
		alg uint8
		sep bool
	}{true: {{dnssec.Ed25519, true}}, false: {{dnssec.P256, true}, {dnssec.P256, false}}}[csk] {
		key, err := dnssec.Generate(name, k.alg, k.sep, dnssec.Times{})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, key)
	}
	return out
}

// signedSources are the fixture's zones, signed.
func signedSources(t testing.TB) []Source {
	out := sources()
	for i := range out {
		out[i].Zone.DNSSEC, out[i].Keys = placement.Online, keysOf(t, out[i].Zone.Name, i == 1)
	}
	return out
}

// loadedBy loads sources as a Server does at an instant.
func loadedBy(t testing.TB, now func() time.Time, budget int, src ...Source) *Server {
	t.Helper()
	s, err := New(Config{Site: self.Site, Node: self.Node, Version: self.Version, Now: now, SignBudget: budget})
	if err != nil {
		t.Fatal(err)
	}
	if errs := s.SetZones(src); errs != nil {
		t.Fatal(errs)
	}
	return s
}

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

// signedState compiles signed zones with a Snapshot.
func signedState(t testing.TB, snap *placement.Snapshot, src ...Source) *state {
	t.Helper()
	return compile(self, loadedBy(t, at(signedAt), 1<<20, src...).zones, snap, nil)
}

// signedSource is a zone of any level, signed where it has keys.
func signedSource(name string, keys []*dnssec.Key, text string) Source {
	s := textSource("", name, "", text)
	if s.Keys = keys; keys != nil {
		s.Zone.DNSSEC = placement.Online
	}
	return s
}

// rounds is how often something random is tried, here and in the long form.
func rounds(short, long int) int {
	if os.Getenv("RHUMB_SOAK") != "" {
		return long
	}
	return short
}

func do(m *dns.Msg) { m.SetEdns0(4096, true) }
func co(m *dns.Msg) { do(m); m.IsEdns0().SetCo() }

// bogus says why a validator would not believe a reply, or "". It is no validator:
// it holds the rules of RFC 4035 section 5 for what this server sends.
func bogus(z *served, m *dns.Msg, now time.Time) string {
	q := m.Question[0]
	referral := !m.Authoritative
	sections := [][]dns.RR{m.Answer, m.Ns}
	if !referral && (q.Qtype == dns.TypeHTTPS || q.Qtype == dns.TypeSVCB) { // RFC 9460 section 4.1
		sections = append(sections, slices.DeleteFunc(slices.Clone(m.Extra), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT }))
		m = m.Copy()
		m.Extra = nil
	}
	name := zone.Canonical(q.Name)
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok {
			name = zone.Canonical(c.Target)
		}
	}
	for _, section := range sections {
		for i := 0; i < len(section); {
			var set, sigs []dns.RR
			for set = section[i : i+1]; i+len(set) < len(section) && sameSet(section[i], section[i+len(set)]); {
				set = section[i : i+len(set)+1]
			}
			i += len(set)
			for ; i < len(section) && section[i].Header().Rrtype == dns.TypeRRSIG; i++ {
				sigs = append(sigs, section[i])
			}
			h := set[0].Header()
			if h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeCNAME && fromDNAME(section, h.Name) || referral && h.Rrtype == dns.TypeNS {
				if len(sigs) > 0 {
					return "signed, though it must not be: " + set[0].String()
				}
				continue
			}
			if why := believed(z, set, sigs, now); why != "" {
				return fmt.Sprintf("%s %s: %s", h.Name, dns.Type(h.Rrtype), why)
			}
		}
	}
	for _, rr := range m.Extra {
		if t := rr.Header().Rrtype; t != dns.TypeOPT && !referral {
			return "additional record without signature: " + rr.String()
		}
	}
	return unproven(z, m, name, referral)
}

func fromDNAME(section []dns.RR, name string) bool {
	return slices.ContainsFunc(section, func(rr dns.RR) bool {
		h := rr.Header()
		return h.Rrtype == dns.TypeDNAME && h.Name != name && dns.IsSubDomain(h.Name, name)
	})
}

func believed(z *served, set, sigs []dns.RR, now time.Time) string {
	if len(sigs) == 0 {
		return "no signature"
	}
	keys := z.zone.RRset(z.name, dns.TypeDNSKEY)
	for _, rr := range sigs {
		sig := rr.(*dns.RRSIG)
		if sig.TypeCovered != set[0].Header().Rrtype {
			return "signature of " + dns.Type(sig.TypeCovered).String()
		}
		i := slices.IndexFunc(keys, func(k dns.RR) bool { return k.(*dns.DNSKEY).KeyTag() == sig.KeyTag })
		if i < 0 {
			return "signed by a key which is not published"
		}
		if err := sig.Verify(keys[i].(*dns.DNSKEY), set); err != nil {
			return err.Error()
		}
		if !sig.ValidityPeriod(now) || sig.OrigTtl < set[0].Header().Ttl || sig.Hdr.Ttl != set[0].Header().Ttl ||
			int(sig.Labels) != dns.CountLabel(strings.TrimPrefix(set[0].Header().Name, "*.")) {
			return "window, TTL or labels: " + sig.String()
		}
	}
	return ""
}

// unproven says what is missing to believe a denial or a referral.
func unproven(z *served, m *dns.Msg, name string, referral bool) string {
	var nsec *dns.NSEC
	for _, rr := range slices.Concat(m.Ns, m.Answer) {
		if n, ok := rr.(*dns.NSEC); ok {
			nsec = n
		}
	}
	has := func(t uint16) bool { return slices.Contains(nsec.TypeBitMap, t) }
	q := m.Question[0]
	switch {
	case referral && nsec == nil:
		if !slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS }) {
			return "a referral with neither DS nor proof of none"
		}
	case referral:
		if nsec.Hdr.Name != m.Ns[0].Header().Name || has(dns.TypeDS) || has(dns.TypeSOA) || !has(dns.TypeNS) {
			return "no proof of an insecure cut: " + nsec.String()
		}
	case nsec != nil && q.Qtype != dns.TypeNSEC:
		exists := z.zone.At(name).Exists || z.zone.At(name).Wildcard
		if zone.Canonical(nsec.Hdr.Name) != name || nsec.NextDomain != dnssec.Successor(name) || has(q.Qtype) && q.Qtype != dns.TypeRRSIG || has(dns.TypeCNAME) ||
			has(dns.TypeNXNAME) == exists || !has(dns.TypeRRSIG) || !has(dns.TypeNSEC) {
			return "no proof of denial: " + nsec.String()
		}
	case nsec == nil && len(m.Ns) > 0:
		return "a denial without proof"
	}
	return ""
}

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

// TestSignedOnce: a variant is signed once, whoever asks and however often.
func TestSignedOnce(t *testing.T) {
	s := loadedBy(t, at(signedAt), 0, signedSources(t)...)
	s.Apply(t.Context(), fleet(t, plan{}))
	w := quickWorker(t, s.current.Load(), low)
	ask1 := func(question string, client string) {
		q := ask(t, question, do)
		src := netip.AddrPortFrom(netip.MustParseAddr(client), 1)
		if w.quickly(s.current.Load(), q, make([]byte, maxUDP), src) == 0 {
			t.Errorf("%s: the slow path would answer", question)
		}
		s.handle(q, make([]byte, maxUDP), asker{addr: src, level: low}, w.tally)
	}
	made := func() float64 { return sum(t, s, "rhumb_dnssec_signatures_total") }
	before := made()
	for range 3 {
		for _, client := range []string{euResolver, usResolver} {
			ask1("www.cdn.demo.test. A", client)
			ask1("nix.cdn.demo.test. A", client)
		}
	}
	// Two RRsets of addresses for each client's site, in whichever order; one denial.
	if n := made() - before; n < 3 || n > 6 {
		t.Errorf("%v signatures for two variants and a denial", n)
	}
	before = made()
	s.Apply(t.Context(), fleet(t, plan{out: map[string]placement.Out{"tyo1": placement.OutDown}}))
	for _, client := range []string{euResolver, usResolver} {
		ask1("www.cdn.demo.test. A", client)
		ask1("nix.cdn.demo.test. A", client)
	}
	if n := made() - before; n != 0 {
		t.Errorf("a new snapshot cost %v signatures", n)
	}
}

// TestBudgetSpent: names that do not exist are signed as long as the budget lasts;
// after it UDP is sent to TCP, and TCP is told to go on to the next server. What
// exists is answered all the time, and nothing is ever sent without its proof.
func TestBudgetSpent(t *testing.T) {
	now := signedAt
	s := loadedBy(t, func() time.Time { return now }, 3, signedSources(t)...)
	s.Apply(t.Context(), fleet(t, plan{}))
	st := s.current.Load()
	count := func(tcp bool, prefix string) map[string]int {
		seen := map[string]int{}
		for i := range 10 {
			a := from(euResolver, top)
			a.tcp = tcp
			m := st.reply(t, ask(t, fmt.Sprintf("%s%d.demo.test. A", prefix, i), do), a)
			seen[strings.Fields(shape(m) + " -")[0]+" "+strings.Fields(shape(m) + " -")[1]]++
			if len(m.Answer)+len(m.Ns) > 0 {
				if why := bogus(st.top["demo.test."], m, now); why != "" {
					t.Fatal(why)
				}
			}
		}
		return seen
	}
	if got := fmt.Sprint(count(false, "u")); got != "map[NOERROR SOA:3 NOERROR tc:7]" {
		t.Errorf("UDP: %s", got)
	}
	if got := fmt.Sprint(count(true, "t")); got != "map[NOERROR SOA:3 SERVFAIL -:7]" {
		t.Errorf("TCP: %s", got)
	}
	for _, q := range []string{"www.demo.test. MX", "u0.demo.test. A", "many.demo.test. AAAA"} {
		if m := st.reply(t, ask(t, q, do), from(euResolver, top)); len(m.Ns) != 4 {
			t.Errorf("%s with the budget spent: %s", q, shape(m))
		}
	}
	w := quickWorker(t, st, top)
	w.server.signs.metrics.refused = s.signs.metrics.refused
	for i := range 4 {
		q := ask(t, fmt.Sprintf("w%d.demo.test. A", i), do)
		if n := w.quickly(st, q, make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")); n != 0 {
			t.Error("the fast path answers with the budget spent")
		}
		w.server.handle(q, make([]byte, maxUDP), from(euResolver, top), w.tally)
	}
	if n := sum(t, s, "rhumb_dnssec_budget_spent_total"); n != 4 {
		t.Errorf("%v of 4 replies counted as not signed", n)
	}
	now = now.Add(time.Second)
	if got := fmt.Sprint(count(false, "v")); got != "map[NOERROR SOA:3 NOERROR tc:7]" {
		t.Errorf("a second later: %s", got)
	}
}

// TestAbsentIsLimited: a signed denial looks like an answer, and is counted as one of very
// many names by the limit on replies, on both paths.
func TestAbsentIsLimited(t *testing.T) {
	st := signedState(t, nil, signedSources(t)...)
	w := quickWorker(t, st, top)
	for question, many := range map[string]bool{"nix.demo.test. A": true, "x.wild.demo.test. A": true, "www.demo.test. A": false, "www.demo.test. MX": false} {
		q, out := ask(t, question, do), make([]byte, maxUDP)
		if _, o := st.answer(q, out, from(euResolver, top)); o.wildcard != many {
			t.Errorf("%s: one of many: %v", question, o.wildcard)
		}
		if w.quickly(st, q, out, netip.MustParseAddrPort(euResolver+":53")) == 0 || w.guard.many != many {
			t.Errorf("%s on the fast path: one of many: %v", question, w.guard.many)
		}
	}
}

// TestTurn: at every hour of a day all is valid, each hour only a part was signed
// anew, and keys change when their times say so.
func TestTurn(t *testing.T) {
	now := signedAt.Truncate(dnssec.Tick)
	src := []Source{signedSource("demo.test.", keysOf(t, "demo.test.", false), "@ SOA ns b 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.2\nsub NS ns\n$GENERATE 1-10 n$ A 192.0.2.$\n")}
	next, err := dnssec.Generate("demo.test.", dnssec.P256, false, dnssec.Times{Publish: now.Add(5 * time.Hour), Activate: now.Add(10 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	old := src[0].Keys[1]
	src[0].Keys = []*dnssec.Key{src[0].Keys[0], old.With(dnssec.Times{Publish: now, Activate: now, Inactive: now.Add(10 * time.Hour), Delete: now.Add(20 * time.Hour)}), next}
	s := loadedBy(t, func() time.Time { return now }, 0, src...)
	s.Apply(t.Context(), fleet(t, plan{}))
	all := sum(t, s, "rhumb_dnssec_signatures_total")
	for hour := range 24 {
		st := s.current.Load()
		for _, q := range []string{"www.demo.test. A", "demo.test. DNSKEY", "nix.demo.test. A", "x.sub.demo.test. A"} {
			if why := bogus(st.top["demo.test."], st.reply(t, ask(t, q, do), from(euResolver, top)), now); why != "" {
				t.Fatalf("hour %d: %s: %s", hour, q, why)
			}
		}
		keys, signer := len(st.top["demo.test."].zone.RRset("demo.test.", dns.TypeDNSKEY)), old.Tag()
		if hour >= 10 {
			signer = next.Tag()
		}
		if want := 2 + b2i(hour >= 5) - b2i(hour >= 20); keys != want {
			t.Errorf("hour %d: %d keys published, want %d", hour, keys, want)
		}
		m := st.reply(t, ask(t, "www.demo.test. A", do), from(euResolver, top))
		if got := m.Answer[1].(*dns.RRSIG).KeyTag; got != signer {
			t.Errorf("hour %d: signed by %d, want %d", hour, got, signer)
		}
		before := sum(t, s, "rhumb_dnssec_signatures_total")
		now = now.Add(time.Hour)
		s.turn()
		if n := sum(t, s, "rhumb_dnssec_signatures_total") - before; hour != 9 && n > all/3 {
			t.Errorf("hour %d: %v of %v signatures made anew", hour, n, all)
		}
		if s.current.Load() == st {
			t.Fatalf("hour %d: no new state", hour)
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSameOnAllNodes: two nodes with the same keys give the same octets.
func TestSameOnAllNodes(t *testing.T) {
	src, snap := signedSources(t), fleet(t, plan{})
	a := compile(self, loadedBy(t, at(signedAt), 0, src...).zones, snap, nil)
	b := compile(self, loadedBy(t, at(signedAt.Add(30*time.Minute)), 0, src...).zones, snap, nil)
	for _, q := range []string{"www.demo.test. A", "nix.demo.test. A", "demo.test. DNSKEY", "x.sub.demo.test. A"} {
		out := [2][]byte{make([]byte, maxUDP), make([]byte, maxUDP)}
		n, _ := a.answer(ask(t, q, do), out[0], from(euResolver, top))
		m, _ := b.answer(ask(t, q, do), out[1], from(euResolver, top))
		if string(out[0][:n]) != string(out[1][:m]) {
			t.Errorf("%s: two nodes, two answers", q)
		}
	}
}

// TestUnsignable: where keys are missing the version before goes on, and a zone that
// never was signed is not ready; it is never served without the signatures it
// should have.
func TestUnsignable(t *testing.T) {
	signed := signedSources(t)[0]
	none, plain, twice := signed, sources()[0], signed
	none.Keys = nil
	twice.Data = append(slices.Clone(twice.Data), "@ NSEC3PARAM 1 0 0 -\n"...)
	s := loadedBy(t, at(signedAt), 0)
	first := func(src Source) (string, string) {
		errs := s.SetZones([]Source{src})
		return shape(s.current.Load().reply(t, ask(t, "www.demo.test. A", do), from(euResolver, top))), fmt.Sprint(errs)
	}
	for _, c := range []struct {
		name       string
		src        Source
		want, fail string
	}{
		{"no keys on a fresh node", none, "SERVFAIL", "none of 0 keys"},
		{"signed", signed, "NOERROR A RRSIG(A)", ""},
		{"the keys are gone", none, "NOERROR A RRSIG(A)", "none of 0 keys"},
		{"a file that is signed already", twice, "NOERROR A RRSIG(A)", "NSEC3PARAM in a zone whose SOA is not signed"},
		{"signed no more", plain, "NOERROR A", ""},
		{"to be signed, without keys", none, "NOERROR A", "none of 0 keys"},
	} {
		got, errs := first(c.src)
		if got != c.want || !strings.Contains(errs, c.fail) {
			t.Errorf("%s: %s, errors %s; want %s and %q", c.name, got, errs, c.want, c.fail)
		}
	}
}

// TestClock: what is said of a clock that cannot be right.
func TestClock(t *testing.T) {
	for _, c := range []struct {
		name string
		made time.Time
		want string
	}{
		{"no plan", time.Time{}, ""},
		{"an old plan", signedAt.Add(-time.Hour), ""},
		{"a plan just made by a clock a little ahead", signedAt.Add(clockSlack), ""},
		{"a plan from tomorrow", signedAt.Add(24 * time.Hour), "the plan in force was made 24h0m0s ahead of this clock"},
	} {
		if got := clockFault(signedAt, c.made); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	now := time.Now()
	if d := stepped(now, now.Add(time.Hour)); d != 0 {
		t.Errorf("an hour that passed is a step of %s", d)
	}
	s := loadedBy(t, at(signedAt), 0, signedSources(t)...)
	snap := fleet(t, plan{})
	snap.Plan = &placement.Plan{Made: signedAt.Add(time.Hour)}
	s.Apply(t.Context(), snap)
	s.checkClock()
	if got := gauge(t, s, "rhumb_dnssec_clock_suspect"); got != 1 {
		t.Errorf("no alarm: %v", got)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	s.checkClock()
	if got := gauge(t, s, "rhumb_dnssec_clock_suspect"); got != 0 {
		t.Errorf("the alarm stays: %v", got)
	}
}

// gauge reads a metric without labels.
func gauge(t *testing.T, s *Server, name string) float64 {
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
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestFreshKeys: keys made a moment ago sign at once, whatever the minute.
func TestFreshKeys(t *testing.T) {
	src := signedSources(t)[:1]
	for i, k := range src[0].Keys {
		src[0].Keys[i] = k.With(dnssec.Times{Created: signedAt, Publish: signedAt, Activate: signedAt})
	}
	st := compile(self, loadedBy(t, at(signedAt), 0, src...).zones, nil, nil)
	m := st.reply(t, ask(t, "www.demo.test. A", do), from(euResolver, top))
	if why := bogus(st.top["demo.test."], m, signedAt); why != "" {
		t.Error(why)
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
