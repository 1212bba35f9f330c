package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// Keys of another provider: that of RFC 6605 section 6.1, in both roles, and one beside the curve.
const (
	otherZSK = "256 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA=="
	otherKSK = "257 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA=="
	offCurve = "256 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAQ=="
)

// withZone is the fleet of a sample whose zone demo.test has these settings.
func withZone(t *testing.T, settings string) (*Fleet, string, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/bad/zone-dnssec")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "fleet.yaml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), ", dnssec: maybe", settings, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := LoadFleet(file, readZone)
	return f, file, err
}

// TestOtherKeys: keys of other providers reach the inventory in order; a record as tools
// print it will do as well.
func TestOtherKeys(t *testing.T) {
	f, file, err := withZone(t, `, dnssec: on, other_keys: {
        them-zsk: {dnskey: "`+strings.Replace(otherZSK, "ZQqG", "ZQ qG", 1)+`"},
        them-ksk: {dnskey: "Demo.Test 3600 IN DNSKEY `+otherKSK+`", cds: true}}`)
	if err != nil {
		t.Fatal(err)
	}
	zsk, ksk := placement.OtherKey{Name: "them-zsk", Flags: 256, Algorithm: 13, Public: otherZSK[9:]}, placement.OtherKey{Name: "them-ksk", Flags: 257, Algorithm: 13, Public: otherZSK[9:], CDS: true}
	if got := fmt.Sprint(f.Zone("demo.test.").OtherKeys); got != fmt.Sprint([]placement.OtherKey{ksk, zsk}) {
		t.Errorf("%s", got)
	}
	for _, k := range []placement.OtherKey{zsk, ksk} {
		rr, err := dns.NewRR(fmt.Sprintf("demo.test. DNSKEY %d 3 %d %s", k.Flags, k.Algorithm, k.Public))
		if err != nil || rr.(*dns.DNSKEY).KeyTag() != k.Tag() {
			t.Errorf("tag %d, the library says otherwise (%v)", k.Tag(), err)
		}
	}
	err = f.Mistake([]string{"zones", "serve", "demo.test"}, []string{"other_keys", "them-zsk", "dnskey"}, "is ours")
	if want := file + ":7:20: zones.serve.demo.test.other_keys.them-zsk.dnskey: is ours"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

// TestBadOtherKeys: RFC 8901 section 4, and what is no key at all; each where it stands.
func TestBadOtherKeys(t *testing.T) {
	one := func(key string) string { return `, dnssec: on, other_keys: {them: {dnskey: "` + key + `"}}` }
	for name, c := range map[string]struct{ settings, want string }{
		"off":          {`, other_keys: {them: {dnskey: "` + otherZSK + `"}}`, "6:29: zones.serve.demo.test.other_keys: dnssec is off"},
		"empty":        {`, dnssec: on, other_keys: {them: {}}`, "6:54: zones.serve.demo.test.other_keys.them.dnskey: want \"FLAGS"},
		"base64":       {one("256 3 13 Goji*"), "6:61: zones.serve.demo.test.other_keys.them.dnskey: the key is not base64"},
		"revoked":      {one(strings.Replace(otherKSK, "257", "385", 1)), "6:61: zones.serve.demo.test.other_keys.them.dnskey: flags 385"},
		"no zone key":  {one(strings.Replace(otherKSK, "257", "1", 1)), "dnskey: flags 1:"},
		"protocol":     {one(strings.Replace(otherZSK, " 3 ", " 2 ", 1)), "dnskey: protocol 2"},
		"algorithm":    {one(strings.Replace(otherZSK, " 13 ", " 8 ", 1)), "dnskey: algorithm 8: all providers sign with the same ones (RFC 8901, 4)"},
		"a word":       {one(strings.Replace(otherZSK, " 13 ", " ECDSA ", 1)), `algorithm "ECDSA": want a number`},
		"length":       {one(strings.Replace(otherZSK, " 13 ", " 15 ", 1)), "the key has 64 octets, and one of algorithm 15 has 32"},
		"curve":        {one(offCurve), "the key is no point of the curve P-256"},
		"another zone": {one("demo.example. DNSKEY " + otherZSK), "is a key of demo.example."},
		"a ZSK as CDS": {`, dnssec: on, other_keys: {them: {dnskey: "` + otherZSK + `", cds: true}}`, "6:170: zones.serve.demo.test.other_keys.them.cds: the parent knows keys with flags 257 alone"},
		"twice":        {`, dnssec: on, other_keys: {them: {dnskey: "` + otherZSK + `"}, us: {dnskey: "` + otherZSK + `"}}`, "6:176: zones.serve.demo.test.other_keys.us.dnskey: has the tag"},
		"unknown":      {`, dnssec: on, other_keys: {them: {key: ""}}`, "6:61: unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			f, file, err := withZone(t, c.settings)
			if err == nil || f != nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), file+":6:") {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

// FuzzDNSKEY: whatever is taken for a key is one that the library can put into a message,
// with the same tag.
func FuzzDNSKEY(f *testing.F) {
	for _, text := range []string{otherZSK, otherKSK, offCurve, "256 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=", "demo.test. DNSKEY 256 3 13 x", "DNSKEY", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		k, err := readDNSKEY("demo.test.", text)
		if err != nil {
			return
		}
		rr := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "demo.test.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET},
			Flags: k.Flags, Protocol: 3, Algorithm: k.Algorithm, PublicKey: k.Public}
		if _, err := dns.PackRR(rr, make([]byte, 512), 0, nil, false); err != nil || rr.KeyTag() != k.Tag() {
			t.Errorf("%q: %v, tag %d, want %d", text, err, k.Tag(), rr.KeyTag())
		}
	})
}
