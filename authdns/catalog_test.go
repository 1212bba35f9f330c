package authdns

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// TestCatalogHidden: nobody can ask for what a catalog lists; who follows it asks for
// its serial, and copies it.
func TestCatalogHidden(t *testing.T) {
	c := &transfer.Catalog{Name: "catz.demo.test.", Members: []transfer.Member{{Zone: "a.test.", ID: "one"}}}
	all := append(leaving(demoZone), Source{Data: c.Text(7), Zone: placement.Zone{Name: c.Name, SHA256: "7", Level: low, Catalog: &placement.Catalog{},
		Transfer: &placement.Transfer{Keys: []string{xfrKey}}}})
	s := start(t, Config{Workers: 1, Listeners: []Listener{loopback(low, "127.0.0.1:0")}, Transfers: desk(t)})
	if errs := s.SetZones(all); errs != nil {
		t.Fatal(errs)
	}
	s.Apply(t.Context(), fleet(t, plan{}))
	for _, q := range []struct {
		why, name string
		qtype     uint16
		rcode     int
	}{
		{"RFC 9432 4.1: its serial", "catz.demo.test.", dns.TypeSOA, dns.RcodeSuccess},
		{"RFC 9432 7: its name servers", "catz.demo.test.", dns.TypeNS, dns.RcodeRefused},
		{"RFC 9432 7: everything", "CATZ.demo.test.", dns.TypeANY, dns.RcodeRefused},
		{"RFC 9432 7: what it lists", "one.zones.catz.demo.test.", dns.TypePTR, dns.RcodeRefused},
		{"RFC 9432 7: whether it lists", "two.zones.catz.demo.test.", dns.TypePTR, dns.RcodeRefused},
		{"RFC 9432 7: its version", "version.catz.demo.test.", dns.TypeTXT, dns.RcodeRefused},
		{"RFC 9432 7: the SOA for a denial", "x.catz.demo.test.", dns.TypeSOA, dns.RcodeRefused},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := new(dns.Msg)
			m.SetQuestion(q.name, q.qtype)
			r, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(m, s.Addrs()[0].String())
			if err != nil {
				t.Fatalf("%s over %s: %v", q.why, network, err)
			}
			if r.Rcode != q.rcode || (len(r.Answer) == 1) != (q.rcode == dns.RcodeSuccess) || len(r.Ns) > 0 && q.rcode != dns.RcodeSuccess {
				t.Errorf("%s over %s: %s, want %s", q.why, network, r, dns.RcodeToString[q.rcode])
			}
		}
	}
	if _, err := copyZone(t, s, axfr(c.Name), ""); err == nil {
		t.Error("RFC 9432 7: anybody may copy it")
	}
	got, err := copyZone(t, s, axfr(c.Name), xfrKey)
	if err != nil || !slices.Contains(got, "one.zones.catz.demo.test.\t3600\tIN\tPTR\ta.test.") {
		t.Errorf("RFC 9432 5.1: who follows it copies %q (%v)", got, err)
	}
	src := all[len(all)-1]
	src.Unserved = "expired"
	if errs := s.SetZones([]Source{src}); errs != nil {
		t.Fatal(errs)
	}
	r := s.Ask(soaOf(t, c.Name), netip.MustParseAddrPort("192.0.2.9:4000"), low, false)
	if m := unpack(t, r.Data); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("RFC 9432 5.1: expired, its serial: %s", dns.RcodeToString[m.Rcode])
	}
}

// soaOf is a question for a serial.
func soaOf(t *testing.T, name string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeSOA)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
