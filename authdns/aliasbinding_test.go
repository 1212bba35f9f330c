package authdns

import (
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// spoken are zones of which one says how its names are spoken to, and the other has aliases of them.
func spoken(signed bool, t *testing.T) []Source {
	src := []Source{
		textSource("", "a.test.", "", "@ SOA ns hostmaster 1 1 1 1 60\n@ NS ns\nns A 192.0.2.1\nown HTTPS 1 . alpn=h2\n"),
		textSource("", "b.test.", "", "@ SOA ns hostmaster 1 1 1 1 60\n@ NS ns\nns A 192.0.2.1\nwww A 192.0.2.9\nwww HTTPS 1 . alpn=h3 ipv4hint=192.0.2.9\nwww 120 SVCB 2 svc.other.test. port=853\n"+
			"c 30 CNAME www\nmoved HTTPS 0 www.other.test.\nplain A 192.0.2.8\nsub NS ns.other.test.\n"),
	}
	for name, target := range map[string]string{"a.test.": "www.b.test.", "own.a.test.": "www.b.test.", "chain.a.test.": "c.b.test.", "moved.a.test.": "moved.b.test.",
		"plain.a.test.": "plain.b.test.", "nix.a.test.": "nix.b.test.", "theirs.a.test.": "www.other.test.", "below.a.test.": "x.sub.b.test.", "ring.a.test.": "ring.b.test."} {
		src[0].Zone.Aliases = append(src[0].Zone.Aliases, placement.Alias{Name: name, Target: target})
	}
	src[1].Zone.Aliases = []placement.Alias{{Name: "ring.b.test.", Target: "ring.a.test."}}
	for i := range src {
		if signed {
			src[i].Zone.DNSSEC, src[i].Keys = placement.Online, keysOf(t, src[i].Zone.Name, false)
		}
	}
	return src
}

// TestAliasBindings: RFC 9460 section 2.4.2: an alias is spoken to as its target is, where
// that is a name of ours, and else nothing is said; both paths agree.
func TestAliasBindings(t *testing.T) {
	values := map[string]*abroad{"www.other.test.": resolved(120, "192.0.2.77"), "x.sub.b.test.": resolved(120, "192.0.2.78")}
	st := compile(knowing(values), zonesOf(t, spoken(false, t)...), nil, nil)
	p := newPaths(t, st, low)
	const soa = "NOERROR aa ns a.test. 60 SOA ns.a.test. hostmaster.a.test. 1 1 1 1 60"
	for _, c := range []struct{ name, question, want string }{
		{"an apex", "a.test. HTTPS", `NOERROR aa | a.test. 300 HTTPS 1 . alpn="h3" ipv4hint="192.0.2.9"`},
		{"its addresses", "a.test. A", "NOERROR aa | a.test. 300 A 192.0.2.9"},
		{"SVCB, with the TTL of the record", "a.test. SVCB", `NOERROR aa | a.test. 120 SVCB 2 svc.other.test. port="853"`},
		{"through a CNAME, TTL of RFC 2181 5.2", "chain.a.test. HTTPS", `NOERROR aa | chain.a.test. 30 HTTPS 1 . alpn="h3" ipv4hint="192.0.2.9"`},
		{"AliasMode at the target", "moved.a.test. HTTPS", "NOERROR aa | moved.a.test. 300 HTTPS 0 www.other.test."},
		{"the file's own", "own.a.test. HTTPS", `NOERROR aa | own.a.test. 300 HTTPS 1 . alpn="h2"`},
		{"and the target's of another type", "own.a.test. SVCB", `NOERROR aa | own.a.test. 120 SVCB 2 svc.other.test. port="853"`},
		{"a target without", "plain.a.test. HTTPS", soa},
		{"RFC 8020 2: none that exists", "nix.a.test. HTTPS", soa},
		{"others'", "theirs.a.test. HTTPS", soa},
		{"others', below a cut", "below.a.test. SVCB", soa},
		{"types that are not followed", "a.test. TXT", soa},
	} {
		query := ask(t, c.question)
		if got := show(st.reply(t, query, from(euResolver, low))); got != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.name, c.question, got, c.want)
		}
		p.compare(t, query, euResolver)
	}
	p.compareCounts(t)
	if got := show(st.reply(t, ask(t, "ring.a.test. HTTPS"), from(euResolver, low))); !strings.HasPrefix(got, "SERVFAIL") {
		t.Errorf("a ring: %s", got)
	}
}

// TestAliasBindingsSteered: where the target is chosen per client the same is, hints and scope
// included, through wildcards too.
func TestAliasBindingsSteered(t *testing.T) {
	st := compile(knowing(nil), zonesOf(t, aliased()...), fleet(t, plan{https: &web}), nil)
	for _, client := range []string{euResolver, usResolver} {
		m := st.reply(t, ask(t, "wild.demo.test. HTTPS"), from(client, top))
		a := st.reply(t, ask(t, "wild.demo.test. A"), from(client, top))
		https, ok := m.Answer[0].(*dns.HTTPS)
		if !ok || https.Hdr.Name != "wild.demo.test." || https.Target != "." || https.Hdr.Ttl != 20 || len(a.Answer) == 0 {
			t.Fatalf("%s\n%s", m, a)
		}
		if hint := https.Value[len(https.Value)-2].String(); !strings.Contains(hint, a.Answer[0].(*dns.A).A.String()) {
			t.Errorf("%s: hint %s, address %s", client, hint, a.Answer[0])
		}
	}
	got := show(st.reply(t, ask(t, "wild.demo.test. HTTPS", edns0(ecs("203.0.113.0/24"))), from(euResolver, top)))
	if !strings.HasSuffix(got, "ecs=1:203.0.113.0/24/24") || !strings.Contains(got, "198.51.100.74") {
		t.Errorf("RFC 7871 7.2.1: %s", got)
	}
	p := newPaths(t, st, top)
	for _, question := range []string{"wild.demo.test. HTTPS", "static.demo.test. HTTPS", "others.demo.test. HTTPS", "chain.demo.test. SVCB"} {
		p.compare(t, ask(t, question), usResolver)
	}
	p.compareCounts(t)
}

// TestAliasBindingsSigned: signed as the alias's own, and no denial says that they cannot be there.
func TestAliasBindingsSigned(t *testing.T) {
	s := loadedBy(t, at(signedAt), 1<<20, spoken(true, t)...)
	st := compile(knowing(nil), s.zones, nil, nil)
	for question, n := range map[string]int{"a.test. HTTPS": 2, "chain.a.test. SVCB": 2, "plain.a.test. HTTPS": 0, "theirs.a.test. HTTPS": 0, "a.test. TXT": 0} {
		m := st.reply(t, ask(t, question, do), from(euResolver, low))
		if why := bogus(st.low["a.test."], m, signedAt); why != "" || len(m.Answer) != n {
			t.Errorf("%s: %s\n%s", question, why, m)
		}
		if question == "a.test. TXT" && (!strings.Contains(m.String(), " HTTPS") || !strings.Contains(m.String(), " SVCB")) {
			t.Errorf("no binding in the proof:\n%s", m)
		}
		if question == "plain.a.test. HTTPS" && strings.Contains(m.Ns[len(m.Ns)-2].String(), " HTTPS") {
			t.Errorf("the type that is denied is in the proof:\n%s", m)
		}
	}
}
