package netlab

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"
)

func TestPcapFormat(t *testing.T) {
	var b bytes.Buffer
	if err := writePcapHeader(&b); err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b.Bytes()), "4d3cb2a1020004000000000000000000"+"00080000"+"01000000"; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	b.Reset()
	at := time.Unix(0x01020304, 0x05)
	if err := writePcapFrame(&b, at, []byte{0xaa, 0xbb}); err != nil {
		t.Fatal(err)
	}
	if got, want := hex.EncodeToString(b.Bytes()), "04030201"+"05000000"+"02000000"+"02000000"+"aabb"; got != want {
		t.Errorf("frame %s, want %s", got, want)
	}
	b.Reset()
	if err := writePcapFrame(&b, at, make([]byte, snapLength+1)); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(b.Bytes()[8:16]); got != "00080000"+"01080000" || b.Len() != 16+snapLength {
		t.Errorf("long frame: lengths %s, %d bytes", got, b.Len())
	}
}
