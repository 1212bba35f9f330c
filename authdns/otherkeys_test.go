package authdns

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/authdns/dnssec"
	"rhumb/placement"
)

// otherKeys are keys as another provider has them.
func otherKeys(t *testing.T, csk bool) (out []placement.OtherKey) {
	t.Helper()
	for _, k := range keysOf(t, "demo.test.", csk) {
		out = append(out, placement.OtherKey{Name: k.Name(), Flags: k.Public.Flags, Algorithm: k.Public.Algorithm, Public: k.Public.PublicKey, CDS: k.SEP()})
	}
	return out
}

// TestOtherProviders: RFC 8901 section 2.1.2: keys of another provider stand in the apex
// RRsets beside ours, signed by ours, and stay through a change of ours; they come and go
// by the inventory alone. Ones that cannot stand there change nothing, and are told.
func TestOtherProviders(t *testing.T) {
	const text = "@ SOA ns b 1 2 3 4 60\n@ NS ns\nns A 192.0.2.1\n"
	ours := keysOf(t, "demo.test.", false)
	src := signedSource("demo.test.", ours, text)
	src.Zone.SHA256 = "one"
	now := signedAt
	s := loadedBy(t, func() time.Time { return now }, 0, src)
	look := func(step string, keys []*dnssec.Key, others []placement.OtherKey) {
		t.Helper()
		st := s.current.Load()
		for question, want := range map[string]int{"demo.test. DNSKEY": len(keys) + len(others), "demo.test. CDS": 1 + b2i(len(others) > 0), "demo.test. CDNSKEY": 1 + b2i(len(others) > 0)} {
			m := st.reply(t, ask(t, question, do), from(euResolver, top))
			if why := bogus(st.top["demo.test."], m, now); why != "" || len(m.Answer) != want+1 { // and the signature
				t.Errorf("%s: %s: %s, want %d records\n%s", step, question, why, want, m)
			}
			for _, rr := range m.Answer {
				if sig, ok := rr.(*dns.RRSIG); ok && sig.KeyTag != keys[0].Tag() {
					t.Errorf("%s: %s is signed by %d", step, question, sig.KeyTag)
				}
			}
			for _, o := range others {
				if question == "demo.test. DNSKEY" && !strings.Contains(m.String(), o.Public) {
					t.Errorf("%s: no key %s", step, o.Name)
				}
			}
		}
		if got := gauge(t, s, "rhumb_dnssec_other_keys"); got != float64(len(others)) {
			t.Errorf("%s: metric says %v", step, got)
		}
	}
	set := func(step string, keys []*dnssec.Key, others []placement.OtherKey, want string) {
		t.Helper()
		src.Keys, src.Zone.OtherKeys = keys, others
		errs := s.SetZones([]Source{src})
		if (want == "") != (errs == nil) || errs != nil && !strings.Contains(errs[0].Error(), want) {
			t.Errorf("%s: %v, want %q", step, errs, want)
		}
	}
	theirs := otherKeys(t, false)
	look("alone", ours, nil)
	set("theirs come, the file stays", ours, theirs, "")
	look("theirs come", ours, theirs)
	set("an algorithm of theirs", ours, append(theirs[:2:2], otherKeys(t, true)...), "no key of ours signs with its algorithm 15 (RFC 8901 section 4)")
	look("an algorithm of theirs", ours, theirs)
	now = now.AddDate(0, 0, 10)
	s.turn()
	look("signed anew, after more than a signature's life", ours, theirs)
	mine := placement.OtherKey{Name: "mine", Flags: ours[1].Public.Flags, Algorithm: ours[1].Public.Algorithm, Public: ours[1].Public.PublicKey}
	set("a key of ours", ours, append(theirs[:2:2], mine), "key mine of another provider: has the tag")
	look("a key of ours", ours, theirs)
	next := keysOf(t, "demo.test.", false)
	set("ours change", next, theirs, "")
	look("ours change", next, theirs)
	set("theirs go", next, nil, "")
	look("theirs go", next, nil)
}

// TestOtherProvidersTrusted: a parent of ours vouches for the keys of both providers.
func TestOtherProvidersTrusted(t *testing.T) {
	src := signedSources(t)
	theirs := keysOf(t, "cdn.demo.test.", true)[0]
	src[1].Zone.OtherKeys = []placement.OtherKey{{Name: "theirs", Flags: theirs.Public.Flags, Algorithm: theirs.Public.Algorithm, Public: theirs.Public.PublicKey, CDS: true}}
	s := loadedBy(t, at(signedAt), 0, src...)
	st := compile(self, s.zones, fleet(t, plan{}), nil)
	m := st.reply(t, ask(t, "cdn.demo.test. DS", do), from(euResolver, top))
	if why := bogus(st.top["demo.test."], m, signedAt); why != "" || len(m.Answer) != 3 || !strings.Contains(m.String(), strings.ToUpper(theirs.DS().Digest)) {
		t.Errorf("%s\n%s", why, m)
	}
}
