package content

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// far makes an origin whose answers the test gives.
func far(t *testing.T, answer http.HandlerFunc) *Origin {
	t.Helper()
	srv := httptest.NewServer(answer)
	o, err := NewOrigin(srv.URL, t.TempDir(), NewCache(4<<20), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.stop()
		o.client.CloseIdleConnections()
		srv.Close()
	})
	return o
}

// old makes the copy of a name one that is to be confirmed.
func (o *Origin) old(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.copies[name].since = time.Now().Add(-originFresh)
}

// TestCopyIsFollowed: who asks while a copy is on its way reads what is here, and waits for
// the rest or for the whole, which then is an object like any other.
func TestCopyIsFollowed(t *testing.T) {
	film, rest := random(BlockSize+77), make(chan struct{})
	o := far(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1048653")
		w.Write(film[:1000])
		w.(http.Flusher).Flush()
		select {
		case <-rest:
		case <-r.Context().Done():
		}
		w.Write(film[1000:])
	})
	e := o.Lookup(t.Context(), "/film.mp4")
	if e.Status != 0 || e.Size != int64(len(film)) || e.Known || !e.Coming() || !o.Coming("/film.mp4") {
		t.Fatalf("%+v, want a copy on its way", e)
	}
	if b, err := e.Body.At(0); err != nil || !bytes.HasPrefix(film, b) || len(b) == 0 {
		t.Errorf("the beginning: %d bytes, %v", len(b), err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if got := e.Whole(gone); got.Status != http.StatusServiceUnavailable || got.Body != nil {
		t.Errorf("%+v for one who does not wait", got)
	}
	waits := make(chan Entry)
	go func() { waits <- e.Whole(t.Context()) }()
	close(rest)
	if b, err := e.Body.At(BlockSize + 70); err != nil || !bytes.Equal(b, film[BlockSize+70:]) {
		t.Errorf("the end: %x, %v", b, err)
	}
	whole := <-waits
	want, err := NewObject(bytes.NewReader(film), int64(len(film)), NewCache(1))
	if err != nil || !whole.Known || whole.Hash != want.Hash() || whole.Coming() || o.Coming("/film.mp4") {
		t.Fatalf("%+v, want the object %x; %v", whole, want.Hash(), err)
	}
	if b, err := whole.Body.At(BlockSize); err != nil || !bytes.Equal(b, film[BlockSize:]) {
		t.Errorf("the second block: %d bytes, %v", len(b), err)
	}
	if obj, ok := o.ByHash(want.Hash(), ""); !ok || obj.Size() != int64(len(film)) {
		t.Error("the object is not found by its hash")
	}
	if left, err := os.ReadDir(o.dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left in the spool, %v", left, err)
	}
}

// TestCopyIsConfirmed: after originFresh the origin is asked by entity tag. When it has
// something else, the old object is still found by its hash.
func TestCopyIsConfirmed(t *testing.T) {
	var now atomic.Value
	var asked, confirmed atomic.Int32
	now.Store("first")
	o := far(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		text := now.Load().(string)
		w.Header().Set("ETag", `"`+text+`"`)
		if r.Header.Get("If-None-Match") == `"`+text+`"` {
			confirmed.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		io.WriteString(w, text)
	})
	first := o.Lookup(t.Context(), "/a").Whole(t.Context())
	if again := o.Lookup(t.Context(), "/a"); again.Hash != first.Hash || !again.Known || asked.Load() != 1 {
		t.Errorf("%+v after %d requests, want the same after one", again, asked.Load())
	}
	o.old("/a")
	if again := o.Lookup(t.Context(), "/a"); again.Hash != first.Hash || !again.Known || asked.Load() != 2 || confirmed.Load() != 1 {
		t.Errorf("%+v after %d requests, want the same after two, confirmed", again, asked.Load())
	}
	now.Store("second")
	o.old("/a")
	second := o.Lookup(t.Context(), "/a").Whole(t.Context())
	if !second.Known || second.Hash == first.Hash || second.Size != 6 || asked.Load() != 3 {
		t.Errorf("%+v after %d requests, want another object after three", second, asked.Load())
	}
	if _, ok := o.ByHash(first.Hash, ""); !ok {
		t.Error("the first object is not found by its hash any more")
	}
}

// TestOriginFails: what is not there is told as it is, what is wrong is the origin's fault,
// and none of it is kept: the next one asks again.
func TestOriginFails(t *testing.T) {
	var status, asked atomic.Int32
	o := far(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if n := status.Load(); n != 0 {
			w.WriteHeader(int(n))
			return
		}
		w.Header().Set("Content-Length", "10")
		io.WriteString(w, "five") // and the connection is cut
	})
	for given, want := range map[int]int{404: 404, 410: 410, 403: 403, 500: 502, 302: 502, 304: 502} {
		status.Store(int32(given))
		e := o.Lookup(t.Context(), "/a")
		if e.Status != want || e.Body != nil || e.Whole(t.Context()) != e {
			t.Errorf("%d is %+v, want %d", given, e, want)
		}
		o.settled(t, "/a")
	}
	status.Store(0)
	e := o.Lookup(t.Context(), "/a")
	if e.Whole(t.Context()).Status != http.StatusServiceUnavailable {
		t.Errorf("%+v is whole", e)
	}
	if b, err := e.Body.At(0); err != nil || string(b) != "five" {
		t.Errorf("what came: %q, %v", b, err)
	}
	if b, err := e.Body.At(4); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind what came: %q, %v", b, err)
	}
	if n := asked.Load(); n != 7 {
		t.Errorf("%d requests, want 7", n)
	}
}

// settled waits until a copy that came to nothing is forgotten.
func (o *Origin) settled(t *testing.T, name string) {
	t.Helper()
	o.mu.Lock()
	f := o.copies[name]
	o.mu.Unlock()
	if f == nil {
		return
	}
	<-f.done
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.copies[name] == f {
		t.Errorf("a copy of %s that came to nothing is kept", name)
	}
}

// TestCacheForgets: the block that nobody asked for longest goes first.
func TestCacheForgets(t *testing.T) {
	b, c := random(3*BlockSize), NewCache(2*BlockSize)
	o, err := NewObject(bytes.NewReader(b), int64(len(b)), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int64{0, 1, 0, 2} {
		if got, err := o.At(i * BlockSize); err != nil || !bytes.Equal(got, b[i*BlockSize:(i+1)*BlockSize]) {
			t.Errorf("block %d: %d bytes, %v", i, len(got), err)
		}
	}
	if got := c.Blocks(o.Hash()); len(got) != 2 || got[0] != 0 || got[1] != 2 {
		t.Errorf("blocks %v are here, want 0 and 2", got)
	}
}
