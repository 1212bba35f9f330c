package config

import (
	"net/netip"
	"slices"
	"testing"

	"rhumb/placement"
)

// TestRTT: the file of round trips, with its comments and spaces.
func TestRTT(t *testing.T) {
	f, err := LoadFleet("testdata/good/local/fleet.yaml", readZone)
	if err != nil {
		t.Fatal(err)
	}
	want := []placement.RTT{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Site: "ams1", Cost: 200}, {Near: "ams1", Site: "nyc1", Cost: 1360}}
	if !slices.Equal(f.RTT, want) {
		t.Errorf("%+v, want %+v", f.RTT, want)
	}
}
