package forward

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func testSeal(t testing.TB, key byte, from, to string) seal {
	t.Helper()
	s, err := newSeal([32]byte{key}, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealed(s seal, k kind, body string, seq uint64) []byte {
	b := append(make([]byte, headerSize), body...)
	return s.close(b, k, idOf("a"), [4]byte{1, 2, 3, 4}, seq)
}

func TestSealOpens(t *testing.T) {
	s := testSeal(t, 1, "a", "b")
	b := sealed(s, kindPacket, "a packet", 77)
	if len(b) != overhead+len("a packet") || overhead != 32 {
		t.Errorf("%d octets of overhead, want 32", len(b)-len("a packet"))
	}
	h, err := readHead(b)
	if err != nil || h != (head{kind: kindPacket, keyID: s.id, sender: idOf("a"), seq: 77}) {
		t.Fatalf("head %+v, %v", h, err)
	}
	body, err := s.open(b)
	if err != nil || string(body) != "a packet" {
		t.Fatalf("body %q, %v", body, err)
	}
}

// TestSealRefuses changes every octet once: each is under the tag.
func TestSealRefuses(t *testing.T) {
	s := testSeal(t, 1, "a", "b")
	good := sealed(s, kindAsk, "body", 5)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := s.open(bad); !errors.Is(err, errTag) {
			t.Errorf("octet %d changed: %v, want %v", i, err, errTag)
		}
	}
	for name, other := range map[string]seal{
		"other direction": testSeal(t, 1, "b", "a"),
		"other key":       testSeal(t, 2, "a", "b"),
		"other site":      testSeal(t, 1, "a", "c"),
		"shifted names":   testSeal(t, 1, "a\x00b", ""),
	} {
		if _, err := other.open(good); !errors.Is(err, errTag) {
			t.Errorf("%s: %v, want %v", name, err, errTag)
		}
	}
}

func TestReadHeadRefuses(t *testing.T) {
	good := sealed(testSeal(t, 1, "a", "b"), kindGone, "", 5)
	tests := []struct {
		name  string
		at    int
		value byte
		err   error
	}{
		{"version 2", 0, 2<<4 | byte(kindGone), errVersionOrKind},
		{"kind 0", 0, tunnelVersion << 4, errVersionOrKind},
		{"kind after the last", 0, tunnelVersion<<4 | byte(kindEnd), errVersionOrKind},
		{"flags", 1, 1, errVersionOrKind},
		{"no hop", 2, 0, errHops},
		{"two hops", 2, 2, errHops},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bad := bytes.Clone(good)
			bad[test.at] = test.value
			if _, err := readHead(bad); !errors.Is(err, test.err) {
				t.Errorf("%v, want %v", err, test.err)
			}
		})
	}
	if _, err := readHead(good[:overhead-1]); !errors.Is(err, errShort) {
		t.Errorf("cut short: %v", err)
	}
}

// FuzzTunnel holds that only what the seal made is opened, whatever is read.
func FuzzTunnel(f *testing.F) {
	s := testSeal(f, 1, "a", "b")
	f.Add(sealed(s, kindPacket, string(tcpPacket(flow4(1), flagACK, "x")), 1), true)
	f.Add(sealed(s, kindAsk, string(appendSession(nil, session{protoTCP, flow6(2)})), 2), false)
	f.Add(sealed(s, kindAnnounce, "12345678", 3), true)
	f.Fuzz(func(t *testing.T, b []byte, reseal bool) {
		h, err := readHead(b)
		if err != nil {
			return
		}
		if _, err := s.open(b); err == nil && h.keyID != s.id {
			t.Fatal("opened with a foreign key id")
		}
		if !reseal {
			return
		}
		// An honest peer with strange content: the readers behind the tag.
		body := b[headerSize : len(b)-tagSize]
		again := s.close(append(make([]byte, headerSize), body...), h.kind, h.sender, [4]byte{}, h.seq)
		opened, err := s.open(again)
		if err != nil || !bytes.Equal(opened, body) {
			t.Fatalf("sealed and opened: %v", err)
		}
		_, _, _ = readSession(opened)
		var j joiner
		if p, err := j.add(time.Unix(1, 0), opened); err == nil && p != nil && len(p) != len(opened)-partHeader {
			t.Fatalf("one part of %d octets gave %d", len(opened), len(p))
		}
	})
}

// TestWindowAgainstSet compares the ring with a plain set of numbers.
func TestWindowAgainstSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var w window
	seen, top := map[uint64]bool{}, uint64(0)
	at := uint64(1_000_000)
	for step := range 200_000 {
		switch random.IntN(20) {
		case 0:
			at += uint64(random.IntN(3 * windowSize))
		default:
			at++
		}
		seq := at - uint64(random.IntN(windowSize+windowSize/4))
		want := !seen[seq] && (seq > top || top-seq < windowSize)
		if got := w.accept(seq); got != want {
			t.Fatalf("step %d: number %d with top %d: %v, want %v", step, seq, top, got, want)
		}
		seen[seq] = true
		top = max(top, seq)
	}
}

func TestWindowEdges(t *testing.T) {
	var w window
	for _, e := range []struct {
		seq uint64
		ok  bool
	}{{0, false}, {1, true}, {1, false}, {1 << 40, true}, {1, false}, {1<<40 - windowSize, false}, {1<<40 - windowSize + 1, true}, {1<<64 - 1, true}, {1<<64 - 1, false}, {1<<64 - 2, true}} {
		if got := w.accept(e.seq); got != e.ok {
			t.Errorf("number %d: %v, want %v", e.seq, got, e.ok)
		}
	}
}

// FuzzWindow holds that no number is accepted twice.
func FuzzWindow(f *testing.F) {
	f.Add(uint64(1<<40), []byte{1, 0, 255, 7, 7})
	f.Fuzz(func(t *testing.T, start uint64, moves []byte) {
		var w window
		seen := map[uint64]bool{}
		at := start
		for _, m := range moves {
			at += uint64(int64(int8(m)) * int64(m) * 16)
			if w.accept(at) {
				if seen[at] {
					t.Fatalf("number %d accepted twice", at)
				}
				seen[at] = true
			}
		}
	})
}

func TestPartsJoin(t *testing.T) {
	packet := make([]byte, 3000)
	for i := range packet {
		packet[i] = byte(i * 7)
	}
	var bodies [][]byte
	collect := func(b []byte) error { bodies = append(bodies, bytes.Clone(b)); return nil }
	if err := splitParts(9, packet, 1234, collect); err != nil || len(bodies) != 3 {
		t.Fatalf("%d parts, %v; want 3", len(bodies), err)
	}
	now := time.Unix(100, 0)
	for _, order := range [][]int{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}} {
		var j joiner
		for i, part := range order {
			got, err := j.add(now, bodies[part])
			if err != nil || (got != nil) != (i == 2) {
				t.Fatalf("order %v, part %d: %v, %v", order, part, got != nil, err)
			}
			if i == 2 && !bytes.Equal(got, packet) {
				t.Fatalf("order %v: joined wrongly", order)
			}
		}
		if len(j.open) != 0 {
			t.Errorf("order %v: %d packets left behind", order, len(j.open))
		}
	}
	if err := splitParts(9, packet, 100, collect); !errors.Is(err, errPart) {
		t.Errorf("30 parts: %v, want %v", err, errPart)
	}
}

func TestPartsBounds(t *testing.T) {
	now := time.Unix(100, 0)
	part := func(number uint32, index, count byte) []byte {
		return append([]byte{byte(number >> 24), byte(number >> 16), byte(number >> 8), byte(number), index, count}, "abc"...)
	}
	var j joiner
	for name, body := range map[string][]byte{"empty": part(1, 0, 1)[:partHeader], "no parts": part(1, 0, 0), "index": part(1, 2, 2), "too many": part(1, 0, maxParts+1)} {
		if _, err := j.add(now, body); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for n := range uint32(1000) {
		if _, err := j.add(now, part(n, 0, 2)); err != nil {
			t.Fatal(err)
		}
	}
	if len(j.open) > maxPartial+1 {
		t.Errorf("%d incomplete packets are kept, want at most %d", len(j.open), maxPartial+1)
	}
	if got, _ := j.add(now.Add(partLife), part(999, 1, 2)); got != nil {
		t.Error("a part was joined with one from 100 ms ago")
	}
	if _, err := j.add(now, part(5000, 0, 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := j.add(now, part(5000, 0, 2)); !errors.Is(err, errPart) {
		t.Errorf("the same part twice: %v", err)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{52, 1400} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			s := testSeal(b, 1, "a", "b")
			buf := make([]byte, headerSize+size, headerSize+size+tagSize)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				s.close(buf, kindPacket, siteID{}, [4]byte{}, 1)
			}
		})
	}
}
