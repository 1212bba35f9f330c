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
