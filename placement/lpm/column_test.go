package lpm

import (
	"math/big"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func (k key) big() *big.Int {
	b := new(big.Int).SetUint64(k.hi)
	return b.Lsh(b, 64).Or(b, new(big.Int).SetUint64(k.lo))
}

// someKey has long runs of equal bits, so that carries and borrows travel far.
func someKey(r *rand.Rand) key {
	half := func() uint64 {
		return []uint64{0, 1, 1 << 63, ^uint64(0), ^uint64(0) << r.IntN(64), r.Uint64()}[r.IntN(6)]
	}
	return key{half(), half()}
}

// The arithmetic on halves agrees with numbers of any size.
func TestKeyArithmetic(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	one, space := big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 128)
	for range 20_000 {
		k, o, n := someKey(r), someKey(r), uint8(r.IntN(129))
		size := new(big.Int).Lsh(one, uint(128-n))
		sum := new(big.Int).Add(k.big(), size)
		next, ok := k.after(n)
		if n > 0 && (ok != (sum.Cmp(space) < 0) || next.big().Cmp(sum.Mod(sum, space)) != 0) {
			t.Fatalf("%x.after(%d) = %x %v", k, n, next, ok)
		}
		if k != (key{}) && k.prev().big().Cmp(new(big.Int).Sub(k.big(), one)) != 0 {
			t.Fatalf("%x.prev() = %x", k, k.prev())
		}
		if k.less(o) != (k.big().Cmp(o.big()) < 0) {
			t.Fatalf("%x.less(%x) = %v", k, o, k.less(o))
		}
		diff := new(big.Int).Xor(k.big(), o.big())
		if k.common(o) != 128-diff.BitLen() {
			t.Fatalf("%x.common(%x) = %d", k, o, k.common(o))
		}
		up := new(big.Int).Add(k.big(), new(big.Int).Sub(size, one))
		up.Sub(up, new(big.Int).Mod(up, size)).Mod(up, space)
		if k.roundUp(n).big().Cmp(up) != 0 {
			t.Fatalf("%x.roundUp(%d) = %x, want %x", k, n, k.roundUp(n), up)
		}
	}
}

func TestKeyBlock(t *testing.T) {
	for _, want := range []string{
		"0.0.0.0/0", "192.0.2.0/24", "255.255.255.255/32", "::/0", "2001:db8::/32",
		"2001:db8:0:1::/64", "2001:db8:0:1:8000::/65", "2001:db8::1/128",
	} {
		p := netip.MustParsePrefix(want)
		k, v4 := keyOf(lastOf(p))
		if got := k.block(v4, uint8(p.Bits())); got != p {
			t.Errorf("block of the last address of %s = %s", want, got)
		}
		first, _ := keyOf(p.Addr())
		if !k.inside(first, uint8(p.Bits())) {
			t.Errorf("the last address of %s is not inside", want)
		}
	}
}

// A column without lower halves grows them when the first one comes, and keeps
// what it had.
func TestColumnGrowsLowerHalves(t *testing.T) {
	c := makeColumn(1)
	c.push(key{1, 0}, 1)
	c.push(key{2, 0}, 2)
	if c.lo != nil {
		t.Fatal("lower halves before any was needed")
	}
	c.push(key{2, 5}, 3)
	c.push(key{3, 0}, 4)
	c.pop()
	for i, want := range []key{{1, 0}, {2, 0}, {2, 5}} {
		if c.at(i) != want || c.word[i] != uint32(i+1) {
			t.Errorf("at(%d) = %x %d, want %x", i, c.at(i), c.word[i], want)
		}
	}
	if c.len() != 3 {
		t.Errorf("len = %d, want 3", c.len())
	}
}

// Every depth of the index is reached: a chain of prefixes down to one address,
// with crowds of neighbours that need nodes of their own.
func TestIndexToTheLastBit(t *testing.T) {
	var entries []Entry
	deep := netip.MustParseAddr("2001:db8:1234:5678:9abc:def0:1122:3344")
	for n := range 129 {
		p, _ := deep.Prefix(n)
		entries = append(entries, Entry{p, uint16(n)})
	}
	for i := range 200 { // more than are scanned, in the last eight bits
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
