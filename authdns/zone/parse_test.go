package zone

import (
	"errors"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const head = `$ORIGIN demo.test.
$TTL 300
@	IN SOA ns1 host 7 3600 600 86400 60
	IN NS ns1
ns1	IN A 192.0.2.1
`

func parse(t *testing.T, text string) *Zone {
	t.Helper()
	z, err := Parse("demo.zone", "demo.test", strings.NewReader(text))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return z
}

func TestParse(t *testing.T) {
	z := parse(t, head+`www 60 IN A 192.0.2.10
www 30 IN A 192.0.2.11
WWW 90 IN A 192.0.2.10
\119eird IN TXT "x"
`)
	if z.Origin != "demo.test." || z.Serial() != 7 {
		t.Errorf("origin %s serial %d", z.Origin, z.Serial())
	}
	rrs := z.RRset("www.demo.test.", dns.TypeA)
	if len(rrs) != 2 || rrs[0].Header().Ttl != 30 || rrs[1].Header().Ttl != 30 {
		t.Errorf("RFC 2181 5.2: one TTL, the lowest, and no duplicates: %v", rrs)
	}
	if z.RRset("weird.demo.test.", dns.TypeTXT) == nil {
		t.Error("RFC 1035 5.1: \\119 is w")
	}
	if z.Owners != 4 || z.Records != 6 {
		t.Errorf("%d names, %d records; want 4 and 6", z.Owners, z.Records)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		name, text   string
		line, column int
		reason       string
	}{
		{"empty", "", 0, 0, "no SOA"},
		{"no NS", "$TTL 60\n@ IN SOA a b 1 2 3 4 5\n", 0, 0, "no NS"},
		{"two SOA", head + "@ IN SOA ns1 host 8 3600 600 86400 60\n", 6, 1, "second SOA"},
		{"SOA below apex", head + "x IN SOA ns1 host 8 3600 600 86400 60\n", 6, 1, "apex alone"},
		{"bad address", head + "x IN A 192.0.2.300\n", 6, 8, "bad A"},
		{"RFC 1034 3.6.2 CNAME and A", head + "x IN CNAME y\nx IN A 192.0.2.3\n", 7, 1, "CNAME beside A"},
		{"RFC 1034 3.6.2 A and CNAME", head + "x IN A 192.0.2.3\nx IN CNAME y\n", 7, 1, "CNAME beside A"},
		{"two CNAME", head + "x IN CNAME y\nx IN CNAME z\n", 7, 1, "second CNAME"},
		{"outside", head + "www.other.test. IN A 192.0.2.3\n", 6, 1, "outside the zone"},
		{"class CH", head + "x CH TXT \"a\"\n", 6, 1, "class CH"},
		{"data below cut", head + "\n; comment\nsub IN NS ns1\nx.sub IN TXT (\n \"a\" )\n", 9, 1, "below a zone cut"},
		{"data at cut", head + "sub IN NS ns1\n  IN TXT \"a\"\n", 7, 3, "belongs to the child"},
		{"DS without NS", head + "x IN DS 1 13 2 00000000000000000000000000000000000000000000000000000000000000aa\n", 6, 1, "DS without NS"},
		{"RFC 6672 2.4 below DNAME", head + "d IN DNAME x\na.d IN A 192.0.2.1\n", 6, 1, "below it"},
		{"RFC 2181 10.3 NS at alias", head + "a IN CNAME ns1\nsub IN NS a\n", 7, 1, "is a CNAME"},
		{"RFC 4592 4 NS at wildcard", head + "*.x IN NS ns1\n", 6, 1, "wildcard"},
		{"include", head + "$INCLUDE /etc/passwd\n", 6, 10, "$INCLUDE"},
		{"RFC 2181 8 TTL", head + "x 2147483648 IN A 192.0.2.1\n", 6, 1, "above 2147483647"},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, err := Parse("demo.zone", "demo.test.", strings.NewReader(c.text))
			var e *Error
			if z != nil || !errors.As(err, &e) {
				t.Fatalf("got %v, %v; want an *Error", z, err)
			}
			if e.File != "demo.zone" || e.Line != c.line || e.Column != c.column || !strings.Contains(e.Reason, c.reason) {
				t.Errorf("got %s; want %d:%d … %q", e, c.line, c.column, c.reason)
			}
		})
	}
}

func TestErrorText(t *testing.T) {
	_, err := Parse("zones/demo.zone", "demo.test.", strings.NewReader(head+"x IN A 192.0.2.300\n"))
	if want := `zones/demo.zone:6:8: bad A A: "192.0.2.300"`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = Parse("zones/demo.zone", "demo.test.", strings.NewReader(""))
	if want := "zones/demo.zone: no SOA at demo.test."; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err = Parse("f", "a..b.", strings.NewReader(head)); err == nil {
		t.Error("an origin that is no name is taken")
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func TestParseReadError(t *testing.T) {
	_, err := Parse("demo.zone", "demo.test.", broken{})
	if err == nil || !strings.Contains(err.Error(), "disk on fire") {
		t.Errorf("got %v; a read error is not the end of the file", err)
	}
}

// FuzzParse holds that any text gives a zone or an *Error, and that every name
// of a zone can be looked up again.
func FuzzParse(f *testing.F) {
	f.Add(head)
	f.Add(head + "*.w IN A 192.0.2.9\nd IN DNAME x.\nsub IN NS ns.sub\nns.sub IN A 192.0.2.7\n")
	f.Add(head + "$GENERATE 1-3 h$ A 192.0.2.$\n\\000\\046 IN TXT \"\\\"\" ( ; c\n )\n")
	f.Add("@ 60 IN SOA . . 1 2 3 4 5\n@ 60 IN NS .\n")
	for _, kind := range []string{"nsec", "nsec3", "optout"} {
		f.Add(strings.ReplaceAll(signedText(f, kind), "signed.test.", "demo.test."))
	}
	f.Fuzz(func(t *testing.T, text string) {
		z, err := Parse("f", "demo.test.", strings.NewReader(text))
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T is not an *Error", err)
			}
			return
		}
		z.walk(func(name string, n *node, under bool) {
			if z.node(name) != n {
				t.Fatalf("%q is not found again", name)
			}
			for _, s := range n.sets {
				if r := z.Lookup(name, s.Type); !under && n == z.root && r.Kind != Answer {
					t.Fatalf("%q %d: %v", name, s.Type, r.Kind)
				}
			}
		})
	})
}
