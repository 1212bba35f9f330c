package resume

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Stream is an event stream that goes on over the connections it takes.
type Stream struct {
	ctx    context.Context
	stop   context.CancelFunc
	client *http.Client // of the caller; nil: http.DefaultClient
	url    string
	pace   pacer

	key  string // by which a site knows that it is still us
	last string // token behind the last event that was read
	// shown counts how often last was shown: the answer may be lost on its way,
	// and a token is good once.
	shown int

	now  *connection
	in   *parser
	wish time.Duration // of the server: to be left alone before the next try
	why  error         // the last connection ended
	over error
}

// Open makes a stream of the events at an https URL, fetched by http.DefaultClient.
// It connects at the first Next.
func Open(ctx context.Context, url string, o Options) (*Stream, error) {
	return OpenWith(ctx, nil, url, o)
}

// OpenWith is Open with a client of one's own. Its Timeout is not used: a stream has
// no end.
func OpenWith(ctx context.Context, client *http.Client, address string, o Options) (*Stream, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("resume: %w", err)
	case u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("resume: %s://%s: a token goes over https alone", u.Scheme, u.Host)
	}
	ctx, stop := context.WithCancel(ctx)
	return &Stream{ctx: ctx, stop: stop, client: client, url: address, pace: pacer{Options: o.withDefaults()}, key: rand.Text()}, nil
}

// Next waits for an event. io.EOF: the server says that there are no more. Any
// error is the stream's end.
func (s *Stream) Next() (Event, error) {
	for s.over == nil {
		if s.now == nil {
			if s.over = s.connect(); s.over != nil {
				break
			}
		}
		e, done, err := s.in.step()
		if err != nil {
			s.lost(err)
			continue
		}
		s.wish = s.in.retry
		if s.last != s.in.last {
			s.last, s.shown = s.in.last, 0
		}
		// A connection that brings nothing but ids has to live to be a good one.
		if done || time.Since(s.pace.began) >= goodLife {
			s.pace.moved(len(e.Data))
		}
		if done {
			return e, nil
		}
	}
	s.stop()
	return Event{}, s.over
}

// Close ends the stream. It may be called at any time, by any goroutine: a Next
// that waits returns.
func (s *Stream) Close() error {
	s.stop()
	return nil
}

// lost ends a connection.
func (s *Stream) lost(why error) {
	s.why = why
	s.now.Close()
	s.now, s.in = nil, nil
	if errors.Is(why, bufio.ErrTooLong) {
		s.over = fmt.Errorf("resume: line or event of more than %d bytes", maxLine)
	}
}

// connect tries until there is a stream, or reason to give up.
func (s *Stream) connect() error {
	for asked := s.wish; ; {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		// The first connection of all is nobody's failure.
		if s.pace.total > 0 || s.why != nil {
			if err := s.pace.pause(s.ctx, asked, s.why); err != nil {
				return err
			}
		} else {
			s.pace.total, s.pace.began = 1, time.Now()
		}
		resp, err := s.ask()
		asked = s.wish
		if err != nil {
			s.why = err
			continue
		}
		if err = s.fits(resp); err == nil {
			s.in = newParser(resuming{s.now, s.pace.Stall}, s.last)
			return nil
		}
		s.lost(err)
		if !passing(resp.StatusCode) {
			return err
		}
		asked = max(asked, retryAfter(resp))
	}
}

// resuming reads a connection with its stall time.
type resuming struct {
	*connection
	stall time.Duration
}

func (r resuming) Read(p []byte) (int, error) { return r.read(p, r.stall) }

// ask asks for what comes behind the last event.
func (s *Stream) ask() (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		cancel(err)
		return nil, err
	}
	s.shown++
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-store")
	req.Header.Set("Rhumb-Client", s.key+";try="+strconv.Itoa(s.shown))
	if s.last != "" {
		req.Header.Set("Last-Event-ID", s.last)
	}
	c := http.Client{CheckRedirect: sameHost}
	if s.client != nil {
		c.Transport, c.Jar = s.client.Transport, s.client.Jar
	}
	c.Transport = fresh(c.Transport)
	late := time.AfterFunc(s.pace.Stall, func() { cancel(errStalled) })
	defer late.Stop()
	resp, err := c.Do(req)
	if err != nil {
		cancel(err)
		return nil, err
	}
	s.now = &connection{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, rt: c.Transport}
	return resp, nil
}

// sameHost keeps the token from going anywhere else.
func sameHost(req *http.Request, via []*http.Request) error {
	if len(via) > 10 || req.URL.Scheme != "https" || req.URL.Host != via[0].URL.Host {
		return http.ErrUseLastResponse
	}
	return nil
}

// fits tells whether a response is an event stream, and ours.
func (s *Stream) fits(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "text/event-stream" {
			return fmt.Errorf("resume: not an event stream but %q", kind)
		}
		return nil
	case http.StatusNoContent: // no more (HTML standard, section 9.2.3)
		return io.EOF
	case http.StatusConflict:
		return ErrStale
	case http.StatusGone:
		return ErrExpired
	}
	return fmt.Errorf("resume: status %d", resp.StatusCode)
}
