//go:build e2e

package authdns

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"rhumb/placement"
)

// TestDoQClients: a program of others asks over QUIC, and copies a zone: kdig, on another
// implementation of QUIC (libngtcp2) and TLS (GnuTLS).
func TestDoQClients(t *testing.T) {
	l, _ := quicOn(t, "127.0.0.1:0")
	six, _ := quicOn(t, "[::1]:0")
	s := start(t, Config{Listeners: []Listener{l, six}, Transfers: desk(t)})
	src := leaving(demoZone)
	src = append(src, Source{Zone: placement.Zone{Name: "big.test.", Level: placement.TopLevel}, Data: bigZone()})
	if errs := s.SetZones(src); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	for i, host := range []string{"127.0.0.1", "::1"} {
		for _, c := range []struct{ words, want string }{
			{"www.demo.test A", "192.0.2.10"},
			{"www.demo.test A +padding", "QUIC session (QUICv1)"},
			{"www.demo.test A +padding", "PADDING"},
			{"nix.demo.test A", "status: NXDOMAIN"},
			{"www.demo.test A +nsid +subnet=203.0.113.0/24", "NSID"},
			{"all.big.test TXT", "ANSWER: 700"}, // 40 KB
			{"demo.test SOA www.demo.test A b.ns.demo.test A +keepopen", "192.0.2.2"},
		} {
			argv := append([]string{"@" + host, "-p", fmt.Sprint(s.Addrs()[i].Port()), "+quic", "+time=20", "+retry=0"}, strings.Fields(c.words)...)
			if out, err := exec.Command("kdig", argv...).CombinedOutput(); err != nil || !strings.Contains(string(out), c.want) {
				t.Errorf("kdig %v: %v, want %q\n%s", argv, err, c.want, out)
			}
		}
	}
	if got := samples(t, s, "rhumb_dns_requests_total"); !strings.Contains(got, `"quic"`) {
		t.Errorf("counted as\n%s", got)
	}
	if got := samples(t, s, "rhumb_dns_dropped_total"); strings.Contains(got, `"quic"`) {
		t.Errorf("dropped\n%s", got)
	}
}

// bigZone has a set of records that takes many datagrams.
func bigZone() []byte {
	var b strings.Builder
	b.WriteString("$TTL 60\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n")
	for i := range 700 {
		fmt.Fprintf(&b, "all TXT \"%044d\"\n", i)
	}
	return []byte(b.String())
}
