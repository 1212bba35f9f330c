package geo

import (
	"cmp"
	"math"
	"strings"
)

// Location is what a class stands for. It is comparable.
type Location struct {
	// Lat and Lon are degrees north and east, the centre of a half-degree cell
	// in every Location that a Table gives out.
	Lat, Lon float64
	// Country is the ISO 3166-1 alpha-2 code in upper case, empty if unknown.
	Country string
	// Continent is AF, AN, AS, EU, NA, OC or SA, empty if unknown.
	Continent string
}

// Locate rounds a point to its cell and completes the continent by the country,
// as is done for every location of a Table. ok is false for a point that is not
// on the globe.
func Locate(lat, lon float64, country string) (l Location, ok bool) {
	if !(math.Abs(lat) <= 90 && math.Abs(lon) <= 180) { // also refuses NaN
		return Location{}, false
	}
	country = strings.ToUpper(country)
	return class{cellOf(lat, lon), country, continentOf(country)}.location(), true
}

// cell is a square of half a degree by its south-west corner, in half degrees:
// lat -180…179, lon -360…359.
type cell struct{ lat, lon int16 }

// cellOf rounds down. Doubling a float is exact, so all platforms agree. The pole
// belongs to the cells below it, 180° E to 180° W.
func cellOf(lat, lon float64) cell {
	c := cell{int16(math.Floor(lat * 2)), int16(math.Floor(lon * 2))}
	c.lat = min(c.lat, 179)
	if c.lon == 360 {
		c.lon = -360
	}
	return c
}

// class is a Location in integers: what is numbered, sorted and digested.
type class struct {
	cell
	country, continent string
}

func classOf(l Location) class {
	return class{cellOf(l.Lat, l.Lon), l.Country, l.Continent}
}

func (c class) location() Location {
	return Location{
		Lat:       float64(c.lat)/2 + 0.25,
		Lon:       float64(c.lon)/2 + 0.25,
		Country:   c.country,
		Continent: c.continent,
	}
}

func compareClasses(a, b class) int {
	return cmp.Or(
		cmp.Compare(a.lat, b.lat), cmp.Compare(a.lon, b.lon),
		cmp.Compare(a.country, b.country), cmp.Compare(a.continent, b.continent))
}
