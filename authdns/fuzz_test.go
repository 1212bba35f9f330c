package authdns

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// FuzzAnswer holds for any octets: no panic, a reply within the limit which
// parses and keeps ID and question, and the same reply every time.
func FuzzAnswer(f *testing.F) {
	for _, c := range append(append(conformanceRows(f), moreRows(f)...), lowRows(f)...) {
		f.Add(c.query, false, false)
		f.Add(c.query, true, true)
	}
	for _, q := range []string{"www.cdn.demo.test. A", "cdn.demo.test. NS", "x.any.cdn.demo.test. AAAA"} {
		f.Add(ask(f, q, edns0(ecs("203.0.113.0/24"))), false, true)
	}
	s := compiled(f, fleet(f, plan{}), allSources()...)
	f.Fuzz(func(t *testing.T, in []byte, tcp, below bool) {
		a := asker{addr: netip.MustParseAddrPort("203.0.113.5:5353"), level: placement.TopLevel, tcp: tcp}
		if below {
			a.level = placement.LowLevel
		}
		out, again := make([]byte, maxTCP), make([]byte, maxTCP)
		n, o := s.answer(in, out, a)
		if m, _ := s.answer(in, again, a); m != n || string(again[:m]) != string(out[:n]) {
			t.Fatal("two answers to one question")
		}
		if o.silent {
			if n != 0 || (len(in) >= headerLen && in[2]&0x80 == 0) {
				t.Fatal("silent towards a query")
			}
			return
		}
		checkReply(t, in, out[:n], tcp)
	})
}

func checkReply(t *testing.T, in, out []byte, tcp bool) {
	t.Helper()
	q, _ := parse(in, tcp)
	r := reply{q: &q}
	if len(out) > r.limit(tcp) {
		t.Fatalf("%d octets, limit %d", len(out), r.limit(tcp))
	}
	m := new(dns.Msg)
	if err := m.Unpack(out); err != nil {
		t.Fatalf("the reply does not parse: %v", err)
	}
	if !m.Response || m.Id != q.id || m.Opcode != q.opcode {
		t.Fatal("not a reply to this query")
	}
	if len(q.question) > 0 && string(out[headerLen:headerLen+len(q.question)]) != string(q.question) {
		t.Fatal("question changed")
	}
	if (m.IsEdns0() != nil) != q.edns.present {
		t.Fatal("OPT without being asked, or none though asked")
	}
}
