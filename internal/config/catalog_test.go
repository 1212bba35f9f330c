package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/placement"
)

// TestCatalogSettings: catalogs that are followed and made, read from a fleet file with
// lines added to its zones.
func TestCatalogSettings(t *testing.T) {
	const from = "secondary: {primaries: ['192.0.2.1:53'], key: k.test}"
	const allow = "transfer: {keys: [k.test]}"
	for _, c := range []struct{ why, zones, fault string }{
		{"RFC 9432 4.4.2: followed, with groups", "    catz.test: {" + from + ", catalog: {members: {level: top}, groups: {far: {level: low, secondary: {primaries: ['192.0.2.2:53']}, transfer: {keys: [k.test]}}}}}\n", ""},
		{"RFC 9432 4.4.1: made, and a zone moves", "    catz.test: {" + allow + ", catalog: {}}\n    new.test: {" + allow + ", catalog: {}}\n    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {in: catz.test, coo: new.test, group: far}}\n    third.test: {" + from + ", transfer: {keys: [k.test]}, listed: {in: new.test, from: catz.test}}\n", ""},
		{"made for nobody", "    catz.test: {catalog: {}}\n", "want transfer beside it"},
		{"with a file", "    catz.test: {file: demo.test.zone, " + allow + ", catalog: {}}\n", "it has no file"},
		{"signed", "    catz.test: {dnssec: on, " + from + ", catalog: {}}\n", "no signatures"},
		{"made, with members", "    catz.test: {" + allow + ", catalog: {members: {level: low}}}\n", "members of a catalog that is made here"},
		{"RFC 1035 3.1: a name without room below it", "    " + strings.Repeat("a.", 100) + "catz.test: {" + allow + ", catalog: {}}\n", "cannot be a catalog"},
		{"a level", "    catz.test: {" + from + ", catalog: {groups: {far: {level: middle}}}}\n", "want top or low"},
		{"listed in another", "    catz.test: {" + from + ", transfer: {keys: [k.test]}, listed: {group: far}, catalog: {}}\n", "a catalog is listed in none"},
		{"listed, and nobody may copy it", "    other.test: {" + from + ", listed: {group: far}}\n", "want transfer beside it"},
		{"no such catalog", "    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {in: catz.test}}\n", "catz.test. is no catalog that is made here"},
		{"somebody else's", "    catz.test: {" + from + ", catalog: {}}\n    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {in: catz.test}}\n", "catz.test. is no catalog that is made here"},
		{"coo from nowhere", "    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {coo: new.test}}\n", "want in beside it"},
		{"coo to where it is", "    catz.test: {" + allow + ", catalog: {}}\n    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {in: catz.test, coo: CATZ.test.}}\n", "another catalog"},
		{"RFC 9432 4.4.1: a zone has moved, from nowhere", "    catz.test: {" + allow + ", catalog: {}}\n    other.test: {" + from + ", " + allow + ", listed: {in: catz.test, from: old.test}}\n", "old.test. is no catalog that is made here"},
		{"from with coo", "    catz.test: {" + allow + ", catalog: {}}\n    other.test: {" + from + ", " + allow + ", listed: {in: catz.test, from: old.test, coo: new.test}}\n", "and no coo"},
		{"in none, and in one", "    catz.test: {" + allow + ", catalog: {}}\n    other.test: {" + from + ", " + allow + ", listed: {off: true, in: catz.test}}\n", "the zone is in no catalog"},
		{"coo that is no name", "    catz.test: {" + allow + ", catalog: {}}\n    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {in: catz.test, coo: 'a b'}}\n", "is not a domain name"},
		{"RFC 1035 3.3: a group too long", "    other.test: {" + from + ", transfer: {keys: [k.test]}, listed: {group: " + strings.Repeat("g", 256) + "}}\n", "255 octets"},
		{"a zone that needs escapes", "    catz.test: {" + allow + ", catalog: {}}\n    'a;b.test': {" + from + ", " + allow + "}\n", "cannot stand in a catalog"},
		{"an unknown key", "    catz.test: {" + from + ", catalog: {member: {}}}\n", "unknown field"},
	} {
		t.Run(c.why, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS("testdata/good/small")); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "fleet.yaml")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(string(b), "    demo.test: {level: top}\n", "    demo.test: {level: top}\n"+c.zones, 1)
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			f, err := LoadFleet(file, readZone)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), "fleet.yaml:") {
					t.Errorf("want %q with its place, have: %v", c.fault, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			checkCatalogs(t, f)
		})
	}
}

// checkCatalogs looks at what came of the files that are right.
func checkCatalogs(t *testing.T, f *Fleet) {
	t.Helper()
	for i := range f.Zones {
		z := &f.Zones[i]
		switch {
		case z.Name == "other.test.":
			if l := z.Listed; *l != (placement.Listed{In: "catz.test.", Coo: "new.test.", Group: "far"}) {
				t.Errorf("%s: %+v", z.Name, l)
			}
		case z.Name == "third.test.":
			if l := z.Listed; *l != (placement.Listed{In: "new.test.", From: "catz.test."}) {
				t.Errorf("%s: %+v", z.Name, l)
			}
		case z.Catalog == nil:
		case z.Secondary == nil:
			if z.Transfer == nil || z.SHA256 != "" {
				t.Errorf("made: %+v", z)
			}
		default:
			got := fmt.Sprintf("%s %v %s %v %v", z.Catalog.Members.Level, z.Catalog.Members.Secondary, z.Catalog.Groups["far"].Level, z.Catalog.Groups["far"].Secondary.Primaries, z.Catalog.Groups["far"].Transfer.Keys)
			if want := fmt.Sprintf("%s <nil> %s [192.0.2.2:53] [k.test.]", placement.TopLevel, placement.LowLevel); got != want {
				t.Errorf("followed: %s, want %s", got, want)
			}
		}
	}
}
