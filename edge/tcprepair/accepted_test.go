package tcprepair

import (
	"encoding/hex"
	"testing"
)

func TestReadSYN(t *testing.T) {
	for _, tc := range []struct {
		name, packet string
		want         saved
		ok           bool
	}{
		{"IPv4", "4500003c7ab440004006c2057f0000017f000001888c80d3bf18694a00000000a002ffd7fe3000000204ffd70402080a2dbb4233000000000103030a", saved{0xbf18694a, 0xffd7}, true},
		{"IPv4 with options", "4700003c7ab440004006c2057f0000017f0000010101010101010100888c80d3bf18694a000000006002ffd7fe300000020405b4", saved{0xbf18694a, 1460}, true},
		{"IPv6", "6001c721002806400000000000000000000000000000000100000000000000000000000000000001b40484f30c73369500000000a002ffc4003000000204ffc40402080ac824f826000000000103030a", saved{0x0c733695, 0xffc4}, true},
		{"IPv4 without MSS", "4500002800000000400600007f0000017f000001888c80d3000000070000000050020000fe300000", saved{7, mssUntold4}, true},
		{"IPv6 without MSS", "6001c721001406400000000000000000000000000000000100000000000000000000000000000001b40484f30c7336950000000050020000fe300000", saved{0x0c733695, mssUntold6}, true},
		{"extension header", "6001c721001400400000000000000000000000000000000100000000000000000000000000000001b40484f30c7336950000000050020000fe300000", saved{}, false},
		{"no SYN", "4500002800000000400600007f0000017f000001888c80d3000000070000000050100000fe300000", saved{}, false},
		{"cut", "4500002800000000400600007f0000017f000001888c80d30000000700000000a0020000fe300000", saved{}, false},
		{"nothing", "", saved{}, false},
	} {
		b, err := hex.DecodeString(tc.packet)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := readSYN(b); got != tc.want || ok != tc.ok {
			t.Errorf("%s: %+v, %v, want %+v, %v", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}

func FuzzReadSYN(f *testing.F) {
	f.Add([]byte("E\x00\x00<z\xb4@\x00@\x06\xc2\x05\x7f\x00\x00\x01\x7f\x00\x00\x01\x88\x8c\x80\xd3\xbf\x18iJ\x00\x00\x00\x00\x60\x02\xff\xd7\xfe0\x00\x00\x02\x04\xff\xd7"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := readSYN(b); !ok && got != (saved{}) || ok && got.mss == 0 {
			t.Errorf("%x: %+v, %v", b, got, ok)
		}
	})
}
