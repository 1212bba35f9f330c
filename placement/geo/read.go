package geo

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oschwald/geoip2-golang/v2"
	"github.com/oschwald/maxminddb-golang/v2"
)

// Open compiles the databases at paths into one table. A publisher that splits
// IPv4 and IPv6 into two files wants both named. Records without a place or a
// known country are left out.
func Open(paths []string) (*Table, error) {
	if len(paths) == 0 {
		return nil, errors.New("geo: open: no files named")
	}
	var sources []iter.Seq2[netip.Prefix, Location]
	var files []*database
	for _, path := range paths {
		db, err := openDatabase(path)
		if err != nil {
			return nil, fmt.Errorf("geo: open %s: %w", path, err)
		}
		files = append(files, db)
		sources = append(sources, db.networks)
	}
	t, err := Compile(infoOf(files), sources...)
	for _, db := range files {
		if db.err != nil { // it ended the networks early, so it goes first
			return nil, fmt.Errorf("geo: read %s: %w", db.path, db.err)
		}
	}
	if err != nil {
		return nil, err
	}
	if t.Len() == 0 {
		return nil, fmt.Errorf("geo: open %s: no network has a location", strings.Join(paths, ", "))
	}
	return t, nil
}

// infoOf names the files and takes the time of the oldest, which bounds the age
// of what the table says.
func infoOf(files []*database) Info {
	var names []string
	info := Info{Licence: "see the publisher of the file"}
	for _, db := range files {
		names = append(names, filepath.Base(db.path))
		built := time.Unix(int64(db.reader.Metadata.BuildEpoch), 0).UTC()
		if info.BuildTime.IsZero() || built.Before(info.BuildTime) {
			info.BuildTime = built
		}
		if strings.HasPrefix(db.reader.Metadata.DatabaseType, "DBIP-") {
			info.Licence, info.Attribution = "CC-BY-4.0", "IP Geolocation by DB-IP (https://db-ip.com)"
		}
	}
	info.Name = strings.Join(names, " + ")
	return info
}

// database is one open file. Its bytes are read, not mapped: a file overwritten
// in place under a mapping would end the process with SIGBUS.
type database struct {
	path   string
	reader *maxminddb.Reader
	decode func(maxminddb.Result) (Location, bool, error)
	err    error // what ended networks early
}

// openDatabase reads and recognises one file. The reader checks the tree only as it
// walks, so a damaged file may fail here or in networks.
func openDatabase(path string) (*database, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	reader, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, err
	}
	decode, err := recognise(reader)
	if err != nil {
		return nil, err
	}
	return &database{path: path, reader: reader, decode: decode}, nil
}

// networks yields the located networks in address order. Records are shared by
// many networks (15 to one in a city database), so each is decoded once, known
// by its offset.
func (db *database) networks(yield func(netip.Prefix, Location) bool) {
	type place struct {
		at Location
		ok bool
	}
	seen := map[uintptr]place{}
	for r := range db.reader.Networks() {
		if db.err = r.Err(); db.err != nil {
			return
		}
		p, known := seen[r.Offset()]
		if !known {
			if p.at, p.ok, db.err = db.decode(r); db.err != nil {
				return
			}
			seen[r.Offset()] = p
		}
		if p.ok && !yield(r.Prefix(), p.at) {
			return
		}
	}
}

// probes is how many records recognise looks at: the first ones may lack every
// field that tells (networks known only as anonymous proxies, for instance).
const probes = 10_000

// recognise chooses the decoder by the fields that the records have. Types in
// the metadata are of no use: publishers write what they like there, and geoip2
// refuses to open a file whose type it does not know.
func recognise(reader *maxminddb.Reader) (func(maxminddb.Result) (Location, bool, error), error) {
	n := 0
	for r := range reader.Networks() {
		if n++; n > probes {
			break
		}
		var fields map[string]any
		if err := r.Decode(&fields); err != nil {
			return nil, err
		}
		for _, name := range []string{"country", "location", "registered_country", "continent"} {
			if _, nested := fields[name].(map[string]any); nested {
				return decodeNested, nil
			}
		}
		if _, flat := fields["country_code"].(string); flat {
			return decodeFlat, nil
		}
		if _, asn := fields["autonomous_system_number"]; asn {
			return nil, errors.New("a database of AS numbers has no locations")
		}
	}
	return nil, errors.New("no record has location, country or country_code")
}

// decodeNested reads MaxMind's City and Country schema and their like. Coordinates
// are pointers there, since 0, 0 is a place. The country where a network is
// registered stands in where that of the client is unknown.
func decodeNested(r maxminddb.Result) (Location, bool, error) {
	var city geoip2.City
	if err := r.Decode(&city); err != nil {
		return Location{}, false, err
	}
	country := city.Country.ISOCode
	if country == "" {
		country = city.RegisteredCountry.ISOCode
	}
	l, ok := place(city.Location.Latitude, city.Location.Longitude, country)
	if l.Continent == "" {
		l.Continent = city.Continent.Code
	}
	return l, ok, nil
}

// flatRecord is a record without nesting, as ip-location-db publishes them; a
// country database has country_code only. Coordinates are 32-bit floats there.
type flatRecord struct {
	CountryCode string   `maxminddb:"country_code"`
	Latitude    *float64 `maxminddb:"latitude"`
	Longitude   *float64 `maxminddb:"longitude"`
}

// decodeFlat reads flat city and country databases; what has no coordinates is put
// at its country's point.
func decodeFlat(r maxminddb.Result) (Location, bool, error) {
	var f flatRecord
	if err := r.Decode(&f); err != nil {
		return Location{}, false, err
	}
	l, ok := place(f.Latitude, f.Longitude, f.CountryCode)
	return l, ok, nil
}

// place takes the coordinates, and without them the point of the country.
func place(lat, lon *float64, country string) (Location, bool) {
	if lat != nil && lon != nil {
		if l, ok := Locate(*lat, *lon, country); ok {
			return l, true
		}
	}
	return Country(country)
}
