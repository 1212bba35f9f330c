package authdns

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

func textSource(level placement.Level, name, servers, text string) Source {
	return Source{Zone: placement.Zone{Name: name, Level: level, NameServers: servers}, Data: []byte("$ORIGIN " + name + "\n$TTL 300\n" + text)}
}

// askAll asks for each name and names below it, and returns how many of the
// queries the fast path answered.
func askAll(t *testing.T, st *state, l placement.Level, names ...string) int {
	t.Helper()
	p := newPaths(t, st, l)
	for _, name := range names {
		for _, prefix := range []string{"", "x.", "yy.", "X.", "yyy.x.", "y.xx.", strings.Repeat("long.", 12)} {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeNS, dns.TypeTXT, dns.TypeDS, dns.TypeSOA} {
				for _, client := range []string{euResolver, usResolver, elsewhere} {
					question := prefix + name + " " + dns.TypeToString[qtype]
					p.compare(t, ask(t, question), client)
					p.compare(t, ask(t, question, edns0(ecs("203.0.113.0/24"))), client)
				}
			}
		}
	}
	p.compareCounts(t)
	return p.quick
}

// TestQuickOddZones: zones whose records stand in the way of a finished reply.
func TestQuickOddZones(t *testing.T) {
	demo, cdn := sources()[0], sources()[1]
	for _, c := range []struct {
		name  string
		level placement.Level
		zones []Source
		ask   []string
	}{
		{"the SOA names x", top, []Source{textSource(top, "demo.test.", "", "@ SOA x hostmaster 1 2 3 4 5\n@ NS x\nx A 192.0.2.1\n")}, []string{"demo.test."}},
		{"the SOA names something below x", top, []Source{textSource(top, "demo.test.", "", "@ SOA a.x x.hostmaster 1 2 3 4 5\n@ NS a.x\na.x A 192.0.2.1\n")},
			[]string{"demo.test.", "hostmaster.demo.test."}},
		{"a cut with a server x", top, []Source{textSource(top, "demo.test.", "", "@ SOA a b 1 2 3 4 5\n@ NS a\na A 192.0.2.1\nsub NS x.sub\nsub NS xx.sub\nx.sub A 192.0.2.2\nxx.sub A 192.0.2.3\n")},
			[]string{"demo.test.", "sub.demo.test."}},
		{"one referral below another", top, []Source{demo, cdn, textSource(low, "eu.cdn.demo.test.", "ns", "@ SOA a b 1 2 3 4 5\n@ NS ns-ams1\n")},
			[]string{"cdn.demo.test.", "eu.cdn.demo.test."}},
		{"a DNAME at an apex with hosts", low, []Source{textSource(low, "cdn.demo.test.", "ns", "@ SOA a.test. b.test. 1 2 3 4 5\n@ NS a.test.\n@ DNAME other.test.\n")},
			[]string{"cdn.demo.test.", "ns-ams1.cdn.demo.test."}},
		{"the SOA names something in a deeper zone", top, []Source{
			textSource(top, "demo.test.", "", "@ SOA ns.zz b 1 2 3 4 5\n@ NS ns.zz\n"),
			textSource(top, "zz.demo.test.", "", "@ SOA ns b 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n")}, []string{"demo.test.", "zz.demo.test."}},
		{"the root", top, []Source{textSource(top, ".", "", "@ SOA x b 1 2 3 4 5\n@ NS x\nx A 192.0.2.1\ntest NS x\n")}, []string{"test.", "other."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n := askAll(t, compiled(t, fleet(t, plan{}), c.zones...), c.level, c.ask...); n == 0 {
				t.Error("no query took the fast path")
			}
		})
	}
}

// TestQuickDeeperZone: what one zone leaves to the slow path does not take the
// names of a deeper one with it.
func TestQuickDeeperZone(t *testing.T) {
	st := compiled(t, nil, textSource(top, "demo.test.", "", "@ SOA ns.zz b 1 2 3 4 5\n@ NS ns.zz\n"),
		textSource(top, "zz.demo.test.", "", "@ SOA ns b 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"))
	if !newPaths(t, st, top).compare(t, ask(t, "nix.zz.demo.test. A"), euResolver) {
		t.Error("a denial of the deeper zone takes the slow path")
	}
}

// TestQuickStale: static replies are not taken over from a state in which they
// said something else.
func TestQuickStale(t *testing.T) {
	parent := textSource(top, "demo.test.", "", "@ SOA ns b 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nwww.cdn A 192.0.2.9\n")
	child := "@ SOA ns b 1 2 3 4 5\n@ NS ns\n@ NS missing\nns A 192.0.2.1\nalias CNAME www\n"
	zones := zonesOf(t, parent, textSource(low, "cdn.demo.test.", "", child))
	referred := func() map[string]*loaded {
		l := *zones["cdn.demo.test."]
		l.meta.NameServers = "nobody"
		return map[string]*loaded{"demo.test.": zones["demo.test."], "cdn.demo.test.": &l}
	}()
	empty := fleet(t, plan{})
	for i := range empty.Maps {
		empty.Maps[i].Rows = nil
	}
	for _, c := range []struct {
		name          string
		before, after map[string]*loaded
		from, to      *placement.Snapshot
	}{
		{"a zone begins to be referred to", zones, referred, nil, nil},
		{"it ceases to be", referred, zones, nil, nil},
		{"it begins with a snapshot", zones, referred, fleet(t, plan{}), fleet(t, plan{})},
		{"a map gets its rows", zones, zones, empty, fleet(t, plan{})},
		{"a map loses its rows", zones, zones, fleet(t, plan{}), empty},
		{"the first snapshot", zones, zones, nil, fleet(t, plan{})},
		{"the snapshot goes", zones, zones, fleet(t, plan{}), nil},
		{"observe", zones, zones, fleet(t, plan{}), fleet(t, plan{mode: placement.Observe})},
		{"a zone goes", zones, map[string]*loaded{"demo.test.": zones["demo.test."]}, nil, nil},
		{"a zone comes", map[string]*loaded{"demo.test.": zones["demo.test."]}, zones, nil, nil},
	} {
		for _, l := range []placement.Level{top, low} {
			t.Run(c.name+", "+string(l), func(t *testing.T) {
				st := compile(self, c.after, c.to, compile(self, c.before, c.from, nil))
				askAll(t, st, l, "demo.test.", "cdn.demo.test.", "www.cdn.demo.test.", "alias.cdn.demo.test.")
			})
		}
	}
}

// TestQuickVotes: replies to steered names outlive a change of votes, and no other.
func TestQuickVotes(t *testing.T) {
	one, down := fleet(t, plan{}), fleet(t, plan{out: map[string]placement.Out{"ams1": placement.OutDown}})
	down.Inventory = one.Inventory
	turned, other := *one, fleet(t, plan{allDown: placement.NoData, failAll: true, out: allOut})
	turned.Maps = slices.Clone(one.Maps)
	turned.Maps[1].Clusters = slices.Clone(one.Maps[1].Clusters)
	slices.Reverse(turned.Maps[1].Clusters)
	zones := zonesOf(t, sources()...)
	sub := zonesOf(t, append(sources(), textSource(low, "www.cdn.demo.test.", "", "@ SOA ns b 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"))...)
	for _, k := range []string{"demo.test.", "cdn.demo.test."} {
		sub[k] = zones[k]
	}
	before := compile(self, zones, one, nil)
	for _, c := range []struct {
		name  string
		to    *placement.Snapshot
		zones map[string]*loaded
		kept  bool
	}{
		{"votes", down, zones, true},
		{"another order of clusters", &turned, zones, false},
		{"another inventory", other, zones, false},
		{"another zone", one, sub, false},
		{"no snapshot", nil, zones, false},
	} {
		st := compile(self, c.zones, c.to, before)
		if kept := st.quick.low.steered == before.quick.low.steered; kept != c.kept {
			t.Errorf("%s: kept %v", c.name, kept)
		}
		for _, l := range []placement.Level{top, low} {
			askAll(t, st, l, "www.cdn.demo.test.", "kept.cdn.demo.test.", "cdn.demo.test.", "any.cdn.demo.test.")
		}
	}
}

// FuzzQuick holds for any octets: where the fast path answers, it gives the slow
// one's octets.
func FuzzQuick(f *testing.F) {
	for _, c := range append(append(conformanceRows(f), moreRows(f)...), lowRows(f)...) {
		f.Add(c.query, false, uint8(0))
		f.Add(c.query, true, uint8(1))
	}
	nsid := &dns.EDNS0_NSID{Code: dns.EDNS0NSID}
	for i, q := range []string{"wWw.CDN.demo.test. A", "www.cdn.demo.test. AAAA", "cdn.demo.test. NS", "x.any.cdn.demo.test. A",
		"x.sub.demo.test. A", "Y.sUb.demo.test. MX", "nix.demo.test. A", "n.i.x.cdn.demo.test. TXT", "x.hostmaster.demo.test. A", "alias.demo.test. HTTPS"} {
		for _, change := range []func(*dns.Msg){edns0(), edns0(nsid), edns0(ecs("203.0.113.0/24"), nsid), edns0(ecs("2001:db8:e::/48")), edns0(ecs("0.0.0.0/0")), ednsSize(512)} {
			f.Add(ask(f, q, change), i%2 == 0, uint8(i))
		}
		f.Add(ask(f, q), i%2 == 1, uint8(i))
	}
	clients := []string{euResolver, usResolver, elsewhere, euResolverV6}
	st := compiled(f, fleet(f, plan{}), allSources()...)
	at := map[bool]*paths{false: newPaths(f, st, top), true: newPaths(f, st, low)}
	f.Fuzz(func(t *testing.T, in []byte, below bool, client uint8) {
		at[below].compare(t, in, clients[int(client)%len(clients)])
	})
}

// TestQuickWholeNames: types that a plain name has not are denied on the fast path,
// whichever they are; what is too long for it, or an alias, is never taken for missing.
func TestQuickWholeNames(t *testing.T) {
	text := "@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nh A 192.0.2.2\nalias CNAME h\nbig TXT"
	for range 8 {
		text += " \"" + strings.Repeat("x", 200) + "\""
	}
	plain := textSource(top, "demo.test.", "", text+"\nbig A 192.0.2.3\n*.w A 192.0.2.4\ne.nt A 192.0.2.5\n")
	p := newPaths(t, compiled(t, fleet(t, plan{}), plain), top)
	for _, c := range []struct {
		name  string
		types []string
		fast  bool
	}{
		{"h", []string{"A", "AAAA", "TXT", "MX", "SRV", "HTTPS", "CAA", "TYPE65400", "NS", "SOA", "CNAME"}, true},
		{"H", []string{"A", "NAPTR"}, true},
		{"big", []string{"A", "AAAA", "MX"}, true},
		{"big", []string{"TXT"}, false},
		{"h", []string{"ANY", "DS", "AXFR"}, false},
		{"alias", []string{"A", "AAAA", "CNAME"}, true},
		{"alias", []string{"MX", "TXT"}, false},
		{"nt", []string{"A", "TXT"}, true},
		{"x.h", []string{"A", "TXT"}, true},
		{"x.w", []string{"A", "TXT"}, false},
		{"w", []string{"TXT"}, false},
	} {
		for _, qtype := range c.types {
			for _, change := range [][]func(*dns.Msg){nil, {edns0()}, {do}} {
				if fast := p.compare(t, ask(t, c.name+".demo.test. "+qtype, change...), euResolver); fast != c.fast {
					t.Errorf("%s %s: on the fast path %v, want %v", c.name, qtype, fast, c.fast)
				}
			}
		}
	}
	p.compareCounts(t)
}
