package zone

import (
	"encoding/base32"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// signedText is one zone as a signer has written it: with NSEC, with NSEC3, or with
// NSEC3 that opts out.
func signedText(t testing.TB, kind string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + kind + ".zone")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parseSigned(t testing.TB, text string) (*Zone, error) {
	t.Helper()
	return Parse("signed.zone", "signed.test.", strings.NewReader(text))
}

// TestSigned: what a zone carries is known, whatever the kind of its chain; hashed
// names are no names of it, and nothing is lost for those who copy it.
func TestSigned(t *testing.T) {
	for _, c := range []struct {
		kind       string
		iterations uint16
	}{{"nsec", 0}, {"nsec3", 0}, {"optout", 5}} {
		z, err := parseSigned(t, signedText(t, c.kind))
		if err != nil {
			t.Fatal(err)
		}
		s := z.Signed
		if want := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC); !s.Expires.Equal(want) || s.Iterations != c.iterations || s.Line != 2 {
			t.Errorf("%s: ends %s, %d iterations, signed at line %d", c.kind, s.Expires, s.Iterations, s.Line)
		}
		if len(z.Names()) != 34 || z.Owners != 34 {
			t.Errorf("%s: %d names, %d owners: %v", c.kind, len(z.Names()), z.Owners, z.Names())
		}
		var lines []string
		for rr := range z.All() {
			lines = append(lines, rr.String())
		}
		again, err := parseSigned(t, z.SOA().String()+"\n"+strings.Join(lines, "\n")+"\n")
		if err != nil {
			t.Fatalf("%s: a copy: %v", c.kind, err)
		}
		if removed, added := Changes(z, again); len(removed)+len(added) > 0 || again.Records != z.Records || len(lines) != z.Records-1 {
			t.Errorf("%s: a copy of %d records has %d, lost %v, won %v", c.kind, z.Records, again.Records, removed, added)
		}
	}
}

// edit replaces the only line that has all of these words.
func edit(t *testing.T, text, words, with string) string {
	t.Helper()
	lines := strings.SplitAfter(text, "\n")
	at := -1
	for i, l := range lines {
		if slices.ContainsFunc(strings.Split(words, "|"), func(w string) bool { return !strings.Contains(l, w) }) {
			continue
		}
		if at >= 0 {
			t.Fatalf("%q is in lines %d and %d", words, at+1, i+1)
		}
		at = i
	}
	if at < 0 {
		t.Fatalf("no line has %q", words)
	}
	lines[at] = with
	return strings.Join(lines, "")
}

// TestSignedErrors: a zone half signed is refused, with the place.
func TestSignedErrors(t *testing.T) {
	for _, c := range []struct{ name, kind, words, with, want string }{
		{"an RRset lost its signature (RFC 4035 2.2)", "nsec", "mail.signed.test. 300 IN RRSIG A", "", "signed.zone:77:1: mail.signed.test. A: not signed by a key"},
		{"a signature outlived its records", "nsec", "mail.signed.test. 300 IN A ", "", "mail.signed.test. RRSIG: signs A, which is not there"},
		{"signed by a key that is not there", "nsec", "mail.signed.test. 300 IN RRSIG A", "mail.signed.test. 300 IN RRSIG A 13 3 300 20400101000000 20200101000000 1 signed.test. AAAA\n", "mail.signed.test. A: not signed by a key"},
		{"the SOA was edited", "nsec", "IN SOA", "signed.test. 300 IN SOA ns.signed.test. hostmaster.signed.test. 8 86400 3600 1209600 60\n", "the signature of SOA is not of these records: changed after the zone was signed"},
		{"a name that the chain does not know", "nsec", "mail.signed.test. 60 IN NSEC", "", "insecure2.signed.test. NSEC: the chain is broken"},
		{"the chain is broken", "nsec", "mail.signed.test. 60 IN NSEC", "mail.signed.test. 60 IN NSEC zz.signed.test. A RRSIG NSEC\n", "mail.signed.test. NSEC: the chain is broken: what follows here is ns.signed.test."},
		{"a second NSEC", "nsec", "mail.signed.test. 60 IN NSEC", "mail.signed.test. 60 IN NSEC ns.signed.test. A RRSIG NSEC\nmail.signed.test. 60 IN NSEC a.signed.test. A RRSIG NSEC\n", "mail.signed.test. NSEC: a second one"},
		{"NSEC3 without its signature", "nsec3", "GB093CLFBNBL08077RBODJP7OMR2MAGD.signed.test. 60|RRSIG NSEC3 ", "", "NSEC3: not signed by a key"},
		{"no NSEC3 at the apex", "nsec3", "GB093CLFBNBL08077RBODJP7OMR2MAGD.signed.test. 60|IN NSEC3 1", "", "neither NSEC nor NSEC3 at signed.test."},
		{"no NSEC3PARAM, and no NSEC either", "nsec3", "IN NSEC3PARAM 1", "", "nothing proves what is not in it"},
		{"a hash that nobody knows", "nsec3", "IN NSEC3PARAM 1", "signed.test. 0 IN NSEC3PARAM 2 0 0 -\n", "no NSEC3PARAM of SHA-1"},
		{"too many iterations (RFC 9276)", "optout", "IN NSEC3PARAM 1", "signed.test. 0 IN NSEC3PARAM 1 0 151 A1B2C3\n", "signed.zone:14:1: 151 iterations of NSEC3, want at most 150"},
		{"an NSEC3 too deep (RFC 5155 3)", "nsec3", "GB093CLFBNBL08077RBODJP7OMR2MAGD.signed.test. 60|IN NSEC3 1", "a.b.signed.test. 60 IN NSEC3 1 0 0 - GB093CLFBNBL08077RBODJP7OMR2MAGD A\n", "one label below the apex"},
		{"a name that is no hash", "nsec3", "GB093CLFBNBL08077RBODJP7OMR2MAGD.signed.test. 60|IN NSEC3 1", "zzz.signed.test. 60 IN NSEC3 1 0 0 - GB093CLFBNBL08077RBODJP7OMR2MAGD A\n", "its name or the next is no hash"},
		{"signatures, but not of the SOA", "nsec", "IN RRSIG SOA", "", "signed.test.: RRSIG in a zone whose SOA is not signed"},
	} {
		z, err := parseSigned(t, edit(t, signedText(t, c.kind), c.words, c.with))
		if err == nil || z != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
	passed := edit(t, signedText(t, "nsec"), "mail.signed.test. 60 IN NSEC", "")
	passed = edit(t, passed, "insecure2.signed.test. 60 IN NSEC", "insecure2.signed.test. 60 IN NSEC ns.signed.test. NS RRSIG NSEC\n")
	if _, err := parseSigned(t, passed); err == nil || !strings.Contains(err.Error(), "signed.zone:77:1: mail.signed.test. A: its name has no NSEC") {
		t.Errorf("a name that the chain passes over: %v", err)
	}
	for name, text := range map[string]string{"NSEC": "@ NSEC www\n", "NSEC3": "0P9MHAVEQVM6T7VBL5LOP2U3T2RP3TOM NSEC3 1 0 0 - 0P9MHAVEQVM6T7VBL5LOP2U3T2RP3TOM A\n"} {
		if _, err := Parse("x", "demo.test.", strings.NewReader(head+text)); err == nil || !strings.Contains(err.Error(), "x:6:1: ") || !strings.Contains(err.Error(), "whose SOA is not signed") {
			t.Errorf("%s alone: %v", name, err)
		}
	}
	// A name which exists and has no NSEC3: by the hash of the name, all but that.
	z, err := parseSigned(t, signedText(t, "nsec3"))
	if err != nil {
		t.Fatal(err)
	}
	owner := strings.ToLower(base32.HexEncoding.EncodeToString([]byte(z.Signed.of("mail.signed.test.")))) + ".signed.test."
	var next, before string
	for rr := range z.All() {
		if r, ok := rr.(*dns.NSEC3); ok && r.Hdr.Name == owner {
			next = r.NextDomain
		}
	}
	for rr := range z.All() {
		if r, ok := rr.(*dns.NSEC3); ok && strings.EqualFold(r.NextDomain+".signed.test.", owner) {
			before = strings.ToUpper(strings.TrimSuffix(r.Hdr.Name, ".signed.test."))
		}
	}
	hole := edit(t, signedText(t, "nsec3"), strings.ToUpper(strings.TrimSuffix(owner, ".signed.test."))+".signed.test. 60 IN NSEC3", "")
	hole = edit(t, hole, before+".signed.test. 60 IN NSEC3", before+".signed.test. 60 IN NSEC3 1 0 0 - "+next+" A\n")
	if _, err := parseSigned(t, hole); err == nil || !strings.Contains(err.Error(), "mail.signed.test. A: its name has no NSEC3") {
		t.Errorf("a name without NSEC3: %v", err)
	}
}

// TestExpires: a zone ends with the RRset whose last signature ends first.
func TestExpires(t *testing.T) {
	text := signedText(t, "nsec")
	line := func(end string) string {
		return "mail.signed.test. 300 IN RRSIG A 13 3 300 " + end + " 20200101000000 9879 signed.test. AAAA\n"
	}
	for _, c := range []struct {
		name, with string
		year       int
	}{
		{"one signature of an RRset ends sooner", line("20310101000000"), 2031},
		{"another one holds longer", line("20310101000000") + line("20320101000000"), 2032},
		{"all hold longer", line("20410101000000"), 2040},
	} {
		z, err := parseSigned(t, edit(t, text, "mail.signed.test. 300 IN RRSIG A ", c.with))
		if err != nil {
			t.Fatal(err)
		}
		if got := z.Signed.Expires.Year(); got != c.year {
			t.Errorf("%s: %d, want %d", c.name, got, c.year)
		}
	}
}

// TestOrder: the keys of names sort as RFC 4034 section 6.1 has its example, and
// octets that could be taken for the end of a label do not disturb.
func TestOrder(t *testing.T) {
	names := []string{"example.", "a.example.", "yljkjljk.a.example.", "z.a.example.", "zabc.a.example.", "z.example.", "\\000.z.example.", "\\001.z.example.",
		"\\001\\000.z.example.", "\\002.z.example.", "*.z.example.", "\\200.z.example.", "z\\000.example.", "a.z\\000.example.", "z\\000\\000.example.", "z\\001.example.", "zz.example."}
	for i := 1; i < len(names); i++ {
		if a, b := orderKey(Canonical(names[i-1])), orderKey(Canonical(names[i])); a >= b {
			t.Errorf("%s does not come before %s", names[i-1], names[i])
		}
	}
}

// TestHash: names hash as in RFC 5155 appendix A.
func TestHash(t *testing.T) {
	h := hashing{12, "\xaa\xbb\xcc\xdd"}
	for name, want := range map[string]string{"example.": "0p9mhaveqvm6t7vbl5lop2u3t2rp3tom", "*.w.example.": "r53bq7cc2uvmubfu5ocmm6pers9tk9en", "xx.example.": "t644ebqk9bibcna874givr6joj62mlhv"} {
		if got := strings.ToLower(base32.HexEncoding.EncodeToString([]byte(h.of(name)))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
