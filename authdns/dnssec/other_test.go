package dnssec

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"rhumb/placement"
)

// imported is a key as another provider is given it.
func imported(k *Key, name string, cds bool) placement.OtherKey {
	return placement.OtherKey{Name: name, Flags: k.Public.Flags, Algorithm: k.Public.Algorithm, Public: k.Public.PublicKey, CDS: cds}
}

// TestOtherKeys: RFC 8901 sections 2.1.2, 7 and 8: the apex has the keys of both, the parent is
// asked for those that it is to know, and nothing is signed with what is not ours.
func TestOtherKeys(t *testing.T) {
	ours := []*Key{key(t, P256, true, Times{}), key(t, P256, false, Times{})}
	theirs := []*Key{key(t, P256, true, Times{}), key(t, P256, false, Times{})}
	others := []placement.OtherKey{imported(theirs[0], "ksk", true), imported(theirs[1], "zsk", false)}
	r, err := NewRing("demo.test.", ours, noon, others...)
	if err != nil {
		t.Fatal(err)
	}
	alone, err := NewRing("demo.test.", ours, noon)
	if err != nil {
		t.Fatal(err)
	}
	sets := make(map[uint16][]dns.RR)
	for _, rr := range r.Apex() {
		sets[rr.Header().Rrtype] = append(sets[rr.Header().Rrtype], rr)
	}
	if len(sets[dns.TypeDNSKEY]) != 4 || len(sets[dns.TypeCDS]) != 2 || len(sets[dns.TypeCDNSKEY]) != 2 || len(r.DS(60)) != 2 {
		t.Errorf("apex %v, DS %v", sets, r.DS(60))
	}
	for t16, set := range sets {
		sigs, err := r.Sign(set, TTL)
		if err != nil || len(sigs) != 1 || sigs[0].(*dns.RRSIG).Verify(ours[0].Public, set) != nil {
			t.Errorf("%s: %v, %v", dns.Type(t16), sigs, err)
		}
		for _, rr := range set {
			if h := rr.Header(); h.Ttl != TTL || h.Name != "demo.test." {
				t.Errorf("%v: not of our RRset", rr)
			}
		}
	}
	if ds := r.DS(60)[1]; !dns.IsDuplicate(ds, theirs[0].DS()) {
		t.Errorf("the parent is asked for %v, want %v", ds, theirs[0].DS())
	}
	others[1].CDS = true
	changed, _ := NewRing("demo.test.", ours, noon, others...)
	if ours, others := r.Len(); ours != 2 || others != 2 || r.Same(alone) || alone.Same(r) || r.Same(changed) {
		t.Errorf("%d and %d keys; a change is not seen", ours, others)
	}
}

// TestOtherKeysRefused: RFC 8901 section 4, and what signatures cannot tell apart.
func TestOtherKeysRefused(t *testing.T) {
	waits := key(t, P256, true, Times{Created: past, SyncPublish: past})
	gone := key(t, P256, false, Times{Publish: past, Activate: past, Inactive: past, Delete: noon})
	ours := []*Key{key(t, P256, true, Times{}), key(t, P256, false, Times{}), waits, gone}
	broken := imported(key(t, P256, false, Times{}), "theirs", false)
	broken.Public += "!"
	for name, c := range map[string]struct {
		other placement.OtherKey
		want  string
	}{
		"one of ours":             {imported(ours[1], "theirs", false), "of our own " + ours[1].Name()},
		"one that waits":          {imported(waits, "theirs", false), "of our own " + waits.Name()},
		"one that is gone":        {imported(gone, "theirs", false), ""},
		"algorithm":               {imported(key(t, Ed25519, false, Times{}), "theirs", false), "algorithm 15 (RFC 8901"},
		"no key at all, unlooked": {broken, "message"},
	} {
		r, err := NewRing("demo.test.", ours, noon, c.other)
		var other *OtherError
		if c.want == "" && err == nil {
			continue
		}
		if r != nil || !errors.As(err, &other) || other.Name != "theirs" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestRollsKeepOtherKeys: through both rolls, hour by hour, what others signed is believed
// by our DNSKEY RRset, and the parent is never asked to forget their key. What they are to
// have of ours they can have a whole TTL before it signs.
func TestRollsKeepOtherKeys(t *testing.T) {
	roll := Roll{Spread: 2 * time.Hour, ZoneTTL: 6 * time.Hour, ParentTTL: 4 * time.Hour}
	theirs := []*Key{key(t, P256, true, Times{}), key(t, P256, false, Times{})}
	others := []placement.OtherKey{imported(theirs[0], "ksk", true), imported(theirs[1], "zsk", false)}
	for _, keys := range [][]*Key{{key(t, P256, true, Times{}), key(t, P256, false, Times{})}, {key(t, P256, true, Times{})}} {
		var err error
		csk, first := len(keys) == 1, keys
		exported := make(map[uint16]time.Time) // since when others can have a key
		for hour := range 4 * 24 {
			now := noon.Add(time.Duration(hour) * time.Hour)
			switch {
			case hour == 1 && !csk:
				keys, err = roll.ZSK(keys, now)
			case hour == 24:
				keys, err = roll.KSK(keys, now)
			case hour == 30:
				keys, err = roll.Switch(keys, now)
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := NewRing("demo.test.", keys, HourOf(now), others...)
			if err != nil {
				t.Fatalf("hour %d: %v", hour, err)
			}
			apex := r.Apex()
			for _, want := range []dns.RR{theirs[0].Public, theirs[1].Public, theirs[0].DS().ToCDS(), theirs[0].Public.ToCDNSKEY()} {
				if !holds(apex, want) {
					t.Fatalf("hour %d: no %v at the apex", hour, want)
				}
			}
			for _, rr := range Export(keys, HourOf(now)) {
				if tag := rr.(*dns.DNSKEY).KeyTag(); exported[tag].IsZero() {
					exported[tag] = now
				}
			}
			for _, k := range r.data {
				since := exported[k.Tag()]
				if since.IsZero() || hour > 0 && since.After(noon) && now.Sub(since) < TTL*time.Second {
					t.Fatalf("hour %d: key %d signs, and others could have it since %v", hour, k.Tag(), since)
				}
			}
		}
		if last := Export(keys, noon.AddDate(0, 0, 4)); len(last) != 1 || holds(last, first[len(first)-1].Public) {
			t.Errorf("at the end others are to publish %v", last)
		}
	}
}

func holds(rrs []dns.RR, want dns.RR) bool {
	for _, rr := range rrs {
		if rr.Header().Rrtype == want.Header().Rrtype && dns.IsDuplicate(rr, want) {
			return true
		}
	}
	return false
}
