package seal

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// inPieces yields a text as an object does: never more than up to the next block.
func inPieces(text []byte, block int) Source {
	return func(off int64) ([]byte, error) {
		end := min((int(off)/block+1)*block, len(text))
		return text[off:end], nil
	}
}

// wireOf reads a whole stream from an offset on.
func wireOf(s *Stream, off int64) ([]byte, error) {
	var out []byte
	for {
		b, err := s.At(off + int64(len(out)))
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, b...)
	}
}

func newStream(t testing.TB, key *Secret, first uint64, text []byte, bye bool) *Stream {
	t.Helper()
	s, err := NewSealer(key)
	if err != nil {
		t.Fatal(err)
	}
	st, err := NewStream(s, first, int64(len(text)), inPieces(text, 10_000), bye, &Buffers{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestStreamIsWhatCryptoTLSSends: for the same secret and text, every byte from
// every offset, close_notify too (RFC 8446 sections 5 and 7.3).
func TestStreamIsWhatCryptoTLSSends(t *testing.T) {
	for _, s := range suites {
		for _, n := range []int{1, Size - 1, Size, Size + 1, 5*Size + 77, 40*Size + 3} {
			x := newTalk(t, s.suite)
			text := random(n)
			want := x.send(t, true, text, func() int { return Size })
			st := newStream(t, &x.serverKey, 0, text, true)
			if st.Len() != int64(len(want)) {
				t.Fatalf("%s, %d bytes: %d on the wire, crypto/tls sends %d", s.name, n, st.Len(), len(want))
			}
			for i := range 60 {
				off := rand.Int64N(st.Len() + 1)
				if i == 0 {
					off = 0
				}
				got, err := wireOf(st, off)
				if err != nil || !bytes.Equal(got, want[off:]) {
					t.Fatalf("%s, %d bytes at %d: %d bytes differ from crypto/tls's %d, %v", s.name, n, off, len(got), len(want[off:]), err)
				}
			}
		}
	}
}

// TestStreamsFollowEachOther: the next response begins at the next number.
func TestStreamsFollowEachOther(t *testing.T) {
	for _, s := range suites {
		x := newTalk(t, s.suite)
		a, b := random(2*Size+5), random(77)
		sizes := []int{Size, Size, 5, 77}
		want := x.send(t, true, append(bytes.Clone(a), b...), func() int { n := sizes[0]; sizes = sizes[1:]; return n })
		one := newStream(t, &x.serverKey, 0, a, false)
		two := newStream(t, &x.serverKey, one.Next(), b, true)
		first, err := wireOf(one, 0)
		second, err2 := wireOf(two, 0)
		if err != nil || err2 != nil || !bytes.Equal(append(first, second...), want) {
			t.Errorf("%s: two streams differ from crypto/tls's one: %v %v", s.name, err, err2)
		}
	}
}

// TestStreamBeyond32Bits: offsets do not wrap where sequence numbers do. The
// oracle seals the one record by hand.
func TestStreamBeyond32Bits(t *testing.T) {
	const size = 5 << 30
	zero := make([]byte, 1<<20)
	source := func(off int64) ([]byte, error) { // the text of a record says where it is
		b := bytes.Clone(zero[:min(Size-off%Size, size-off)])
		b[0] = byte(off / Size)
		return b, nil
	}
	key, err := NewSecret(AES128, random(32))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := NewSealer(&key)
	st, err := NewStream(s, 3, size, source, false, &Buffers{})
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{1<<31 - 1, 1<<32 - recordLen, 1<<32 - 1, 1 << 32, 1<<32 + 1, st.Len() - 1} {
		i := off / recordLen
		text, _ := source(i * Size)
		want := make([]byte, len(text)+Overhead)
		copy(want[headerLen:], text)
		if err := s.seal(want, 3+uint64(i), typeData); err != nil {
			t.Fatal(err)
		}
		got, err := st.At(off)
		if want = want[off%recordLen:]; err != nil || !bytes.HasPrefix(got, want) {
			t.Errorf("at %d: %d bytes differ from record %d, %v", off, len(got), i, err)
		}
	}
	if _, err := st.At(st.Len()); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
}

// TestStreamLimit: no number is used beyond what the suite bears (RFC 8446
// section 5.5), and none wraps.
func TestStreamLimit(t *testing.T) {
	for _, s := range suites {
		key, _ := NewSecret(s.ours, random(s.ours.SecretLen()))
		sealer, err := NewSealer(&key)
		if err != nil {
			t.Fatal(err)
		}
		limit := s.ours.Limit()
		for _, tc := range []struct {
			first uint64
			text  int64
			bye   bool
			ok    bool
		}{
			{limit - 2, 2 * Size, false, true}, {limit - 2, 2 * Size, true, false}, {limit - 1, 2 * Size, false, false},
			{1<<64 - 1, 2 * Size, false, false}, {0, 1<<63 - 1, false, false}, {0, -1, false, false},
		} {
			if _, err := NewStream(sealer, tc.first, tc.text, nil, tc.bye, &Buffers{}); (err == nil) != tc.ok {
				t.Errorf("%s: %d bytes from record %d: %v", s.name, tc.text, tc.first, err)
			}
		}
		if _, err := sealer.Alert(nil, limit, CloseNotify); err == nil {
			t.Errorf("%s: record %d was sealed", s.name, limit)
		}
	}
}

// TestStreamOfBrokenText: what cannot be read is not sealed, and what was whole
// before it is.
func TestStreamOfBrokenText(t *testing.T) {
	text, broken := random(6*Size), errors.New("broken")
	key, _ := NewSecret(AES256, random(48))
	s, _ := NewSealer(&key)
	good := newStream(t, &key, 0, text, false)
	want, _ := wireOf(good, 0)
	st, err := NewStream(s, 0, int64(len(text)), func(off int64) ([]byte, error) {
		if off >= 3*Size-1 {
			return nil, broken
		}
		return text[off : off+1], nil
	}, false, &Buffers{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := wireOf(st, 100)
	if !errors.Is(err, broken) || !bytes.Equal(got, want[100:2*recordLen]) {
		t.Errorf("%d bytes and %v, want the two whole records before the break", len(got), err)
	}
	s.Wipe()
	if b, err := st.At(0); err == nil {
		t.Errorf("%d bytes sealed without a key", len(b))
	}
}

// TestSealingDoesNotAllocate: one buffer from the pool, and nothing a record.
func TestSealingDoesNotAllocate(t *testing.T) {
	text := random(64 * Size)
	for _, s := range suites {
		key, _ := NewSecret(s.ours, random(s.ours.SecretLen()))
		st := newStream(t, &key, 0, text, false)
		off := int64(0)
		if n := testing.AllocsPerRun(100, func() {
			b, err := st.At(off % (st.Len() - 1))
			if err != nil {
				t.Fatal(err)
			}
			off += int64(len(b))
		}); n != 0 {
			t.Errorf("%s: %v allocations a call", s.name, n)
		}
	}
}

func BenchmarkStream(b *testing.B) {
	text := random(16 << 20)
	for _, s := range suites {
		b.Run(s.name, func(b *testing.B) {
			key, _ := NewSecret(s.ours, random(s.ours.SecretLen()))
			st := newStream(b, &key, 0, text, false)
			b.SetBytes(bufferLen)
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				p, err := st.At(off)
				if err == io.EOF {
					off = 0
					continue
				}
				off += int64(len(p))
			}
		})
	}
}

// FuzzStream: any text, cut and offset has the bytes that the first reading had.
func FuzzStream(f *testing.F) {
	f.Add(uint32(1), uint32(0), uint16(1), true)
	f.Add(uint32(3*Size), uint32(recordLen), uint16(100), false)
	f.Add(uint32(5*Size+9), uint32(5*recordLen+40), uint16(9000), true)
	f.Fuzz(func(t *testing.T, n, off uint32, block uint16, bye bool) {
		text := random(int(n % (9 * Size)))
		key, _ := NewSecret(ChaCha20, random(32))
		s, _ := NewSealer(&key)
		st, err := NewStream(s, 5, int64(len(text)), inPieces(text, int(block)+1), bye, &Buffers{})
		if err != nil {
			t.Fatal(err)
		}
		whole, err := wireOf(newStream(t, &key, 5, text, bye), 0)
		if err != nil || int64(len(whole)) != st.Len() {
			t.Fatalf("%d bytes, Len %d, %v", len(whole), st.Len(), err)
		}
		at := int64(off) % (st.Len() + 1)
		if got, err := wireOf(st, at); err != nil || !bytes.Equal(got, whole[at:]) {
			t.Fatalf("at %d of %d: %d bytes, %v", at, st.Len(), len(got), err)
		}
	})
}
