package transfer

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// list is a Zone made of records.
type list struct {
	soa *dns.SOA
	rrs []dns.RR
}

func (l *list) SOA() *dns.SOA         { return l.soa }
func (l *list) All() iter.Seq[dns.RR] { return slices.Values(l.rrs) }
func (l *list) Size() int             { return len(l.rrs) + 1 }

// diff is what takes an earlier list to this one, record by record.
func (l *list) diff(old Zone) (removed, added []dns.RR) {
	was := make(map[string]bool)
	for rr := range old.All() {
		was[rr.String()] = true
	}
	is := make(map[string]bool)
	for _, rr := range l.rrs {
		if is[rr.String()] = true; !was[rr.String()] {
			added = append(added, rr)
		}
	}
	for rr := range old.All() {
		if !is[rr.String()] {
			removed = append(removed, rr)
		}
	}
	return removed, added
}

// text is the list as a master file.
func (l *list) text() string { return string(newContents(l.soa, l.rrs).text()) }

func rr(t testing.TB, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return r
}

// version makes demo.test at a serial, of lines of records. Refresh is an hour,
// retry ten minutes, expire a day.
func makeZone(t testing.TB, serial uint32, lines ...string) *list {
	t.Helper()
	l := &list{soa: rr(t, fmt.Sprintf("demo.test. 300 IN SOA ns.demo.test. h.demo.test. %d 3600 600 86400 60", serial)).(*dns.SOA)}
	for _, s := range append([]string{"demo.test. 300 IN NS ns.demo.test.", "ns.demo.test. 300 IN A 192.0.2.1"}, lines...) {
		l.rrs = append(l.rrs, rr(t, s))
	}
	return l
}

// hosts are so many lines of addresses.
func hosts(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("h%d.demo.test. 300 IN A 198.51.100.%d", i, i%250+1))
	}
	return out
}

const keyFile = `# keys of the tests
hmac-sha256:one.test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
hmac-sha384:two.test:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
hmac-sha512:three.test.:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=
`

const keySecret = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

func ring(t testing.TB) *Keyring {
	t.Helper()
	r, err := ParseKeys("keys", strings.NewReader(keyFile))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func fixed(at time.Time) func() time.Time { return func() time.Time { return at } }
