package bfd

import (
	"bytes"
	"testing"
)

// goodPacket is what a router with 300 ms x 3 sends in state Up, by hand:
// RFC 5880 section 4.1.
func goodPacket() []byte {
	return []byte{
		0x20, 0xc0, 3, 24, // version 1, no diagnostic; Up, no flags; multiplier; length
		0, 0, 0, 9, // My Discriminator
		0, 0, 0, 7, // Your Discriminator
		0, 0x04, 0x93, 0xe0, // 300,000 us
		0, 0x04, 0x93, 0xe0,
		0, 0, 0, 0,
	}
}

func TestDecode(t *testing.T) {
	p, why := Decode(goodPacket())
	want := Packet{State: Up, Multiplier: 3, Mine: 9, Yours: 7, MinTx: 300000, MinRx: 300000}
	if why != Accepted || p != want {
		t.Errorf("%v %+v, want %+v", why, p, want)
	}
	var out [packetLen]byte
	if p.Put(out[:]); !bytes.Equal(out[:], goodPacket()) {
		t.Errorf("written as % x", out)
	}
}

func TestDecodeDrops(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want Drop
	}{
		{"as it is", func(b []byte) []byte { return b }, Accepted},
		{"6.8.6 version 0", func(b []byte) []byte { b[0] = 0x00; return b }, DropVersion},
		{"6.8.6 version 2", func(b []byte) []byte { b[0] = 0x40; return b }, DropVersion},
		{"6.8.6 length field below 24", func(b []byte) []byte { b[3] = 23; return b }, DropLength},
		{"6.8.6 length field beyond the payload", func(b []byte) []byte { b[3] = 25; return b }, DropLength},
		{"6.8.6 length field below the payload", func(b []byte) []byte { return append(b, 1, 2, 3) }, Accepted},
		{"6.8.6 shorter than a packet", func(b []byte) []byte { return b[:23] }, DropLength},
		{"nothing at all", func([]byte) []byte { return nil }, DropLength},
		{"6.8.6 multiplier zero", func(b []byte) []byte { b[2] = 0; return b }, DropMultiplier},
		{"6.8.6 multipoint bit", func(b []byte) []byte { b[1] |= flagMultipoint; return b }, DropMultipoint},
		{"6.8.6 My Discriminator zero", func(b []byte) []byte { b[7] = 0; return b }, DropDiscriminator},
		{"6.8.6 Your Discriminator zero, Up", func(b []byte) []byte { b[11] = 0; return b }, DropDiscriminator},
		{"6.8.6 Your Discriminator zero, Init", func(b []byte) []byte { b[11], b[1] = 0, 0x80; return b }, DropDiscriminator},
		{"6.8.6 Your Discriminator zero, Down", func(b []byte) []byte { b[11], b[1] = 0, 0x40; return b }, Accepted},
		{"6.8.6 Your Discriminator zero, AdminDown", func(b []byte) []byte { b[11], b[1] = 0, 0; return b }, Accepted},
		{"6.8.6 authentication not agreed", func(b []byte) []byte { b[1] |= flagAuth; return b }, DropAuth},
	} {
		if _, why := Decode(c.edit(goodPacket())); why != c.want {
			t.Errorf("%s: %v, want %v", c.name, why, c.want)
		}
	}
}

// TestNames: no two states, diagnostics or reasons share a label.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for s := AdminDown; s <= Up; s++ {
		seen[s.String()] = true
	}
	for d := Diag(0); d < 10; d++ {
		seen["diag "+d.String()] = true
	}
	for _, d := range Drops() {
		seen["drop "+d.String()] = true
	}
	if want := 4 + 10 + int(drops) - 1; len(seen) != want || seen["drop ?"] || Drop(200).String() != "?" || State(200).String() == "" {
		t.Errorf("%d names, want %d: %v", len(seen), want, seen)
	}
}

// FuzzDecode: any bytes are read or dropped; what is accepted obeys the rules
// and says the same when it is written again.
func FuzzDecode(f *testing.F) {
	f.Add(goodPacket())
	f.Add(append(goodPacket(), 1, 4, 's', 'e'))
	f.Add([]byte{0x20})
	auth := goodPacket()
	auth[1] |= flagAuth
	f.Add(auth)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, why := Decode(b)
		if why != Accepted {
			return
		}
		if p.Mine == 0 || p.Multiplier == 0 || p.Yours == 0 && p.State > Down {
			t.Fatalf("accepted %+v", p)
		}
		var out [packetLen]byte
		p.Put(out[:])
		again, why := Decode(out[:])
		if why != Accepted || again != p {
			t.Fatalf("%v: %+v, first %+v", why, again, p)
		}
		// Flags which mean nothing to us are the only bits that may differ.
		if b[0] != out[0] || (b[1]^out[1])&^byte(1<<3) != 0 || !bytes.Equal(b[4:packetLen], out[4:]) {
			t.Fatalf("% x written as % x", b[:packetLen], out)
		}
	})
}
