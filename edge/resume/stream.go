package resume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"
)

// Stream is an event stream that goes on over the connections it takes.
type Stream struct {
	line
	in *parser
}

// Open makes a stream of the events at an https URL, fetched by http.DefaultClient.
// It connects at the first Next.
func Open(ctx context.Context, url string, o Options) (*Stream, error) {
	return OpenWith(ctx, nil, url, o)
}

// OpenWith is Open with a client of one's own. Its Timeout is not used: a stream has
// no end.
func OpenWith(ctx context.Context, client *http.Client, address string, o Options) (*Stream, error) {
	l, err := newLine(ctx, client, address, "https", o, eventStream{})
	if err != nil {
		return nil, err
	}
	return &Stream{line: l}, nil
}

// Next waits for an event. io.EOF: the server says that there are no more. Any
// error is the stream's end.
func (s *Stream) Next() (Event, error) {
	for s.over == nil {
		if s.now == nil {
			if s.over = s.connect(); s.over != nil {
				break
			}
			s.in = newParser(s.reader(), s.last)
		}
		e, done, err := s.in.step()
		if err != nil {
			if s.lost(err); errors.Is(err, bufio.ErrTooLong) {
				s.over = fmt.Errorf("resume: line or event of more than %d bytes", maxLine)
			}
			continue
		}
		s.wish = s.in.retry
		s.stands(s.in.last)
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

// eventStream is how a stream is asked for by plain HTTP.
type eventStream struct{}

func (eventStream) transport(base http.RoundTripper) http.RoundTripper { return fresh(base) }

func (eventStream) dress(req *http.Request, last string) {
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Cache-Control", "no-store")
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
}

func (eventStream) fits(resp *http.Response) error {
	switch kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case resp.StatusCode == http.StatusNoContent: // no more (HTML standard, section 9.2.3)
		return io.EOF
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("resume: status %d", resp.StatusCode)
	case kind != "text/event-stream":
		return fmt.Errorf("resume: not an event stream but %q", kind)
	}
	return nil
}
