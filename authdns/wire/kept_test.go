package wire

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// keptQuery parses a query for an address of a name.
func keptQuery(t testing.TB, name string) *Query {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	q := new(Query)
	if !q.Parse(b) {
		t.Fatal(name)
	}
	return q
}

// keptMessage is a reply to it which names the number.
func keptMessage(t testing.TB, name string, n int) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Response, m.Compress = true, true
	a := &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: make([]byte, 4)}
	binary.BigEndian.PutUint32(a.A, uint32(n))
	m.Answer = []dns.RR{a}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKept: under four workers at once, a reply is found as it was kept or not at all,
// and the newest always.
func TestKept(t *testing.T) {
	const names, size = 400, 64
	k := NewKept(size)
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			out := make([]byte, MaxUDP)
			for i := range names {
				n := (i*7 + worker*13) % names
				name := fmt.Sprintf("n%d.demo.test.", n)
				q := keptQuery(t, name)
				for _, variant := range []uint32{0, 1} {
					r := k.Find(q, variant)
					if r == nil {
						r = k.Keep(q, variant, keptMessage(t, name, 2*n+int(variant)), Mark{Tag: uint16(n)})
					}
					x, b := r.Body()
					m := new(dns.Msg)
					if err := m.Unpack(out[:x.Reply(out, q, b, &Options{})]); err != nil {
						t.Error(err)
						return
					}
					got := binary.BigEndian.Uint32(m.Answer[0].(*dns.A).A.To4())
					if int(got) != 2*n+int(variant) || int(r.Tag) != n || m.Answer[0].Header().Name != name {
						t.Errorf("%s, variant %d: %v", name, variant, m.Answer)
					}
				}
			}
		})
	}
	all.Wait()
	held := 0
	for n := range names {
		for _, variant := range []uint32{0, 1} {
			if k.Find(keptQuery(t, fmt.Sprintf("n%d.demo.test.", n)), variant) != nil {
				held++
			}
		}
	}
	if held < size/2 || held > size {
		t.Errorf("%d of %d places hold a reply", held, size)
	}
	q := keptQuery(t, "last.demo.test.")
	if k.Keep(q, 9, keptMessage(t, "last.demo.test.", 1), Mark{Many: true}) != k.Find(q, 9) {
		t.Error("the newest is not found")
	}
	if (*Kept)(nil).Find(q, 0) != nil {
		t.Error("a reply from nowhere")
	}
}
