package vip

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"
)

// TestMessages: what is written is read; what is changed is refused.
func TestMessages(t *testing.T) {
	key := []byte("key")
	for _, m := range []message{
		{kind: kindAsk, lease: 1, boot: 2, seq: 3},
		{kind: kindGrant, lease: 1 << 63, boot: 1<<64 - 1, seq: 1},
		{kind: kindDeny, lease: 1, boot: 2, seq: 3, left: 179 * time.Millisecond},
		{kind: kindRelease, seq: 9},
	} {
		b := encode(m, 7, key)
		got, sender, err := decode(b, key)
		if err != nil || sender != 7 || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v of 7 was read as %+v of %d, %v", m, got, sender, err)
		}
		if _, _, err := decode(b, []byte("another")); !errors.Is(err, errTag) {
			t.Errorf("with another key: %v, want %v", err, errTag)
		}
		for i := range b {
			b[i] ^= 1
			if _, _, err := decode(b, key); err == nil {
				t.Errorf("%+v with octet %d changed is taken", m, i)
			}
			b[i] ^= 1
		}
		for n := range b {
			if _, _, err := decode(b[:n], key); err == nil {
				t.Errorf("%+v cut to %d octets is taken", m, n)
			}
		}
	}
}

// FuzzDecode: no datagram panics, and what is taken is what was written.
func FuzzDecode(f *testing.F) {
	key := []byte("key")
	f.Add(encode(message{kind: kindAsk, lease: 1, boot: 2, seq: 3}, 7, key))
	f.Add(encode(message{kind: kindDeny, left: time.Second}, 7, key))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// With a right tag the rest is read, too.
		for _, data := range [][]byte{b, append(bytes.Clone(b), tag(b, key)...)} {
			if m, sender, err := decode(data, key); err == nil && !bytes.Equal(encode(m, sender, key), data) {
				t.Errorf("%x was taken for %+v, which is written otherwise", data, m)
			}
		}
	})
}

// TestAnnouncements: the packets, octet by octet.
func TestAnnouncements(t *testing.T) {
	mac := []byte{2, 0, 0, 0, 0, 1}
	for _, tc := range []struct {
		name      string
		got, want []byte
	}{
		{"RFC 5227 3: a request with zero target hardware address", arpPacket(1, mac, addr("192.0.2.10")),
			[]byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10}},
		{"the same as a reply", arpPacket(2, mac, addr("192.0.2.10")),
			[]byte{0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 192, 0, 2, 10, 2, 0, 0, 0, 0, 1, 192, 0, 2, 10}},
		{"RFC 4861 4.4: override, target, and its link-layer address", advertisement(mac, addr("2001:db8::10")),
			[]byte{136, 0, 0, 0, 0x20, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 2, 1, 2, 0, 0, 0, 0, 1}},
	} {
		if !bytes.Equal(tc.got, tc.want) {
			t.Errorf("%s:\n got %x\nwant %x", tc.name, tc.got, tc.want)
		}
	}
}
