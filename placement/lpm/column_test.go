package lpm

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// A column says of its ranges what was pushed and not taken back, whether pages or
// lower halves begin and end there or not.
func TestColumnTellsWhatWasPushed(t *testing.T) {
	for _, v4 := range []bool{true, false} {
		r := rand.New(rand.NewPCG(3, 4))
		c := makeColumn(1, v4)
		var keys []key
		var words []uint32
		for k := (key{}); len(keys) < 3000; {
			word := uint32(0)
			if r.IntN(4) > 0 {
				word = pack(uint8(r.IntN(129)), uint16(r.Uint32()))
			}
			c.push(k, word)
			keys, words = append(keys, k), append(words, word)
			if c.tail() != k {
				t.Fatalf("v4 %v: tail = %x, want %x", v4, c.tail(), k)
			}
			if r.IntN(3) == 0 && len(keys) > 1 {
				c.pop()
				keys, words = keys[:len(keys)-1], words[:len(words)-1]
			}
			step := []uint8{16, 24, 32}
			if !v4 {
				step = []uint8{16, 31, 32, 48, 64, 65, 128}
			}
			next, ok := k.after(step[r.IntN(len(step))])
			if !ok {
				break
			}
			k = next
		}
		c.fit()
		cur := cursor{column: &c}
		for i, k := range keys {
			if c.at(i) != k || cur.to(i) != k || c.word(i) != words[i] {
				t.Fatalf("v4 %v: range %d: at %x, cursor %x, word %x; want %x %x", v4, i, c.at(i), cur.to(i), c.word(i), k, words[i])
			}
			want := uint32(noMatch)
			if words[i] != 0 {
				want = words[i] & 0xffff
			}
			if got := c.words[i].value(); got != want {
				t.Fatalf("v4 %v: range %d: value %d, want %d", v4, i, got, want)
			}
		}
		if c.len() != len(keys) || c.len() < 500 {
			t.Errorf("v4 %v: len = %d, want %d, and many", v4, c.len(), len(keys))
		}
	}
}

// upTo counts as a walk does, for every list length up to two lines of a cache.
func TestUpTo(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 70 {
		list := make([]uint16, n)
		for i := range list {
			list[i] = uint16(r.IntN(40))
		}
		slices.Sort(list)
		for x := range uint16(41) {
			want := 0
			for _, v := range list {
				if v <= x {
					want++
				}
			}
			if got := upTo(list, x); got != want {
				t.Fatalf("upTo(%v, %d) = %d, want %d", list, x, got, want)
			}
		}
	}
}

// A set of ranks counts its members as a walk does.
func TestRanks(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []int{1, 63, 64, 65, 1000} {
		set, have, members := makeRanks(n), make([]bool, n), []int(nil)
		for i := range have {
			if have[i] = r.IntN(3) == 0; have[i] {
				set.bits[i>>6] |= 1 << (i & 63)
				members = append(members, i)
			}
		}
		if got := set.count(); got != len(members) {
			t.Errorf("%d: count = %d, want %d", n, got, len(members))
		}
		if got := slices.Collect(set.all()); !slices.Equal(got, members) {
			t.Errorf("%d: all = %v, want %v", n, got, members)
		}
		count := 0
		for i := range have {
			if have[i] {
				count++
			}
			if got := set.upTo(i); got != count {
				t.Fatalf("%d: upTo(%d) = %d, want %d", n, i, got, count)
			}
		}
	}
}

// Every depth of the index is reached: a chain of prefixes down to one address,
// with crowds of neighbours.
func TestIndexToTheLastBit(t *testing.T) {
	var entries []Entry
	deep := netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1122:3344")
	for n := range 129 {
		p, _ := deep.Prefix(n)
		entries = append(entries, Entry{p, uint16(n)})
	}
	for i := range 200 { // in the last eight bits
		b := deep.As16()
		b[15] = byte(i)
		entries = append(entries, Entry{netip.PrefixFrom(netip.AddrFrom16(b), 128), uint16(1000 + i)})
	}
	table := mustBuild(t, entries...)
	for i := range 256 {
		b := deep.As16()
		b[15] = byte(i)
		a := netip.AddrFrom16(b)
		v, p, ok := table.Lookup(a)
		if wv, wp, wok := naive(entries).lookup(a); v != wv || p != wp || ok != wok {
			t.Errorf("Lookup(%s) = %d %s, want %d %s", a, v, p, wv, wp)
		}
	}
	for n := range 128 { // the neighbour that leaves the chain at bit n
		b := deep.As16()
		b[n/8] ^= 0x80 >> (n % 8)
		a := netip.AddrFrom16(b)
		v, p, _ := table.Lookup(a)
		if wv, wp, _ := naive(entries).lookup(a); v != wv || p != wp {
			t.Errorf("Lookup(%s) = %d %s, want %d %s", a, v, p, wv, wp)
		}
	}
}
