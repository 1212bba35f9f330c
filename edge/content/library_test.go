package content

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lib makes a library with one file in a directory of its own. Names with a dot in front
// are hidden.
func lib(t *testing.T, name string, content []byte) (*Library, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := NewLibrary(dir, NewCache(4<<20), func(name string) bool { return strings.HasPrefix(name, ".s") }, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return l, path
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// TestMismatch: one byte that changed under its hash, and not one byte of its
// block is sent.
func TestMismatch(t *testing.T) {
	content := random(2 << 20)
	l, path := lib(t, "a.mp4", content)
	o, err := l.object("/a.mp4")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{content[BlockSize+10] ^ 1}, BlockSize+10); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if b, err := o.At(0); err != nil || !bytes.Equal(b, content[:BlockSize]) {
		t.Errorf("the untouched block: %d bytes, %v", len(b), err)
	}
	if b, err := o.At(BlockSize); !errors.Is(err, ErrMismatch) || b != nil {
		t.Errorf("the changed block: %d bytes, %v", len(b), err)
	}
}

// TestGlance: a look is good for as long as was said, and no longer.
func TestGlance(t *testing.T) {
	l, path := lib(t, "a", []byte("old"))
	for _, tc := range []struct {
		glance  time.Duration
		content string // that the file has then
		want    int64
	}{{0, "new one", 7}, {time.Hour, "newest of all", 7}, {0, "newest of all", 13}} {
		l.Glance(tc.glance)
		if _, err := l.object("/a"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".tmp", []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			t.Fatal(err)
		}
		if o, err := l.object("/a"); err != nil || o.size != tc.want {
			t.Errorf("%v after a look: %+v, %v, want %d octets", tc.glance, o, err, tc.want)
		}
	}
}

// TestReplace: a file replaced by rename is served to its end to those who
// began with it, and anew to the next.
func TestReplace(t *testing.T) {
	old, fresh := random(1<<20), bytes.Repeat([]byte("new"), 1000)
	l, path := lib(t, "a.mp4", old)
	before, err := l.object("/a.mp4")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".tmp", fresh, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
	after, err := l.object("/a.mp4")
	if err != nil || after.hash == before.hash || after.size != int64(len(fresh)) {
		t.Fatalf("after the rename: %+v, %v", after, err)
	}
	if b, err := before.At(0); err != nil || !bytes.Equal(b, old) {
		t.Errorf("the old content: %d bytes, %v", len(b), err)
	}
	if got, ok := l.ByHash(before.hash, "/a.mp4"); !ok || got != before {
		t.Error("the old content is not found by its hash")
	}
	now := time.Now()
	l.expire(now)
	if _, ok := l.ByHash(before.hash, "/a.mp4"); !ok {
		t.Error("the old content was forgotten at once")
	}
	l.expire(now.Add(keepOld))
	if _, ok := l.ByHash(before.hash, "/a.mp4"); ok {
		t.Error("the old content is kept for ever")
	}
	if _, ok := l.ByHash(after.hash, "/a.mp4"); !ok {
		t.Error("the present content was forgotten")
	}
}

// TestOutside: symbolic links out of the directory lead nowhere.
func TestOutside(t *testing.T) {
	l, path := lib(t, "a", []byte("a"))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(filepath.Dir(path), "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/link", "/", "/nothing", "/a/b"} {
		if e := l.Lookup(t.Context(), name); e.Status == 0 || e.Body != nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
}

// TestHidden: what is no content is neither indexed nor found.
func TestHidden(t *testing.T) {
	l, path := lib(t, "a", []byte("a"))
	staging := filepath.Join(filepath.Dir(path), ".staging")
	if err := os.Mkdir(staging, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(staging, "b"), []byte("b"), 0o600); err != nil {
		t.Fatal(err)
	}
	l.scan(t.Context())
	if e := l.Lookup(t.Context(), "/.staging/b"); e.Status != http.StatusNotFound {
		t.Errorf("%+v, want %d", e, http.StatusNotFound)
	}
	if len(l.names) != 1 || len(l.hashes) != 1 || l.names["/a"] == nil {
		t.Errorf("%d names and %d hashes are indexed, want those of a alone", len(l.names), len(l.hashes))
	}
}
