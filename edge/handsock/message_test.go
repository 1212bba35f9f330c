package handsock

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func key4() Key {
	return Key{Client: netip.MustParseAddrPort("203.0.113.7:50000"), VIP: netip.MustParseAddrPort("192.0.2.10:443")}
}

func key6() Key {
	return Key{Client: netip.MustParseAddrPort("[2001:db8::7]:50000"), VIP: netip.MustParseAddrPort("[2001:db8:100::10]:443")}
}

func messages() []Message {
	return []Message{
		{Type: Ready, Text: "stream"}, {Type: Offer, ID: 1, Key: key4()}, {Type: Offer, ID: 1 << 63, Key: key6(), Record: []byte("record"), Attached: true},
		{Type: Offer, ID: 2, Key: key4(), Record: make([]byte, MaxRecord), Attached: true},
		{Type: Commit, ID: 3}, {Type: Active, ID: 4}, {Type: Abort, ID: 5, Text: "no"}, {Type: Abort, ID: 5, Attached: true},
		{Type: Commit, ID: 6, Text: "ams1 203.0.113.7:50000 192.0.2.10:443 5 3 0102"}, {Type: Again, ID: 6},
	}
}

func TestMessages(t *testing.T) {
	for _, m := range messages() {
		b, err := Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		if m.Type == Offer && m.Record == nil {
			m.Record = got.Record
		}
		if !reflect.DeepEqual(got, m) || len(b) > MaxMessage {
			t.Errorf("%+v (%d octets), want %+v", got, len(b), m)
		}
	}
}

// TestOctets holds the layout that the reference page promises to other languages.
func TestOctets(t *testing.T) {
	b, err := Append(nil, Message{Type: Offer, ID: 0x0102030405060708, Key: key4(), Record: []byte{0xaa}, Attached: true})
	want := []byte{1, 1, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7, 0xc3, 0x50,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10, 0x01, 0xbb, 0xaa}
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("% x, %v\nwant % x", b, err, want)
	}
}

func TestRefusedMessages(t *testing.T) {
	head := func(change func([]byte)) []byte {
		b, _ := Append(nil, Message{Type: Commit, ID: 1})
		change(b)
		return b
	}
	offer := func(n int) []byte {
		b, _ := Append(nil, Message{Type: Offer, Key: key4(), Record: make([]byte, MaxRecord)})
		return append(b, make([]byte, n)...)
	}
	for name, b := range map[string][]byte{
		"empty":                 {},
		"cut short":             {Version, byte(Commit), 0, 0, 0},
		"type 0":                head(func(b []byte) { b[1] = 0 }),
		"type 7":                head(func(b []byte) { b[1] = 7 }),
		"unknown flag":          head(func(b []byte) { b[2] = 2 }),
		"reserved":              head(func(b []byte) { b[3] = 1 }),
		"descriptor in commit":  head(func(b []byte) { b[2] = 1 }),
		"offer without ends":    head(func(b []byte) { b[1] = byte(Offer) }),
		"record too long":       offer(1),
		"text too long":         append(head(func(b []byte) { b[1] = byte(Abort) }), strings.Repeat("x", 256)...),
		"text of no characters": append(head(func(b []byte) { b[1] = byte(Abort) }), 0xff),
	} {
		if m, err := Decode(b); err == nil {
			t.Errorf("%s: taken for %+v", name, m)
		}
	}
	if _, err := Decode(head(func(b []byte) { b[0] = 2 })); !errors.Is(err, ErrVersion) {
		t.Errorf("version 2: %v", err)
	}
	for _, m := range []Message{{Type: Offer}, {Type: Offer, Key: Key{key4().Client, key6().VIP}}, {Type: Abort, Text: strings.Repeat("x", 256)},
		{Type: Offer, Key: key4(), Record: make([]byte, MaxRecord+1)}} {
		if _, err := Append(nil, m); err == nil {
			t.Errorf("%+v is encoded", m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		b, err := Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again, err := Append(nil, m); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("% x is read as %+v and written as % x, %v", b, m, again, err)
		}
	})
}
