package upload

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func testStore(t *testing.T, l Limits) (*Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := NewStore(dir, "a", l)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

var roomy = Limits{Size: 8 << 20, Uploads: 64, Bytes: 1 << 30}

// begin stages an upload, whole.
func begin(t *testing.T, s *Store, id byte, req Request, body string) (*File, [32]byte) {
	t.Helper()
	req.Size = int64(len(body))
	f, err := s.Begin(ID{id}, req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(0, []byte(body)); err != nil {
		t.Fatal(err)
	}
	sum, whole := f.Sum()
	if !whole {
		t.Fatal("a whole object has no sum")
	}
	return f, sum
}

func tagOf(body string) string {
	block := sha256.Sum256([]byte(body))
	sum := sha256.Sum256(block[:])
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

func contentOf(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// TestPublishOnce: an upload has one effect and one answer, however often it is published,
// and whatever has the name by then.
func TestPublishOnce(t *testing.T) {
	s, dir := testStore(t, roomy)
	first, sum := begin(t, s, 1, Request{Name: "/deep/er/object", IfNoneMatch: "*"}, "first")
	for range 2 {
		if status, err := first.Publish(sum); status != http.StatusCreated || err != nil {
			t.Fatalf("status %d, %v", status, err)
		}
	}
	second, sum2 := begin(t, s, 2, Request{Name: "/deep/er/object"}, "second")
	if status, err := second.Publish(sum2); status != http.StatusNoContent || err != nil {
		t.Fatalf("status %d, %v", status, err)
	}
	if status, err := first.Publish(sum); status != http.StatusCreated || err != nil {
		t.Errorf("status %d, %v: not that of the first time", status, err)
	}
	if got := contentOf(t, dir, "deep/er/object"); got != "second" {
		t.Errorf("the object is %q: the first upload came twice", got)
	}
	if n, octets := s.Len(); n != 0 || octets != 0 || s.Effects() != 2 {
		t.Errorf("%d uploads and %d octets are staged, %d effects", n, octets, s.Effects())
	}
}

// TestConditions: they are judged when an upload is published, not when it begins.
func TestConditions(t *testing.T) {
	for _, x := range []struct {
		there, match, none string
		want               int
	}{
		{"", "", "*", 201}, {"old", "", "*", 412}, {"old", "*", "", 204}, {"", "*", "", 412},
		{"old", tagOf("old"), "", 204}, {"old", tagOf("other"), "", 412}, {"old", `"x", ` + tagOf("old"), "", 204},
		{"old", "W/" + tagOf("old"), "", 412}, {"old", "", tagOf("old"), 412}, {"old", "", "W/" + tagOf("old"), 412},
		{"old", "", tagOf("other"), 204}, {"", tagOf("old"), "", 412}, {"", "", tagOf("old"), 201}, {"old", "*", "*", 412},
	} {
		s, dir := testStore(t, roomy)
		f, sum := begin(t, s, 1, Request{Name: "/object", IfMatch: x.match, IfNoneMatch: x.none}, "new")
		if x.there != "" {
			if err := os.WriteFile(filepath.Join(dir, "object"), []byte(x.there), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		status, err := f.Publish(sum)
		want := x.there
		if x.want < 300 {
			want = "new"
		}
		if got := contentOf(t, dir, "object"); status != x.want || err != nil || got != want {
			t.Errorf("%+v: status %d, %v, object %q", x, status, err, got)
		}
	}
}

// TestPublishAfter: what somebody else decided is done; what nobody decided is not.
func TestPublishAfter(t *testing.T) {
	s, dir := testStore(t, roomy)
	f, sum := begin(t, s, 1, Request{Name: "/object"}, "new")
	if status, err := f.PublishAfter(sum, func() (int, error) { return 0, errors.New("no answer") }); status != 0 || err == nil || contentOf(t, dir, "object") != "" {
		t.Errorf("status %d, %v: published without a decision", status, err)
	}
	if status, err := f.PublishAfter(sum, func() (int, error) { return 204, nil }); status != 204 || err != nil || contentOf(t, dir, "object") != "new" {
		t.Errorf("status %d, %v, object %q", status, err, contentOf(t, dir, "object"))
	}
	g, sum := begin(t, s, 2, Request{Name: "/object", IfNoneMatch: "*"}, "newer")
	if status, err := g.PublishAfter(sum, func() (int, error) { t.Error("asked"); return 201, nil }); status != 412 || err != nil {
		t.Errorf("status %d, %v: the condition does not hold here", status, err)
	}
}

// TestRace: of uploads that all want to be the first of a name, one is.
func TestRace(t *testing.T) {
	s, _ := testStore(t, roomy)
	var wg sync.WaitGroup
	var mu sync.Mutex
	count := map[int]int{}
	for i := range byte(16) {
		f, sum := begin(t, s, i, Request{Name: "/object", IfNoneMatch: "*"}, strings.Repeat("x", int(i)))
		wg.Go(func() {
			publish := f.Publish
			if i%2 == 0 {
				publish = func(sum [32]byte) (int, error) {
					return f.PublishAfter(sum, func() (int, error) { return http.StatusCreated, nil })
				}
			}
			status, err := publish(sum)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			count[status]++
		})
	}
	wg.Wait()
	// Those whose decision came from elsewhere were judged here before it.
	if count[201]+count[412] != 16 || count[201] == 0 {
		t.Errorf("answers %v", count)
	}
}

// TestAppend: octets in pieces of any size, some of them again, make the object; a gap is
// refused, and so is more than its size.
func TestAppend(t *testing.T) {
	s, dir := testStore(t, roomy)
	body := make([]byte, 3<<20+77)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = byte(r.Uint32())
	}
	f, err := s.Begin(ID{1}, Request{Name: "/object", Size: int64(len(body))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(1, []byte("x")); err == nil {
		t.Error("a gap passes")
	}
	for length := int64(0); length < int64(len(body)); {
		off := max(0, length-r.Int64N(1<<17))
		end := min(int64(len(body)), off+r.Int64N(1<<18))
		got, err := f.Append(off, body[off:end])
		if err != nil || got != max(end, length) {
			t.Fatalf("octets %d to %d behind %d: %d, %v", off, end, length, got, err)
		}
		length = got
	}
	if _, err := f.Append(int64(len(body)), []byte("x")); err == nil {
		t.Error("an octet more than its size passes")
	}
	sum, _ := f.Sum()
	want, err := sumOf(bytes.NewReader(body))
	if err != nil || sum != want {
		t.Errorf("sum %x, want %x, %v", sum, want, err)
	}
	if status, err := f.Publish([32]byte{1}); status != 0 || !errors.Is(err, ErrSum) {
		t.Errorf("another sum: status %d, %v", status, err)
	}
	if status, err := f.Publish(sum); status != 201 || err != nil || contentOf(t, dir, "object") != string(body) {
		t.Errorf("status %d, %v, or another object", status, err)
	}
}

// TestBounds: more uploads, or octets, than a Store takes are refused, and ended ones make
// room again.
func TestBounds(t *testing.T) {
	s, _ := testStore(t, Limits{Size: 10, Uploads: 2, Bytes: 15})
	f, _ := begin(t, s, 1, Request{Name: "/a"}, "0123456789")
	for _, size := range []int64{6, 11, -1} {
		if _, err := s.Begin(ID{2}, Request{Name: "/b", Size: size}); err == nil {
			t.Errorf("%d octets pass", size)
		}
	}
	begin(t, s, 2, Request{Name: "/b"}, "01234")
	if _, err := s.Begin(ID{3}, Request{Name: "/c"}); !errors.Is(err, ErrFull) || StatusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("a third upload: %v", err)
	}
	if err := f.Drop(); err != nil {
		t.Fatal(err)
	}
	begin(t, s, 3, Request{Name: "/c"}, "0123456789")
}

// TestNames: what no object can be called is refused, and so is the place of a directory.
func TestNames(t *testing.T) {
	s, dir := testStore(t, roomy)
	for _, name := range []string{"", "/", "a", "/../a", "/a/../b", "/a//b", "/a\x00", "/" + Staging + "/x", "/a/" + Staging, "/" + strings.Repeat("n", 256)} {
		if _, err := s.Begin(ID{1}, Request{Name: name}); StatusOf(err) != http.StatusBadRequest {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/dir", "/file/below"} {
		if status := s.Judge(Request{Name: name}); status != http.StatusConflict {
			t.Errorf("%s: status %d", name, status)
		}
	}
	if err := os.Symlink("/", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if status := s.Judge(Request{Name: "/out/tmp/x"}); status < 400 {
		t.Errorf("a name outside of the directory: status %d", status)
	}
}

// TestSweep: what an earlier process left goes after a time, what is on its way stays.
func TestSweep(t *testing.T) {
	s, dir := testStore(t, roomy)
	f, sum := begin(t, s, 1, Request{Name: "/object"}, "body")
	old := filepath.Join(dir, Staging, "left.a")
	if err := os.WriteFile(old, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(2 * staleAfter)
	for _, now := range []time.Time{time.Now(), later} {
		if err := s.Sweep(now); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(old)
		if there := err == nil; there != (now != later) {
			t.Errorf("after %v: %v", now.Sub(later), err)
		}
	}
	if status, err := f.Publish(sum); status != 201 || err != nil {
		t.Errorf("status %d, %v", status, err)
	}
}

// TestDiskFull: a full disk is told as such, and publishes nothing.
func TestDiskFull(t *testing.T) {
	s, dir := testStore(t, Limits{Size: 1 << 62, Uploads: 1, Bytes: 1 << 62})
	_, err := s.Begin(ID{1}, Request{Name: "/object", Size: 1 << 50})
	if StatusOf(err) != http.StatusInsufficientStorage {
		t.Fatalf("a petabyte: %v", err)
	}
	if n, octets := s.Len(); n != 0 || octets != 0 || contentOf(t, dir, "object") != "" {
		t.Errorf("%d uploads with %d octets are left", n, octets)
	}
	if left, err := os.ReadDir(filepath.Join(dir, Staging)); err != nil || len(left) > 0 {
		t.Errorf("left in the staging directory: %v, %v", left, err)
	}
}
