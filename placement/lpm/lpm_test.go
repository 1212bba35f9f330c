package lpm

import (
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func entry(prefix string, value uint16) Entry {
	return Entry{netip.MustParsePrefix(prefix), value}
}

func mustBuild(t testing.TB, entries ...Entry) *Table {
	t.Helper()
	table, err := Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestLookup(t *testing.T) {
	table := mustBuild(t,
		entry("192.0.2.0/24", 1), entry("192.0.2.128/25", 2), entry("192.0.2.255/32", 3),
		entry("::ffff:198.51.100.0/120", 4), entry("203.0.113.77/24", 5),
		entry("2001:db8::/32", 6), entry("2001:db8::1/128", 7), entry("255.255.255.255/32", 8))
	for _, c := range []struct {
		name, addr string
		value      uint16
		match      string
	}{
		{"outer", "192.0.2.1", 1, "192.0.2.0/24"},
		{"inner", "192.0.2.128", 2, "192.0.2.128/25"},
		{"host", "192.0.2.255", 3, "192.0.2.255/32"},
		{"just outside", "192.0.3.0", 0, ""},
		{"mapped address (RFC 4291 2.5.5.2)", "::ffff:192.0.2.1", 1, "192.0.2.0/24"},
		{"mapped prefix (RFC 4291 2.5.5.2)", "198.51.100.9", 4, "198.51.100.0/24"},
		{"host bits in the entry", "203.0.113.1", 5, "203.0.113.0/24"},
		{"v6", "2001:db8::2", 6, "2001:db8::/32"},
		{"v6 host", "2001:db8::1", 7, "2001:db8::1/128"},
		{"v6 with zone", "2001:db8::1%eth0", 7, "2001:db8::1/128"},
		{"last address", "255.255.255.255", 8, "255.255.255.255/32"},
		{"v6 miss", "2001:db9::", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, p, ok := table.Lookup(netip.MustParseAddr(c.addr))
			if ok != (c.match != "") || v != c.value || ok && p.String() != c.match {
				t.Errorf("Lookup(%s) = %d %s %v, want %d %s", c.addr, v, p, ok, c.value, c.match)
			}
		})
	}
	if _, _, ok := table.Lookup(netip.Addr{}); ok {
		t.Error("the zero Addr matched")
	}
}

func TestBuildRefusesInvalidPrefix(t *testing.T) {
	_, err := Build([]Entry{entry("192.0.2.0/24", 1), {}})
	if err == nil || !strings.Contains(err.Error(), "entry 1") {
		t.Errorf("err = %v, want one that names entry 1", err)
	}
}

func TestLastDuplicateWins(t *testing.T) {
	table := mustBuild(t, entry("192.0.2.0/24", 1), entry("0.0.0.0/0", 9), entry("192.0.2.7/24", 2))
	if v, _, _ := table.Lookup(netip.MustParseAddr("192.0.2.1")); v != 2 || table.Len() != 2 {
		t.Errorf("value %d of %d entries, want 2 of 2", v, table.Len())
	}
}

func TestAllInAddressOrder(t *testing.T) {
	table := mustBuild(t, entry("2001:db8::/32", 1), entry("192.0.2.0/25", 2), entry("::/0", 3), entry("192.0.2.0/24", 4))
	var got []string
	for p := range table.All() {
		got = append(got, p.String())
	}
	want := []string{"192.0.2.0/24", "192.0.2.0/25", "::/0", "2001:db8::/32"}
	if !slices.Equal(got, want) {
		t.Errorf("All = %v, want %v", got, want)
	}
	for range table.All() {
		break // a consumer that stops must not be called again
	}
}

// The constant pins the canonical form: nodes of two versions compare digests.
func TestDigest(t *testing.T) {
	a := mustBuild(t, entry("192.0.2.0/24", 1), entry("2001:db8::/32", 0x1234))
	b := mustBuild(t, entry("2001:db8::/32", 0x1234), entry("192.0.2.9/24", 7), entry("192.0.2.0/24", 1))
	d := a.Digest()
	if d != b.Digest() {
		t.Error("equal content, different digests")
	}
	const want = "5514367e71d7293d6c573b7a3aa643d580f73c9e17d1405ed7e0caa4960e01a8"
	if got := hex.EncodeToString(d[:]); got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if d == mustBuild(t, entry("192.0.2.0/24", 2), entry("2001:db8::/32", 0x1234)).Digest() {
		t.Error("different values, equal digests")
	}
}

func TestBlock(t *testing.T) {
	table := mustBuild(t,
		entry("192.0.2.0/25", 0), entry("192.0.2.128/25", 1), entry("192.0.3.0/24", 1),
		entry("198.51.0.0/16", 2), entry("203.0.113.0/24", 2), entry("2001:db8::/32", 2))
	blocks := table.Fold([]uint32{10, 10, SplitBase}, 11)
	for _, c := range []struct{ name, addr, want string }{
		{"neighbours with one label merge", "192.0.2.1", "192.0.2.0/23"},
		{"mapped address (RFC 4291 2.5.5.2)", "::ffff:192.0.3.1", "192.0.2.0/23"},
		{"no match", "10.0.0.1", "0.0.0.0/1"},
		{"split label is cut", "198.51.100.7", "198.51.96.0/20"},
		{"split label smaller than the cut", "203.0.113.7", "203.0.113.0/24"},
		{"split v6", "2001:db8:1234::", "2001:db8:1200::/40"},
		{"v6 no match", "4000::", "4000::/2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := blocks.Block(netip.MustParseAddr(c.addr)).String(); got != c.want {
				t.Errorf("Block(%s) = %s, want %s", c.addr, got, c.want)
			}
		})
	}
	if p := blocks.Block(netip.Addr{}); p.IsValid() {
		t.Errorf("Block of the zero Addr = %s", p)
	}
}

// A uniform space is one block of each family, or the hashed unit if split.
func TestBlockOfUniformSpace(t *testing.T) {
	table := mustBuild(t)
	for _, c := range []struct {
		none   uint32
		v4, v6 string
	}{{1, "0.0.0.0/0", "::/0"}, {SplitBase, "192.0.0.0/20", "2001:db8::/40"}} {
		b := table.Fold(nil, c.none)
		v4, v6 := b.Block(netip.MustParseAddr("192.0.2.1")), b.Block(netip.MustParseAddr("2001:db8::1"))
		if v4.String() != c.v4 || v6.String() != c.v6 {
			t.Errorf("label %x: %s and %s, want %s and %s", c.none, v4, v6, c.v4, c.v6)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	entries, probes := largeTable(5_000)
	table := mustBuild(t, entries...)
	blocks := table.Fold(make([]uint32, 100), 1)
	i := 0
	if n := testing.AllocsPerRun(1000, func() {
		table.Lookup(probes[i%len(probes)])
		blocks.Block(probes[i%len(probes)])
		i++
	}); n != 0 {
		t.Errorf("%v allocations a look-up, want 0", n)
	}
}

// FuzzTable holds tables made of arbitrary bytes against the naive oracle.
func FuzzTable(f *testing.F) {
	f.Add([]byte{4, 24, 192, 0, 2, 0, 4, 25, 192, 0, 2, 128, 6, 32, 0x20, 1, 0x0d, 0xb8})
	f.Add([]byte{4, 32, 255, 255, 255, 255, 4, 0, 0, 0, 0, 0, 6, 128, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		var entries []Entry
		for ; len(data) >= 6 && len(entries) < 40; data = data[6:] {
			a := netip.AddrFrom4([4]byte(data[2:6]))
			if data[0]%2 == 0 && data[0] != 4 {
				b := [16]byte{0: data[2], 1: data[3], 7: data[4], 15: data[5]}
				a = netip.AddrFrom16(b)
			}
			p, _ := a.Unmap().Prefix(int(data[1]) % (a.Unmap().BitLen() + 1))
			entries = append(entries, Entry{p, uint16(data[0] % 5)})
		}
		table := mustBuild(t, entries...)
		assertAll(t, table, entries)
		label := []uint32{1, 2, SplitBase}
		blocks, edges := table.Fold(label, 1), naive(entries).edges()
		for _, a := range edges {
			v, p, ok := table.Lookup(a)
			if wv, wp, wok := naive(entries).lookup(a); v != wv || p != wp || ok != wok {
				t.Fatalf("Lookup(%s) = %d %s %v, want %d %s %v", a, v, p, ok, wv, wp, wok)
			}
			if got, want := blocks.Block(a), naive(entries).block(a, edges, label, 1); got != want {
				t.Fatalf("Block(%s) = %s, want %s", a, got, want)
			}
		}
	})
}
