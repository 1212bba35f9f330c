package rpki

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func vrp(prefix string, maxLength uint8, asn uint32) VRP {
	return VRP{Prefix: netip.MustParsePrefix(prefix), MaxLength: maxLength, ASN: asn}
}

func TestJudge(t *testing.T) {
	table := NewTable([]VRP{
		vrp("192.0.2.0/24", 24, 64500), vrp("198.51.100.0/24", 25, 64501), vrp("198.51.100.0/24", 24, 64500),
		vrp("203.0.113.0/24", 24, 0), vrp("2001:db8::/32", 48, 64500), vrp("2001:db8:1::/48", 48, 64501),
	}, time.Time{})
	tests := []struct {
		name  string
		route string
		asn   uint32
		want  State
	}{
		{"RFC 6811 2: nothing covers it", "192.0.3.0/24", 64500, NotFound},
		{"RFC 6811 2: a less specific route is not covered", "192.0.2.0/23", 64500, NotFound},
		{"RFC 6811 2: it matches", "192.0.2.0/24", 64500, Valid},
		{"RFC 6811 2: another AS", "192.0.2.0/24", 64501, Invalid},
		{"RFC 6811 2: longer than max length", "192.0.2.0/25", 64500, Invalid},
		{"RFC 6811 2: within max length", "198.51.100.128/25", 64501, Valid},
		{"RFC 6811 2: one of several matches", "198.51.100.0/24", 64500, Valid},
		{"RFC 6811 2: the other's max length is not lent", "198.51.100.0/25", 64500, Invalid},
		{"RFC 6483 4: AS 0 lets nobody", "203.0.113.0/24", 64500, Invalid},
		{"RFC 7607 2: nor AS 0 itself", "203.0.113.0/24", 0, Invalid},
		{"IPv6, the shorter one matches", "2001:db8:1::/48", 64500, Valid},
		{"IPv6, too long for both", "2001:db8:1::/49", 64501, Invalid},
		{"host bits do not matter", "192.0.2.77/24", 64500, Valid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, covering := table.Judge(netip.MustParsePrefix(tt.route), tt.asn); got != tt.want {
				t.Errorf("%v by %v, want %v", got, covering, tt.want)
			}
		})
	}
}

// TestJudgeOracle compares the search with a look at every VRP.
func TestJudgeOracle(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func() VRP {
		bits := 18 + rnd.IntN(10)
		a := netip.AddrFrom4([4]byte{192, byte(rnd.IntN(8)), byte(rnd.IntN(256)), 0})
		return VRP{netip.PrefixFrom(a, bits).Masked(), uint8(bits + rnd.IntN(33-bits)), uint32(64500 + rnd.IntN(3))}
	}
	var list []VRP
	for range 60 {
		list = append(list, random())
	}
	table := NewTable(list, time.Time{})
	seen := map[State]int{}
	for range 20000 {
		r := random()
		want := NotFound
		for _, v := range list {
			if v.Prefix.Bits() > r.Prefix.Bits() || !v.Prefix.Contains(r.Prefix.Addr()) {
				continue
			}
			if v.ASN == r.ASN && int(v.MaxLength) >= r.Prefix.Bits() {
				want = Valid
				break
			}
			want = Invalid
		}
		got, _ := table.Judge(r.Prefix, r.ASN)
		if seen[got]++; got != want {
			t.Fatalf("%v: %v, want %v", r, got, want)
		}
	}
	if seen[Valid] < 100 || seen[Invalid] < 100 || seen[NotFound] < 100 {
		t.Errorf("the sample is lopsided: %v", seen)
	}
}

func TestNewTableLeavesOutWhatCannotBe(t *testing.T) {
	table := NewTable([]VRP{{}, vrp("192.0.2.0/24", 23, 1), {netip.MustParsePrefix("192.0.2.1/24"), 24, 1},
		vrp("192.0.2.0/24", 33, 1), vrp("192.0.2.0/24", 24, 1), vrp("192.0.2.0/24", 24, 1)}, time.Time{})
	if table.Len() != 1 {
		t.Errorf("%d VRPs, want 1: %v", table.Len(), table.vrps)
	}
}
