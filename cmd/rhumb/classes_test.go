package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/placement"
	"rhumb/placement/geo"
)

func testClasses(t *testing.T) *classes {
	t.Helper()
	return classesOf(t, geo.SourceOptions{})
}

// smallClasses is testClasses with a small database, where overrides are all that
// matters: the embedded one takes seconds to compile under the race detector.
func smallClasses(t *testing.T, routes ...string) *classes {
	t.Helper()
	return classesOf(t, geo.SourceOptions{Paths: []string{"../../placement/geo/testdata/GeoIP2-City-Test.mmdb"}, Routes: routes})
}

func classesOf(t *testing.T, o geo.SourceOptions) *classes {
	t.Helper()
	source, err := geo.NewSource(o)
	if err != nil {
		t.Fatal(err)
	}
	return &classes{source: source}
}

func override(prefix, region string, at placement.Position) placement.Override {
	return placement.Override{Prefix: netip.MustParsePrefix(prefix), Location: placement.Location{Country: "NL", Region: region, At: at}}
}

func withOverrides(o ...placement.Override) *placement.Inventory {
	return &placement.Inventory{Fleet: placement.Fleet{Overrides: o}}
}

// TestOverridesInOneCell: two overrides at one place keep their own regions, and
// the data set's clients of that place belong to neither.
func TestOverridesInOneCell(t *testing.T) {
	at := placement.Position{52.37, 4.90}
	table, err := testClasses(t).of(withOverrides(
		override("203.0.113.0/28", "eu", at), override("203.0.113.16/28", "lab", at), override("203.0.113.32/28", "", at)))
	if err != nil {
		t.Fatal(err)
	}
	region := func(addr string) string {
		class, _ := table.Class(netip.MustParseAddr(addr))
		if class == placement.NoClass {
			t.Fatalf("%s has no class", addr)
		}
		l := table.Locations[class]
		if l.Country != "NL" || l.Continent != "EU" || l.At != (placement.Position{52.25, 4.75}) {
			t.Errorf("%s is at %+v, want the cell of Amsterdam", addr, l)
		}
		return l.Region
	}
	for addr, want := range map[string]string{"203.0.113.1": "eu", "203.0.113.17": "lab", "203.0.113.33": ""} {
		if got := region(addr); got != want {
			t.Errorf("region of %s is %q, want %q", addr, got, want)
		}
	}
	named := 0
	for _, l := range table.Locations {
		if l.Region != "" {
			named++
		}
	}
	if named != 2 {
		t.Errorf("%d classes have a region, want the two of the overrides", named)
	}
}

// TestClassTablesAreKept: inventories in flight side by side cost one table each,
// however often they take turns; the one not used for longest goes first.
func TestClassTablesAreKept(t *testing.T) {
	c := smallClasses(t)
	at := placement.Position{52.37, 4.90}
	var invs []*placement.Inventory
	for _, region := range []string{"a", "b", "c", "d", "e"} {
		invs = append(invs, withOverrides(override("203.0.113.0/28", region, at)))
	}
	get := func(i int) *placement.ClassTable {
		t.Helper()
		table, err := c.of(invs[i])
		if err != nil {
			t.Fatal(err)
		}
		return table
	}
	first, second := get(0), get(1)
	if first.Digest == second.Digest {
		t.Fatal("different overrides have one digest")
	}
	for range 3 {
		if get(0) != first || get(1) != second {
			t.Fatal("a table was made anew while two took turns")
		}
	}
	get(2)
	get(3)
	if get(0) != first {
		t.Error("a table in use was dropped while there was room")
	}
	get(4) // the fifth: the second, which rested longest, goes
	if get(0) != first {
		t.Error("the table in use was dropped")
	}
	if get(1) == second {
		t.Errorf("%d tables kept, want %d", len(c.kept), keptTables)
	}
}

// TestOverrideNowhere: a place that is not on the globe is refused by name.
func TestOverrideNowhere(t *testing.T) {
	_, err := smallClasses(t).of(withOverrides(override("203.0.113.0/28", "", placement.Position{91, 0})))
	if err == nil {
		t.Error("an override at 91° north was taken")
	}
}

// TestOverrideByAS: an AS is placed where the routing table says that it is; without
// one it is refused, which an apply tells.
func TestOverrideByAS(t *testing.T) {
	o := placement.Override{AS: 64504, Location: placement.Location{Country: "NL", Region: "lab", At: placement.Position{52.37, 4.90}}}
	if _, err := smallClasses(t).of(withOverrides(o)); err == nil || !strings.Contains(err.Error(), "geo.routes") {
		t.Errorf("without a routing table: %v", err)
	}
	table, err := smallClasses(t, "../../placement/geo/testdata/bird.mrt").of(withOverrides(o))
	if err != nil {
		t.Fatal(err)
	}
	class, match := table.Class(netip.MustParseAddr("2001:db8::1"))
	if class == placement.NoClass || table.Locations[class].Region != "lab" || match.String() != "2001:db8::/32" {
		t.Errorf("class %d by %s", class, match)
	}
}

// TestGeoCommand: the command says what the node file's data sets say.
func TestGeoCommand(t *testing.T) {
	rib, err := filepath.Abs("../../placement/geo/testdata/bird.mrt")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "node.yaml")
	write := func(routes string) {
		text := "version: 1\nnode: {name: ns1, site: ams1, roles: [authdns]}\nlisten: {low: [\"198.51.100.9:53\"]}\nstore: file\ngeo: {routes: [" + routes + "]}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(rib)
	code, out, errs := cli(t.Context(), "geo", "192.0.2.7", "-o", "ndjson", "--config", file)
	if want := `"route":"192.0.2.0/24","origin":64503,"via":64501`; code != exitOK || !strings.Contains(out, want) {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
	if !strings.Contains(errs, "routes: 3 prefixes") {
		t.Errorf("said %q", errs)
	}
	if code, out, _ = cli(t.Context(), "geo", "2001:db8::1", "--config", file); code != exitOK || !strings.Contains(out, "AS64504") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if code, _, _ := cli(t.Context(), "geo", "nowhere", "--config", file); code != exitUsage {
		t.Errorf("no address: exit %d", code)
	}
	write(filepath.Join(t.TempDir(), "missing.mrt"))
	if code, _, errs := cli(t.Context(), "geo", "192.0.2.7", "--config", file); code != exitFailed || !strings.Contains(errs, "missing.mrt") {
		t.Errorf("a missing table: exit %d %s", code, errs)
	}
}
