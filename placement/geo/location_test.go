package geo

import (
	"math"
	"strings"
	"testing"
)

func TestCellOf(t *testing.T) {
	for _, c := range []struct {
		name     string
		lat, lon float64
		want     cell
	}{
		{"origin", 0, 0, cell{0, 0}},
		{"just below zero rounds down", -0.0001, -0.0001, cell{-1, -1}},
		{"edge belongs to the cell it begins", 52.5, 13.5, cell{105, 27}},
		{"inside", 52.36, 4.9, cell{104, 9}},
		{"north pole", 90, 0, cell{179, 0}},
		{"south pole", -90, 0, cell{-180, 0}},
		{"date line is one meridian", 0, 180, cell{0, -360}},
		{"date line from the west", 0, -180, cell{0, -360}},
		{"32-bit float", float64(float32(51.4999)), 0, cell{102, 0}},
	} {
		if got := cellOf(c.lat, c.lon); got != c.want {
			t.Errorf("%s: cellOf(%g, %g) = %v, want %v", c.name, c.lat, c.lon, got, c.want)
		}
	}
}

// Every cell has a centre that falls into the same cell, within its bounds.
func TestCentreIsStable(t *testing.T) {
	for lat := int16(-180); lat < 180; lat++ {
		for lon := int16(-360); lon < 360; lon++ {
			c := class{cell: cell{lat, lon}}
			if l := c.location(); classOf(l) != c {
				t.Fatalf("cell %v has centre %g, %g in cell %v", c.cell, l.Lat, l.Lon, classOf(l).cell)
			}
		}
	}
}

func TestLocate(t *testing.T) {
	l, ok := Locate(52.36, 4.9, "nl")
	if want := (Location{52.25, 4.75, "NL", "EU"}); !ok || l != want {
		t.Errorf("Locate = %v %v, want %v", l, ok, want)
	}
	for _, p := range [][2]float64{{90.1, 0}, {-91, 0}, {0, 180.5}, {math.NaN(), 0}, {0, math.Inf(1)}} {
		if l, ok := Locate(p[0], p[1], ""); ok {
			t.Errorf("Locate(%v) = %v, want none", p, l)
		}
	}
}

func TestCountries(t *testing.T) {
	n, last := 0, ""
	for line := range strings.Lines(countries) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 || f[0] <= last || !strings.Contains("AF AN AS EU NA OC SA", f[1]) {
			t.Fatalf("line %q out of order or malformed", line)
		}
		if l, ok := Country(f[0]); !ok || l.Country != f[0] || l.Continent != f[1] {
			t.Errorf("Country(%s) = %v %v", f[0], l, ok)
		}
		n, last = n+1, f[0]
	}
	if n < 247 {
		t.Errorf("%d countries, want at least 247", n)
	}
	for code, want := range map[string]Location{
		"us": {41.75, -87.75, "US", "NA"}, "AU": {-33.75, 151.25, "AU", "OC"},
		"BR": {-23.75, -46.75, "BR", "SA"}, "ZA": {-26.25, 28.25, "ZA", "AF"},
	} {
		if l, _ := Country(code); l != want {
			t.Errorf("Country(%s) = %v, want %v", code, l, want)
		}
	}
	for _, code := range []string{"", "ZZ", "EU", "DEU", "D\t", "#"} {
		if l, ok := Country(code); ok {
			t.Errorf("Country(%q) = %v, want none", code, l)
		}
	}
}
