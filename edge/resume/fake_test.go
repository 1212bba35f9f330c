package resume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"time"
)

var errCut = errors.New("connection reset by peer")

// world is a fake network: the nth request is answered by the nth step, and the last
// one by all that follow. It stands where a transport does.
type world struct {
	steps []step
	asked []*http.Request
	at    []time.Time
	idle  int // times that it was told to forget connections
}

type step func(*http.Request) (*http.Response, error)

func (w *world) RoundTrip(r *http.Request) (*http.Response, error) {
	n := len(w.asked)
	w.asked, w.at = append(w.asked, r), append(w.at, time.Now())
	return w.steps[min(n, len(w.steps)-1)](r)
}

func (w *world) CloseIdleConnections() { w.idle++ }

func (w *world) client() *http.Client { return &http.Client{Transport: w} }

// refused is a site that is not there.
func refused(*http.Request) (*http.Response, error) { return nil, errCut }

// pipe is a body: some bytes, then an error, or silence until its request ends.
type pipe struct {
	*bytes.Reader
	ctx context.Context
	end error // nil: silence
}

func (p *pipe) Read(b []byte) (int, error) {
	if n, err := p.Reader.Read(b); err == nil {
		return n, nil
	}
	if p.end != nil {
		return 0, p.end
	}
	<-p.ctx.Done()
	return 0, p.ctx.Err()
}

func (p *pipe) Close() error { return nil }

func respond(r *http.Request, status int, head map[string]string, body io.ReadCloser) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, ContentLength: -1, Body: body, Request: r}
	for k, v := range head {
		resp.Header.Set(k, v)
	}
	if n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = n
	}
	return resp
}

// status answers with nothing else.
func status(code int, head map[string]string) step {
	return func(r *http.Request) (*http.Response, error) {
		return respond(r, code, head, http.NoBody), nil
	}
}

// object serves an object as our sites do, and of each response at most so many
// bytes; then it ends so.
func object(data []byte, tag string, most int, end error) step {
	return func(r *http.Request) (*http.Response, error) {
		head := map[string]string{"ETag": tag, "Accept-Ranges": "bytes", "Content-Length": strconv.Itoa(len(data))}
		code, part := http.StatusOK, data
		if spec := r.Header.Get("Range"); spec != "" && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == tag) {
			var a, z int
			if _, err := fmt.Sscanf(spec, "bytes=%d-%d", &a, &z); err != nil || a >= len(data) {
				return respond(r, http.StatusRequestedRangeNotSatisfiable, nil, http.NoBody), nil
			}
			z = min(z, len(data)-1)
			code, part = http.StatusPartialContent, data[a:z+1]
			head["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", a, z, len(data))
			head["Content-Length"] = strconv.Itoa(len(part))
		}
		if most < len(part) {
			return respond(r, code, head, &pipe{bytes.NewReader(part[:most]), r.Context(), end}), nil
		}
		return respond(r, code, head, &pipe{bytes.NewReader(part), r.Context(), io.EOF}), nil
	}
}

// stream serves text as an event stream; then it ends so.
func stream(text string, end error) step {
	return func(r *http.Request) (*http.Response, error) {
		return respond(r, http.StatusOK, map[string]string{"Content-Type": "text/event-stream; charset=utf-8"},
			&pipe{bytes.NewReader([]byte(text)), r.Context(), end}), nil
	}
}

func noise(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{1})
	if _, err := src.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}
