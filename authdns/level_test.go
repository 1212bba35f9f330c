package authdns

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

const (
	nsAMS = "cdn.demo.test. 3600 NS ns-ams1.cdn.demo.test."
	nsNYC = "cdn.demo.test. 3600 NS ns-nyc1.cdn.demo.test."
	nsTYO = "cdn.demo.test. 3600 NS ns-tyo1.cdn.demo.test."
	arAMS = "ns-ams1.cdn.demo.test. 3600 A 198.51.100.9, ns-ams1.cdn.demo.test. 3600 AAAA 2001:db8:a::9"
	arNYC = "ns-nyc1.cdn.demo.test. 3600 A 198.51.100.73, ns-nyc1.cdn.demo.test. 3600 AAAA 2001:db8:b::9"
	arTYO = "ns-tyo1.cdn.demo.test. 3600 A 198.51.100.137, ns-tyo1.cdn.demo.test. 3600 AAAA 2001:db8:c::9"

	cdnSOA = " ns cdn.demo.test. 20 SOA ns-ams1.cdn.demo.test. hostmaster.demo.test. 9 7200 900 1209600 20"

	top = placement.TopLevel
	low = placement.LowLevel
)

// levelCase is a question at one of the two levels.
type levelCase struct {
	name     string
	plan     plan
	level    placement.Level
	client   string
	question string
	ecs      string
	want     string
}

func runLevels(t *testing.T, cases []levelCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := compiled(t, fleet(t, c.plan), sources()...)
			q := ask(t, c.question)
			if c.ecs != "" {
				q = ask(t, c.question, edns0(ecs(c.ecs)))
			}
			if got := show(s.reply(t, q, from(c.client, c.level))); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTopLevel(t *testing.T) {
	eu := "NOERROR ns " + nsAMS + ", " + nsNYC + " ar " + arAMS + ", " + arNYC
	us := "NOERROR ns " + nsNYC + ", " + nsAMS + " ar " + arNYC + ", " + arAMS
	down := func(site string) plan {
		return plan{out: map[string]placement.Out{site: placement.OutDown}}
	}
	runLevels(t, []levelCase{
		{"near ams1", plan{}, top, euResolver, "www.cdn.demo.test. A", "", eu},
		{"near ams1 by IPv6", plan{}, top, euResolverV6, "www.cdn.demo.test. AAAA", "", eu},
		{"near nyc1", plan{}, top, usResolver, "www.cdn.demo.test. A", "", us},
		{"never answers from the child", plan{}, top, euResolver, "about.cdn.demo.test. TXT", "", eu},
		{"at the cut", plan{}, top, euResolver, "cdn.demo.test. NS", "", eu},
		{"a glue name", plan{}, top, euResolver, "ns-tyo1.cdn.demo.test. A", "", eu},
		{"the resolver decides, ECS scope 0", plan{}, top, euResolver, "www.cdn.demo.test. A", "203.0.113.0/24",
			eu + ", OPT0/1232 ecs=1:203.0.113.0/24/0"},
		{"a dead site is not named", down("ams1"), top, euResolver, "www.cdn.demo.test. A", "",
			"NOERROR ns " + nsNYC + ", " + nsTYO + " ar " + arNYC + ", " + arTYO},
		{"R2 never one alone", plan{out: map[string]placement.Out{"nyc1": placement.OutDown, "tyo1": placement.OutDown}}, top, euResolver, "www.cdn.demo.test. A", "", eu},
		{"drained nearby: soon again", plan{out: map[string]placement.Out{"ams1": placement.OutDrained}}, top, euResolver, "www.cdn.demo.test. A", "",
			strings.ReplaceAll("NOERROR ns "+nsNYC+", "+nsTYO+" ar "+arNYC+", "+arTYO, " 3600 ", " 60 ")},
		{"parent's own names", plan{}, top, euResolver, "www.demo.test. A", "", "NOERROR aa | " + wwwA},
	})
}

func TestLowLevel(t *testing.T) {
	runLevels(t, []levelCase{
		{"the parent is not here", plan{}, low, euResolver, "www.demo.test. A", "", "REFUSED"},
		{"static", plan{}, low, euResolver, "about.cdn.demo.test. TXT", "", `NOERROR aa | about.cdn.demo.test. 300 TXT "static"`},
		{"R1 apex NS", plan{}, low, euResolver, "cdn.demo.test. NS", "",
			"NOERROR aa | " + nsAMS + ", " + nsNYC + " ar " + arAMS + ", " + arNYC},
		{"host of every site", plan{}, low, euResolver, "ns-tyo1.cdn.demo.test. A", "", "NOERROR aa | ns-tyo1.cdn.demo.test. 3600 A 198.51.100.137"},
		{"host AAAA", plan{}, low, usResolver, "ns-tyo1.cdn.demo.test. AAAA", "", "NOERROR aa | ns-tyo1.cdn.demo.test. 3600 AAAA 2001:db8:c::9"},
		{"host of no site", plan{}, low, euResolver, "ns-lax1.cdn.demo.test. A", "", "NXDOMAIN aa" + cdnSOA},
		{"steered A", plan{}, low, usResolver, "www.cdn.demo.test. A", "", "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.74"},
		{"steered AAAA", plan{}, low, usResolver, "x.any.cdn.demo.test. AAAA", "", "NOERROR aa | x.any.cdn.demo.test. 20 AAAA 2001:db8:b::10, x.any.cdn.demo.test. 20 AAAA 2001:db8:b::11"},
		{"steered, other type", plan{}, low, usResolver, "www.cdn.demo.test. HTTPS", "", "NOERROR aa" + cdnSOA},
		{"steered, no IPv6 there", plan{}, low, elsewhere, "www.cdn.demo.test. AAAA", "", "NOERROR aa" + cdnSOA},
		{"steered apex", plan{}, low, elsewhere, "cdn.demo.test. A", "", "NOERROR aa | cdn.demo.test. 20 A 198.51.100.138"},
		{"steered apex keeps its SOA", plan{}, low, elsewhere, "cdn.demo.test. SOA", "", "NOERROR aa | cdn.demo.test. 300 SOA ns-ams1.cdn.demo.test. hostmaster.demo.test. 9 7200 900 1209600 20"},
		{"steered ANY", plan{}, low, elsewhere, "www.cdn.demo.test. ANY", "", `NOERROR aa | www.cdn.demo.test. 3600 HINFO "RFC8482" ""`},
		{"alias to steered", plan{}, low, elsewhere, "alias.cdn.demo.test. A", "",
			"NOERROR aa | alias.cdn.demo.test. 300 CNAME www.cdn.demo.test., www.cdn.demo.test. 20 A 198.51.100.138"},
		{"steered beats the file", plan{}, low, elsewhere, "kept.cdn.demo.test. A", "", "NOERROR aa | kept.cdn.demo.test. 20 A 198.51.100.138"},
		{"R58 ENT made by a steered name", plan{}, low, elsewhere, "any.cdn.demo.test. A", "", "NOERROR aa" + cdnSOA},
		{"the second choice", plan{out: map[string]placement.Out{"nyc1": placement.OutDown}}, low, usResolver, "www.cdn.demo.test. AAAA", "",
			"NOERROR aa | www.cdn.demo.test. 20 AAAA 2001:db8:a::10"},
		{"fail open in the row", plan{failAll: true}, low, usResolver, "www.cdn.demo.test. A", "", "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.74"},
		{"all down: nodata", plan{out: allOut, allDown: placement.NoData}, low, usResolver, "www.cdn.demo.test. A", "", "NOERROR aa" + cdnSOA},
		{"all down: servfail", plan{out: allOut, allDown: placement.ServFail}, low, usResolver, "www.cdn.demo.test. A", "203.0.113.0/24",
			"SERVFAIL ar OPT0/1232 ecs=1:203.0.113.0/24/24 ede=0"},
		{"all down: all", plan{out: allOut, allDown: placement.All}, low, usResolver, "www.cdn.demo.test. AAAA", "203.0.113.0/24",
			"NOERROR aa | www.cdn.demo.test. 20 AAAA 2001:db8:a::10, www.cdn.demo.test. 20 AAAA 2001:db8:b::10, www.cdn.demo.test. 20 AAAA 2001:db8:b::11 ar OPT0/1232 ecs=1:203.0.113.0/24/24"},
		{"all down: closest, and none named", plan{out: allOut, allDown: placement.Closest}, low, usResolver, "www.cdn.demo.test. AAAA", "",
			"NOERROR aa | www.cdn.demo.test. 20 AAAA 2001:db8:a::10, www.cdn.demo.test. 20 AAAA 2001:db8:b::10"},
		{"all down: refuse", plan{out: allOut, allDown: placement.Refuse}, low, usResolver, "www.cdn.demo.test. A", "203.0.113.0/24",
			"REFUSED ar OPT0/1232 ecs=1:203.0.113.0/24/24 ede=0"},
		{"all down: static", plan{out: allOut, allDown: placement.Static}, low, usResolver, "www.cdn.demo.test. A", "",
			"NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.10, www.cdn.demo.test. 20 A 198.51.100.74"},
		{"all down: static, as in the file", plan{out: allOut, allDown: placement.Static}, low, usResolver, "kept.cdn.demo.test. A", "203.0.113.0/24",
			"NOERROR aa | kept.cdn.demo.test. 300 A 192.0.2.77 ar OPT0/1232 ecs=1:203.0.113.0/24/24"},
		{"all down, no row says so: static set", plan{out: allOut}, low, usResolver, "www.cdn.demo.test. A", "",
			"NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.10, www.cdn.demo.test. 20 A 198.51.100.74"},
	})
}

func TestObserve(t *testing.T) {
	fixed := "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.10, www.cdn.demo.test. 20 A 198.51.100.74"
	service := plan{mode: placement.Observe}
	role := plan{mode: placement.Act, roles: map[string]placement.Mode{"authdns": placement.Observe}}
	generic := "NOERROR ns cdn.demo.test. 300 NS ns-ams1.cdn.demo.test., cdn.demo.test. 300 NS ns-nyc1.cdn.demo.test. ar "
	runLevels(t, []levelCase{
		{"service: one answer for all", service, low, usResolver, "www.cdn.demo.test. A", "", fixed},
		{"service: the same elsewhere, scope 0", service, low, elsewhere, "www.cdn.demo.test. A", "203.0.113.0/24", fixed + " ar OPT0/1232 ecs=1:203.0.113.0/24/0"},
		{"role", role, low, usResolver, "www.cdn.demo.test. A", "", fixed},
		{"the file's own set stays", service, low, usResolver, "kept.cdn.demo.test. A", "", "NOERROR aa | kept.cdn.demo.test. 300 A 192.0.2.77"},
		{"referral: the child's file", service, top, usResolver, "www.cdn.demo.test. A", "", generic + arAMS + ", " + arNYC},
	})
	s := compiled(t, fleet(t, service), sources()...)
	_, o := s.answer(ask(t, "www.cdn.demo.test. A"), make([]byte, maxTCP), from(usResolver, low))
	if d := o.decision; d == nil || !d.observed || d.site != "nyc1" || d.class != 1 {
		t.Errorf("what would have been answered is lost: %+v", o.decision)
	}
}

// TestSubnet holds rows 44 to 54: the client's prefix decides, no more bits than
// sent and capped, and the scope is the block in which the answer is the same.
func TestSubnet(t *testing.T) {
	const ams = "NOERROR aa | www.cdn.demo.test. 20 AAAA 2001:db8:a::10 ar OPT0/1232"
	nyc := func(rest string) string {
		return "NOERROR aa | www.cdn.demo.test. 20 AAAA 2001:db8:b::10, www.cdn.demo.test. 20 AAAA 2001:db8:b::11 ar OPT0/1232" + rest
	}
	runLevels(t, []levelCase{
		{"R44 scope", plan{}, low, euResolver, "www.cdn.demo.test. AAAA", "203.0.113.0/24", nyc(" ecs=1:203.0.113.0/24/24")},
		{"R44 IPv6", plan{}, low, usResolver, "www.cdn.demo.test. AAAA", "2001:db8:e::/48", ams + " ecs=2:2001:db8:e::/48/48"},
		{"R46 scope beyond source", plan{}, low, euResolver, "www.cdn.demo.test. AAAA", "203.0.112.0/20",
			"NOERROR aa" + cdnSOA + " ar OPT0/1232 ecs=1:203.0.112.0/20/24"},
		{"R44 scope shorter than source", plan{}, low, euResolver, "www.cdn.demo.test. AAAA", "10.1.2.0/24",
			"NOERROR aa" + cdnSOA + " ar OPT0/1232 ecs=1:10.1.2.0/24/1"},
		{"no more bits than the cap", plan{ecs: placement.ECS{Bits4: 16}}, low, euResolver, "www.cdn.demo.test. AAAA", "203.0.113.0/24",
			"NOERROR aa" + cdnSOA + " ar OPT0/1232 ecs=1:203.0.113.0/24/16"},
		{"R47 source 0: the resolver decides", plan{}, low, euResolver, "www.cdn.demo.test. AAAA", "0.0.0.0/0", ams + " ecs=1:0.0.0.0/0/0"},
		{"R45 not steered", plan{}, low, euResolver, "about.cdn.demo.test. TXT", "203.0.113.0/24",
			`NOERROR aa | about.cdn.demo.test. 300 TXT "static" ar OPT0/1232 ecs=1:203.0.113.0/24/0`},
		{"R52 switched off", plan{ecs: placement.ECS{Off: true}}, low, euResolver, "www.cdn.demo.test. AAAA", "203.0.113.0/24", ams},
		{"R53 ignored by the policy: the resolver decides", plan{ignoreECS: true}, low, euResolver, "www.cdn.demo.test. AAAA", "203.0.113.0/24", ams + " ecs=1:203.0.113.0/24/0"},
		{"R53 a cap changes nothing", plan{ignoreECS: true, ecs: placement.ECS{Bits4: 16}}, low, usResolver, "www.cdn.demo.test. AAAA", "198.51.100.0/24", nyc(" ecs=1:198.51.100.0/24/0")},
	})
}

// TestScopesNest is row 54: a cache with longest match, filled in any order,
// agrees with a fresh question for every block of the decision tree.
func TestScopesNest(t *testing.T) {
	s := compiled(t, fleet(t, plan{}), sources()...)
	type entry struct {
		scope  netip.Prefix
		answer string
	}
	var cache []entry
	fresh := func(p netip.Prefix) entry {
		m := s.reply(t, ask(t, "www.cdn.demo.test. A", edns0(ecs(p.String()))), from(elsewhere, low))
		o := m.IsEdns0().Option[0].(*dns.EDNS0_SUBNET)
		var a []string
		for _, rr := range m.Answer {
			a = append(a, rr.String())
		}
		scope, err := p.Addr().Prefix(int(o.SourceScope))
		if err != nil {
			t.Fatal(err)
		}
		return entry{scope, strings.Join(a, ",")}
	}
	var probes []netip.Prefix
	for _, base := range []string{"198.51.100.0", "203.0.113.0", "0.0.0.0"} {
		a := netip.MustParseAddr(base).As4()
		for bit := range 24 {
			b := a
			b[bit/8] ^= 0x80 >> (bit % 8)
			probes = append(probes, netip.PrefixFrom(netip.AddrFrom4(b), 24))
		}
		probes = append(probes, netip.PrefixFrom(netip.AddrFrom4(a), 24))
	}
	for _, p := range probes {
		cache = append(cache, fresh(p))
	}
	for _, p := range probes {
		want := fresh(p)
		for _, e := range cache {
			if e.scope.Contains(p.Addr()) && (e.answer != want.answer || e.scope != want.scope) {
				t.Fatalf("%s: cached %v, fresh %v", p, e, want)
			}
		}
	}
}

// TestR1 holds that apex NS of the child and the referral are one set for every
// resolver, whoever is down, with a TTL at the child no higher than the parent's.
func TestR1(t *testing.T) {
	for _, site := range []string{"", "ams1", "nyc1", "tyo1"} {
		s := compiled(t, fleet(t, plan{out: map[string]placement.Out{site: placement.OutDown}}), sources()...)
		for _, resolver := range []string{euResolver, usResolver, elsewhere, euResolverV6} {
			up := s.reply(t, ask(t, "www.cdn.demo.test. A"), from(resolver, top)).Ns
			down := s.reply(t, ask(t, "cdn.demo.test. NS"), from(resolver, low)).Answer
			if !slices.EqualFunc(up, down, func(a, b dns.RR) bool { return a.String() == b.String() }) || len(up) < 2 {
				t.Errorf("%s down, resolver %s: referral %v, apex %v", site, resolver, up, down)
			}
		}
	}
}

// TestR4 holds that every node gives a client the same answer: nothing of the
// node's own enters it.
func TestR4(t *testing.T) {
	a := compiled(t, fleet(t, plan{}), sources()...)
	b := compiled(t, fleet(t, plan{}), sources()...)
	b.self = identity{Site: "tyo1", Node: "tyo1-b", Version: "1.3"}
	for _, client := range []string{euResolver, usResolver, elsewhere} {
		for _, q := range []string{"www.cdn.demo.test. A", "www.cdn.demo.test. AAAA", "cdn.demo.test. NS"} {
			x, y := show(a.reply(t, ask(t, q), from(client, low))), show(b.reply(t, ask(t, q), from(client, low)))
			if x != y {
				t.Errorf("%s for %s:\n%s\n%s", q, client, x, y)
			}
		}
	}
}

// TestReferralTTL: what the Service says holds for NS and glue on both levels.
func TestReferralTTL(t *testing.T) {
	snap := fleet(t, plan{})
	snap.Inventory.Services[0].TTL = placement.Duration(90e9)
	s := compiled(t, snap, sources()...)
	for _, m := range []*dns.Msg{
		s.reply(t, ask(t, "www.cdn.demo.test. A"), from(euResolver, top)),
		s.reply(t, ask(t, "cdn.demo.test. NS"), from(euResolver, low)),
		s.reply(t, ask(t, "ns-ams1.cdn.demo.test. A"), from(euResolver, low)),
	} {
		for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
			if rr.Header().Ttl != 90 {
				t.Errorf("%v, want TTL 90", rr)
			}
		}
	}
}

func TestWithoutSnapshot(t *testing.T) {
	src := sources()
	src[1].Steered = []string{"www.cdn.demo.test.", "kept.cdn.demo.test."}
	s := compiled(t, nil, src...)
	notReady := "SERVFAIL ar OPT0/1232 ede=14"
	for _, c := range []struct {
		name, question string
		level          placement.Level
		want           string
	}{
		{"static at the top", "www.demo.test. A", top, "NOERROR aa | " + wwwA + opt},
		{"denied at the top", "nix.demo.test. A", top, "NXDOMAIN aa" + demoSOA + opt},
		{"generic referral", "www.cdn.demo.test. A", top,
			"NOERROR ns cdn.demo.test. 300 NS ns-ams1.cdn.demo.test., cdn.demo.test. 300 NS ns-nyc1.cdn.demo.test. ar ns-ams1.cdn.demo.test. 300 A 198.51.100.9, ns-nyc1.cdn.demo.test. 300 A 198.51.100.73, OPT0/1232"},
		{"static below", "about.cdn.demo.test. TXT", low, `NOERROR aa | about.cdn.demo.test. 300 TXT "static"` + opt},
		{"steered", "www.cdn.demo.test. A", low, notReady},
		{"steered, with a set in the file", "kept.cdn.demo.test. A", low, "NOERROR aa | kept.cdn.demo.test. 300 A 192.0.2.77" + opt},
		{"behind an alias", "alias.cdn.demo.test. A", low, notReady},
		{"a name that may be steered", "unknown.cdn.demo.test. A", low, notReady},
		{"the apex", "cdn.demo.test. NS", low,
			"NOERROR aa | cdn.demo.test. 300 NS ns-ams1.cdn.demo.test., cdn.demo.test. 300 NS ns-nyc1.cdn.demo.test. ar ns-ams1.cdn.demo.test. 300 A 198.51.100.9, ns-nyc1.cdn.demo.test. 300 A 198.51.100.73, OPT0/1232"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := show(s.reply(t, ask(t, c.question, edns0()), from(euResolver, c.level))); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestMapMissing: without a map there is the generic referral at the top and the
// static set below, never SERVFAIL.
func TestMapMissing(t *testing.T) {
	snap := fleet(t, plan{})
	snap.Maps = nil
	s := compiled(t, snap, sources()...)
	if m := s.reply(t, ask(t, "www.cdn.demo.test. A"), from(euResolver, top)); m.Rcode != 0 || len(m.Ns) != 2 {
		t.Errorf("top: %s", show(m))
	}
	if m := s.reply(t, ask(t, "www.cdn.demo.test. A"), from(euResolver, low)); show(m) != "NOERROR aa | www.cdn.demo.test. 20 A 198.51.100.10, www.cdn.demo.test. 20 A 198.51.100.74" {
		t.Errorf("low: %s", show(m))
	}
	unloaded := compiled(t, snap, sources()[0])
	unloaded = compile(self, map[string]*loaded{
		"demo.test.":     {meta: sources()[0].Zone, zone: unloaded.top["demo.test."].zone},
		"cdn.demo.test.": {meta: sources()[1].Zone},
	}, snap, nil)
	if m := unloaded.reply(t, ask(t, "www.cdn.demo.test. A"), from(euResolver, top)); m.Rcode != 0 || len(m.Ns) != 3 {
		t.Errorf("top without the child's zone: %s", show(m))
	}
	if got := show(unloaded.reply(t, ask(t, "www.cdn.demo.test. A", edns0()), from(euResolver, low))); got != "SERVFAIL ar OPT0/1232 ede=14" {
		t.Errorf("R25 not loaded: %s", got)
	}
}

// TestStaticAlone: a zone without any steering is served on both levels, and a
// parent and child side by side each answer for themselves (rows 66, 71).
func TestStaticAlone(t *testing.T) {
	child := `$TTL 60
@ IN SOA ns host 1 2 3 4 5
@ IN NS ns
ns IN A 192.0.2.14
x IN A 192.0.2.15
`
	src := []Source{
		{Zone: placement.Zone{Name: "demo.test."}, Data: []byte(demoZone)},
		{Zone: placement.Zone{Name: "sub.demo.test."}, Data: []byte(child)},
	}
	s := compiled(t, nil, src...)
	for _, level := range []placement.Level{top, low, ""} {
		for q, want := range map[string]string{
			"www.demo.test. A":   "NOERROR aa | " + wwwA,
			"x.sub.demo.test. A": "NOERROR aa | x.sub.demo.test. 60 A 192.0.2.15",
			"sub.demo.test. DS":  "NOERROR aa | sub.demo.test. 3600 DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000AA",
			"nix.demo.test. A":   "NXDOMAIN aa" + demoSOA,
		} {
			if got := show(s.reply(t, ask(t, q), from(euResolver, level))); got != want {
				t.Errorf("%s on %q:\n got %s\nwant %s", q, level, got, want)
			}
		}
	}
}

func TestReasons(t *testing.T) {
	for _, c := range []struct {
		out  placement.Out
		want string
	}{
		{placement.In, reasonNearest}, {placement.OutDown, reasonHealth}, {placement.OutForced, reasonHealth},
		{placement.OutDrained, reasonDrain}, {placement.OutFull, reasonSpill}, {placement.OutDialled, reasonSpill},
	} {
		s := compiled(t, fleet(t, plan{out: map[string]placement.Out{"ams1": c.out}}), sources()...)
		_, o := s.answer(ask(t, "www.cdn.demo.test. A"), make([]byte, maxTCP), from(euResolver, low))
		if o.decision.reason != c.want {
			t.Errorf("%v: reason %s, want %s", c.out, o.decision.reason, c.want)
		}
	}
}
