package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// body is a download that goes on.
type body struct {
	t    *Transport
	pace *pacer
	req  *http.Request // as the caller made it
	tag  string
	span

	now  *connection // nil: broken
	why  error       // it broke
	over error       // what every later Read returns
}

// connection is one response's body and what ends it.
type connection struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	rt     http.RoundTripper
	lent   bool // rt is the caller's, which has use for what is idle
}

func (c *connection) Close() error {
	err := c.ReadCloser.Close()
	c.cancel(context.Canceled)
	if !c.lent {
		forget(c.rt)
	}
	return err
}

// read reads, and cuts the connection when nothing comes for too long.
func (c *connection) read(p []byte, stall time.Duration) (int, error) {
	t := time.AfterFunc(stall, func() { c.cancel(errStalled) })
	defer t.Stop()
	n, err := c.ReadCloser.Read(p)
	if err != nil && context.Cause(c.ctx) == errStalled {
		err = fmt.Errorf("%w in %s", errStalled, stall)
	}
	return n, err
}

// body takes over that of a first response.
func (t *Transport) body(req *http.Request, resp *http.Response, p *pacer, c *connection) io.ReadCloser {
	s, tag, ok := spanOf(resp)
	if !ok {
		return c
	}
	p.began = time.Now()
	return &body{t: t, pace: p, req: req, tag: tag, span: s, now: c}
}

// Read reads on, over as many connections as it takes.
func (b *body) Read(p []byte) (int, error) {
	for b.over == nil {
		if b.next == b.end {
			b.over = io.EOF
			break
		}
		if b.now == nil {
			if b.over = b.reconnect(); b.over != nil {
				break
			}
		}
		n, err := b.now.read(p[:min(int64(len(p)), b.end-b.next)], b.pace.Stall)
		b.next += int64(n)
		if err != nil && b.next < b.end {
			b.drop(err)
		}
		if n > 0 {
			b.pace.moved(n)
			return n, nil
		}
		if err == nil && len(p) == 0 {
			return 0, nil
		}
	}
	return 0, b.over
}

// Close ends the download.
func (b *body) Close() error {
	if b.over == nil || b.over == io.EOF {
		b.over = errors.New("resume: read of a closed body")
	}
	if b.now == nil {
		return nil
	}
	now := b.now
	b.now = nil
	return now.Close()
}

// drop ends a connection that has failed.
func (b *body) drop(why error) {
	if why == io.EOF {
		why = io.ErrUnexpectedEOF
	}
	b.why = why
	b.now.Close()
	b.now = nil
}

// reconnect tries until there is a connection, or reason to give up.
func (b *body) reconnect() error {
	for asked := time.Duration(0); ; {
		// The caller's end is no reason to try again.
		if err := b.req.Context().Err(); err != nil {
			return err
		}
		if err := b.pace.pause(b.req.Context(), asked, b.why); err != nil {
			return err
		}
		resp, err := b.ask()
		asked = 0
		if err != nil {
			b.why = err
			continue
		}
		if err = b.fits(resp); err == nil {
			return nil
		}
		b.drop(err)
		if !passing(resp.StatusCode) {
			return err
		}
		asked = retryAfter(resp)
	}
}

// ask asks for the rest, on a new connection.
func (b *body) ask() (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(b.req.Context())
	r := plain(b.req.Clone(ctx))
	r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.next, b.end-1))
	r.Header.Set("If-Range", b.tag)
	rt := fresh(b.t.Base)
	late := time.AfterFunc(b.pace.Stall, func() { cancel(errStalled) })
	defer late.Stop()
	resp, err := rt.RoundTrip(r)
	if err != nil {
		cancel(err)
		return nil, err
	}
	b.now = &connection{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, rt: rt}
	return resp, nil
}

// fits tells whether a response is the rest of the same object. With If-Range
// a server answers 200 when it is not (RFC 9110, section 13.1.5).
func (b *body) fits(resp *http.Response) error {
	tag := resp.Header.Get("ETag")
	switch resp.StatusCode {
	case http.StatusPartialContent:
		s, err := contentRange(resp.Header.Get("Content-Range"))
		switch {
		case tag != b.tag || err == nil && s.size != b.size:
			return fmt.Errorf("%w: %s of %d bytes, not %s of %d", ErrChanged, or(tag, "no tag"), s.size, b.tag, b.size)
		case err != nil || s.next != b.next || s.end > b.end:
			return fmt.Errorf("resume: asked for %d-%d, got %q", b.next, b.end-1, resp.Header.Get("Content-Range"))
		}
		return nil
	case http.StatusOK:
		if tag == b.tag {
			return errors.New("resume: the server gives no ranges")
		}
		return fmt.Errorf("%w: %s, not %s", ErrChanged, or(tag, "no tag"), b.tag)
	case http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable:
		return fmt.Errorf("%w: status %d", ErrChanged, resp.StatusCode)
	}
	return fmt.Errorf("resume: status %d", resp.StatusCode)
}
