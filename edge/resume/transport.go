package resume

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Transport makes the bodies of its responses go on by themselves.
type Transport struct {
	Base http.RoundTripper // nil: http.DefaultTransport
	Options
}

// RoundTrip does one request. The body of a response that can be resumed ends at
// its end, with an error of the request's context, or with one of this package.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	base := t.Base
	if base == nil {
		base = http.DefaultTransport
	}
	if req.Method != http.MethodGet || req.Body != nil && req.Body != http.NoBody || req.Header.Get("If-Range") != "" {
		return base.RoundTrip(req)
	}
	p := &pacer{Options: t.Options.withDefaults(), tries: 1, total: 1}
	for rt := base; ; rt = fresh(t.Base) {
		// Of its own context: a body that falls silent is cut off by it.
		ctx, cancel := context.WithCancelCause(req.Context())
		resp, err := rt.RoundTrip(plain(req.Clone(ctx)))
		if err == nil {
			resp.Request = req
			resp.Body = t.body(req, resp, p, &connection{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, rt: rt, lent: p.total == 1})
			return resp, nil
		}
		cancel(err)
		if req.Context().Err() != nil {
			return nil, err
		}
		if err := p.pause(req.Context(), 0, err); err != nil {
			return nil, err
		}
	}
}

// plain asks for the object itself: else the transport asks for gzip and hands
// out what it unpacked, of which no part can be asked for.
func plain(req *http.Request) *http.Request {
	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}
	return req
}

// span is a part of an object: from next to before end.
type span struct{ next, end, size int64 }

// spanOf tells which part a response holds, and by which tag it can be gone on
// with. ok is false if it cannot: without a strong tag nobody knows whether the
// rest is of the same bytes, without a length nobody knows whether there is one.
func spanOf(resp *http.Response) (s span, tag string, ok bool) {
	tag = resp.Header.Get("ETag")
	if !strings.HasPrefix(tag, `"`) || resp.Uncompressed || resp.Header.Get("Accept-Ranges") == "none" {
		return s, "", false
	}
	switch resp.StatusCode {
	case http.StatusOK:
		s = span{0, resp.ContentLength, resp.ContentLength}
		return s, tag, resp.ContentLength >= 0
	case http.StatusPartialContent:
		s, err := contentRange(resp.Header.Get("Content-Range"))
		return s, tag, err == nil
	}
	return s, "", false
}

// contentRange reads the field of one range (RFC 9110, section 14.4).
func contentRange(field string) (s span, err error) {
	unit, rest, _ := strings.Cut(field, " ")
	part, size, ok := strings.Cut(rest, "/")
	first, last, dash := strings.Cut(part, "-")
	a, errA := strconv.ParseUint(first, 10, 62)
	z, errZ := strconv.ParseUint(last, 10, 62)
	n, errN := strconv.ParseUint(size, 10, 62)
	if !ok || !dash || !strings.EqualFold(unit, "bytes") || errA != nil || errZ != nil || errN != nil || z < a || z >= n {
		return s, fmt.Errorf("Content-Range %q", field)
	}
	return span{int64(a), int64(z) + 1, int64(n)}, nil
}
