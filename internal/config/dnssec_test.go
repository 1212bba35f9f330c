package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/placement"
)

// TestDNSSEC: a zone that is to be signed says so in the inventory, any other does not;
// a node's keys lie beside its file.
func TestDNSSEC(t *testing.T) {
	for word, want := range map[string]placement.DNSSEC{"": "", ", dnssec: off": "", ", dnssec: on": placement.Online} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("testdata/bad/zone-dnssec")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "fleet.yaml")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Replace(string(b), ", dnssec: maybe", word, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := LoadFleet(file, readZone)
		if err != nil {
			t.Fatal(err)
		}
		for _, z := range f.Zones {
			if z.Name == "demo.test." && z.DNSSEC != want || z.Name != "demo.test." && z.DNSSEC != "" {
				t.Errorf("%q: %s is signed %q", word, z.Name, z.DNSSEC)
			}
		}
	}
	dir := t.TempDir()
	b, err := os.ReadFile("testdata/bad-node/dnssec-budget/node.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "budget: -1", "budget: 100", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	n, err := LoadNode(file)
	if err != nil || n.DNSSEC.Keys != filepath.Join(dir, "keys") || n.DNSSEC.Budget != 100 {
		t.Errorf("%+v, %v", n.DNSSEC, err)
	}
}
