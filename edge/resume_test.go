package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"rhumb/edge/resume"
)

// video writes one object of n bytes for a group to serve.
func video(t testing.TB, dir string, n int, seed byte) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "root", "film.mp4")
	put(t, name+".new", b)
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
	return b
}

// begin asks for the film over the client that resumes, and reads its beginning. It
// returns what reads the rest, and where the sum of all is kept.
func (g *group) begin(n int64) (rest io.ReadCloser, got *bytes.Buffer) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 2*time.Minute)
	g.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://video.test/film.mp4", nil)
	if err != nil {
		g.t.Fatal(err)
	}
	tr := g.transport()
	g.t.Cleanup(tr.CloseIdleConnections)
	resp, err := (&http.Client{Transport: &resume.Transport{Base: tr, Options: resume.Options{Stall: time.Minute}}}).Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { resp.Body.Close() })
	got = &bytes.Buffer{}
	if _, err := io.CopyN(got, resp.Body, n); err != nil {
		g.t.Fatal(err)
	}
	return resp.Body, got
}

// TestDownloadResumesElsewhere: the site dies in the middle of a body, and the client
// goes on at the other one at the very byte, with one request more.
func TestDownloadResumesElsewhere(t *testing.T) {
	dir := t.TempDir()
	film := video(t, dir, 10<<20, 1) // more than a client of HTTP/2 takes before it is read
	g := newGroup(t, 2, dir, "", false)
	rest, got := g.begin(1 << 20)
	g.now.Store(1)
	g.sites[0].kill()
	if _, err := io.Copy(got, rest); err != nil {
		t.Fatalf("after %d of %d bytes: %v", got.Len(), len(film), err)
	}
	if sha256.Sum256(got.Bytes()) != sha256.Sum256(film) {
		t.Errorf("%d bytes, not those of the film (%d)", got.Len(), len(film))
	}
	if a, b, dials := g.sites[0].met.Load(), g.sites[1].met.Load(), g.dials.Load(); a != 1 || b != 1 || dials != 2 {
		t.Errorf("%d requests at the first site, %d at the second, %d connections: want 1, 1 and 2", a, b, dials)
	}
}

// TestDownloadNeverMixes: the other site has another film by that name.
func TestDownloadNeverMixes(t *testing.T) {
	dir := t.TempDir()
	film := video(t, dir, 10<<20, 1)
	g := newGroup(t, 2, dir, "", false)
	rest, got := g.begin(1 << 20)
	video(t, dir, 10<<20, 2)
	g.now.Store(1)
	g.sites[0].kill()
	if _, err := io.Copy(got, rest); !errors.Is(err, resume.ErrChanged) {
		t.Errorf("after %d bytes: %v, want %v", got.Len(), err, resume.ErrChanged)
	}
	if n := got.Len(); n >= len(film) || !bytes.Equal(got.Bytes(), film[:n]) {
		t.Errorf("%d bytes, not the first of the old film", n)
	}
}

// TestStreamResumesElsewhere: each site dies in turn but the last, and no event is
// missed or told twice, with one request a change.
func TestStreamResumesElsewhere(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, false)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	stream, err := resume.OpenWith(ctx, &http.Client{Transport: g.transport()}, "https://video.test/live/scores?of=all", resume.Options{Stall: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for n := 1; n <= 60; n++ {
		s.tell(1)
		e, err := stream.Next()
		if err != nil || e.Data != strconv.Itoa(n) {
			t.Fatalf("event %d is %+v, %v", n, e, err)
		}
		if n%20 == 0 && n < 60 {
			g.now.Store(int32(n / 20))
			g.sites[n/20-1].kill()
		}
	}
	if requests, dials := g.requests(), g.dials.Load(); requests != 3 || dials != 3 {
		t.Errorf("%d requests over %d connections, want one a site", requests, dials)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) != 3 || s.asked[0] != "" || s.asked[1] != "n20" || s.asked[2] != "n40" || s.leaked.Load() {
		t.Errorf("the origin was asked for what comes behind %q; tokens leaked: %v", s.asked, s.leaked.Load())
	}
}
