package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func fileAt(t *testing.T, path string) *file {
	t.Helper()
	s, err := Open(t.Context(), Config{File: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.kv.(*file)
}

func TestFileOutlivesItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	k := fileAt(t, path)
	mod := mustWrite(t, k, nil, put("/t/a", []byte("1")))
	mustWrite(t, k, nil, put("/t/b", []byte("2")))
	k.close()
	again := fileAt(t, path)
	got, rev := mustRead(t, again, query{span: under("/t/")})
	if !slices.Equal(keysOf(got[0]), []string{"/t/a", "/t/b"}) || got[0][0].mod != mod || rev != mod+1 {
		t.Errorf("%v at %d", keysOf(got[0]), rev)
	}
}

func TestFileDamage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(b []byte) []byte
		want   []string
		aside  bool // what could not be read is kept
	}{
		{"torn by a crash", func(b []byte) []byte { return b[:len(b)-5] }, []string{"/t/a"}, false},
		{"a bit in the last line", func(b []byte) []byte { b[len(b)-5] ^= 1; return b }, []string{"/t/a"}, true},
		{"a line lost", func(b []byte) []byte {
			lines := strings.SplitAfter(string(b), "\n")
			return []byte(lines[0] + lines[2])
		}, nil, true},
		{"emptied", func([]byte) []byte { return nil }, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store")
			k := fileAt(t, path)
			mustWrite(t, k, nil, put("/t/a", nil))
			mustWrite(t, k, nil, put("/t/b", nil))
			k.close()
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			k = fileAt(t, path)
			got, _ := mustRead(t, k, query{span: under("/t/")})
			if !slices.Equal(keysOf(got[0]), tt.want) {
				t.Errorf("read %v, want %v", keysOf(got[0]), tt.want)
			}
			// The next write repairs; everybody reads on.
			mustWrite(t, k, nil, put("/t/z", nil))
			got, _ = mustRead(t, fileAt(t, path), query{span: under("/t/")})
			if want := append(tt.want, "/t/z"); !slices.Equal(keysOf(got[0]), want) {
				t.Errorf("after repair %v, want %v", keysOf(got[0]), want)
			}
			aside, _ := filepath.Glob(path + ".damaged-*")
			if (len(aside) > 0) != tt.aside {
				t.Errorf("kept aside: %v", aside)
			}
		})
	}
}

// A rewritten journal has no history; a reader that lags lists again.
func TestFileRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	k, other := fileAt(t, path), fileAt(t, path)
	first := mustWrite(t, k, nil, put("/t/a", nil))
	last := mustWrite(t, k, nil, put("/t/b", nil))
	k.mu.Lock()
	err := k.rewrite()
	k.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	fresh := fileAt(t, path)
	if b := next(t, fresh.watch(ctxFor(t), first, under("/t/"))); !errors.Is(b.err, errCompacted) {
		t.Errorf("watch of the forgotten: %+v", b)
	}
	ch := other.watch(ctxFor(t), last+1, under("/t/"))
	mustWrite(t, fresh, nil, put("/t/c", nil))
	if b := next(t, ch); b.changes[0].key != "/t/c" {
		t.Errorf("after the rewrite: %+v", b)
	}
}

func TestFileWritersExclude(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	won := make(chan bool)
	for range 4 {
		k := fileAt(t, path)
		go func() {
			_, ok, err := k.write(ctxFor(t), []cond{{"/t/a", 0}}, []op{put("/t/a", nil)})
			won <- ok && err == nil
		}()
	}
	n := 0
	for range 4 {
		if <-won {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of four created one key", n)
	}
}

func FuzzJournal(f *testing.F) {
	m := newMachine()
	m.leases[4] = leaseTerm{time.Second, time.UnixMilli(1000)}
	m.commit([]change{{pair: pair{"/t/a", []byte("1"), 1, 4}}})
	base, err := encodeRecord(m.base())
	if err != nil {
		f.Fatal(err)
	}
	next, err := encodeRecord(recordOf(1, []change{{pair: pair{key: "/t/a", mod: 2}, deleted: true}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(append(slices.Clone(base), next...))
	f.Add(base[:len(base)-1])
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine()
		for {
			r, n, err := decodeRecord(b)
			if err != nil {
				return
			}
			if n <= 0 || n > len(b) {
				t.Fatalf("line of %d bytes in %d", n, len(b))
			}
			if m.replay(r) != nil {
				return
			}
			line, err := encodeRecord(m.base())
			if err != nil {
				t.Fatal(err)
			}
			if back, _, err := decodeRecord(line); err != nil || newMachine().replay(back) != nil {
				t.Fatalf("a base does not come back: %v", err)
			}
			b = b[n:]
		}
	})
}
