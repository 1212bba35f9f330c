package geo

import (
	_ "embed"
	"strconv"
	"strings"
)

// countries has a line for each country: code, continent, latitude, longitude,
// separated by tabs and sorted by code. internal/tools/geodefault makes it of the
// time zone database's zone.tab, which is in the public domain.
//
//go:embed countries.tsv
var countries string

// Country returns the point at which clients of a country are assumed when
// nothing more is known, rounded like any Location.
func Country(code string) (l Location, ok bool) {
	f := countryFields(strings.ToUpper(code))
	if f == nil {
		return Location{}, false
	}
	lat, errLat := strconv.ParseFloat(f[2], 64)
	lon, errLon := strconv.ParseFloat(f[3], 64)
	if errLat != nil || errLon != nil {
		return Location{}, false
	}
	return class{cellOf(lat, lon), f[0], f[1]}.location(), true
}

// continentOf is empty for a country that is not in the list.
func continentOf(country string) string {
	if f := countryFields(country); f != nil {
		return f[1]
	}
	return ""
}

// countryFields finds the line of a country. The list is short and the callers
// ask once per record or override, so it is searched as text and costs no map.
func countryFields(code string) []string {
	if len(code) != 2 {
		return nil
	}
	at := strings.Index(countries, "\n"+code+"\t")
	if at < 0 {
		return nil
	}
	line, _, _ := strings.Cut(countries[at+1:], "\n")
	if f := strings.Split(line, "\t"); len(f) == 4 {
		return f
	}
	return nil
}
