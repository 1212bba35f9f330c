package lpm

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// largeTable is shaped like a routing table: lengths /10 to /24 with a tail of
// longer ones, IPv6 from /20 to /64 inside the blocks the registries allot, three
// IPv4 entries to two of IPv6. The probes are uniform over the entries.
func largeTable(n int) (entries []Entry, probes []netip.Addr) {
	r := rand.New(rand.NewPCG(5, 6))
	entries = make([]Entry, n)
	for i := range entries {
		a := largeAddr(r, i%5 < 3)
		low, spread := 10, 15
		if a.Is6() {
			low, spread = 20, 29
		}
		bits := low + spread - 1 - int(float64(spread)*r.Float64()*r.Float64())
		if r.IntN(20) == 0 {
			bits = min(a.BitLen(), bits+8)
		}
		p, _ := a.Prefix(bits)
		entries[i] = Entry{p, uint16(r.IntN(250))}
	}
	for range 1 << 16 {
		p := entries[r.IntN(n)].Prefix
		b := p.Addr().AsSlice()
		b[len(b)-1] = byte(r.Uint32())
		a, _ := netip.AddrFromSlice(b)
		probes = append(probes, a)
	}
	return entries, probes
}

func largeAddr(r *rand.Rand, v4 bool) netip.Addr {
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], r.Uint32N(0xe000_0000))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	heads := []uint16{0x2001, 0x2400, 0x2401, 0x2600, 0x2607, 0x2804, 0x2a00, 0x2a02, 0x2a0e}
	binary.BigEndian.PutUint64(b[:], r.Uint64())
	binary.BigEndian.PutUint16(b[:], heads[r.IntN(len(heads))])
	return netip.AddrFrom16(b)
}

// pick keeps the probes of one family, at most n of them.
func pick(probes []netip.Addr, v4 bool, n int) []netip.Addr {
	var list []netip.Addr
	for _, a := range probes {
		if a.Is4() == v4 && len(list) < n {
			list = append(list, a)
		}
	}
	return list
}

func benchLookups(b *testing.B, do func(t *Table, bl *Blocks, a netip.Addr)) {
	entries, probes := largeTable(400_000)
	table := mustBuild(b, entries...)
	blocks := table.Fold(make([]uint32, 250), 1)
	for _, c := range []struct {
		name string
		v4   bool
		n    int
	}{{"v4/hot", true, 4096}, {"v4/wide", true, 1 << 15}, {"v6/hot", false, 4096}, {"v6/wide", false, 1 << 14}} {
		b.Run(c.name, func(b *testing.B) {
			list := pick(probes, c.v4, c.n)
			mask := 1
			for mask*2 <= len(list) {
				mask *= 2
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				do(table, blocks, list[i&(mask-1)])
				i++
			}
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	benchLookups(b, func(t *Table, _ *Blocks, a netip.Addr) { t.Lookup(a) })
}

func BenchmarkBlock(b *testing.B) {
	benchLookups(b, func(_ *Table, bl *Blocks, a netip.Addr) { bl.Block(a) })
}

func BenchmarkFold400k(b *testing.B) {
	entries, _ := largeTable(400_000)
	table := mustBuild(b, entries...)
	label := make([]uint32, 250)
	for i := range label {
		label[i] = uint32(i / 8)
	}
	b.ReportAllocs()
	for b.Loop() {
		table.Fold(label, 99)
	}
}

func BenchmarkBuild(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"400k", 400_000}, {"1M", 1_000_000}} {
		entries, _ := largeTable(c.n)
		b.Run(c.name+"/shuffled", func(b *testing.B) { benchBuild(b, entries) })
		var sorted []Entry
		for p, v := range mustBuild(b, entries...).All() {
			sorted = append(sorted, Entry{p, v})
		}
		b.Run(c.name+"/sorted", func(b *testing.B) { benchBuild(b, sorted) })
	}
}

func benchBuild(b *testing.B, entries []Entry) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Build(entries); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest400k(b *testing.B) {
	entries, _ := largeTable(400_000)
	table := mustBuild(b, entries...)
	for b.Loop() {
		table.Digest()
	}
}
