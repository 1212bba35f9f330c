package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestVIP: leases are read as they stand; the mistakes are in testdata/bad-node.
func TestVIP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	text := `version: 1
node: {name: ams1-a, site: ams1, roles: [edge]}
store: file
identity: id
vip:
  device: eth0
  members:
    ams1-a: ["198.51.100.11:7946", "203.0.113.11:7946"]
    ams1-b: ["198.51.100.12:7946", "203.0.113.12:7946"]
    ams1-c: ["198.51.100.13:7946", "203.0.113.13:7946"]
  leases:
    web: [198.51.100.10, "2001:db8:1::10"]
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := LoadNode(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:1::10")}
	if got := n.VIP.Leases["web"]; !reflect.DeepEqual(got, want) || len(n.VIP.Members) != 3 || n.VIP.Device != "eth0" {
		t.Errorf("read %+v", n.VIP)
	}
}
