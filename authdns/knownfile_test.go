package authdns

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// acquainted is a table in which the resolver of a region is known.
func acquainted(t testing.TB, now time.Time) *known {
	t.Helper()
	k := newKnown()
	for i := range knownAge {
		k.see(netip.MustParseAddr(euResolver), false, now.Add(time.Duration(i-knownAge+1)*time.Minute).UnixNano())
	}
	if k.count(now.UnixNano()) != 1 {
		t.Fatal("nobody is known in the first place")
	}
	return k
}

// TestKnownFile: a table comes back as it was; one that is damaged, of another version or
// too old changes nothing.
func TestKnownFile(t *testing.T) {
	now := testClock()
	whole := acquainted(t, now).encode(now)
	torn, turned, other := whole[:len(whole)-100], slices.Clone(whole), slices.Clone(whole)
	turned[knownHead+4711] ^= 4
	other[len(knownWord)-1] = '2'
	for _, c := range []struct {
		name  string
		file  []byte
		later time.Duration
		want  bool
	}{
		{"at once", whole, 0, true},
		{"after an hour", whole, time.Hour, true},
		{"after two days", whole, 48 * time.Hour, false},
		{"after 44 days, when the minutes come again", whole, (1<<16 - 1) * time.Minute, false},
		{"a clock set back by an hour", whole, -time.Hour, true},
		{"a clock set back by a week", whole, -7 * 24 * time.Hour, false},
		{"torn", torn, 0, false},
		{"a bit turned", turned, 0, false},
		{"another version", other, 0, false},
		{"empty", nil, 0, false},
	} {
		k, then := newKnown(), now.Add(c.later)
		before := k.key
		err := k.decode(c.file, then)
		if got := k.has(netip.MustParseAddr(euResolver), then.UnixNano()); got != c.want || (err == nil) != c.want {
			t.Errorf("%s: known %t, %v; want %t", c.name, got, err, c.want)
		}
		if !c.want && (k.key != before || k.count(then.UnixNano()) != 0) {
			t.Errorf("%s: a file that is refused changed the table", c.name)
		}
	}
}

// FuzzKnown: whatever the cells of a file are, and however they are cut, nothing is upset; a table
// that is taken is written again as it was.
func FuzzKnown(f *testing.F) {
	now := testClock()
	whole := acquainted(f, now).encode(now)
	f.Add(whole[knownHead:knownHead+64], uint32(0), true)
	f.Add(bytes.Repeat([]byte{0xff}, 64), uint32(8), true)
	f.Add([]byte("short"), uint32(1<<31), false)
	f.Fuzz(func(t *testing.T, cells []byte, at uint32, summed bool) {
		b := slices.Clone(whole[:knownSize-sha256.Size])
		copy(b[int(at)%len(b):], cells)
		if summed {
			sum := sha256.Sum256(b)
			b = append(b, sum[:]...)
		}
		k := newKnown()
		if err := k.decode(b, now); err != nil {
			return
		}
		if !summed || !bytes.Equal(k.encode(now)[knownHead:knownSize-sha256.Size], b[knownHead:knownSize-sha256.Size]) {
			t.Error("what was taken is not what was read")
		}
		for _, client := range []string{euResolver, euResolverV6} {
			k.see(netip.MustParseAddr(client), true, now.UnixNano())
			k.has(netip.MustParseAddr(client), now.UnixNano())
		}
	})
}

// TestKnownOverRestart: who was known to a server is known to the next one.
func TestKnownOverRestart(t *testing.T) {
	dir, now := t.TempDir(), testClock()
	serve := func() *Server {
		s, err := New(Config{Crashes: dir, Now: func() time.Time { return now }, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := serve()
	first.shield.overload.known.decode(acquainted(t, now).encode(now), now)
	ctx, end := context.WithCancel(t.Context())
	end()
	if err := first.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !serve().shield.overload.known.has(netip.MustParseAddr(euResolver), now.UnixNano()) {
		t.Error("a restart forgot who is known")
	}
	left, err := filepath.Glob(filepath.Join(dir, knownFile+"*"))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v: want the file alone", left, err)
	}
	if err := os.WriteFile(filepath.Join(dir, knownFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := serve().shield.overload.known.count(now.UnixNano()); n != 0 {
		t.Errorf("%d networks are known from a file that says none", n)
	}
}
