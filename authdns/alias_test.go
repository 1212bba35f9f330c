package authdns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// aliased are the fixture's zones with aliases of every kind.
func aliased() []Source {
	src := sources()
	src[0].Zone.Aliases = []placement.Alias{
		{Name: "again.demo.test.", Target: "static.demo.test."},
		{Name: "chain.demo.test.", Target: "leave.demo.test."}, // a CNAME to others
		{Name: "demo.test.", Target: "www.cdn.demo.test."},
		{Name: "none.demo.test.", Target: "nix.demo.test."},
		{Name: "others.demo.test.", Target: "www.other.test."},
		{Name: "ring1.demo.test.", Target: "ring2.demo.test."},
		{Name: "ring2.demo.test.", Target: "ring1.demo.test."},
		{Name: "static.demo.test.", Target: "alias.demo.test."}, // a CNAME in the zone
		{Name: "sub2.demo.test.", Target: "x.sub.demo.test."},   // delegated away
		{Name: "wild.demo.test.", Target: "x.any.cdn.demo.test."},
	}
	return src
}

// knowing is a server's identity with what was heard of others' names.
func knowing(values map[string]*abroad) identity {
	id := self
	id.outside = &outside{now: testClock, log: slog.New(slog.DiscardHandler), kick: make(chan struct{}, 1)}
	id.outside.values.Store(&values)
	return id
}

func resolved(ttl uint32, addrs ...string) *abroad {
	v := &abroad{TTL: ttl, Known: [2]bool{true, true}}
	for _, text := range addrs {
		a := netip.MustParseAddr(text)
		f := 0
		if a.Is6() {
			f = 1
		}
		v.Addrs[f] = append(v.Addrs[f], a)
	}
	return v
}

const soaDemo = " ns demo.test. 60 SOA a.ns.demo.test. hostmaster.demo.test. 5 7200 900 1209600 60"

// TestAlias: where RFC 1034 section 3.6.2 forbids a CNAME, a name has the addresses of
// another one, and its own records beside them.
func TestAlias(t *testing.T) {
	others := map[string]*abroad{"www.other.test.": resolved(120, "192.0.2.77"), "x.sub.demo.test.": resolved(7, "2001:db8::77")}
	st := compile(knowing(others), zonesOf(t, aliased()...), fleet(t, plan{https: &web}), nil)
	for _, c := range []struct{ name, question, from, want string }{
		{"an apex, steered", "demo.test. A", usResolver, "NOERROR aa | demo.test. 20 A 198.51.100.74"},
		{"by client", "demo.test. AAAA", euResolver, "NOERROR aa | demo.test. 20 AAAA 2001:db8:a::10"},
		{"its own records", "demo.test. SOA", euResolver, "NOERROR aa | demo.test. 3600 SOA a.ns.demo.test. hostmaster.demo.test. 5 7200 900 1209600 60"},
		{"RFC 2308 2.2: and no others", "demo.test. MX", euResolver, "NOERROR aa" + soaDemo},
		{"through a CNAME of the zone, TTL of RFC 2181 5.2", "static.demo.test. A", euResolver, "NOERROR aa | static.demo.test. 3600 A 192.0.2.10"},
		{"an alias of an alias", "again.demo.test. A", euResolver, "NOERROR aa | again.demo.test. 3600 A 192.0.2.10"},
		{"a steered wildcard", "wild.demo.test. A", usResolver, "NOERROR aa | wild.demo.test. 20 A 198.51.100.74"},
		{"others", "others.demo.test. A", euResolver, "NOERROR aa | others.demo.test. 120 A 192.0.2.77"},
		{"others, RFC 2308 2.2", "others.demo.test. AAAA", euResolver, "NOERROR aa" + soaDemo},
		{"others, behind a CNAME of ours", "chain.demo.test. A", euResolver, "NOERROR aa | chain.demo.test. 120 A 192.0.2.77"},
		{"others, below a cut", "sub2.demo.test. AAAA", euResolver, "NOERROR aa | sub2.demo.test. 7 AAAA 2001:db8::77"},
		{"RFC 8020 2: a target that does not exist is no address", "none.demo.test. A", euResolver, "NOERROR aa" + soaDemo},
	} {
		if got := show(st.reply(t, ask(t, c.question), from(c.from, top))); got != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.name, c.question, got, c.want)
		}
	}
	for _, name := range []string{"ring1.demo.test. A", "ring2.demo.test. AAAA"} { // an end, and no denial (RFC 9520)
		if got := show(st.reply(t, ask(t, name, edns0()), from(euResolver, top))); !strings.HasPrefix(got, "SERVFAIL ar OPT0/1232 ede=14") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got, want := st.abroad(), []string{"www.other.test.", "x.sub.demo.test."}; !slices.Equal(got, want) {
		t.Errorf("looked up: %v, want %v", got, want)
	}
	fresh := compile(knowing(nil), zonesOf(t, aliased()...), nil, nil)
	for _, question := range []string{"others.demo.test. A", "demo.test. A"} {
		if got := show(fresh.reply(t, ask(t, question, edns0()), from(euResolver, top))); !strings.HasPrefix(got, "SERVFAIL") {
			t.Errorf("at a start, RFC 9520: %s: %s", question, got)
		}
	}
}

// TestAliasSubnet: RFC 7871 section 7.2.1, an alias has the scope of what it leads to.
func TestAliasSubnet(t *testing.T) {
	st := compile(knowing(nil), zonesOf(t, aliased()...), fleet(t, plan{}), nil)
	for _, name := range []string{"demo.test.", "wild.demo.test."} {
		got := show(st.reply(t, ask(t, name+" A", edns0(ecs("203.0.113.0/24"))), from(euResolver, top)))
		if want := "NOERROR aa | " + name + " 20 A 198.51.100.74 ar OPT0/1232 ecs=1:203.0.113.0/24/24"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// TestAliasSigned: RFC 4035 section 3.1.1, addresses are signed as the alias's own; RFC
// 9824, its proofs list both kinds.
func TestAliasSigned(t *testing.T) {
	src := signedSources(t)
	src[0].Zone.Aliases = aliased()[0].Zone.Aliases
	s := loadedBy(t, at(signedAt), 1<<20, src...)
	st := compile(knowing(map[string]*abroad{"www.other.test.": resolved(120, "192.0.2.77")}), s.zones, fleet(t, plan{}), nil)
	for question, n := range map[string]int{"demo.test. A": 3, "others.demo.test. A": 2, "static.demo.test. A": 2, "others.demo.test. AAAA": 0, "others.demo.test. TXT": 0} {
		m := st.reply(t, ask(t, question, do), from(euResolver, top))
		if why := bogus(st.top["demo.test."], m, signedAt); why != "" || len(m.Answer) != n {
			t.Errorf("%s: %s\n%s", question, why, m)
		}
		if question == "others.demo.test. TXT" && !strings.Contains(m.String(), " A AAAA RRSIG NSEC") {
			t.Errorf("no address in the proof:\n%s", m)
		}
	}
}

// TestAliasQuick: both paths give the same octets; what leads to a steered name or to the
// files is made ahead, what others have is not.
func TestAliasQuick(t *testing.T) {
	values := map[string]*abroad{"www.other.test.": resolved(120, "192.0.2.77")}
	id := knowing(values)
	st := compile(id, zonesOf(t, aliased()...), fleet(t, plan{https: &web}), nil)
	p := newPaths(t, st, top)
	for question, want := range map[string]bool{"demo.test. A": true, "demo.test. HTTPS": true, "static.demo.test. A": true, "others.demo.test. A": false, "chain.demo.test. AAAA": false, "none.demo.test. A": true} {
		for _, resolver := range []string{euResolver, usResolver} {
			if got := p.compare(t, ask(t, question), resolver); got != want {
				t.Errorf("%s: fast path %v, want %v", question, got, want)
			}
		}
	}
	p.compareCounts(t)
	id.outside.values.Store(&map[string]*abroad{"www.other.test.": resolved(120, "192.0.2.78")})
	if got := show(st.reply(t, ask(t, "others.demo.test. A"), from(euResolver, top))); got != "NOERROR aa | others.demo.test. 120 A 192.0.2.78" {
		t.Errorf("after a change: %s", got)
	}
	w := quickWorker(t, st, top)
	out, src := make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")
	q := ask(t, "demo.test. A")
	if n := testing.AllocsPerRun(100, func() { w.quickly(st, q, out, src) }); n != 0 {
		t.Errorf("%v allocations for an alias of a steered name", n)
	}
	compareSome(t, st, top, 1000)
}

// TestAliasOfAnotherZone: what a target in another zone has is not kept beyond that zone's
// version.
func TestAliasOfAnotherZone(t *testing.T) {
	src := []Source{textSource("", "a.test.", "", "@ 60 SOA ns hostmaster 1 1 1 1 1\n@ 60 NS ns\nns 60 A 192.0.2.1\n"),
		textSource("", "b.test.", "", "@ 60 SOA ns hostmaster 1 1 1 1 1\n@ 60 NS ns\nns 60 A 192.0.2.1\n")}
	src[0].Zone.Aliases = []placement.Alias{{Name: "a.test.", Target: "ns.b.test."}}
	zones := zonesOf(t, src...)
	before := compile(self, zones, nil, nil)
	src[1].Data = []byte(strings.ReplaceAll(string(src[1].Data), "192.0.2.1", "192.0.2.9"))
	next := zonesOf(t, src...)
	next["a.test."].zone = zones["a.test."].zone
	after := compile(self, next, nil, before)
	p := newPaths(t, after, low)
	if !p.compare(t, ask(t, "a.test. A"), euResolver) || !strings.Contains(unpack(t, p.got).String(), "192.0.2.9") {
		t.Error("the fast path has what the target had before")
	}
	zones["a.test."].meta.Aliases = []placement.Alias{{Name: "a.test.", Target: "nix.b.test."}}
	p = newPaths(t, compile(self, zones, nil, before), low)
	if p.compare(t, ask(t, "a.test. A"), euResolver); strings.Contains(unpack(t, p.got).String(), "192.0.2.1") {
		t.Error("the fast path has the target before")
	}
}

// resolverOf answers for others from a table, by name and type.
type resolverOf struct {
	answers map[string][]string // records, or an RCODE
	err     error
	asked   int
}

func (r *resolverOf) ask(_ context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
	r.asked++
	if r.err != nil {
		return nil, r.err
	}
	m := new(dns.Msg).SetReply(q)
	for _, text := range r.answers[dns.Type(q.Question[0].Qtype).String()] {
		if rcode, ok := dns.StringToRcode[text]; ok {
			m.Rcode = rcode
			continue
		}
		rr, err := dns.NewRR(text)
		if err != nil {
			return nil, err
		}
		m.Answer = append(m.Answer, rr)
	}
	return m, nil
}

// TestOutside: what others' names have is looked up ahead and kept: through their outage,
// and when nothing is delivered; the rest as RFC 2181 section 5.2 and RFC 8767 have it.
func TestOutside(t *testing.T) {
	now, r := testClock(), &resolverOf{}
	file := filepath.Join(t.TempDir(), outsideFile)
	o := newOutside([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}, func() time.Time { return now }, slog.New(slog.DiscardHandler), file)
	o.ask = r.ask
	o.want([]string{"www.other.test."})
	step := func(what string, pass time.Duration, answers map[string][]string, err error, want string) {
		t.Helper()
		now = now.Add(pass)
		r.answers, r.err = answers, err
		o.round(t.Context())
		a4, ttl, ok4 := o.addresses("www.other.test.", false)
		a6, _, ok6 := o.addresses("www.other.test.", true)
		if got := fmt.Sprintf("%v %v %v %v %d, %d stale", a4, ok4, a6, ok6, ttl, len(o.stale())); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
		}
	}
	refused := errors.New("connection refused")
	chain := []string{"www.other.test. 300 CNAME x.other.test.", "x.other.test. 60 A 192.0.2.78", "x.other.test. 60 A 192.0.2.77", "y.other.test. 1 A 192.0.2.1"}
	six := []string{"www.other.test. 90 AAAA 2001:db8::77"}
	step("nothing heard", 0, nil, refused, "[] false [] false 0, 1 stale")
	step("one kind, the other fails", outsideRetry, map[string][]string{"A": chain, "AAAA": {"SERVFAIL"}}, nil, "[192.0.2.77 192.0.2.78] true [] false 60, 1 stale")
	step("RFC 2181 5.2: the lowest TTL of the chain", outsideRetry, map[string][]string{"A": chain, "AAAA": six}, nil, "[192.0.2.77 192.0.2.78] true [2001:db8::77] true 60, 0 stale")
	asked := r.asked
	step("within the TTL", 59*time.Second, nil, refused, "[192.0.2.77 192.0.2.78] true [2001:db8::77] true 60, 0 stale")
	if r.asked != asked {
		t.Error("asked again before the TTL had passed")
	}
	step("RFC 8767: an outage", time.Second, nil, refused, "[192.0.2.77 192.0.2.78] true [2001:db8::77] true 60, 0 stale")
	step("of an hour: somebody is told", outsideSoft, nil, refused, "[192.0.2.77 192.0.2.78] true [2001:db8::77] true 60, 1 stale")
	step("an empty delivery", outsideRetry, map[string][]string{"A": {"NXDOMAIN"}, "AAAA": {"NXDOMAIN"}}, nil, "[192.0.2.77 192.0.2.78] true [2001:db8::77] true 60, 1 stale")
	step("one kind is gone, the other is not", outsideRetry, map[string][]string{"A": {"www.other.test. 1 A 192.0.2.80"}}, nil, "[192.0.2.80] true [] true 5, 0 stale")
	again := newOutside(o.servers, o.now, o.log, file)
	again.recall()
	if a, _, ok := again.addresses("www.other.test.", false); !ok || len(a) != 1 {
		t.Errorf("the next process has %v", a)
	}
	step("seven days", outsideHard+time.Minute, nil, refused, "[] false [] false 0, 1 stale")
}

// TestOutsideReplies: replies to another question are believed by nobody (RFC 5452 section 9.1).
func TestOutsideReplies(t *testing.T) {
	q := new(dns.Msg).SetQuestion("www.other.test.", dns.TypeA)
	m := new(dns.Msg).SetReply(q)
	m.Question[0].Name = "WWW.other.test."
	if _, _, err := read(q, m); err != nil {
		t.Errorf("another spelling: %v", err)
	}
	for what, change := range map[string]func(m *dns.Msg){
		"another name": func(m *dns.Msg) { m.Question = []dns.Question{{Name: "x.test.", Qtype: dns.TypeA, Qclass: 1}} },
		"another type": func(m *dns.Msg) {
			m.Question = []dns.Question{{Name: "www.other.test.", Qtype: dns.TypeAAAA, Qclass: 1}}
		},
		"none":    func(m *dns.Msg) { m.Question = nil },
		"REFUSED": func(m *dns.Msg) { m.Rcode = dns.RcodeRefused },
	} {
		m := new(dns.Msg).SetReply(q)
		change(m)
		if _, _, err := read(q, m); err == nil {
			t.Errorf("%s was believed", what)
		}
	}
}

// TestOutsideRuns: a server looks up what its aliases need, and no query waits for it.
func TestOutsideRuns(t *testing.T) {
	s, err := New(Config{Site: self.Site, Node: self.Node, Now: testClock, Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")},
		Listeners: []Listener{loopback(top, "127.0.0.1:0")}})
	if err != nil {
		t.Fatal(err)
	}
	asked, let := make(chan string, 8), make(chan struct{})
	s.self.outside.ask = func(ctx context.Context, _ netip.AddrPort, q *dns.Msg) (*dns.Msg, error) {
		asked <- q.Question[0].Name
		select {
		case <-let:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return (&resolverOf{answers: map[string][]string{"A": {"www.other.test. 60 A 192.0.2.77"}}}).ask(ctx, netip.AddrPort{}, q)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	if errs := s.SetZones(aliased()); errs != nil {
		t.Fatal(errs)
	}
	<-asked
	query := func() string {
		return show(unpack(t, s.Ask(ask(t, "others.demo.test. A"), netip.MustParseAddrPort(euResolver+":53"), top, false).Data))
	}
	if got := query(); !strings.HasPrefix(got, "SERVFAIL") {
		t.Errorf("before: %s", got)
	}
	close(let)
	for query() != "NOERROR aa | others.demo.test. 60 A 192.0.2.77" {
		select {
		case <-t.Context().Done():
			t.Fatal(query())
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
