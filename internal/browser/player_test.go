package browser

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"sync"
	"testing"
	"time"
)

// theatre serves the pages and a film; what is closed keeps every response back.
type theatre struct {
	film   []byte
	mu     sync.Mutex
	closed chan struct{} // not nil: open again when it is closed
}

// shut keeps responses back until the function is called.
func (th *theatre) shut() (open func()) {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.closed = make(chan struct{})
	return func() {
		th.mu.Lock()
		defer th.mu.Unlock()
		close(th.closed)
		th.closed = nil
	}
}

func (th *theatre) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	if page, err := Page(name); err == nil {
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(page))
		return
	}
	th.mu.Lock()
	closed := th.closed
	th.mu.Unlock()
	if closed != nil {
		<-closed
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(th.film))
}

// TestFilmPlays: Chromium plays the film to its end, by one connection, and gets every
// octet; and when the server is silent for a few seconds, a rebuffer is
// seen. So those who judge by this page can fail.
func TestFilmPlays(t *testing.T) {
	if os.Getenv("RHUMB_SOAK") != "1" {
		t.Log("a film is played with RHUMB_SOAK=1")
		return
	}
	const silence = 4 * time.Second
	film := NewFilm(12)
	var all bytes.Buffer
	if _, err := film.WriteTo(&all); err != nil {
		t.Fatal(err)
	}
	th := &theatre{film: all.Bytes()}
	server := httptest.NewServer(th)
	defer server.Close()
	b, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Open(server.URL + "/film.html" + film.Layout()); err != nil {
		t.Fatal(err)
	}
	played := func(when string, forget bool) Played {
		t.Helper()
		p, err := b.Played(forget)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s, %.2f s ahead", when, p, p.Ahead)
		return p
	}
	if err := b.Until(2*time.Minute, "document.querySelector('video').currentTime > 4"); err != nil {
		t.Fatalf("%v; the page's log:\n%s", err, played("not begun", false).Log)
	}
	// A busy machine rebuffers by itself; that is no longer than its pictures are late.
	calm := played("calm", true)
	open := th.shut()
	time.Sleep(silence)
	open()
	if err := b.Until(2*time.Minute, "document.querySelector('video').ended"); err != nil {
		t.Fatalf("%v; the page's log:\n%s", err, played("not ended", false).Log)
	}
	p := played("ended", false)
	// A second may have been asked for just before, and nearly one is held in advance.
	if p.Longest() < silence/4 {
		t.Errorf("the server was silent for %s, and the longest rebuffer is %s, %s in calm; the page's log:\n%s", silence, p.Longest(), calm.Longest(), p.Log)
	}
	sum, err := film.Sum(int64(all.Len()))
	if errs := p.Log.Of("error"); err != nil || len(errs) > 0 || p.Octets != int64(all.Len()) || p.Sum != sum {
		t.Errorf("%d of %d octets with sum %s, want %s (%v); errors:\n%s", p.Octets, all.Len(), p.Sum, sum, err, errs)
	}
	x := b.Exchanges()
	if c := Connections(x); len(c) != 1 || len(x) != 2+film.Seconds {
		t.Errorf("%d exchanges over connections %v, want %d over one", len(x), c, 2+film.Seconds)
	}
	if png, err := b.Screenshot(); err != nil || !bytes.HasPrefix(png, []byte("\x89PNG")) {
		t.Errorf("no screenshot: %v", err)
	} else if dir := os.Getenv("RHUMB_SHOTS"); dir != "" {
		_ = os.WriteFile(path.Join(dir, "film.png"), png, 0o644)
	}
}
