package wire

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/miekg/dns"
)

// fragments is an Index of one name with an address in each of so many bodies.
func fragments(t testing.TB, name string, n int) *Index {
	t.Helper()
	var b Builder
	wireName := make([]byte, 255)
	size, err := dns.PackDomainName(name, wireName, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	b.Add(wireName[:size], dns.TypeA, 0)
	for i := range n {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeA)
		m.Response, m.Authoritative, m.Compress = true, true, true
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 20}, A: net.IPv4(192, 0, 2, byte(i+1))}}
		msg, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		b.Reply(msg)
	}
	return b.Index()
}

// TestReplies: a reply of several bodies holds the records of each in their order, and
// its OPT record whole, whichever comes first: behind the last one of an Index nothing
// lies any more.
func TestReplies(t *testing.T) {
	const name, count = "www.demo.test.", 3
	x := fragments(t, name, count)
	var q Query
	if !q.Parse(request(t, name, dns.TypeA, withEDNS(1232, false, subnetOption("192.0.2.0/24")))) {
		t.Fatal("not taken")
	}
	e, out := x.Find(&q), make([]byte, MaxUDP)
	for _, order := range [][]uint32{{0, 1, 2}, {2, 0, 1}, {2, 1, 0}, {1, 2}, {2, 0}, {2}} {
		var bodies []*Body
		var want, got []string
		for _, i := range order {
			bodies, want = append(bodies, x.Body(e.First+i)), append(want, fmt.Sprintf("192.0.2.%d", i+1))
		}
		n := x.Replies(out, &q, bodies, &Options{Subnet: true, Scope: 20})
		m := new(dns.Msg)
		if err := m.Unpack(out[:n]); err != nil {
			t.Errorf("%v: %v\n%x", order, err, out[:n])
			continue
		}
		for _, rr := range m.Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		opt := m.IsEdns0()
		if !slices.Equal(got, want) || opt == nil || len(opt.Option) != 1 || opt.Option[0].(*dns.EDNS0_SUBNET).SourceScope != 20 {
			t.Errorf("%v: %s", order, m)
		}
	}
}
