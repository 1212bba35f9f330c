package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTransferSettings: who may copy a zone and where one is copied from, read from
// a fleet file with one zone's lines replaced.
func TestTransferSettings(t *testing.T) {
	load := func(t *testing.T, zone string) (*Fleet, error) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("testdata/good/small")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "fleet.yaml")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), "    demo.test: {level: top}\n", "    "+zone+"\n", 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return LoadFleet(file, readZone)
	}
	for _, c := range []struct{ why, zone, fault string }{
		{"by prefix and key", "demo.test: {level: top, transfer: {allow: [192.0.2.0/24], keys: [K.test], notify: ['192.0.2.9:53'], notify_key: k.test}}", ""},
		{"a copy, without a file", "other.test: {secondary: {primaries: ['192.0.2.1:53', '[2001:db8::1]:853'], key: k.test, tls: ns1.other.test}}", ""},
		{"nobody", "demo.test: {level: top, transfer: {notify: ['192.0.2.9:53']}}", "nobody could copy"},
		{"host bits", "demo.test: {level: top, transfer: {allow: [192.0.2.1/24]}}", "bits are set"},
		{"everywhere", "demo.test: {level: top, transfer: {keys: [k], notify: ['0.0.0.0:53']}}", "ADDRESS:PORT of a secondary"},
		{"no key", "demo.test: {level: top, transfer: {keys: ['']}}", "is not the name of a key"},
		{"no primary", "other.test: {secondary: {key: k}}", "names no primary"},
		{"a primary twice", "other.test: {secondary: {primaries: ['192.0.2.1:53', '192.0.2.1:53']}}", "stands twice"},
		{"a file beside", "other.test: {file: demo.test.zone, secondary: {primaries: ['192.0.2.1:53']}}", "a secondary has no file"},
		{"an unknown key", "other.test: {secondary: {primary: '192.0.2.1:53'}}", "unknown field"},
	} {
		t.Run(c.why, func(t *testing.T) {
			f, err := load(t, c.zone)
			if c.fault != "" {
				if err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), "fleet.yaml:6") {
					t.Errorf("want %q at line 6, have: %v", c.fault, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range f.Zones {
				switch z := &f.Zones[i]; z.Name {
				case "demo.test.":
					if z.Serial == 0 || z.Transfer.Keys[0] != "k.test." || z.Transfer.NotifyKey != "k.test." {
						t.Errorf("%+v, %+v", z, z.Transfer)
					}
				case "other.test.":
					if z.SHA256 != "" || len(z.Secondary.Primaries) != 2 || z.Secondary.Key != "k.test." {
						t.Errorf("%+v, %+v", z, z.Secondary)
					}
				}
			}
		})
	}
}

// TestTransferNode: what a node file says of transfers.
func TestTransferNode(t *testing.T) {
	const head = "version: 1\nnode: {name: ns1, site: ams1, roles: [authdns]}\nlisten: {low: ['198.51.100.9:53']}\nstore: file\n"
	for _, c := range []struct{ text, fault string }{
		{"transfers: {keys: tsig.keys, source: 198.51.100.9, max: 5, ca: ca.pem, tls: {listen: ['198.51.100.9:853'], cert: c, key: k}}", ""},
		{"transfers: {max: -1}", "want a number of transfers"},
		{"transfers: {source: 0.0.0.0}", "no address to speak from"},
		{"transfers: {tls: {listen: ['198.51.100.9:853']}}", "all of them"},
		{"transfers: {tls: {listen: ['198.51.100.9:53'], cert: c, key: k}}", "stands twice"},
	} {
		file := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(file, []byte(head+c.text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		n, err := LoadNode(file)
		switch {
		case c.fault == "" && err != nil, c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%s: %v, want %q", c.text, err, c.fault)
		case c.fault == "" && n.Transfers.Keys != filepath.Join(filepath.Dir(file), "tsig.keys"):
			t.Errorf("keys %s: not from the directory of the file", n.Transfers.Keys)
		}
	}
}
