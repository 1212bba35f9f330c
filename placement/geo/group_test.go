package geo

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// routesOf makes a table of prefixes, each with its origin AS.
func routesOf(t testing.TB, origins map[string]uint32) *Routes {
	t.Helper()
	return mustRoutes(t, func(w *mrtWriter) {
		for p, as := range origins {
			subtype := uint16(ribIPv4)
			if netip.MustParsePrefix(p).Addr().Is6() {
				subtype = ribIPv6
			}
			w.route(subtype, p, entry{0, path(64500, as)})
		}
	})
}

func TestGrouped(t *testing.T) {
	for _, c := range []struct {
		name   string
		routes map[string]uint32
		in     []network
		want   []string
	}{
		{"three quarters take all", map[string]uint32{"192.0.2.0/24": 64501},
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/26", located("NL")}, {"192.0.2.192/26", located("DE")}},
			[]string{"192.0.2.0/24 NL"}},
		{"less than that changes nothing", map[string]uint32{"192.0.2.0/24": 64501},
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/27", located("NL")}, {"192.0.2.160/27", located("DE")}, {"192.0.2.192/26", located("DE")}},
			[]string{"192.0.2.0/25 NL", "192.0.2.128/27 NL", "192.0.2.160/27 DE", "192.0.2.192/26 DE"}},
		{"what is not known counts, and is filled", map[string]uint32{"192.0.2.0/24": 64501, "198.51.100.0/24": 64501},
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/26", located("NL")}, {"198.51.100.0/25", located("NL")}},
			[]string{"192.0.2.0/24 NL", "198.51.100.0/25 NL"}},
		{"a longer route counts for itself", map[string]uint32{"192.0.2.0/24": 64501, "192.0.2.128/25": 64502},
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/25", located("DE")}},
			[]string{"192.0.2.0/25 NL", "192.0.2.128/25 DE"}},
		{"both sides of a longer route are one route", map[string]uint32{"192.0.2.0/24": 64501, "192.0.2.64/26": 64502},
			[]network{{"192.0.2.0/26", located("DE")}, {"192.0.2.64/26", located("AU")}, {"192.0.2.128/25", located("NL")}},
			[]string{"192.0.2.0/26 DE", "192.0.2.64/26 AU", "192.0.2.128/25 NL"}},
		{"neighbours of one origin stay two", map[string]uint32{"192.0.2.0/25": 64501, "192.0.2.128/25": 64501},
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/25", located("DE")}},
			[]string{"192.0.2.0/25 NL", "192.0.2.128/25 DE"}},
		{"no route, no change", map[string]uint32{"198.51.100.0/24": 64501},
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.0/32", located("DE")}},
			[]string{"192.0.2.0/32 DE", "192.0.2.1/32 NL", "192.0.2.2/31 NL", "192.0.2.4/30 NL", "192.0.2.8/29 NL", "192.0.2.16/28 NL", "192.0.2.32/27 NL", "192.0.2.64/26 NL"}},
		{"a route inside one network", map[string]uint32{"192.0.2.0/26": 64501},
			[]network{{"192.0.2.0/24", located("NL")}}, []string{"192.0.2.0/24 NL"}},
		{"IPv6", map[string]uint32{"2001:db8::/32": 64501},
			[]network{{"2001:db8::/33", located("NL")}, {"2001:db8:8000::/34", located("NL")}, {"2001:db8:ffff::/48", located("DE")}},
			[]string{"2001:db8::/32 NL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := mustCompile(t, seq(c.in...))
			got, err := base.Grouped(routesOf(t, c.routes))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(dump(got), c.want) {
				t.Errorf("got %q, want %q", dump(got), c.want)
			}
			if got.Digest() == base.Digest() || got.Routes() == nil || base.Routes() != nil {
				t.Error("the routes are no part of the table")
			}
			if same, err := got.With(nil); err != nil || same.Digest() != got.Digest() || same.Routes() != got.Routes() {
				t.Errorf("nothing laid over it is another table: %v", err)
			}
		})
	}
}

// For random tables each address of a /24 is where counting says.
func TestGroupedCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	countries := []string{"NL", "DE", "AU"}
	for round := range 100 {
		origins := map[string]uint32{}
		for range r.IntN(12) {
			origins[smallPrefix(r)] = 64501 + r.Uint32N(3)
		}
		nets := map[string]string{}
		for range r.IntN(12) {
			nets[smallPrefix(r)] = countries[r.IntN(3)]
		}
		origins["198.51.100.0/24"], nets["198.51.100.0/24"] = 64501, "NL" // never empty
		var list []network
		for p, c := range nets {
			list = append(list, network{p, located(c)})
		}
		slices.SortFunc(list, func(a, b network) int {
			return comparePrefixes(netip.MustParsePrefix(a.prefix), netip.MustParsePrefix(b.prefix))
		})
		base, routes := mustCompile(t, seq(list...)), routesOf(t, origins)
		got, err := base.Grouped(routes)
		if err != nil {
			t.Fatal(err)
		}
		want := counted(base, routes)
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			if l, _ := got.Location(a); l.Country != want[i] {
				t.Fatalf("round %d: %s is in %q, want %q\nroutes %v\nnetworks %v", round, a, l.Country, want[i], origins, nets)
			}
		}
	}
}

func smallPrefix(r *rand.Rand) string {
	a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(256))})
	return netip.PrefixFrom(a, 24+r.IntN(9)).Masked().String()
}

// counted judges by asking for each address.
func counted(base *Table, routes *Routes) (out [256]string) {
	votes := map[netip.Prefix]map[string]int{}
	total := map[netip.Prefix]int{}
	for i := range out {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		l, _ := base.Location(a)
		out[i] = l.Country
		if _, p, ok := routes.Lookup(a); ok {
			if votes[p] == nil {
				votes[p] = map[string]int{}
			}
			votes[p][l.Country]++
			total[p]++
		}
	}
	for i := range out {
		_, p, _ := routes.Lookup(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		for country, n := range votes[p] {
			if country != "" && 4*n >= 3*total[p] {
				out[i] = country
			}
		}
	}
	return out
}

func TestWithAS(t *testing.T) {
	base := mustCompile(t, seq(network{"192.0.2.0/24", located("NL")}, network{"2001:db8::/32", located("NL")}))
	as := Override{AS: 64501, Location: located("DE")}
	if _, err := base.With([]Override{as}); err == nil {
		t.Error("an override by AS was accepted without routes")
	}
	grouped, err := base.Grouped(routesOf(t, map[string]uint32{
		"192.0.2.0/24": 64501, "192.0.2.64/26": 64502, "198.51.100.0/24": 64501, "2001:db8:1::/48": 64501}))
	if err != nil {
		t.Fatal(err)
	}
	got, err := grouped.With([]Override{as, {Prefix: netip.MustParsePrefix("192.0.2.128/25"), Location: located("AU")}})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"192.0.2.1": "DE", "192.0.2.65": "NL", // a customer's prefix inside is not the AS's own
		"192.0.2.129":  "AU", // a prefix beats an AS
		"198.51.100.7": "DE", "2001:db8:1::1": "DE", "2001:db8::1": "NL",
	} {
		if l, _ := got.Location(netip.MustParseAddr(addr)); l.Country != want {
			t.Errorf("%s is in %s, want %s", addr, l.Country, want)
		}
	}
}

// A routing table is watched like a database, and a damaged one changes nothing.
func TestSourceWatchesRoutes(t *testing.T) {
	dir := t.TempDir()
	db, rib := filepath.Join(dir, "geo.mmdb"), filepath.Join(dir, "rib.mrt")
	put(t, db, cityFile)
	writeAt(t, rib, written(oneRoute))
	watchAll(t, nil, SourceOptions{Paths: []string{db}, Routes: []string{rib}}, func(s *Source, changed <-chan *Table) {
		first := s.Table()
		if first.Routes() == nil || s.Status().Fallback {
			t.Fatalf("not grouped: %+v", s.Status())
		}
		writeAt(t, rib, written(oneRoute)[:60])
		looks(3)
		if st := s.Status(); s.Table() != first || st.Refused != 1 {
			t.Errorf("a damaged table: %+v", st)
		}
		writeAt(t, rib, written(func(w *mrtWriter) { w.route(ribIPv4, "198.51.100.0/24", entry{0, path(64501)}) }))
		looks(3)
		if st := s.Status(); s.Table() == first || st.Err != nil || len(changed) != 1 {
			t.Errorf("a new table: %+v", st)
		}
	})
	if err := os.Remove(rib); err != nil {
		t.Fatal(err)
	}
	s, err := NewSource(SourceOptions{Routes: []string{rib}})
	if err != nil || !s.Status().Fallback || s.Table().Routes() != nil {
		t.Errorf("a start without the file: %v", err)
	}
}
