package lpm

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/gaissmai/bart"
)

// naive is the oracle: a list searched from end to end.
type naive []Entry

func (n naive) lookup(a netip.Addr) (value uint16, match netip.Prefix, ok bool) {
	a, best := a.Unmap().WithZone(""), -1
	for _, e := range n {
		if p := e.Prefix.Masked(); p.Contains(a) && p.Bits() >= best {
			value, match, best, ok = e.Value, p, p.Bits(), true
		}
	}
	return value, match, ok
}

func (n naive) label(a netip.Addr, label []uint32, none uint32) uint32 {
	if v, _, ok := n.lookup(a); ok && int(v) < len(label) {
		return label[v]
	}
	return none
}

// block is Blocks.Block by trial: the shortest block around a whose addresses
// have one label. Labels change only at edges of prefixes, so one probe per edge
// inside the block decides.
func (n naive) block(a netip.Addr, edges []netip.Addr, label []uint32, none uint32) netip.Prefix {
	a = a.Unmap()
	want := n.label(a, label, none)
	least := 0
	if want >= SplitBase {
		least = splitBits6
		if a.Is4() {
			least = splitBits4
		}
	}
	for bits := least; ; bits++ {
		p, _ := a.Prefix(bits)
		uniform := n.label(p.Addr(), label, none) == want && !slices.ContainsFunc(edges, func(e netip.Addr) bool {
			return p.Contains(e) && n.label(e, label, none) != want
		})
		if uniform {
			return p
		}
	}
}

// edges are the first addresses of all prefixes and those just behind them.
func (n naive) edges() []netip.Addr {
	var list []netip.Addr
	for _, e := range n {
		p := e.Prefix.Masked()
		list = append(list, p.Addr())
		if next := lastOf(p).Next(); next.IsValid() {
			list = append(list, next)
		}
	}
	return list
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// randomEntries makes crowded tables: few distinct leading bytes, all lengths,
// so that prefixes nest, touch and repeat.
func randomEntries(r *rand.Rand, n int) []Entry {
	list := make([]Entry, n)
	for i := range list {
		a := randomAddr(r)
		p, _ := a.Prefix(r.IntN(a.BitLen() + 1))
		list[i] = Entry{p, uint16(r.IntN(6))}
	}
	return list
}

// randomAddr draws each byte from a small set that holds both ends of the range.
func randomAddr(r *rand.Rand) netip.Addr {
	set := []byte{0, 1, 0x20, 0x3f, 0x7f, 0x80, 0xff}
	b := make([]byte, 4)
	if r.IntN(2) == 0 {
		b = make([]byte, 16)
	}
	for i := range b {
		b[i] = set[r.IntN(len(set))]
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func TestLookupAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		entries := randomEntries(r, 1+r.IntN(150))
		table, err := Build(entries)
		if err != nil {
			t.Fatal(err)
		}
		assertAll(t, table, entries)
		probes := naive(entries).edges()
		for range 300 {
			probes = append(probes, randomAddr(r))
		}
		for _, a := range probes {
			v, p, ok := table.Lookup(a)
			wv, wp, wok := naive(entries).lookup(a)
			if v != wv || p != wp || ok != wok {
				t.Fatalf("round %d: Lookup(%s) = %d %s %v, want %d %s %v", round, a, v, p, ok, wv, wp, wok)
			}
		}
	}
}

// assertAll fails unless All yields the distinct entries in order, with the last
// value given for each.
func assertAll(t *testing.T, table *Table, entries []Entry) {
	t.Helper()
	last := map[netip.Prefix]uint16{}
	for _, e := range entries {
		last[e.Prefix.Masked()] = e.Value
	}
	want := slices.SortedFunc(maps.Keys(last), func(p, q netip.Prefix) int {
		return cmp.Or(p.Addr().Compare(q.Addr()), cmp.Compare(p.Bits(), q.Bits()))
	})
	i := 0
	for p, v := range table.All() {
		if i == len(want) || p != want[i] || v != last[p] {
			t.Fatalf("All yields %s %d at place %d of %v; entries %v", p, v, i, want, entries)
		}
		i++
	}
	if i != len(want) || table.Len() != len(want) {
		t.Fatalf("All yields %d, Len says %d, want %d", i, table.Len(), len(want))
	}
}

func TestLookupAgainstBart(t *testing.T) {
	entries, probes := largeTable(30_000)
	table, err := Build(entries)
	if err != nil {
		t.Fatal(err)
	}
	var other bart.Table[uint16]
	for _, e := range entries {
		other.Insert(e.Prefix, e.Value)
	}
	if table.Len() != other.Size() {
		t.Fatalf("Len = %d, want %d", table.Len(), other.Size())
	}
	for _, a := range probes {
		v, p, ok := table.Lookup(a)
		n, _ := a.Prefix(a.BitLen())
		wp, wv, wok := other.LookupPrefixLPM(n)
		if v != wv || p != wp || ok != wok {
			t.Fatalf("Lookup(%s) = %d %s %v, want %d %s %v", a, v, p, ok, wv, wp, wok)
		}
	}
}

func TestBlockAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 25 {
		entries := randomEntries(r, 1+r.IntN(60))
		table, err := Build(entries)
		if err != nil {
			t.Fatal(err)
		}
		label, none := randomLabels(r)
		blocks, edges := table.Fold(label, none), naive(entries).edges()
		var seen []netip.Prefix
		for _, a := range append(edges, randomAddr(r), randomAddr(r), randomAddr(r)) {
			got, want := blocks.Block(a), naive(entries).block(a, edges, label, none)
			if got != want {
				t.Fatalf("round %d: Block(%s) = %s, want %s; entries %v labels %x none %x", round, a, got, want, entries, label, none)
			}
			v, p, ok := table.Lookup(a)
			if bv, bp, block, bok := blocks.Lookup(a); bv != v || bp != p || bok != ok || block != got {
				t.Fatalf("round %d: Lookup(%s) = %d %s %s %v, want %d %s %s %v", round, a, bv, bp, block, bok, v, p, got, ok)
			}
			seen = append(seen, got)
		}
		assertPartition(t, seen)
	}
}

// randomLabels gives few colours, so that neighbours merge, and some that split.
// It is shorter than the values drawn, so that some entries have no label.
func randomLabels(r *rand.Rand) (label []uint32, none uint32) {
	colours := []uint32{0, 7, SplitBase, SplitBase + 1}
	for range 5 {
		label = append(label, colours[r.IntN(len(colours))])
	}
	return label, colours[r.IntN(len(colours))]
}

// assertPartition fails if two blocks overlap without being the same.
func assertPartition(t *testing.T, blocks []netip.Prefix) {
	t.Helper()
	for i, p := range blocks {
		for _, q := range blocks[:i] {
			if p != q && p.Overlaps(q) {
				t.Fatalf("blocks %s and %s overlap", p, q)
			}
		}
	}
}
