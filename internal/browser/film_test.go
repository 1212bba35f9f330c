package browser

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"strings"
	"testing"
)

// boxes are the objects of a file by their path, in order.
func boxes(t *testing.T, path string, b []byte, found map[string][]byte) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 8 {
			t.Fatalf("%s: %d octets behind the last box", path, len(b))
		}
		n, kind := int(binary.BigEndian.Uint32(b)), string(b[4:8])
		if n < 8 || n > len(b) {
			t.Fatalf("%s/%s says %d octets, there are %d", path, kind, n, len(b))
		}
		name := path + "/" + kind
		found[name] = b[8:n]
		if strings.Contains("moov trak mdia minf dinf stbl mvex moof traf", kind) {
			boxes(t, name, b[8:n], found)
		}
		b = b[n:]
	}
}

// TestFilm reads the film as a player does: every second has the same length and names
// its own pictures; each of these is one NAL unit with nothing in it like a start code.
func TestFilm(t *testing.T) {
	f := NewFilm(2)
	var all bytes.Buffer
	if n, err := f.WriteTo(&all); err != nil || n != int64(all.Len()) {
		t.Fatalf("%d of %d octets: %v", n, all.Len(), err)
	}
	head := map[string][]byte{}
	boxes(t, "", f.Head(), head)
	config := head["/moov/trak/mdia/minf/stbl/stsd"]
	if at := bytes.Index(config, []byte("avcC")); at < 0 || !bytes.Equal(config[at+4:at+8], []byte{1, 66, 0xc0, 30}) {
		t.Errorf("the coding is not that of %s: %x", f.Codec(), config)
	}
	length := len(f.Second(0))
	for n := range f.Seconds {
		b := f.Second(n)
		if len(b) != length {
			t.Fatalf("second %d has %d octets, the first %d", n, len(b), length)
		}
		if at := len(f.Head()) + n*length; !bytes.Equal(all.Bytes()[at:at+length], b) {
			t.Fatalf("second %d is not where Layout says", n)
		}
		found := map[string][]byte{}
		boxes(t, "", b, found)
		if got := binary.BigEndian.Uint64(found["/moof/traf/tfdt"][4:]); got != uint64(n*ticks) {
			t.Errorf("second %d begins at %d", n, got)
		}
		run := found["/moof/traf/trun"]
		count, offset := int(binary.BigEndian.Uint32(run[4:])), int(binary.BigEndian.Uint32(run[8:]))
		size := int(binary.BigEndian.Uint32(found["/moof/traf/tfhd"][12:]))
		if count != f.Rate || offset+count*size != len(b) {
			t.Fatalf("second %d: %d pictures of %d octets from %d, of %d octets", n, count, size, offset, len(b))
		}
		for ; offset < len(b); offset += size {
			unit := b[offset+4 : offset+size]
			if int(binary.BigEndian.Uint32(b[offset:])) != len(unit) || unit[0] != 0x65 {
				t.Fatalf("second %d: no picture at %d: %x", n, offset, unit[:8])
			}
			for _, code := range []string{"\x00\x00\x00", "\x00\x00\x01", "\x00\x00\x02", "\x00\x00\x03"} {
				if bytes.Contains(unit, []byte(code)) {
					t.Fatalf("second %d: a picture with %x in it", n, code)
				}
			}
		}
	}
	if bytes.Equal(f.Second(0), f.Second(1)) {
		t.Error("a film in which nothing moves")
	}
	h := fnv.New32a()
	h.Write(all.Bytes()[:500_000])
	if got, err := f.Sum(500_000); err != nil || got != fmt.Sprintf("%08x", h.Sum32()) {
		t.Errorf("sum %s, %v, want %08x", got, err, h.Sum32())
	}
	if want := fmt.Sprintf("?head=%d&second=%d&seconds=2", len(f.Head()), length); f.Layout() != want {
		t.Errorf("layout %s, want %s", f.Layout(), want)
	}
}

// TestGolomb has the codes of H.264 table 9-2.
func TestGolomb(t *testing.T) {
	for v, want := range []string{"1", "010", "011", "00100", "00101", "00110", "00111", "0001000"} {
		w := &bits{}
		w.ue(uint(v))
		got := ""
		for _, b := range w.b {
			got += fmt.Sprintf("%08b", b)
		}
		if got != want+strings.Repeat("0", len(got)-len(want)) {
			t.Errorf("ue(%d) = %s, want %s", v, got, want)
		}
	}
}
