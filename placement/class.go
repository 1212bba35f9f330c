package placement

import (
	"math"
	"net/netip"

	"rhumb/placement/lpm"
)

// Location is where the clients of a class are.
type Location struct {
	Country   string   `json:"country,omitempty"`   // ISO 3166-1 alpha-2
	Continent string   `json:"continent,omitempty"` // AF AN AS EU NA OC SA
	Region    string   `json:"region,omitempty"`    // a region of the fleet, by override
	At        Position `json:"at"`
}

// ClassTable says which class an address belongs to: data set and overrides
// compiled together, immutable. Decisions are made on classes, never on prefixes.
type ClassTable struct {
	Prefixes *lpm.Table
	// Locations by class id.
	Locations []Location
	// Digest is the hex SHA-256 by which a Plan names the table.
	Digest string
	// Source says where it comes from, with licence and attribution.
	Source string
}

// NoClass is the class of an address that no table knows.
const NoClass = math.MaxUint16

// Class returns the class of a client and the prefix which says so; NoClass and
// the zero Prefix where nothing is known.
func (t *ClassTable) Class(a netip.Addr) (uint16, netip.Prefix) {
	if t == nil || t.Prefixes == nil {
		return NoClass, netip.Prefix{}
	}
	c, match, ok := t.Prefixes.Lookup(a)
	if !ok {
		return NoClass, netip.Prefix{}
	}
	return c, match
}

// Cost is a round trip in 1/16 ms. Costs are integers so that every machine
// ranks alike: with floats two nodes could order two equal sites differently, and
// a client would be sent to and fro with each resolver.
type Cost int32

// Milliseconds returns the cost in ms.
func (c Cost) Milliseconds() float64 { return float64(c) / 16 }

// DistanceCost estimates the round trip between two points: 3 ms and 0.018 ms a
// kilometre of great circle (haversine, radius 6,371 km). Every product is
// rounded on its own, since fused multiply-add would differ between machines. What
// is left is the last bit of the sines of package math, some 1e-16 of the result:
// it reaches the cost only where that lies so near to a half of 1/16 ms, and a
// node which ranks differently shows it by its digest.
//
// The constants are those of fibre: light takes 0.01 ms a kilometre there and
// back, routes are nearly twice as long as great circles, and the last mile costs
// the same everywhere.
func DistanceCost(a, b Position) Cost {
	const rad = math.Pi / 180
	dLat, dLon := float64((b.Lat()-a.Lat())*rad), float64((b.Lon()-a.Lon())*rad)
	s1, s2 := math.Sin(dLat/2), math.Sin(dLon/2)
	cc := float64(math.Cos(float64(a.Lat()*rad)) * math.Cos(float64(b.Lat()*rad)))
	h := float64(s1*s1) + float64(cc*float64(s2*s2))
	km := float64(2 * 6371 * math.Asin(math.Sqrt(min(1, h))))
	return Cost(math.Round(float64(16 * (3 + float64(0.018*km)))))
}
