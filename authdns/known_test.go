package authdns

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// TestKnown: who asks over minutes, and mostly for what exists, is known.
func TestKnown(t *testing.T) {
	t0 := testClock().UnixNano()
	const minute = int64(time.Minute)
	type asked struct{ minutes, each, absent int }
	for _, c := range []struct {
		name  string
		asked []asked
		later int64 // after the last
		want  bool
	}{
		{"nobody", nil, 0, false},
		{"once", []asked{{1, 1, 0}}, 0, false},
		{"very often in a minute", []asked{{1, 5000, 0}}, 0, false},
		{"in two minutes", []asked{{2, 100, 0}}, 0, false},
		{"in three", []asked{{3, 1, 0}}, 0, true},
		{"a day later", []asked{{3, 10, 0}}, 24 * 60 * minute, true},
		{"two days later", []asked{{3, 10, 0}}, 48 * 60 * minute, false},
		{"forty days later", []asked{{3, 10, 0}}, 40 * 24 * 60 * minute, false},
		{"half of it does not exist", []asked{{3, 10, 5}}, 0, true},
		{"most of it does not exist", []asked{{3, 10, 6}}, 0, false},
		{"turned bad", []asked{{30, 20, 1}, {60, 20, 19}}, 0, false},
		{"turned good", []asked{{30, 20, 19}, {60, 20, 1}}, 0, true},
		{"a clock set back by an hour", []asked{{5, 20, 1}}, -60 * minute, true},
	} {
		k, now := newKnown(), t0
		for _, a := range c.asked {
			for range a.minutes {
				for i := range a.each {
					k.see(netip.MustParseAddr(euResolver), i < a.absent, now)
				}
				now += minute
			}
		}
		now += c.later - minute
		for addr, want := range map[string]bool{euResolver: c.want, "198.51.100.200": c.want, "198.51.101.5": false, euResolverV6: false} {
			if got := k.has(netip.MustParseAddr(addr), now); got != want {
				t.Errorf("%s: %s is known: %t, want %t", c.name, addr, got, want)
			}
		}
		if n := k.count(now); n == 1 != c.want {
			t.Errorf("%s: %d networks are known", c.name, n)
		}
	}
}

// TestKnownStay: a flood with made-up sources washes out nobody who is known, and who
// comes after it finds room.
func TestKnownStay(t *testing.T) {
	k, now := newKnown(), testClock().UnixNano()
	resolvers := make([]netip.Addr, 2000)
	for i := range resolvers {
		resolvers[i] = netip.AddrFrom4([4]byte{198, byte(18 + i>>8), byte(i), 1})
	}
	for range 3 {
		for _, a := range resolvers {
			k.see(a, false, now)
		}
		now += int64(time.Minute)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 300_000 {
		n := r.Uint32()
		k.see(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), false, now)
	}
	left := 0
	for _, a := range resolvers {
		if k.has(a, now) {
			left++
		}
	}
	if left < 1999 { // two of one tag in one set are one to us
		t.Errorf("%d of 2000 are known after the flood", left)
	}
	found := 0
	for i := range 100 {
		a := netip.AddrFrom4([4]byte{203, 0, byte(i), 1})
		for m := range int64(3) {
			k.see(a, false, now+m*int64(time.Minute))
		}
		if k.has(a, now+2*int64(time.Minute)) {
			found++
		}
	}
	if found < 95 {
		t.Errorf("%d of 100 newcomers found room", found)
	}
}

// TestHeat: the name which is asked for too many that do not exist is found, and no other.
func TestHeat(t *testing.T) {
	h, now := newHeat(1000), testClock().UnixNano()
	attacked, calm := wireName("attacked.demo.test."), wireName("calm.demo.test.")
	first := -1
	for i := range 2000 { // a second
		now += int64(time.Millisecond) / 2
		if h.add(attacked, now) && first < 0 {
			first = i
		}
		if i%20 == 0 && h.add(calm, now) {
			t.Fatalf("100 a second below calm.demo.test. are too many, at %d", i)
		}
		if i%20 == 10 {
			for j := range 5 { // names that push on each other
				h.add(wireName(string(rune('a'+j))+".demo.test."), now)
			}
		}
	}
	if first < 50 || first > 200 {
		t.Errorf("2000 a second are too many after %d", first)
	}
	if name, asked := h.worst(); name != string(attacked) || asked != 2000 || h.total != 2000+100+500 {
		t.Errorf("worst is %q with %d of %d", name, asked, h.total)
	}
	if now += int64(time.Second); h.add(attacked, now) {
		t.Error("still too many a second later")
	}
	h.reset()
	if name, asked := h.worst(); name != "" || asked != 0 {
		t.Errorf("after a reset: %q %d", name, asked)
	}
}
