package main

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"rhumb/placement"
)

// zonesUnit is a unit whose store holds these zones; a name with a star is
// referred to for each resolver.
func zonesUnit(t *testing.T, files map[string]string) *unit {
	t.Helper()
	u := opsUnit(t)
	fleet := u.views.view().Inventory.Fleet
	fleet.Zones = nil
	blobs := make(map[string][]byte)
	for _, name := range sortedKeys(files) {
		sum := sha256.Sum256([]byte(files[name]))
		z := placement.Zone{Name: strings.TrimPrefix(name, "*"), SHA256: hex.EncodeToString(sum[:]), Size: len(files[name])}
		if strings.HasPrefix(name, "*") {
			z.NameServers = "ns/" + z.Name
		}
		fleet.Zones = append(fleet.Zones, z)
		blobs[z.SHA256] = []byte(files[name])
	}
	if _, err := u.store.PutFleet(t.Context(), &fleet, blobs, 0, "test", ""); err != nil {
		t.Fatal(err)
	}
	showFleet(t, u)
	return u
}

const (
	apex  = "$TTL 300\n@ IN SOA ns1 hostmaster.demo.test. 1 7200 900 1209600 60\n"
	child = apex + "@ IN NS ns1\n@ IN NS ns2.elsewhere.test.\nns1 IN A 198.51.100.9\nns1 IN AAAA 2001:db8::9\nwww IN A 192.0.2.1\n"
)

func TestDelegation(t *testing.T) {
	for _, c := range []struct {
		name, zone string
		files      map[string]string
		exit       int
		want       []string
		not        string
	}{
		{"a foreign parent", "CDN.demo.test", map[string]string{"cdn.demo.test.": child}, exitOK,
			[]string{"does not serve", "cdn.demo.test. 300 IN NS ns1.cdn.demo.test.\n", " NS ns2.elsewhere.test.\n", "ns1.cdn.demo.test. 300 IN A 198.51.100.9\n", " AAAA 2001:db8::9\n"}, "www"},
		{"our own top level makes it", "cdn.demo.test.", map[string]string{"*cdn.demo.test.": child, "demo.test.": apex + "@ NS ns1\nns1 A 192.0.2.2\n"}, exitOK,
			[]string{"for each resolver", "last resort"}, "problem"},
		{"our own parent holds it", "cdn.demo.test.", map[string]string{"cdn.demo.test.": child,
			"demo.test.": apex + "@ NS ns1\nns1 A 192.0.2.2\ncdn 60 NS ns1.cdn\ncdn NS ns2.elsewhere.test.\nns1.cdn A 198.51.100.9\nns1.cdn AAAA 2001:db8::9\n"}, exitOK,
			[]string{"zone file of demo.test."}, "problem"},
		{"our own parent holds something else", "cdn.demo.test.", map[string]string{"cdn.demo.test.": child,
			"demo.test.": apex + "@ NS ns1\nns1 A 192.0.2.2\ncdn NS ns1.cdn\ncdn NS ns3.elsewhere.test.\nns1.cdn A 198.51.100.10\nns1.cdn AAAA 2001:db8::9\n"}, exitUnhealthy,
			[]string{"lacks: cdn.demo.test. NS ns2.elsewhere.test.", "lacks: ns1.cdn.demo.test. A 198.51.100.9", "has, and the zone itself has not: cdn.demo.test. NS ns3.elsewhere.test.",
				"has, and the zone itself has not: ns1.cdn.demo.test. A 198.51.100.10"}, "AAAA 2001:db8::9\n; problem: the zone file of demo.test. lacks: ns1.cdn.demo.test. AAAA"},
		{"one name server (RFC 1034 4.1)", "cdn.demo.test.", map[string]string{"cdn.demo.test.": apex + "@ NS ns1\nns1 A 198.51.100.9\n"}, exitUnhealthy,
			[]string{"problem: 1 name server"}, ""},
		{"no such zone", "else.test.", map[string]string{"cdn.demo.test.": child}, exitNotFound, nil, "NS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			serveOps(t, zonesUnit(t, c.files))
			code, out, errs := cli(t.Context(), "zones", "delegation", c.zone)
			if code != c.exit {
				t.Errorf("exit %d, want %d\n%s%s", code, c.exit, out, errs)
			}
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if c.not != "" && strings.Contains(out, c.not) {
				t.Errorf("%q in\n%s", c.not, out)
			}
		})
	}
}
