package detect

import "testing"

func TestSealOpen(t *testing.T) {
	key, other := [32]byte{1}, [32]byte{2}
	in := Beat{Kind: KindVotes, Node: 7, Incarnation: 8, Seq: 9, Interval: 300 * ms, Load: 10, Plan: 11, Body: []byte("votes")}
	data, err := in.Seal(nil, &key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Open(data, other, key)
	if err != nil || string(out.Body) != "votes" || out.Seq != 9 || out.Interval != 300*ms || out.Node != 7 {
		t.Errorf("opened %+v, %v", out, err)
	}
	if _, err := Open(data, other); err != ErrTag {
		t.Errorf("wrong key: %v, want ErrTag", err)
	}
	for i := range data {
		bad := append([]byte(nil), data...)
		bad[i] ^= 1
		if _, err := Open(bad, key); err == nil {
			t.Errorf("a flipped bit in byte %d was not seen", i)
		}
	}
	if n := len(data) - len(in.Body); n != 32 {
		t.Errorf("header and tag take %d bytes, want 32", n)
	}
}

// TestMarks: the numbers of each kind rise, and an incarnation starts them over.
func TestMarks(t *testing.T) {
	var m Marks
	for _, c := range []struct {
		name             string
		kind             Kind
		inc, seq         uint32
		fresh, restarted bool
	}{
		{"first", KindBeat, 5, 10, true, false}, {"same again", KindBeat, 5, 10, false, false}, {"older", KindBeat, 5, 9, false, false},
		{"votes are counted apart", KindVotes, 5, 1, true, false}, {"their copy", KindVotes, 5, 1, false, false},
		{"lower incarnation", KindBeat, 4, 99, false, false}, {"newer", KindBeat, 5, 11, true, false},
		{"goodbye of before", KindLeave, 5, 10, false, false}, {"goodbye in the slot of a beat", KindLeave, 5, 11, true, false},
		{"new incarnation", KindBeat, 6, 1, true, true}, {"goodbye of the last one", KindLeave, 5, 12, false, false},
	} {
		fresh, restarted := m.Take(&Beat{Kind: c.kind, Incarnation: c.inc, Seq: c.seq})
		if fresh != c.fresh || restarted != c.restarted {
			t.Errorf("%s: fresh %v, restarted %v", c.name, fresh, restarted)
		}
	}
}

// TestSealLimits: what does not fit is refused, what fits is opened with either
// key of a roll-over, and nothing too short, of another version or kind is read.
func TestSealLimits(t *testing.T) {
	key := [32]byte{1}
	big := Beat{Kind: KindVotes, Body: make([]byte, MaxDatagram-32)}
	data, err := big.Seal([]byte("before"), &key)
	if err != nil || len(data) != len("before")+MaxDatagram {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if b, err := Open(data[len("before"):], [32]byte{2}, key); err != nil || len(b.Body) != len(big.Body) {
		t.Errorf("%d bytes of body, %v", len(b.Body), err)
	}
	big.Body = append(big.Body, 0)
	if _, err := big.Seal(nil, &key); err == nil {
		t.Error("a datagram above the limit was sealed")
	}
	strange, _ := (&Beat{Kind: 77}).Seal(nil, &key)
	other, _ := (&Beat{Kind: KindBeat}).Seal(nil, &key)
	other[0] = 2
	for want, data := range map[error][]byte{ErrShort: make([]byte, 31), ErrKind: strange, ErrVersion: other} {
		if _, err := Open(data, key); err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := Open(strange); err != ErrTag {
		t.Errorf("without a key: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	key := [32]byte{1}
	seed, _ := (&Beat{Kind: KindBeat, Node: 1}).Seal(nil, &key)
	f.Add(seed)
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Open(data, key)
		if err != nil {
			return
		}
		again, err := b.Seal(nil, &key)
		if err != nil || len(again) != len(data) && len(data) <= MaxDatagram {
			t.Errorf("does not seal again: %v", err)
		}
	})
}
