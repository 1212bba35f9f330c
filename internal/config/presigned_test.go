package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPresigned: a zone that its owner has signed is served as it is; what would need a
// signature of ours in it is refused where it is asked for, and the signed file is named.
func TestPresigned(t *testing.T) {
	signed, err := os.ReadFile("../../authdns/zone/testdata/nsec.zone")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, zone, steered, want string }{
		{"as it is", "signed.test: {level: low}", "www.cdn.demo.test", ""},
		{"a steered name", "signed.test: {level: low}", "www.cdn.demo.test, fresh.signed.test", "fleet.yaml:33:5: services.www.names: fresh.signed.test. lies in zone signed.test., which its owner has signed (DIR/zones/signed.test.zone:2): what is chosen per client cannot be signed"},
		{"signed here too", "signed.test: {level: low, dnssec: on}", "www.cdn.demo.test", "fleet.yaml:6:31: zones.serve.signed.test.dnssec: the zone is signed by its owner already (DIR/zones/signed.test.zone:2)"},
		{"name servers per resolver", "signed.test: {level: low, name_servers: {clusters: [dns], policy: referral}}", "www.cdn.demo.test", "fleet.yaml:6:31: zones.serve.signed.test.name_servers: the zone is signed by its owner (DIR/zones/signed.test.zone:2): name servers chosen per resolver"},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS("testdata/bad/zone-dnssec")); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "fleet.yaml")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(string(b), "    demo.test: {level: top, dnssec: maybe}\n", "    "+c.zone+"\n    demo.test: {level: top}\n", 1)
		text = strings.Replace(text, "[www.cdn.demo.test]", "["+c.steered+"]", 1)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "zones", "signed.test.zone"), signed, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = LoadFleet(file, readZone)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(c.want, "DIR", dir))):
			t.Errorf("%s: %v\nwant %s", c.name, err, strings.ReplaceAll(c.want, "DIR", dir))
		}
	}
}
