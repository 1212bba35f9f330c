package frame

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"
)

func guest() Guest {
	return Guest{Service: 7, Record: []byte("where it stands"), SndUna: 0xfffffff0, SndNxt: 5, WriteSeq: 9, RcvNxt: 3, Window: [5]uint32{1, 2, 3, 4, 5},
		RTT: 40 * time.Millisecond, MSS: 1448, Scales: 0x77, Options: 7, TSVal: 8, Wall: 1 << 41, Input: 100}
}

func TestGuest(t *testing.T) {
	g := guest()
	b := AppendGuest(nil, g)
	got, err := DecodeGuest(b)
	if err != nil || !reflect.DeepEqual(got, g) {
		t.Fatalf("%+v, %v, want %+v", got, err, g)
	}
	if got.Output() != 25 {
		t.Errorf("output of %d bytes over the wrap, want 25", got.Output())
	}
	for n := range b {
		if _, err := DecodeGuest(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are taken for a guest", n, len(b))
		}
	}
	if _, err := DecodeGuest(append(b, 0)); err == nil {
		t.Error("a byte behind the end is not refused")
	}
}

func TestGuestRefused(t *testing.T) {
	for want, change := range map[string]func(*Guest){
		"out of order": func(g *Guest) { g.SndNxt = g.SndUna - 1 },
		"positions":    func(g *Guest) { g.WriteSeq = g.SndUna + MaxGuestOutput + 1; g.SndNxt = g.SndUna },
		"input":        func(g *Guest) { g.Input = MaxGuestInput + 1 },
		"at most 512":  func(g *Guest) { g.Record = make([]byte, MaxOpaque+1) },
	} {
		g := guest()
		change(&g)
		if _, err := DecodeGuest(AppendGuest(nil, g)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for i, want := range []string{"layout 9", "flags 0x9"} {
		b := AppendGuest(nil, guest())
		b[i] = 9
		if _, err := DecodeGuest(b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzGuest(f *testing.F) {
	f.Add(AppendGuest(nil, guest()))
	f.Add(AppendGuest(nil, Guest{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := DecodeGuest(b)
		if err != nil {
			return
		}
		if !bytes.Equal(AppendGuest(nil, g), b) {
			t.Fatalf("%x is read as %+v and written otherwise", b, g)
		}
	})
}
