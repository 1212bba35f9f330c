package geo

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// network is a test's line of a source.
type network struct {
	prefix string
	at     Location
}

func seq(list ...network) iter.Seq2[netip.Prefix, Location] {
	return func(yield func(netip.Prefix, Location) bool) {
		for _, n := range list {
			if !yield(netip.MustParsePrefix(n.prefix), n.at) {
				return
			}
		}
	}
}

func located(country string) Location {
	l, ok := Country(country)
	if !ok {
		panic("no country " + country)
	}
	return l
}

func mustCompile(t testing.TB, sources ...iter.Seq2[netip.Prefix, Location]) *Table {
	t.Helper()
	table, err := Compile(Info{Name: "test"}, sources...)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// dump writes a table as "prefix country" lines.
func dump(t *Table) []string {
	var list []string
	at := t.Locations()
	for p, id := range t.Entries() {
		list = append(list, p.String()+" "+at[id].Country)
	}
	return list
}

func TestCompileMerges(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []network
		want []string
	}{
		{"siblings, again and again",
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/26", located("NL")}, {"192.0.2.192/26", located("NL")}},
			[]string{"192.0.2.0/24 NL"}},
		{"neighbours that are no siblings",
			[]network{{"192.0.1.0/24", located("NL")}, {"192.0.2.0/24", located("NL")}},
			[]string{"192.0.1.0/24 NL", "192.0.2.0/24 NL"}},
		{"siblings of two classes",
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.128/25", located("DE")}},
			[]string{"192.0.2.0/25 NL", "192.0.2.128/25 DE"}},
		{"not around something inside the lower half",
			[]network{{"192.0.2.0/25", located("NL")}, {"192.0.2.0/26", located("DE")}, {"192.0.2.128/25", located("NL")}},
			[]string{"192.0.2.0/25 NL", "192.0.2.0/26 DE", "192.0.2.128/25 NL"}},
		{"a whole family",
			[]network{{"0.0.0.0/1", located("NL")}, {"128.0.0.0/1", located("NL")}},
			[]string{"0.0.0.0/0 NL"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := dump(mustCompile(t, seq(c.in...))); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Merging must not change where any address is, also in nested sources.
func TestCompileKeepsEveryAddress(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		set := map[netip.Prefix]Location{}
		for range 1 + r.IntN(30) {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())})
			p, _ := a.Prefix(22 + r.IntN(11))
			set[p] = located([]string{"NL", "DE"}[r.IntN(2)])
		}
		sorted := slices.SortedFunc(maps.Keys(set), comparePrefixes)
		table := mustCompile(t, func(yield func(netip.Prefix, Location) bool) {
			for _, p := range sorted {
				if !yield(p, set[p]) {
					return
				}
			}
		})
		for i := range 1024 {
			a := netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)})
			var want Location
			for _, p := range sorted { // the last one that contains a is the longest
				if p.Contains(a) {
					want = set[p]
				}
			}
			if got, _ := table.Location(a); got != want {
				t.Fatalf("%s is in %v, want %v; set %v", a, got, want, set)
			}
		}
	}
}

func TestClassIdsFollowContent(t *testing.T) {
	a := mustCompile(t, seq(network{"192.0.2.0/24", located("NL")}, network{"203.0.113.0/24", located("AU")}, network{"2001:db8::/32", located("BR")}))
	b := mustCompile(t, seq(network{"2001:db8::/32", located("BR")}), seq(network{"192.0.2.0/24", located("NL")}, network{"203.0.113.0/24", located("AU")}))
	if a.Digest() != b.Digest() || !slices.Equal(a.Locations(), b.Locations()) {
		t.Errorf("sources in another order give another table: %v and %v", a.Locations(), b.Locations())
	}
	c := mustCompile(t, seq(network{"192.0.2.0/24", located("DE")}, network{"203.0.113.0/24", located("AU")}, network{"2001:db8::/32", located("BR")}))
	if a.Digest() == c.Digest() {
		t.Error("another location, the same digest")
	}
}

// The constant holds all platforms and versions to one canonical form.
func TestDigestIsPinned(t *testing.T) {
	table := mustCompile(t, seq(network{"192.0.2.0/24", located("NL")}, network{"2001:db8::/32", located("AU")}))
	const want = "12a89c58d658c331d6060c37885413a79bcd5489d3970f92c32e6aa800874678"
	if table.Digest() != want {
		t.Errorf("digest %s, want %s", table.Digest(), want)
	}
}

func TestCompileRefuses(t *testing.T) {
	many := func(yield func(netip.Prefix, Location) bool) {
		for i := range maxClasses + 1 {
			l := Location{Lat: float64(i%360)/2 - 89.75, Lon: float64(i/360)/2 - 89.75}
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 32)
			if !yield(p, l) {
				return
			}
		}
	}
	for _, c := range []struct {
		name, want string
		source     iter.Seq2[netip.Prefix, Location]
	}{
		{"descending", "not in address order", seq(network{"192.0.3.0/24", located("NL")}, network{"192.0.2.0/24", located("NL")})},
		{"inner before outer", "not in address order", seq(network{"192.0.2.0/25", located("NL")}, network{"192.0.2.0/24", located("NL")})},
		{"twice", "not in address order", seq(network{"192.0.2.0/24", located("NL")}, network{"192.0.2.0/24", located("DE")})},
		{"too many classes", fmt.Sprint("more than ", maxClasses), many},
	} {
		if _, err := Compile(Info{}, c.source); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: err = %v, want %q", c.name, err, c.want)
		}
	}
}

func TestWith(t *testing.T) {
	base := mustCompile(t, seq(
		network{"192.0.2.0/25", located("NL")}, network{"192.0.2.128/25", located("DE")},
		network{"198.51.100.0/24", located("AU")}, network{"2001:db8::/32", located("BR")}))
	before := base.Locations()
	table, err := base.With([]Override{
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Location: Location{Lat: 48.85, Lon: 2.35, Country: "FR"}},
		{Prefix: netip.MustParsePrefix("192.0.2.64/26"), Location: located("AU")},
		{Prefix: netip.MustParsePrefix("203.0.113.9/24"), Location: Location{Lat: 1, Lon: 1}},
		{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Location: located("DE")},
		{Prefix: netip.MustParsePrefix("::ffff:198.51.100.0/121"), Location: located("NL")},
		{Prefix: netip.MustParsePrefix("2001:db8:1::/48"), Location: located("JP")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"192.0.2.0/24 FR", "192.0.2.64/26 AU", // both halves of the data set are gone
		"198.51.100.0/24 AU", "198.51.100.0/25 NL", "203.0.113.0/24 DE",
		"2001:db8::/32 BR", "2001:db8:1::/48 JP",
	}
	if got := dump(table); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	after := table.Locations()
	if !slices.Equal(after[:len(before)], before) {
		t.Errorf("known classes were renumbered: %v, before %v", after, before)
	}
	if l, _ := table.Location(netip.MustParseAddr("192.0.2.1")); l != (Location{48.75, 2.25, "FR", "EU"}) {
		t.Errorf("override is at %v, want it rounded and with its continent", l)
	}
	if !slices.Equal(dump(base), dump(mustCompile(t, seq(
		network{"192.0.2.0/25", located("NL")}, network{"192.0.2.128/25", located("DE")},
		network{"198.51.100.0/24", located("AU")}, network{"2001:db8::/32", located("BR")})))) {
		t.Error("With changed its receiver")
	}
}

func TestWithRefuses(t *testing.T) {
	base := mustCompile(t)
	for name, o := range map[string]Override{
		"no prefix":        {Location: located("NL")},
		"not on the globe": {Prefix: netip.MustParsePrefix("192.0.2.0/24"), Location: Location{Lat: 91}},
	} {
		if _, err := base.With([]Override{o}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// An override covers what lies inside it and nothing else, whatever the nesting.
func TestWithAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	random := func(n int, country ...string) map[netip.Prefix]Location {
		set := map[netip.Prefix]Location{}
		for range n {
			p, _ := netip.AddrFrom4([4]byte{192, 0, 2, byte(r.Uint32())}).Prefix(24 + r.IntN(9))
			set[p] = located(country[r.IntN(len(country))])
		}
		return set
	}
	for range 300 {
		data, forced := random(12, "NL", "DE"), random(5, "AU", "BR")
		sorted := slices.SortedFunc(maps.Keys(data), comparePrefixes)
		base := mustCompile(t, func(yield func(netip.Prefix, Location) bool) {
			for _, p := range sorted {
				if !yield(p, data[p]) {
					return
				}
			}
		})
		var overrides []Override
		for p, l := range forced {
			overrides = append(overrides, Override{Prefix: p, Location: l})
		}
		table, err := base.With(overrides)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			want, ok := longest(forced, a)
			if !ok {
				want, _ = longest(data, a)
			}
			if got, _ := table.Location(a); got != want {
				t.Fatalf("%s is in %v, want %v; data %v forced %v", a, got, want, data, forced)
			}
		}
	}
}

func longest(set map[netip.Prefix]Location, a netip.Addr) (l Location, ok bool) {
	best := -1
	for p, at := range set {
		if p.Contains(a) && p.Bits() > best {
			l, best, ok = at, p.Bits(), true
		}
	}
	return l, ok
}
