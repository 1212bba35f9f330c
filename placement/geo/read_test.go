package geo

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"
	"go4.org/netipx"
)

// Every network of MaxMind's own test database is where geoip2 says it is.
func TestOpenCityAgreesWithGeoip2(t *testing.T) {
	const path = "testdata/GeoIP2-City-Test.mmdb"
	table := mustOpen(t, path)
	other, err := geoip2.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	placed := 0
	for _, p := range networksOf(t, path) {
		city, err := other.City(p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		got, ok := table.Location(p.Addr())
		if city.Location.Latitude == nil {
			continue // by country, or nowhere: see the test of countries
		}
		want, _ := Locate(*city.Location.Latitude, *city.Location.Longitude, "")
		if !ok || got.Lat != want.Lat || got.Lon != want.Lon || city.Country.ISOCode != "" && got.Country != city.Country.ISOCode {
			t.Errorf("%s at %v, want %v %s", p, got, want, city.Country.ISOCode)
		}
		placed++
	}
	if placed < 200 {
		t.Errorf("only %d networks with coordinates were compared", placed)
	}
}

func TestOpenCountryAgreesWithGeoip2(t *testing.T) {
	const path = "testdata/GeoIP2-Country-Test.mmdb"
	table := mustOpen(t, path)
	other, err := geoip2.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	placed := 0
	for _, p := range networksOf(t, path) {
		record, err := other.Country(p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		code := record.Country.ISOCode
		if code == "" {
			code = record.RegisteredCountry.ISOCode
		}
		want, wantOK := Country(code)
		if got, ok := table.Location(p.Addr()); got != want || ok != wantOK {
			t.Errorf("%s at %v %v, want %v %v", p, got, ok, want, wantOK)
		}
		placed++
	}
	if placed < 200 {
		t.Errorf("only %d networks were compared", placed)
	}
}

func networksOf(t *testing.T, path string) (list []netip.Prefix) {
	t.Helper()
	r, err := maxminddb.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for n := range r.Networks() {
		list = append(list, n.Prefix())
	}
	return list
}

func TestOpenRefuses(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text.mmdb")
	if err := os.WriteFile(text, []byte("no database at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	unknown := writeFlat(t, "unknown.mmdb", "x", 4, flatNetwork{"192.0.2.0/24", mmdbtype.Map{"colour": mmdbtype.String("red")}})
	nowhere := writeFlat(t, "nowhere.mmdb", "x", 4, flatNetwork{"192.0.2.0/24", flatCountry("ZZ")})
	for _, c := range []struct {
		name, want string
		paths      []string
	}{
		{"nothing named", "no files", nil},
		{"missing", "no such file", []string{"testdata/absent.mmdb"}},
		{"not a database", "text.mmdb", []string{text}},
		{"AS numbers", "no locations", []string{"testdata/GeoLite2-ASN-Test.mmdb"}},
		{"corrupt record", "Broken-Double", []string{"testdata/GeoIP2-City-Test-Broken-Double-Format.mmdb"}},
		{"corrupt tree", "Invalid-Node", []string{"testdata/GeoIP2-City-Test-Invalid-Node-Count.mmdb"}},
		{"unknown fields", "no record has", []string{unknown}},
		{"no known place", "no network has a location", []string{nowhere}},
		{"one bad of two", "absent", []string{"testdata/GeoIP2-City-Test.mmdb", "testdata/absent.mmdb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Open(c.paths); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want one with %q", err, c.want)
			}
		})
	}
}

// flatNetwork is a line of a flat test database.
type flatNetwork struct {
	prefix string
	record mmdbtype.Map
}

func flatCountry(code string) mmdbtype.Map {
	return mmdbtype.Map{"country_code": mmdbtype.String(code)}
}

// flatCity has 32-bit floats and empty texts, as publishers write them.
func flatCity(code string, lat, lon float32) mmdbtype.Map {
	return mmdbtype.Map{
		"country_code": mmdbtype.String(code), "city": mmdbtype.String(""), "postcode": mmdbtype.String(""),
		"latitude": mmdbtype.Float32(lat), "longitude": mmdbtype.Float32(lon),
	}
}

func writeFlat(t *testing.T, name, kind string, version int, networks ...flatNetwork) string {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType: kind, IPVersion: version, BuildEpoch: 1_700_000_000,
		IncludeReservedNetworks: true, DisableIPv4Aliasing: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks {
		if err := w.Insert(netipx.PrefixIPNet(netip.MustParsePrefix(n.prefix)), n.record); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOpen(t *testing.T, paths ...string) *Table {
	t.Helper()
	table, err := Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A pair of flat files, under a type string that geoip2 refuses to open.
func TestOpenFlatPair(t *testing.T) {
	v4 := writeFlat(t, "city4.mmdb", "city ipv4", 4,
		flatNetwork{"192.0.2.0/24", flatCity("NL", 52.36, 4.9)},
		flatNetwork{"198.51.100.0/24", flatCity("ZZ", 10.1, 10.1)},
		flatNetwork{"203.0.113.0/24", mmdbtype.Map{"country_code": mmdbtype.String("AU")}})
	v6 := writeFlat(t, "city6.mmdb", "city ipv6", 6, flatNetwork{"2001:db8::/32", flatCity("nl", 52.4, 4.6)})
	table := mustOpen(t, v4, v6)
	for addr, want := range map[string]Location{
		"192.0.2.1":    {52.25, 4.75, "NL", "EU"},
		"198.51.100.1": {10.25, 10.25, "ZZ", ""},
		"203.0.113.1":  located("AU"), // no coordinates: the country's point
		"2001:db8::1":  {52.25, 4.75, "NL", "EU"},
	} {
		if l, ok := table.Location(netip.MustParseAddr(addr)); !ok || l != want {
			t.Errorf("%s at %v %v, want %v", addr, l, ok, want)
		}
	}
	if a, b := len(table.Locations()), 3; a != b {
		t.Errorf("%d classes, want %d: one place in two families is one class", a, b)
	}
	if other := mustOpen(t, v6, v4); other.Digest() != table.Digest() {
		t.Error("the order of the files changes the digest")
	}
	if i := table.Info(); i.Name != "city4.mmdb + city6.mmdb" || i.BuildTime.Unix() != 1_700_000_000 {
		t.Errorf("info = %+v", i)
	}
}

func TestOpenFlatCountry(t *testing.T) {
	table := mustOpen(t, writeFlat(t, "country.mmdb", "country", 6,
		flatNetwork{"192.0.2.0/24", flatCountry("NL")}, flatNetwork{"198.51.100.0/24", flatCountry("ZZ")},
		flatNetwork{"2001:db8::/32", flatCountry("BR")}))
	if got, want := dump(table), []string{"192.0.2.0/24 NL", "2001:db8::/32 BR"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
