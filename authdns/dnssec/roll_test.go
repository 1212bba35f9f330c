package dnssec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// caches is what resolvers may hold at an instant of a roll: every DS set, DNSKEY set
// and set of signing keys, by when it was served last.
type caches struct {
	ds, keys, signers served
}

type served map[string]seen

type seen struct {
	last time.Time
	tags []uint16
}

func (s served) note(now time.Time, tags []uint16) { s[fmt.Sprint(tags)] = seen{now, tags} }

// recent are those which a cache may hold still.
func (s served) recent(now time.Time, ttl time.Duration) (out []seen) {
	for _, v := range s {
		if now.Sub(v.last) <= ttl {
			out = append(out, v)
		}
	}
	return out
}

func tagsOf(keys []*Key) (out []uint16) {
	for _, k := range keys {
		out = append(out, k.Tag())
	}
	return out
}

// believable tells whether a validator with any mixture of what may be cached believes
// the zone: some DS names a key of the DNSKEY RRset that signs it, and every
// signature is by a key of that RRset.
func (c *caches) believable(now time.Time, dsTTL, zoneTTL time.Duration) bool {
	for _, ds := range c.ds.recent(now, dsTTL) {
		for _, keys := range c.keys.recent(now, TTL*time.Second) {
			apex, published := keys.tags[:1], keys.tags[1:]
			if !slices.ContainsFunc(ds.tags, func(t uint16) bool { return slices.Contains(apex, t) }) {
				return false
			}
			for _, s := range c.signers.recent(now, zoneTTL) {
				if !slices.ContainsFunc(s.tags, func(t uint16) bool { return slices.Contains(published, t) }) {
					return false
				}
			}
		}
	}
	return true
}

// TestRollsWithoutGap: both rolls, minute by minute, with nodes that get their files
// late and a parent that takes its time: at every instant whatever caches may hold
// together is believed.
func TestRollsWithoutGap(t *testing.T) {
	roll := Roll{Spread: 2 * time.Hour, ZoneTTL: 6 * time.Hour, ParentTTL: 4 * time.Hour}
	for _, tt := range []struct {
		name       string
		csk, hasty bool
	}{
		{"as planned", false, false}, {"with no patience", false, true},
		{"one key for all", true, false}, {"one key for all, with no patience", true, true},
	} {
		name, hasty, r := tt.name, tt.hasty, roll
		if hasty {
			r = Roll{}
		}
		keys := []*Key{key(t, P256, true, Times{}), key(t, P256, false, Times{})}
		if tt.csk {
			keys = keys[:1]
		}
		first := tagsOf(keys)
		old, fileAt := keys, noon
		parent := []uint16{keys[0].Tag()}
		c := caches{served{}, served{}, served{}}
		gap := time.Time{}
		change := func(next []*Key, err error, now time.Time) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			old, keys, fileAt = keys, next, now
		}
		for minute := range 4 * 24 * 60 {
			now := noon.Add(time.Duration(minute) * time.Minute)
			switch {
			case minute == 60 && !tt.csk:
				next, err := r.ZSK(keys, now)
				change(next, err, now)
			case minute == 24*60:
				next, err := r.KSK(keys, now)
				change(next, err, now)
			case minute == 30*60: // the parent has read CDS
				ring, _ := NewRing("demo.test.", keys, now)
				parent = tagsOf(ring.synced)
				next, err := r.Switch(keys, now)
				change(next, err, now)
			case minute > 48*60 && minute%60 == 0:
				ring, err := NewRing("demo.test.", keys, HourOf(now))
				if err == nil && len(ring.synced) > 0 {
					parent = tagsOf(ring.synced)
				}
			}
			c.ds.note(now, parent)
			for _, node := range [][]*Key{keys, old} { // one node has the new files an hour late
				if now.Sub(fileAt) >= time.Hour {
					node = keys
				}
				ring, err := NewRing("demo.test.", node, HourOf(now))
				if err != nil {
					t.Fatalf("%s, minute %d: %v", name, minute, err)
				}
				c.keys.note(now, append([]uint16{ring.apex[0].Tag()}, tagsOf(ring.published)...))
				c.signers.note(now, tagsOf(ring.data))
			}
			if gap.IsZero() && !c.believable(now, roll.ParentTTL, roll.ZoneTTL) {
				gap = now
			}
		}
		if hasty == gap.IsZero() {
			t.Errorf("%s: first gap %v", name, gap)
		}
		ring, err := NewRing("demo.test.", keys, noon.AddDate(0, 0, 4))
		if err != nil || len(ring.published) != len(first) || slices.ContainsFunc(tagsOf(ring.published), func(tag uint16) bool { return slices.Contains(first, tag) }) ||
			len(ring.synced) != 1 || len(parent) != 1 || parent[0] != ring.synced[0].Tag() {
			t.Errorf("%s: at the end %v, DS %v, %v", name, tags(ring.published), parent, err)
		}
	}
}

// TestRollsRefused: no roll begins while another is on its way.
func TestRollsRefused(t *testing.T) {
	r := Roll{Spread: time.Hour, ZoneTTL: time.Hour, ParentTTL: time.Hour}
	keys := []*Key{key(t, P256, true, Times{}), key(t, P256, false, Times{})}
	zsk, err1 := r.ZSK(keys, noon)
	ksk, err2 := r.KSK(keys, noon)
	done, err3 := r.Switch(ksk, noon)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	refused := func(what, want string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	_, err := r.ZSK(zsk, noon.Add(time.Minute))
	refused("a second ZSK", "", err)
	_, err = r.KSK(ksk, noon.Add(time.Minute))
	refused("a second KSK", "waits for its DS", err)
	_, err = r.KSK(done, noon.Add(time.Minute))
	refused("a KSK while one is on its way", "", err)
	_, err = r.Switch(keys, noon)
	refused("a switch of nothing", "no key waits", err)
	_, err = r.ZSK(keys[:1], noon)
	refused("a ZSK where a CSK signs", "no key of this kind", err)
	if Waiting(ksk) == nil || Waiting(done) != nil || dns.IsDuplicate(Waiting(ksk).Public, keys[0].Public) {
		t.Error("which key waits")
	}
}
