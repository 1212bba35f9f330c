package main

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"rhumb/placement/geo"
)

const zoneTab = `# comment
AD	+4230+00131	Europe/Andorra
AU	-3133+15905	Australia/Lord_Howe	Lord Howe Island
AU	-3352+15113	Australia/Sydney	New South Wales (most areas)
BR	-2332-04637	America/Sao_Paulo
CA	+4339-07923	America/Toronto
FM	+0658+15813	Pacific/Pohnpei
RU	+554521+0373704	Europe/Moscow	MSK+00 - Moscow area
UA	+5026+03031	Europe/Kyiv
US	+404251-0740023	America/New_York	Eastern
US	+415100-0873900	America/Chicago	Central
UZ	+4120+06918	Asia/Tashkent
ZA	-2615+02800	Africa/Johannesburg
ZA	-1000+01000	Africa/Second
`

func TestWriteCountries(t *testing.T) {
	var b bytes.Buffer
	if err := writeCountries(&b, strings.NewReader(zoneTab)); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"AD\tEU\t42.50\t1.52",    // the only row
		"AU\tOC\t-33.87\t151.22", // the named zone, not the first
		"RU\tEU\t55.76\t37.62",   // with seconds
		"US\tNA\t41.85\t-87.65",  // the named zone, not the first
		"XK\tEU\t42.66\t21.17",   // not in zone.tab
		"ZA\tAF\t-26.25\t28.00",  // the first of two
	} {
		if !strings.Contains(b.String(), "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, &b)
		}
	}
	if rest := strings.Split(b.String(), "\n")[1:]; !slices.IsSorted(rest[:len(rest)-1]) {
		t.Error("lines are not sorted")
	}
}

func TestWriteCountriesRefuses(t *testing.T) {
	for name, tab := range map[string]string{
		"a named zone is missing":   strings.Replace(zoneTab, "Europe/Moscow", "Europe/Samara", 1),
		"coordinates":               strings.Replace(zoneTab, "+4230+00131", "4230,00131", 1),
		"country without continent": zoneTab + "QQ\t+0000+00000\tNowhere/Land\n",
	} {
		if err := writeCountries(&bytes.Buffer{}, strings.NewReader(tab)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestTrim(t *testing.T) {
	nl, _ := geo.Country("NL")
	de, _ := geo.Country("DE")
	in := []struct {
		prefix string
		at     geo.Location
	}{
		{"192.0.2.0/26", de}, {"192.0.2.64/26", nl}, {"192.0.2.128/26", de}, {"192.0.2.192/27", nl}, // DE has 128 of 224
		{"198.51.100.0/25", nl}, {"198.51.100.128/25", de}, // even: the first
		{"203.0.113.0/24", de},
		{"2001:db8::/32", nl}, {"2001:db9:0:1::/64", de}, {"2001:db9:0:2::/64", nl}, {"2001:db9:0:3::/64", nl},
	}
	table, err := geo.Compile(geo.Info{}, func(yield func(netip.Prefix, geo.Location) bool) {
		for _, n := range in {
			if !yield(netip.MustParsePrefix(n.prefix), n.at) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for p, l := range trim(table) {
		got = append(got, p.String()+" "+l.Country)
	}
	want := []string{"192.0.2.0/24 DE", "198.51.100.0/24 NL", "203.0.113.0/24 DE", "2001:db8::/32 NL", "2001:db9::/48 NL"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for range trim(table) {
		break // a consumer that stops must not be called again
	}
}

// A table that went through the tool is read back by the product.
func TestWriteTable(t *testing.T) {
	var b bytes.Buffer
	args := []string{"table", "-name", "n", "-licence", "l", "../../../placement/geo/testdata/GeoIP2-Country-Test.mmdb"}
	if err := run(args, &b); err != nil {
		t.Fatal(err)
	}
	table, err := geo.Decode(&b)
	if err != nil {
		t.Fatal(err)
	}
	if i := table.Info(); i.Name != "n" || i.Licence != "l" || i.BuildTime.IsZero() || table.Len() < 50 {
		t.Errorf("%d prefixes, info %+v", table.Len(), i)
	}
	if err := run([]string{"nothing"}, &b); err == nil {
		t.Error("an unknown command was accepted")
	}
}
