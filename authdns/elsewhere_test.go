package authdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rhumb/placement"
)

const soaCDN = ` ns cdn.demo.test. 20 SOA ns-ams1.cdn.demo.test. hostmaster.demo.test. 9 7200 900 1209600 20`

// TestElsewhere: RFC 1034 section 3.6.2, where others serve a client, the name is an
// alias of theirs, whatever type is asked, and nothing but that; where ours do, it is none.
func TestElsewhere(t *testing.T) {
	for _, c := range []struct{ name, alias, question, from, want string }{
		{"an address", "www.other.test.", "www.cdn.demo.test. A", usResolver, "NOERROR aa | www.cdn.demo.test. 20 CNAME www.other.test."},
		{"RFC 1034 3.6.2: any type", "www.other.test.", "www.cdn.demo.test. TXT", usResolver, "NOERROR aa | www.cdn.demo.test. 20 CNAME www.other.test."},
		{"RFC 1034 3.6.2: the alias itself", "about.cdn.demo.test.", "www.cdn.demo.test. CNAME", usResolver, "NOERROR aa | www.cdn.demo.test. 20 CNAME about.cdn.demo.test."},
		{"RFC 1034 4.3.2: chased within the zone", "about.cdn.demo.test.", "www.cdn.demo.test. TXT", usResolver,
			`NOERROR aa | www.cdn.demo.test. 20 CNAME about.cdn.demo.test., about.cdn.demo.test. 300 TXT "static"`},
		{"RFC 6604 2: the RCODE is the target's", "nix.cdn.demo.test.", "www.cdn.demo.test. A", usResolver,
			"NXDOMAIN aa | www.cdn.demo.test. 20 CNAME nix.cdn.demo.test." + soaCDN},
		{"RFC 8482: ANY", "www.other.test.", "www.cdn.demo.test. ANY", usResolver, `NOERROR aa | www.cdn.demo.test. 3600 HINFO "RFC8482" ""`},
		{"ours", "www.other.test.", "www.cdn.demo.test. AAAA", euResolver, "NOERROR aa | www.cdn.demo.test. 20 AAAA 2001:db8:a::10"},
		{"ours, RFC 2308 2.2: no such type", "www.other.test.", "www.cdn.demo.test. TXT", euResolver, "NOERROR aa" + soaCDN},
		{"ours, and no alias", "www.other.test.", "www.cdn.demo.test. CNAME", euResolver, "NOERROR aa" + soaCDN},
		{"a wildcard", "www.other.test.", "x.any.cdn.demo.test. A", usResolver, "NOERROR aa | x.any.cdn.demo.test. 20 CNAME www.other.test."},
		{"RFC 1034 3.6.2: an apex never", "www.other.test.", "cdn.demo.test. A", usResolver, "NOERROR aa" + soaCDN},
		{"and keeps its other types", "www.other.test.", "cdn.demo.test. SOA", usResolver,
			"NOERROR aa | cdn.demo.test. 300 SOA ns-ams1.cdn.demo.test. hostmaster.demo.test. 9 7200 900 1209600 20"},
	} {
		st := compiled(t, fleet(t, plan{elsewhere: c.alias}), sources()...)
		if got := show(st.reply(t, ask(t, c.question), from(c.from, low))); got != c.want {
			t.Errorf("%s: %s\ngot  %s\nwant %s", c.name, c.question, got, c.want)
		}
		if st.faults["cdn.demo.test."] == "" {
			t.Error("nobody is told of the apex")
		}
	}
}

// TestElsewhereAlone: RFC 7871 section 7.2.1, an alias chosen by subnet has its scope; a
// service of nobody but others is an alias even when nobody is usable.
func TestElsewhereAlone(t *testing.T) {
	snap := fleet(t, plan{elsewhere: "www.other.test."})
	st := compiled(t, snap, sources()...)
	got := show(st.reply(t, ask(t, "www.cdn.demo.test. A", edns0(ecs("203.0.113.0/24"))), from(euResolver, low)))
	if want := "NOERROR aa | www.cdn.demo.test. 20 CNAME www.other.test. ar OPT0/1232 ecs=1:203.0.113.0/24/24"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for i := range snap.Inventory.Sites {
		snap.Inventory.Sites[i].Clusters = []placement.Cluster{{Name: "web", CNAME: fmt.Sprintf("www%d.other.test.", i)}}
	}
	for i := range snap.Maps[1].Rows {
		snap.Maps[1].Rows[i] = &placement.Row{}
	}
	st = compiled(t, snap, sources()...)
	got = show(st.reply(t, ask(t, "www.cdn.demo.test. A"), from(euResolver, low)))
	if want := "NOERROR aa | www.cdn.demo.test. 20 CNAME www0.other.test."; got != want {
		t.Errorf("fail open: got %s, want %s", got, want)
	}
}

// TestElsewhereScopes: RFC 7871 section 7.2.1, of an alias and what it leads to, both
// chosen by the client, the narrower block counts.
func TestElsewhereScopes(t *testing.T) {
	snap := fleet(t, plan{elsewhere: "pool.cdn.demo.test."})
	inv := snap.Inventory
	inv.Services = append(inv.Services, placement.Service{Name: "zz", Clusters: []string{"dns"}, Policy: "nearest", Names: []string{"pool.cdn.demo.test."}})
	pool := placement.ServiceMap{Service: &inv.Services[2], Policy: &inv.Policies[0], Clusters: inv.Eligible(&inv.Services[2]), Blocks: snap.Classes.Prefixes.Fold([]uint32{0, 0}, 0)}
	for range snap.Maps[1].Rows {
		pool.Rows = append(pool.Rows, snap.Maps[0].Rows[0])
	}
	snap.Maps = append(snap.Maps, pool)
	snap.Maps[0].Service, snap.Maps[1].Service = &inv.Services[0], &inv.Services[1]
	st := compiled(t, snap, sources()...)
	for question, scope := range map[string]string{"pool.cdn.demo.test. A": "/24/0", "www.cdn.demo.test. A": "/24/24"} {
		got := show(st.reply(t, ask(t, question, edns0(ecs("203.0.113.0/24"))), from(euResolver, low)))
		if !strings.Contains(got, "A 198.51.100.9 ") || !strings.HasSuffix(got, scope) {
			t.Errorf("%s: %s, want scope %s", question, got, scope)
		}
	}
}

// TestElsewhereSigned: RFC 4035 section 3.1.1, the alias is signed; RFC 4034 section
// 4.1.2, no proof lists it, since it would deny nothing to those who are told of types;
// RFC 8198, the proof does list the addresses that it may lead to.
func TestElsewhereSigned(t *testing.T) {
	st := signedState(t, fleet(t, plan{elsewhere: "www.other.test."}), signedSources(t)...)
	z := st.low["cdn.demo.test."]
	m := st.reply(t, ask(t, "www.cdn.demo.test. TXT", do), from(usResolver, low))
	if why := bogus(z, m, signedAt); why != "" || len(m.Answer) != 2 {
		t.Errorf("alias: %s\n%s", why, m)
	}
	m = st.reply(t, ask(t, "www.cdn.demo.test. TXT", do), from(euResolver, low))
	if why := bogus(z, m, signedAt); why != "" || !strings.Contains(m.String(), " A AAAA RRSIG NSEC") {
		t.Errorf("no alias: %s\n%s", why, m)
	}
}

// TestElsewhereQuick: what has no more to it than the alias is made ahead.
func TestElsewhereQuick(t *testing.T) {
	p := newPaths(t, compiled(t, fleet(t, plan{elsewhere: "www.other.test."}), sources()...), low)
	for _, q := range []string{"www.cdn.demo.test. A", "WWW.cdn.demo.test. AAAA", "*.any.cdn.demo.test. A"} {
		if !p.compare(t, ask(t, q), usResolver) {
			t.Errorf("%s took the slow path", q)
		}
	}
	if p.compare(t, ask(t, "www.cdn.demo.test. TXT"), usResolver) {
		t.Error("TXT of a steered name was made ahead")
	}
}

// TestForeignSites: nobody of ours is looked for where others serve.
func TestForeignSites(t *testing.T) {
	f := placement.Fleet{Sites: []placement.Site{{Name: "ams1", Clusters: []placement.Cluster{{Name: "web", Addresses: make([]netip.AddrPort, 1)}}},
		{Name: "other", Clusters: []placement.Cluster{{Name: "web", CNAME: "www.other.test."}}}, {Name: "tyo1"}}}
	if got := f.AnnouncingSites(&placement.Prefix{}); !slices.Equal(got, []string{"ams1", "tyo1"}) {
		t.Errorf("%v may announce", got)
	}
	if got := f.CNAME(placement.ClusterID{Site: "other", Name: "web"}); got != "www.other.test." {
		t.Error(got)
	}
}
