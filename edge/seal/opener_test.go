package seal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// openAll feeds wire bytes in pieces and returns the text up to the first error.
func openAll(o *Opener, wire []byte, piece func() int) (text []byte, records int, err error) {
	for {
		n := 0
		if text, n, err = o.Next(text); err != nil {
			return text, records, err
		}
		if n > 0 {
			records++
			continue
		}
		if len(wire) == 0 {
			return text, records, nil
		}
		n = min(piece(), len(wire))
		o.Feed(wire[:n])
		wire = wire[n:]
	}
}

// TestOpenerReadsCryptoTLS: the client's records in any pieces, then its close_notify.
func TestOpenerReadsCryptoTLS(t *testing.T) {
	for _, s := range suites {
		x := newTalk(t, s.suite)
		text := random(100_000)
		wire := x.send(t, false, text, func() int { return 1 + rand.IntN(MaxText) })
		key := x.clientKey
		o, err := NewOpener(&key, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, records, err := openAll(o, wire, func() int { return 1 + rand.IntN(20_000) })
		if !errors.Is(err, CloseNotify) || !errors.As(err, new(Heard)) || !bytes.Equal(got, text) || len(o.Raw()) != 0 {
			t.Fatalf("%s: %d bytes of %d, %d left, %v", s.name, len(got), len(text), len(o.Raw()), err)
		}
		if o.Number() != uint64(records)+1 {
			t.Errorf("%s: number %d behind %d records and the close_notify", s.name, o.Number(), records)
		}
	}
}

// TestOpenerElsewhere: another Opener goes on from number and secret, in the
// middle of a record which the first had not whole.
func TestOpenerElsewhere(t *testing.T) {
	for _, s := range suites {
		x := newTalk(t, s.suite)
		text := random(50_000)
		wire := x.send(t, false, text, func() int { return 1000 })
		for range 20 {
			cut := rand.IntN(len(wire))
			here, there := x.clientKey, x.clientKey
			a, _ := NewOpener(&here, 0)
			got, _, err := openAll(a, wire[:cut], func() int { return 700 })
			if err != nil {
				if errors.Is(err, CloseNotify) {
					continue
				}
				t.Fatal(err)
			}
			b, _ := NewOpener(&there, a.Number())
			b.Feed(a.Raw())
			rest, _, err := openAll(b, wire[cut:], func() int { return 900 })
			if !errors.Is(err, CloseNotify) || !bytes.Equal(append(got, rest...), text) {
				t.Fatalf("%s cut at %d: %d + %d bytes of %d, %v", s.name, cut, len(got), len(rest), len(text), err)
			}
		}
	}
}

// record seals one record of a type as a client would.
func record(t testing.TB, key *Secret, number uint64, typ byte, text []byte) []byte {
	t.Helper()
	s, err := NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text)+Overhead)
	copy(b[headerLen:], text)
	if err := s.seal(b, number, typ); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKeyUpdate: crypto/tls takes our KeyUpdate and what follows under the next
// secret, so our derivation is right; our Opener takes the same.
func TestKeyUpdate(t *testing.T) {
	for _, s := range suites {
		x := newTalk(t, s.suite)
		key := x.clientKey
		wire := record(t, &key, 0, typeData, []byte("before "))
		wire = append(wire, record(t, &key, 1, typeHandshake, []byte{24, 0, 0, 1, 0})...)
		if err := key.update(); err != nil {
			t.Fatal(err)
		}
		wire = append(wire, record(t, &key, 0, typeData, []byte("after"))...)
		wire = append(wire, record(t, &key, 1, typeAlert, CloseNotify.text())...)
		go x.toServer.Write(wire)
		if got, err := io.ReadAll(x.server); err != nil || string(got) != "before after" {
			t.Errorf("%s: crypto/tls reads %q, %v", s.name, got, err)
		}
		first := x.clientKey
		o, _ := NewOpener(&first, 0)
		got, _, err := openAll(o, wire, func() int { return 11 })
		if !errors.Is(err, CloseNotify) || string(got) != "before after" || o.Number() != 2 || first != key {
			t.Errorf("%s: %q, %v, number %d", s.name, got, err, o.Number())
		}
	}
}

// TestOpenerRefuses: each row is what a client may not send.
func TestOpenerRefuses(t *testing.T) {
	key, _ := NewSecret(AES128, random(32))
	sealed := func(number uint64, typ byte, text string) []byte { return record(t, &key, number, typ, []byte(text)) }
	flipped := sealed(0, typeData, "GET / HTTP/1.1")
	flipped[9] ^= 1
	alert := func(b byte) error { return Heard{Alert(b)} }
	for _, tc := range []struct {
		name string
		wire []byte
		want error
	}{
		{"RFC 8446 5.2: a record that does not open", flipped, BadRecordMAC},
		{"RFC 8446 5.3: a record of another number", sealed(1, typeData, "GET"), BadRecordMAC},
		{"RFC 8446 5.2: too long", []byte{23, 3, 3, 0x41, 0x01}, RecordOverflow},
		{"too short to hold a type", []byte{23, 3, 3, 0, 16}, BadRecordMAC},
		{"RFC 8446 5.1: alert in clear", []byte{21, 3, 3, 0, 2, 1, 0}, UnexpectedMessage},
		{"RFC 8446 5: change_cipher_spec after the handshake", []byte{20, 3, 3, 0, 1, 1}, UnexpectedMessage},
		{"no TLS at all", []byte("GET / HTTP/1.1\r\n"), UnexpectedMessage},
		{"RFC 8446 5.4: padding alone", sealed(0, 0, "\x00\x00"), UnexpectedMessage},
		{"RFC 8446 5.1: empty alert", sealed(0, typeAlert, ""), UnexpectedMessage},
		{"alert of three bytes", sealed(0, typeAlert, "\x01\x00\x00"), DecodeError},
		{"close_notify", sealed(0, typeAlert, "\x01\x00"), alert(0)},
		{"fatal alert", sealed(0, typeAlert, "\x02\x28"), alert(40)},
		{"RFC 8446 6.2: the level does not matter", sealed(0, typeAlert, "\x01\x28"), alert(40)},
		{"ClientHello again", sealed(0, typeHandshake, "\x01\x00\x00\x01\x00"), UnexpectedMessage},
		{"RFC 8446 4.6.3: key update that asks for ours", sealed(0, typeHandshake, "\x18\x00\x00\x01\x01"), ErrUpdateRequested},
		{"RFC 8446 4.6.3: key update of another value", sealed(0, typeHandshake, "\x18\x00\x00\x01\x02"), Alert(47)},
		{"RFC 8446 5.1: key update not alone in its record", sealed(0, typeHandshake, "\x18\x00\x00\x01\x00\x18"), UnexpectedMessage},
		{"change_cipher_spec inside a record", sealed(0, typeChangeCipherSpec, "\x01"), UnexpectedMessage},
	} {
		k := key
		o, err := NewOpener(&k, 0)
		if err != nil {
			t.Fatal(err)
		}
		text, _, err := openAll(o, tc.wire, func() int { return 3 })
		if err != tc.want || len(text) != 0 {
			t.Errorf("%s: %q and %v, want %v", tc.name, text, err, tc.want)
		}
	}
}

// TestOpenerPadding: text behind padding of the peer, user_canceled, and empty
// records up to a bound (RFC 8446 sections 5.4 and 6.1).
func TestOpenerPadding(t *testing.T) {
	key, _ := NewSecret(ChaCha20, random(32))
	k := key
	o, _ := NewOpener(&k, 0)
	o.Feed(record(t, &key, 0, 0, []byte("padded\x17\x00\x00\x00")))
	o.Feed(record(t, &key, 1, typeAlert, []byte{1, 90}))
	o.Feed(record(t, &key, 2, typeData, nil))
	text, records, err := openAll(o, nil, nil)
	if err != nil || string(text) != "padded" || records != 3 {
		t.Fatalf("%q, %d records, %v", text, records, err)
	}
	for i := range uint64(maxEmpty) {
		o.Feed(record(t, &key, 3+i, typeData, nil))
	}
	if _, _, err = openAll(o, nil, nil); err != UnexpectedMessage {
		t.Errorf("%d empty records in a row: %v", maxEmpty+1, err)
	}
}

// TestAlert: crypto/tls understands ours.
func TestAlert(t *testing.T) {
	for _, s := range suites {
		x := newTalk(t, s.suite)
		sealer, err := NewSealer(&x.serverKey)
		if err != nil {
			t.Fatal(err)
		}
		b, err := sealer.Alert([]byte(nil), 0, BadRecordMAC)
		if err != nil || len(b) != alertRecord {
			t.Fatal(len(b), err)
		}
		go x.toClient.Write(b)
		if _, err := x.client.Read(make([]byte, 1)); err == nil || err.Error() != "remote error: tls: bad record MAC" {
			t.Errorf("%s: crypto/tls says %v", s.name, err)
		}
	}
}

// TestWipe: nothing of a secret is left where it stood, nor is it of use.
func TestWipe(t *testing.T) {
	key, _ := NewSecret(AES256, random(48))
	s, _ := NewSealer(&key)
	o, _ := NewOpener(&key, 0)
	o.Feed(record(t, &key, 0, typeData, []byte("GET")))
	s.Wipe()
	o.Wipe()
	key.Wipe()
	if key != (Secret{}) || s.half != (half{}) || o.half != (half{}) || o.Raw() != nil {
		t.Errorf("left: %v %v %v", key, s.half, o.half)
	}
	o.Feed(make([]byte, 100))
	if _, _, err := o.Next(nil); err == nil {
		t.Error("a wiped Opener opens")
	}
	if _, err := NewSealer(&key); err == nil {
		t.Error("a wiped secret makes keys")
	}
	if _, err := NewSecret(AES256, random(32)); err == nil {
		t.Error("a secret of the wrong length is taken")
	}
}

// FuzzOpener: whatever arrives in whatever pieces, no panic, no text but what
// was sealed, and no error that is not the peer's fault.
func FuzzOpener(f *testing.F) {
	key, _ := NewSecret(AES128, random(32))
	f.Add(record(f, &key, 0, typeData, []byte("GET / HTTP/1.1\r\n\r\n")), byte(3))
	f.Add(record(f, &key, 0, typeHandshake, []byte{24, 0, 0, 1, 0}), byte(200))
	f.Add([]byte{23, 3, 3, 0, 17}, byte(1))
	f.Fuzz(func(t *testing.T, wire []byte, piece byte) {
		k := key
		o, _ := NewOpener(&k, 0)
		text, records, err := openAll(o, wire, func() int { return int(piece) + 1 })
		if len(text)+records*Overhead > len(wire) || err == nil && len(o.Raw()) > len(wire) {
			t.Errorf("%d bytes of text in %d records off %d bytes, %v", len(text), records, len(wire), err)
		}
	})
}
