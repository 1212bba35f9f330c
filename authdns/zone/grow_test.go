package zone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const growZone = `$ORIGIN demo.test.
$TTL 300
@ SOA ns b 1 2 3 4 5
@ NS ns
ns A 192.0.2.1
a.ent TXT x
*.wild A 192.0.2.2
sub NS ns.sub
sub DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000AA
ns.sub A 192.0.2.3
old DNAME new
`

func growing(t *testing.T) *Zone {
	t.Helper()
	z, err := Parse("demo.test", "demo.test.", strings.NewReader(growZone))
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// TestGrown: records are added where they belong, marks stay, and the zone before has
// none of it.
func TestGrown(t *testing.T) {
	before := growing(t).With([]Mark{{Name: "cut.demo.test.", Cut: true, Value: "child"}, {Name: "demo.test.", Value: "steered"}})
	var more []dns.RR
	for _, l := range []string{"demo.test. 60 TXT added", "demo.test. 60 NS ns2.demo.test.", "cut.demo.test. 60 DS 1 13 2 00", "other.test. 60 A 192.0.2.9", "demo.test. 60 TXT added"} {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		more = append(more, rr)
	}
	after := before.Grown(more)
	if n, m := len(before.RRset("demo.test.", dns.TypeNS)), len(before.RRset("demo.test.", dns.TypeTXT)); n != 1 || m != 0 {
		t.Errorf("the zone before has %d NS and %d TXT", n, m)
	}
	if ttl := before.RRset("demo.test.", dns.TypeNS)[0].Header().Ttl; ttl != 300 {
		t.Errorf("the TTL before became %d", ttl)
	}
	if n, m := len(after.RRset("demo.test.", dns.TypeNS)), len(after.RRset("demo.test.", dns.TypeTXT)); n != 2 || m != 1 || after.Records != before.Records+3 {
		t.Errorf("after it %d NS and %d TXT, %d records for %d", n, m, after.Records, before.Records)
	}
	if after.Mark("demo.test.") != "steered" || after.Lookup("x.cut.demo.test.", dns.TypeA).Mark != "child" {
		t.Error("a mark is lost")
	}
	if r := after.Lookup("cut.demo.test.", dns.TypeDS); r.Kind != Answer {
		t.Errorf("DS at the cut: %v", r.Kind)
	}
}

// TestAt: what a zone has at a name, as a proof says it.
func TestAt(t *testing.T) {
	z := growing(t).With([]Mark{{Name: "cut.demo.test.", Cut: true}, {Name: "www.demo.test.", Value: "steered"}})
	for name, want := range map[string]string{
		"demo.test.":        "exists [NS SOA]",
		"ent.demo.test.":    "exists []",
		"nix.demo.test.":    "[]",
		"x.wild.demo.test.": "wildcard [A]",
		"*.wild.demo.test.": "exists [A]",
		"wild.demo.test.":   "exists []",
		"sub.demo.test.":    "exists [DS NS]",
		"ns.sub.demo.test.": "[]",
		"cut.demo.test.":    "exists [NS]",
		"x.cut.demo.test.":  "[]",
		"old.demo.test.":    "exists [DNAME]",
		"x.old.demo.test.":  "[]",
		"www.demo.test.":    "exists steered []",
		"other.test.":       "[]",
	} {
		h := z.At(name)
		var got []string
		if h.Exists {
			got = append(got, "exists")
		}
		if h.Wildcard {
			got = append(got, "wildcard")
		}
		if h.Mark != nil {
			got = append(got, fmt.Sprint(h.Mark))
		}
		var types []string
		for _, t := range h.Types {
			types = append(types, dns.Type(t).String())
		}
		got = append(got, "["+strings.Join(types, " ")+"]")
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", name, s, want)
		}
	}
}
