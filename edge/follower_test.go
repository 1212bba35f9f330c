package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"rhumb/edge/resume"
)

// trips counts what a client's connections cost: a round trip to connect, and one
// whenever something comes after something was sent.
type trips struct{ connections, rounds atomic.Int32 }

type tripped struct {
	net.Conn
	count *trips
	sent  atomic.Bool
}

func (c *tripped) Write(b []byte) (int, error) {
	c.sent.Store(true)
	return c.Conn.Write(b)
}

func (c *tripped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.sent.Swap(false) {
		c.count.rounds.Add(1)
	}
	return n, err
}

// counted counts the connections of a transport. It speaks HTTP/1.1 from now on, whose
// clients send nothing but requests.
func (c *trips) counted(tr *http.Transport) *http.Transport {
	dial := tr.DialContext
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(true)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c.connections.Add(1)
		c.rounds.Add(1)
		return &tripped{Conn: conn, count: c}, nil
	}
	return tr
}

// follower reads what it can resume, and checks every byte or event against what it
// has to be.
type follower struct {
	kind string
	trips
	// read reads so many bytes or events.
	read func(n int) error
	// end tells whether there are no more of them.
	end func() error
	// close is the client's end.
	close func() error
	// whole and begun are how many there are, and are read before the site dies.
	whole, begun int
}

const (
	stories  = 600 // events
	filmSeed = 1
)

// followers are one of each kind. Their transports lead where dial does.
func followers(ctx context.Context, size int, transport func() *http.Transport) ([]*follower, error) {
	film, stream, ws := &follower{kind: "download", whole: size, begun: size / 3}, &follower{kind: "event stream"}, &follower{kind: "WebSocket"}
	return []*follower{film, stream, ws}, errors.Join(film.download(ctx, film.counted(transport())),
		stream.events(ctx, stream.counted(transport())), ws.messages(ctx, ws.counted(transport())))
}

// patience is that of clients who are to find out by an event, not by waiting.
func patience() resume.Options { return resume.Options{Stall: time.Minute} }

// download reads the film, of which it knows all bytes.
func (f *follower) download(ctx context.Context, tr *http.Transport) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://video.test/film.mp4", nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: &resume.Transport{Base: tr, Options: patience()}}).Do(req)
	if err != nil {
		return err
	}
	known := rand.NewChaCha8([32]byte{filmSeed})
	have := 0
	f.read = func(n int) error {
		got, want := make([]byte, n), make([]byte, n)
		m, err := io.ReadFull(resp.Body, got)
		_, _ = known.Read(want)
		if err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("download: after %d of %d bytes: %d more, equal %v, %w", have, f.whole, m, bytes.Equal(got[:m], want[:m]), err)
		}
		have += n
		return nil
	}
	f.end = func() error {
		if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return fmt.Errorf("download: %d bytes and %w behind its end", n, err)
		}
		return nil
	}
	f.close = resp.Body.Close
	return nil
}

func (f *follower) events(ctx context.Context, tr *http.Transport) error {
	s, err := resume.OpenWith(ctx, &http.Client{Transport: tr}, "https://video.test/live/scores", patience())
	if err != nil {
		return err
	}
	f.close = s.Close
	f.numbers(func() (string, error) {
		e, err := s.Next()
		return e.Data, err
	})
	return nil
}

func (f *follower) messages(ctx context.Context, tr *http.Transport) error {
	s, err := resume.OpenSocket(ctx, &http.Client{Transport: tr}, "wss://video.test/live/scores", patience())
	if err != nil {
		return err
	}
	f.close = s.Close
	f.numbers(func() (string, error) {
		m, err := s.Next()
		return string(m.Data), err
	})
	return nil
}

// numbers reads a story, which tells all numbers from one on.
func (f *follower) numbers(next func() (string, error)) {
	f.whole, f.begun = stories, stories/3
	last := 0
	f.read = func(n int) error {
		for range n {
			got, err := next()
			if last++; err != nil || got != fmt.Sprint(last) {
				return fmt.Errorf("%s: event %d is %q: %w", f.kind, last, got, err)
			}
		}
		return nil
	}
	f.end = func() error { return nil } // the story's log has the last word
}

// TestRoundTrips: the site dies in the middle of a download, an event stream and a
// WebSocket. Each goes on elsewhere at the very byte or event, and costs the client not
// one round trip more than a plain request on a new connection; between the sites it
// costs one.
func TestRoundTrips(t *testing.T) {
	dir := t.TempDir()
	const size = 4 << 20
	film := video(t, dir, size, filmSeed)
	s := newStory(t)
	s.film = film
	g := newGroup(t, 3, dir, s.URL, false)
	g.warm(0, "/film.mp4")
	all, err := followers(t.Context(), size, g.transport)
	if err != nil {
		t.Fatal(err)
	}
	s.tell(stories / 3)
	for _, f := range all {
		defer f.close()
		late := time.AfterFunc(2*time.Minute, func() { f.close() })
		defer late.Stop()
		if err := f.read(f.begun); err != nil {
			t.Fatal(err)
		}
	}
	var before, asks [3]int32
	for i, f := range all {
		before[i], asks[i] = f.rounds.Load(), g.sites[i].asks.Load()
	}
	g.now.Store(1)
	g.sites[0].kill()
	s.tell(stories - stories/3)
	for i, f := range all {
		if err := errors.Join(f.read(f.whole-f.begun), f.end()); err != nil {
			t.Fatal(err)
		}
		if n, first := f.rounds.Load()-before[i], before[i]; n != plainTrips || first != plainTrips || f.connections.Load() != 2 {
			t.Errorf("%s: %d round trips to begin, %d to resume, over %d connections, want %d, %d and 2", f.kind, first, n, f.connections.Load(), plainTrips, plainTrips)
		}
	}
	// The stream and the WebSocket asked the one other site that lives, once each.
	if n := g.sites[2].asks.Load() - asks[2]; n != 2 {
		t.Errorf("a keeper was asked %d times about two resumptions, want once each", n)
	}
}

// warm makes a site have an object of the origin whole. The other sites have it not.
func (g *group) warm(site int, path string) {
	g.t.Helper()
	for {
		resp := g.get(site, path, "")
		_, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			g.t.Fatalf("%s at site %d: status %d, %v", path, site, resp.StatusCode, err)
		}
		if resp.Header.Get("ETag") != "" {
			return
		}
	}
}

// plainTrips are those of one request: to connect, for TLS 1.3, and for the response.
const plainTrips = 3
