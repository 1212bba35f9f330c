package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDNSKeys: what a node file says of the name server arrives, its files beside it.
func TestDNSKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "node.yaml")
	text := `version: 1
node: {name: ns1, site: ams1, roles: [authdns]}
store: file
listen:
  top: ["192.0.2.53:53"]
  low: ["[2001:db8::53]:53"]
  dot: {top: ["192.0.2.53:853"], low: ["[2001:db8::53]:853"], cert: dot.crt, key: /etc/dot.key}
  doq: {top: ["192.0.2.53:853"], low: ["[2001:db8::53]:8853"], cert: doq.crt, key: /etc/doq.key}
dns:
  cookies: cookies.secret
  hide_identity: true
  limit: {rate: 200, slip: 3, exempt: [203.0.113.0/24, "2001:db8:1::/48"]}
  tcp: {idle: 20s, connections: 4000, per_client: 100}
  proxies: [198.51.100.7/32]
  overload: observe
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := LoadNode(file)
	if err != nil {
		t.Fatal(err)
	}
	d, dot := n.DNS, n.Listen.DoT
	if d.Cookies != filepath.Join(dir, "cookies.secret") || !d.HideIdentity || d.Limit.Rate != 200 || d.Limit.Slip != 3 || len(d.Limit.Exempt) != 2 {
		t.Errorf("%+v", d)
	}
	if d.TCP.Idle.D() != 20*time.Second || d.TCP.Connections != 4000 || d.TCP.PerClient != 100 || d.Proxies[0] != netip.MustParsePrefix("198.51.100.7/32") || d.Overload != OverloadObserve {
		t.Errorf("%+v", d)
	}
	if dot.Top[0].Port() != 853 || dot.Low[0].Addr() != netip.MustParseAddr("2001:db8::53") || dot.Cert != filepath.Join(dir, "dot.crt") || dot.Key != "/etc/dot.key" {
		t.Errorf("%+v", dot)
	}
	// The same port as DNS over TLS, but of UDP.
	if doq := n.Listen.DoQ; doq.Top[0] != dot.Top[0] || doq.Low[0].Port() != 8853 || doq.Cert != filepath.Join(dir, "doq.crt") || doq.Key != "/etc/doq.key" {
		t.Errorf("%+v", doq)
	}
}
