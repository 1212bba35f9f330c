package resume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const tag = `"the-hash"`

func get(t testing.TB, w *world, o Options, header ...string) ([]byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://vod.test/film", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := &http.Client{Transport: &Transport{Base: w, Options: o}}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// TestGoesOn: however a connection ends, the rest comes on the next one, which asks for
// exactly that.
func TestGoesOn(t *testing.T) {
	data := noise(t, 300_000)
	for _, c := range []struct {
		name   string
		steps  []step
		header []string
		want   []byte
		ranges []string // asked for, one a request
		most   time.Duration
	}{
		{"in one go", []step{object(data, tag, len(data), nil)}, nil, data, []string{""}, 0},
		{"reset", []step{object(data, tag, 100_000, errCut), object(data, tag, len(data), nil)}, nil, data, []string{"", "bytes=100000-299999"}, 0},
		{"early end", []step{object(data, tag, 100_000, io.ErrUnexpectedEOF), object(data, tag, len(data), nil)}, nil, data, []string{"", "bytes=100000-299999"}, 0},
		{"silence", []step{object(data, tag, 100_000, nil), object(data, tag, len(data), nil)}, nil, data, []string{"", "bytes=100000-299999"}, 31 * time.Second},
		{"three sites", []step{object(data, tag, 100_000, errCut), object(data, tag, 150_000, errCut), object(data, tag, len(data), nil)}, nil, data, []string{"", "bytes=100000-299999", "bytes=250000-299999"}, 0},
		{"nobody there for a while", []step{object(data, tag, 100_000, errCut), refused, status(http.StatusBadGateway, nil), status(http.StatusNotFound, nil), object(data, tag, len(data), nil)}, nil, data, nil, time.Second},
		{"nobody there at first", []step{refused, refused, object(data, tag, len(data), nil)}, nil, data, nil, time.Second},
		{"told to wait", []step{object(data, tag, 100_000, errCut), status(http.StatusServiceUnavailable, map[string]string{"Retry-After": "7"}), object(data, tag, len(data), nil)}, nil, data, nil, 8 * time.Second},
		{"a range", []step{object(data, tag, 5_000, errCut), object(data, tag, len(data), nil)}, []string{"Range", "bytes=1000-200999"}, data[1000:201000], []string{"bytes=1000-200999", "bytes=6000-200999"}, time.Second},
		{"a shorter range than asked", []step{object(data, tag, 100_000, errCut), shorter(object(data, tag, len(data), nil)), object(data, tag, len(data), nil)}, nil, data, nil, time.Second},
		{"empty", []step{object(nil, tag, 0, nil)}, nil, []byte{}, []string{""}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, began := &world{steps: c.steps}, time.Now()
				got, err := get(t, w, Options{}, c.header...)
				if err != nil || !bytes.Equal(got, c.want) {
					t.Fatalf("%d bytes, %v, want %d", len(got), err, len(c.want))
				}
				for i, want := range c.ranges {
					r := w.asked[i].Header
					if r.Get("Range") != want || i > 0 && r.Get("If-Range") != tag || r.Get("Accept-Encoding") != "identity" {
						t.Errorf("request %d asks for %q if %q, want %q", i, r.Get("Range"), r.Get("If-Range"), want)
					}
				}
				if c.ranges != nil && len(w.asked) != len(c.ranges) {
					t.Errorf("%d requests, want %d", len(w.asked), len(c.ranges))
				}
				if took := time.Since(began); took > c.most {
					t.Errorf("took %s, want at most %s", took, c.most)
				}
			})
		})
	}
}

// shorter gives half of the range that was asked for, as a server may.
func shorter(next step) step {
	return func(r *http.Request) (*http.Response, error) {
		r.Header.Set("Range", "bytes=100000-199999")
		return next(r)
	}
}

// TestNeverMixes: whatever says that the object is another one ends the body with
// ErrChanged, and what was read so far is the old one's.
func TestNeverMixes(t *testing.T) {
	data, other := noise(t, 300_000), bytes.Repeat([]byte("x"), 300_000)
	with := func(code int, head map[string]string) step { return status(code, head) }
	for _, c := range []struct {
		name    string
		step    step
		changed bool
	}{
		{"another hash", object(other, `"other"`, len(other), nil), true},
		{"a range of another hash", with(206, map[string]string{"ETag": `"other"`, "Content-Range": "bytes 100000-299999/300000"}), true},
		{"a range without a hash", with(206, map[string]string{"Content-Range": "bytes 100000-299999/300000"}), true},
		{"a weak hash", with(206, map[string]string{"ETag": "W/" + tag, "Content-Range": "bytes 100000-299999/300000"}), true},
		{"another size", with(206, map[string]string{"ETag": tag, "Content-Range": "bytes 100000-299999/300001"}), true},
		{"not satisfiable", with(416, nil), true},
		{"precondition failed", with(412, nil), true},
		{"another place", with(206, map[string]string{"ETag": tag, "Content-Range": "bytes 0-299999/300000"}), false},
		{"no place", with(206, map[string]string{"ETag": tag}), false},
		{"no ranges", with(200, map[string]string{"ETag": tag}), false},
		{"gone", with(410, nil), false},
		{"forbidden", with(403, nil), false},
		{"elsewhere", with(302, map[string]string{"Location": "https://evil.test/"}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{steps: []step{object(data, tag, 100_000, errCut), c.step}}
				got, err := get(t, w, Options{})
				if err == nil || errors.Is(err, ErrChanged) != c.changed || errors.Is(err, ErrGivenUp) {
					t.Errorf("error %v, want ErrChanged: %v", err, c.changed)
				}
				if !bytes.Equal(got, data[:100_000]) {
					t.Errorf("%d bytes read, want the first 100000", len(got))
				}
				if len(w.asked) != 2 {
					t.Errorf("%d requests, want 2", len(w.asked))
				}
			})
		})
	}
}

// TestLeavesAlone: what cannot be resumed is handed through, and fails as ever.
func TestLeavesAlone(t *testing.T) {
	data := noise(t, 1000)
	cut := func(head map[string]string) step {
		return func(r *http.Request) (*http.Response, error) {
			return respond(r, 200, head, &pipe{bytes.NewReader(data[:500]), r.Context(), errCut}), nil
		}
	}
	for name, s := range map[string]step{
		"no tag":    cut(map[string]string{"Content-Length": "1000"}),
		"weak tag":  cut(map[string]string{"Content-Length": "1000", "ETag": `W/"a"`}),
		"no length": cut(map[string]string{"ETag": tag}),
		"no ranges": cut(map[string]string{"Content-Length": "1000", "ETag": tag, "Accept-Ranges": "none"}),
	} {
		w := &world{steps: []step{s}}
		if got, err := get(t, w, Options{}); !errors.Is(err, errCut) || len(got) != 500 || len(w.asked) != 1 {
			t.Errorf("%s: %d bytes, %v, %d requests", name, len(got), err, len(w.asked))
		}
	}
	w := &world{steps: []step{refused}}
	c := &http.Client{Transport: &Transport{Base: w}}
	if _, err := c.Post("https://vod.test/", "text/plain", strings.NewReader("x")); err == nil || len(w.asked) != 1 {
		t.Errorf("a POST was tried %d times: %v", len(w.asked), err)
	}
}

// TestGivesUp: after so many tries in a row, spread over the time that the waits say;
// each byte gives the budget back.
func TestGivesUp(t *testing.T) {
	data := noise(t, 300_000)
	synctest.Test(t, func(t *testing.T) {
		w := &world{steps: []step{object(data, tag, 100_000, errCut), refused}}
		_, err := get(t, w, Options{Tries: 5, Least: time.Second, Most: 3 * time.Second})
		if !errors.Is(err, ErrGivenUp) || !errors.Is(err, errCut) || len(w.asked) != 1+5 {
			t.Errorf("%v after %d requests", err, len(w.asked))
		}
		if first := w.at[1].Sub(w.at[0]); first != 0 {
			t.Errorf("the first try came after %s, want at once", first)
		}
		if all := w.at[5].Sub(w.at[0]); all <= 0 || all > (1+2+3+3)*time.Second {
			t.Errorf("tries over %s", all)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		steps := make([]step, 20)
		for i := range steps {
			steps[i] = object(data, tag, 10, errCut)
		}
		w := &world{steps: append(steps, object(data, tag, len(data), nil))}
		if got, err := get(t, w, Options{Tries: 3}); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if w.at[20].Equal(w.at[1]) {
			t.Error("connections that bring ten bytes each are tried without a wait")
		}
	})
}

// TestContextEnds: the caller's context ends a wait and a silence.
func TestContextEnds(t *testing.T) {
	data := noise(t, 300_000)
	for name, second := range map[string]step{"silence": object(data, tag, 10, nil), "wait": refused} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://vod.test/film", nil)
			w := &world{steps: []step{object(data, tag, 100_000, errCut), second}}
			resp, err := (&Transport{Base: w, Options: Options{Tries: 1000}}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestContentRange(t *testing.T) {
	for _, bad := range []string{"", "bytes", "bytes 1-2", "bytes */10", "bytes 3-2/10", "bytes 0-10/10", "bytes 0-1/*", "items 0-1/10", "bytes -1/10", "bytes 0-9223372036854775807/9223372036854775807"} {
		if s, err := contentRange(bad); err == nil {
			t.Errorf("%q is %+v", bad, s)
		}
	}
	if s, err := contentRange("bytes 3-9/10"); err != nil || s != (span{3, 10, 10}) {
		t.Errorf("%+v, %v", s, err)
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 3-9/10")
	f.Add("bytes */10")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := contentRange(s); err == nil && (r.next < 0 || r.end <= r.next || r.end > r.size) {
			t.Errorf("%q is %+v", s, r)
		}
	})
}
