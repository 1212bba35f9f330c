package frame

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	key4 = Key{netip.MustParseAddrPort("198.51.100.2:40000"), netip.MustParseAddrPort("192.0.2.10:443")}
	key6 = Key{netip.MustParseAddrPort("[2001:db8:1::2]:40000"), netip.MustParseAddrPort("[2001:db8:100::10]:443")}
)

func record(k Key) Record {
	r := Record{
		Key: k, Epoch: 7, Generation: 3, Flags: Head | Close, Template: 1, Service: 0xdeadbeef,
		Status: 206, Media: 4, Base: 0xffff_fff0, RcvNxt: 99, MSS: 1448, Scales: 0x7a, Options: 7,
		TSVal: 12345678, Wall: 1700000000123, Size: 1 << 40, Start: 10, Length: 1<<40 - 10, Offset: 5 << 32, Date: 1700000000,
	}
	for i := range r.Object {
		r.Object[i] = byte(i)
	}
	return r
}

func offer(k Key) Offer {
	return Offer{Record: record(k), SndUna: 0xffff_ff00, SndNxt: 0x10, WriteSeq: 0x20, RcvNxt: 120,
		Window: [5]uint32{1, 2, 3, 4, 5}, RTT: 40 * time.Millisecond, Name: "/a/b.mp4", Input: []byte("GET /")}
}

func TestRecordRoundTrip(t *testing.T) {
	for k, size := range map[Key]int{key4: 128, key6: 152} {
		b := AppendRecord(nil, record(k))
		if len(b) != size || size > MaxRecord || k == key4 && size > 128 {
			t.Errorf("%s: %d bytes, want %d", k, len(b), size)
		}
		got, err := DecodeRecord(b)
		if err != nil || got != record(k) {
			t.Errorf("%s: %+v, %v", k, got, err)
		}
		for n := range b {
			if _, err := DecodeRecord(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes decode", k, n, len(b))
			}
		}
		if _, err := DecodeRecord(append(b, 0)); err == nil {
			t.Errorf("%s: a trailing byte decodes", k)
		}
	}
}

// TestPieceRoundTrip: what has come of a request follows a record in clear, bounded.
func TestPieceRoundTrip(t *testing.T) {
	for _, piece := range []string{"", "G", "GET / HTTP/1.1\r\n"} {
		b := append(AppendRecord(nil, record(key6)), piece...)
		rec, got, err := DecodePiece(b)
		if err != nil || rec != record(key6) || string(got) != piece {
			t.Errorf("%q: %+v, %q, %v", piece, rec, got, err)
		}
		clear(b)
		if string(got) != piece {
			t.Errorf("%q shares memory", piece)
		}
	}
	upload := record(key4)
	upload.Flags = Upload
	for name, b := range map[string][]byte{
		"cut":              AppendRecord(nil, record(key4))[:127],
		"too long":         append(AppendRecord(nil, record(key4)), make([]byte, MaxInput+1)...),
		"behind an upload": append(AppendRecord(nil, upload), 'x'),
		"over TLS":         append(AppendRecord(nil, covered(key4, 1)), 'x'),
	} {
		if _, _, err := DecodePiece(b); err == nil {
			t.Errorf("%s: decodes", name)
		}
	}
}

func TestRecordRefused(t *testing.T) {
	for name, change := range map[string]func([]byte){
		"layout":        func(b []byte) { b[0] = 9 },
		"family":        func(b []byte) { b[1] = 5 },
		"no family":     func(b []byte) { b[1] = 0 },
		"unknown flags": func(b []byte) { b[2] = 0x80 },
		"range":         func(b []byte) { b[len(b)-24] = 0xff },
	} {
		b := AppendRecord(nil, record(key4))
		change(b)
		if _, err := DecodeRecord(b); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func TestOfferRoundTrip(t *testing.T) {
	for _, k := range []Key{key4, key6} {
		o := offer(k)
		b := AppendOffer(nil, o)
		got, err := DecodeOffer(b)
		if err != nil || !reflect.DeepEqual(got, o) {
			t.Errorf("%s: %+v, %v", k, got, err)
		}
		for n := range b {
			if _, err := DecodeOffer(b[:n]); err == nil {
				t.Errorf("%s: %d of %d bytes decode", k, n, len(b))
			}
		}
	}
	o := offer(key4)
	o.SndUna, o.SndNxt = 10, 5
	if _, err := DecodeOffer(AppendOffer(nil, o)); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("snd_nxt below snd_una: %v", err)
	}
	o = offer(key4)
	o.Input = make([]byte, MaxInput+1)
	if _, err := DecodeOffer(AppendOffer(nil, o)); err == nil {
		t.Error("too much input decoded")
	}
}

func TestFrames(t *testing.T) {
	in := []Frame{
		{Type: Hello, Payload: []byte("ams1")},
		{Type: RecordSet, Seq: 1, Key: key6, Epoch: 2, Generation: 3, Payload: AppendRecord(nil, record(key6))},
		{Type: Ack, Seq: 1},
		{Type: Commit, Key: key4, Epoch: 1 << 60, Generation: 1 << 31},
		{Type: Refused, Key: key4, Payload: []byte("busy")},
	}
	var b []byte
	var err error
	for _, f := range in {
		if b, err = Append(b, f); err != nil {
			t.Fatal(err)
		}
	}
	r := bytes.NewReader(b)
	for _, want := range in {
		got, err := Read(r)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", want.Type, got, err)
		}
	}
	if _, err := Read(r); err == nil {
		t.Error("a frame after the last")
	}
}

func TestFrameRefused(t *testing.T) {
	mapped := Key{netip.MustParseAddrPort("[::ffff:198.51.100.2]:1"), netip.MustParseAddrPort("192.0.2.10:443")}
	for name, f := range map[string]Frame{
		"mapped address": {Type: Pull, Key: mapped},
		"mixed families": {Type: Pull, Key: Key{key4.Client, key6.VIP}},
		"half a key":     {Type: Pull, Key: Key{Client: key4.Client}},
		"too long":       {Type: Hello, Payload: make([]byte, MaxFrame)},
	} {
		if _, err := Append(nil, f); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	good, _ := Append(nil, Frame{Type: Pull, Key: key4})
	for name, change := range map[string]func([]byte){
		"version": func(b []byte) { b[4] = 2 },
		"type 0":  func(b []byte) { b[5] = 0 },
		"type":    func(b []byte) { b[5] = 200 },
		"family":  func(b []byte) { b[6] = 7 },
		"length":  func(b []byte) { b[0] = 0xff },
	} {
		b := bytes.Clone(good)
		change(b)
		if _, err := Read(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
}

func TestWindow(t *testing.T) {
	var w Window
	var r Receipt
	for want := uint64(1); want <= 3; want++ {
		if seq := w.Next(); seq != want || r.Take(seq) != nil {
			t.Fatalf("frame %d numbered %d", want, seq)
		}
	}
	if w.Unacked() != 3 || w.Ack(r.Last()-1) != nil || w.Unacked() != 1 {
		t.Errorf("unacked %d after an acknowledgement of 2 of 3", w.Unacked())
	}
	if w.Ack(1) != nil || w.Unacked() != 1 {
		t.Error("an old acknowledgement counts")
	}
	if w.Ack(4) == nil {
		t.Error("acknowledgement of a frame never sent passes")
	}
	if r.Take(5) == nil || r.Take(3) == nil || r.Last() != 3 {
		t.Error("a gap or a repetition passes")
	}
}

// FuzzDecode: whatever decodes encodes to the same bytes again.
func FuzzDecode(f *testing.F) {
	for _, k := range []Key{key4, key6} {
		b, _ := Append(nil, Frame{Type: OfferSession, Key: k, Payload: AppendOffer(nil, offer(k))})
		f.Add(b[4:])
	}
	f.Add([]byte{Version, byte(Hello), 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Append(nil, fr)
		if len(b) <= MaxFrame && (err != nil || !bytes.Equal(again[4:], b)) {
			t.Fatalf("%x decodes to %+v, which encodes to %x, %v", b, fr, again, err)
		}
		if o, err := DecodeOffer(fr.Payload); err == nil && !bytes.Equal(AppendOffer(nil, o), fr.Payload) {
			t.Fatalf("offer %+v does not encode to %x", o, fr.Payload)
		}
		if rec, err := DecodeRecord(fr.Payload); err == nil && !bytes.Equal(AppendRecord(nil, rec), fr.Payload) {
			t.Fatalf("record %+v does not encode to %x", rec, fr.Payload)
		}
		if rec, piece, err := DecodePiece(fr.Payload); err == nil && !bytes.Equal(append(AppendRecord(nil, rec), piece...), fr.Payload) {
			t.Fatalf("record %+v and %q do not encode to %x", rec, piece, fr.Payload)
		}
	})
}
