package zone

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// whole is Parse with the library reading all of the file at once.
func whole(origin, text string) (*Zone, error) {
	l := newLoader("f", Canonical(origin), nil)
	l.noting = true
	zp := dns.NewZoneParser(strings.NewReader(text), l.zone.Origin, "")
	// The library does not tell where a record stands. Lines below all others keep the order,
	// by which one of several faults of the whole zone is told.
	for at := math.MinInt32; ; at++ {
		rr, ok := zp.Next()
		if !ok {
			break
		}
		if err := l.addAny(rr, place{at, 0}); err != nil {
			return nil, err
		}
	}
	if err := zp.Err(); err != nil {
		return nil, l.syntax(err, &lineReader{})
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l.zone, nil
}

// sameReading holds that Parse reads a file as the library alone does: the same records
// with the same octets in the same order, or the same fault, at the same place where the
// library tells it.
func sameReading(t *testing.T, origin, text string) (read bool) {
	t.Helper()
	got, err := Parse("f", origin, strings.NewReader(text))
	want, wantErr := whole(origin, text)
	// An entry that ends too early is wrong. The library alone goes on with the next line, and
	// may take what it wants from there, or finds the end of the file.
	early := func(err error) bool {
		return err != nil && (strings.HasSuffix(err.Error(), ": "+short) || strings.HasSuffix(err.Error(), `: "\n"`) || strings.HasSuffix(err.Error(), `: " "`))
	}
	if early(err) || err != nil && early(wantErr) {
		return false
	}
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("error %v, the library alone gives %v, of\n%s", err, wantErr, text)
	}
	if err != nil {
		e, w := err.(*Error), wantErr.(*Error)
		generated := strings.Contains(strings.ToUpper(text), "$GENERATE") // the library counts lines of what that makes
		if e.Reason != w.Reason || w.Line > 0 && !generated && (e.Line != w.Line || e.Column != w.Column) {
			t.Fatalf("error %v, the library alone gives %v, of\n%s", e, w, text)
		}
		return false
	}
	if got, want := dump(t, got), dump(t, want); got != want {
		t.Fatalf("read\n%swant\n%sof\n%q", got, want, text)
	}
	return true
}

// dump writes all records of a zone as text and as octets.
func dump(t *testing.T, z *Zone) string {
	t.Helper()
	var b bytes.Buffer
	buf := make([]byte, dns.MaxMsgSize)
	line := func(rr dns.RR) {
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		fmt.Fprintf(&b, "%s %x %v\n", rr, buf[:n], err)
	}
	line(z.SOA())
	for rr := range z.All() {
		line(rr)
	}
	fmt.Fprintf(&b, "%d names, %d records\n", z.Owners, z.Records)
	return b.String()
}

// pieces are what lines are put together from, the right ones several times.
type pieces []string

func (p pieces) one(r *rand.Rand) string { return p[r.IntN(len(p))] }

var (
	somewhere = pieces{"a", "b", "a.b", "*.w", "@", "WWW", "_x._tcp", "h1.demo.test.", "a", "b", "c", "", "", "", "Ab.Demo.TEST.", "o.test.", "a..b", ".", ".a", "a\\046b",
		"it's", "a@b", "x\\", "$x", strings.Repeat("l", 64), strings.Repeat("abcdefg.", 32), "a/b", "é", "\"q\""}
	times   = pieces{"", "", "", "60", "300", "0", "1h", "1w2d", "x", "2147483648", "4294967296", "99999999999999999999", "-1", "08"}
	classes = pieces{"", "", "IN", "IN", "in", "CH", "CLASS1", "CLASSx", "ANY"}
	kinds   = pieces{"A", "A", "AAAA", "NS", "CNAME", "MX", "PTR", "TXT", "a", "TYPE1", "TYPE65400", "nope", "SRV", "DNAME", "", "DS"}
	data    = pieces{"192.0.2.1", "192.0.2.1", "192.0.2.01", "192.0.2.256", "192.0.2", "192.0.2.1.", "1.2.3.4.5", "2001:db8::1", "::ffff:192.0.2.1", "2001:db8::1%lo", "fe80::", "a", "b.demo.test.", "@", "10 a", "10  B.",
		"65536 a", "010 a", "10", "1 2 3 a", "\"x y\"", "\"x", "x ( ; y\n z )", "\\# 4 c0000201", "a b", "", "1 13 2 00000000000000000000000000000000000000000000000000000000000000aa"}
	ends   = pieces{"\n", "\n", "\n", "\n", " \n", "\r\n", " ; c\n", ";c\n", "\t;(\"\n", " )\n", "\n\n", "\n  \n", "\n;\n", "\r\r\n", "\x00\n", "", "\n \r\n"}
	spaces = pieces{" ", " ", " ", "\t", "  ", " \t", "", "\r ", " ( "}
	orders = pieces{"$TTL 300\n", "$TTL 1h ; x\n", "$ttl 60\n", "$ORIGIN a\n", "$ORIGIN demo.test.\n", "$origin O.Test.\n", "$ORIGIN @\n", "$TTL\n", "$TTL (5\n)\n", " $TTL 5\n",
		"$GENERATE 1-3 g$ A 192.0.2.$\n", "$GENERATE 1-2 g$ 5 IN A 192.0.2.$\n", "$INCLUDE x\n", "($TTL 7)\n", "$ORIGIN .\n", "$TTL 4\r\n", "$FOO A 192.0.2.1\n", "$ORIGIN 0 A 192.0.2.1\n", "$TTL 0 A 192.0.2.1\n"}
)

// someLines is the text of a zone that may be wrong.
func someLines(r *rand.Rand) string {
	var b strings.Builder
	if r.IntN(3) > 0 {
		b.WriteString("$TTL 300\n")
	}
	b.WriteString([]string{"@ SOA ns host 7 3600 600 86400 60\n", "@ 60 IN SOA ns host ( 7 3600\n 600 86400 60 )\n", "@ IN SOA ns host 7 3600 600 86400 60\n"}[r.IntN(3)])
	b.WriteString([]string{"@ NS ns\n", " NS ns\n", "@ 60 IN NS ns\n", " IN NS ns ; x\n"}[r.IntN(4)])
	for range r.IntN(5) {
		if r.IntN(4) == 0 {
			b.WriteString(orders.one(r))
			continue
		}
		for i, p := range []pieces{somewhere, times, classes, kinds, data} {
			if p := p.one(r); p != "" || i == 0 {
				b.WriteString(p + spaces.one(r))
			}
		}
		b.WriteString(ends.one(r))
	}
	return b.String()
}

// TestReadingOracle: whatever the lines are, Parse reads them as the library alone.
func TestReadingOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 13))
	right, rounds := 0, 3000
	if os.Getenv("RHUMB_SOAK") != "" {
		rounds = 300_000
	}
	for range rounds {
		if sameReading(t, []string{"demo.test.", "demo.test.", ".", "Demo.Test"}[r.IntN(4)], someLines(r)) {
			right++
		}
	}
	if right < rounds/10 || right > rounds*9/10 {
		t.Errorf("%d of %d zones were right: the test has lost its teeth", right, rounds)
	}
}

// FuzzZoneReading is TestReadingOracle for any text.
func FuzzZoneReading(f *testing.F) {
	f.Add(head)
	for _, order := range orders {
		f.Add(head + order + "x A 192.0.2.1\n 5 AAAA 2001:db8::1\ny IN MX 10 x\n")
	}
	for _, d := range data {
		f.Add(head + "x A " + d + "\nx MX " + d + "\n")
	}
	f.Add("@ 60 IN SOA . . 1 2 3 4 5\n@ NS .\nx A 192.0.2.1")
	f.Add("x IN A 192.0.2.1\n@ SOA a b 1 2 3 4 5\n")
	for _, kind := range []string{"nsec", "nsec3", "optout"} {
		f.Add(strings.ReplaceAll(signedText(f, kind), "signed.test.", "demo.test."))
	}
	f.Fuzz(func(t *testing.T, text string) { sameReading(t, "demo.test.", text) })
}

// TestPlainLines: what large zones are made of is read without the library.
func TestPlainLines(t *testing.T) {
	for _, c := range []struct {
		line, want string
		plain      bool
	}{
		{"h1 A 192.0.2.1", "h1.demo.test.\t300\tIN\tA\t192.0.2.1", true},
		{"h1.demo.test.\t60\tIN\tAAAA\t2001:db8::1", "h1.demo.test.\t60\tIN\tAAAA\t2001:db8::1", true},
		{" IN 7 MX 10 Mail ; x", "before.demo.test.\t7\tIN\tMX\t10 Mail.demo.test.", true},
		{"*.W CNAME @", "*.w.demo.test.\t300\tIN\tCNAME\tdemo.test.", true},
		{"_a/b NS x.\r", "_a/b.demo.test.\t300\tIN\tNS\tx.", true},
		{"1 PTR h1", "1.demo.test.\t300\tIN\tPTR\th1.demo.test.", true},
		{"h1 A 192.0.2.1 x", "", false},
		{"h1 1h A 192.0.2.1", "", false},
		{"h1 TXT x", "", false},
		{"a\\046b A 192.0.2.1", "", false},
	} {
		r := plainReader{context: context{origin: "demo.test.", owner: "before.demo.test.", ttl: 300, known: true, fixed: true}}
		line, ok := strip([]byte(c.line))
		var rr dns.RR
		if ok {
			rr, ok = r.read(line)
		}
		if ok != c.plain || ok && rr.String() != c.want {
			t.Errorf("%q: read %v as %v; want %v %s", c.line, ok, rr, c.plain, c.want)
		}
	}
}

// TestPlaces: an error tells where an entry stands, whatever stood before it.
func TestPlaces(t *testing.T) {
	for _, c := range []struct{ before, entry, place string }{
		{"", "x.o.test. A 192.0.2.1\n", "f:6:1:"},
		{"", "  A 192.0.2.300\n", "f:6:5:"},
		{"", "x NSEC3PARAM 1 0 0 \n00\n", "f:6:1: " + short},
		{"", "x NSEC3 1 0 0 AB\n0P9MHAVEQVM6T7VBL5LOP2U3T2RP3TOM A\n", "f:6:1: " + short},
		{"$TTL 5\n", "  A 192.0.2.300\n", "f:7:5:"},
		{"y TXT (\n\"a\"\n)\n\n", "  A 192.0.2.300\n", "f:10:5:"},
		{"y TXT (\n\"a\"\n)\n\n", "  TXT \"\n", "f:10:"},
		{"$GENERATE 1-3 g$ A 192.0.2.$\n", " 2147483648 A 192.0.2.1\n", "f:7:2:"},
		{"z A 192.0.2.1\n; x\n", "\tCNAME x ; y\n", "f:8:2:"},
		{"", "$GENERATE 1-3 g$ A 192.\x00$\n", "f:6:1:"},
	} {
		_, err := Parse("f", "demo.test.", strings.NewReader(head+c.before+c.entry+"q A 192.0.2.9\n"))
		if err == nil || !strings.HasPrefix(err.Error(), c.place) {
			t.Errorf("%q behind %q: %v; want it at %s", c.entry, c.before, err, c.place)
		}
	}
}
