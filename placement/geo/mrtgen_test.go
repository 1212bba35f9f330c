package geo

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

// mrtWriter writes MRT as a collector does.
type mrtWriter struct {
	out io.Writer
	seq uint32
}

// record writes one record of any type.
func (w *mrtWriter) record(kind, subtype uint16, body []byte) {
	b := binary.BigEndian.AppendUint32(nil, 1_700_000_000)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, subtype)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	_, _ = w.out.Write(append(b, body...))
}

// peers writes a PEER_INDEX_TABLE of n peers which take turns in the four forms of
// a peer (RFC 6396, 4.3.1).
func (w *mrtWriter) peers(n int) {
	b := append([]byte{198, 51, 100, 1}, 0, 4, 'v', 'i', 'e', 'w')
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	for i := range n {
		kind := byte(i % 4)
		b = append(b, kind, 198, 51, 100, byte(i))
		if kind&1 != 0 {
			a := netip.MustParseAddr("2001:db8::1").As16()
			b = append(b, a[:]...)
		} else {
			b = append(b, 198, 51, 100, byte(i))
		}
		if kind&2 != 0 {
			b = append(b, 0, 0)
		}
		b = binary.BigEndian.AppendUint16(b, 64500)
	}
	w.record(mrtTableDumpV2, ribPeers, b)
}

// entry is what one peer says of a prefix.
type entry struct {
	peer  uint16
	attrs []byte
}

// route writes a RIB record; the subtype says family and Add-Path.
func (w *mrtWriter) route(subtype uint16, prefix string, entries ...entry) {
	w.rib(subtype, netip.MustParsePrefix(prefix), entries...)
}

func (w *mrtWriter) rib(subtype uint16, p netip.Prefix, entries ...entry) {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 128), w.seq)
	w.seq++
	b = append(b, byte(p.Bits()))
	b = append(b, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(entries)))
	for i, e := range entries {
		b = binary.BigEndian.AppendUint16(b, e.peer)
		b = binary.BigEndian.AppendUint32(b, 1_690_000_000)
		if subtype >= ribIPv4AddPath {
			b = binary.BigEndian.AppendUint32(b, uint32(i))
		}
		b = binary.BigEndian.AppendUint16(b, uint16(len(e.attrs)))
		b = append(b, e.attrs...)
	}
	w.record(mrtTableDumpV2, subtype, b)
}

// path makes the attributes of an entry whose AS path is one sequence.
func path(list ...uint32) []byte { return pathOf(segment(segmentSequence, list...)) }

// pathOf puts segments between an ORIGIN and a MED.
func pathOf(segments ...[]byte) []byte {
	all := bytes.Join(segments, nil)
	b := []byte{0x40, 1, 1, 0, 0x40, attrASPath, byte(len(all))}
	b = append(b, all...)
	return append(b, 0x80, 4, 4, 0, 0, 0, 9)
}

func segment(kind byte, list ...uint32) []byte {
	b := []byte{kind, byte(len(list))}
	for _, as := range list {
		b = binary.BigEndian.AppendUint32(b, as)
	}
	return b
}

// written gives what do writes behind an index of four peers.
func written(do func(w *mrtWriter)) []byte {
	var b bytes.Buffer
	w := &mrtWriter{out: &b}
	w.peers(4)
	do(w)
	return b.Bytes()
}

// generate writes a table of n routes, four fifths of them IPv4, with sets
// different attribute sets, in address order: lengths and nesting as in the
// Internet's, private AS numbers (RFC 6996).
func generate(out io.Writer, n, sets int) {
	bw := bufio.NewWriterSize(out, 1<<16)
	w := &mrtWriter{out: bw}
	w.peers(2)
	r := rand.New(rand.NewPCG(1, 2))
	add := func(subtype uint16, p netip.Prefix) {
		w.rib(subtype, p, entry{uint16(r.IntN(2)), attributeSet(r.IntN(sets))})
	}
	v4 := n * 4 / 5
	room := uint64(0xd000_0000) / uint64(v4) // addresses from 16.0.0.0 on for each
	for i := 0; i < v4; i++ {
		at := point{hi: (0x1000_0000 + uint64(i)*room) << 32}
		outer := at.prefix(20+r.IntN(5), true)
		add(ribIPv4, outer)
		if outer.Bits() < 23 && i+1 < v4 && r.IntN(2) == 0 { // a customer inside
			i++
			add(ribIPv4, point{hi: at.masked(outer.Bits()).hi | 1<<41}.prefix(23, true))
		}
	}
	for i := range n - v4 { // in 2a00::/12 and 2400::/12, a /32 or /48 each
		at := point{hi: 0x2400<<48 + uint64(i)<<32}
		if i > (n-v4)/2 {
			at.hi = 0x2a00<<48 + uint64(i)<<32
		}
		add(ribIPv6, at.prefix(32+16*r.IntN(2), false))
	}
	_ = bw.Flush()
}

// attributeSet is the i-th set: ORIGIN, a path of three to seven ASes, next hop,
// MED and communities, some 60 octets as in real tables.
func attributeSet(i int) []byte {
	r := rand.New(rand.NewPCG(3, uint64(i)))
	list := make([]uint32, 3+r.IntN(5))
	for k := range list {
		list[k] = 4_200_000_000 + r.Uint32N(1000)
	}
	list[len(list)-1] = 4_200_001_000 + uint32(i)/2
	b := append(path(list...), 0x40, 3, 4, 198, 51, 100, 1)
	b = append(b, 0xc0, 8, 16)
	for range 4 {
		b = binary.BigEndian.AppendUint32(b, r.Uint32())
	}
	return b
}

// generated writes such a table into a file.
func generated(t testing.TB, n, sets int) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rib.mrt")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	generate(f, n, sets)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}
