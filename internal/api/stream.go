package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// How long silence lasts before a comment keeps the connection alive, and how
// long a write may take before the reader counts as gone.
const (
	streamComment = 15 * time.Second
	streamWrite   = 10 * time.Second
)

// stream serves GET /stream?topics=: server-sent events. The first byte goes at
// once; a client that comes back with Last-Event-ID gets what it missed, or a
// reset and the whole state.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	topics, err := topicsOf(r)
	if err != nil {
		writeProblem(w, problemOf(err))
		return
	}
	lastID := r.Header.Get("Last-Event-ID")
	c, first := s.hub.join(topics, lastID)
	defer s.hub.leave(c)

	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // a proxy in between shall not hold it back
	out := &frames{w: w, ctl: http.NewResponseController(w), id: s.hub.id}
	if out.comment("rhumb") != nil || out.raw("retry: 1000\n\n") != nil {
		return
	}
	for _, m := range first {
		if out.message(m) != nil {
			return
		}
	}
	s.follow(r, c, out)
}

// follow writes what comes until the reader goes, is dropped, or the server ends.
func (s *Server) follow(r *http.Request, c *client, out *frames) {
	quiet := time.NewTicker(streamComment)
	defer quiet.Stop()
	for {
		var err error
		select {
		case <-r.Context().Done():
			return
		case m, ok := <-c.queue:
			if !ok {
				return
			}
			err = out.message(m)
		case <-quiet.C:
			err = out.comment("quiet")
		}
		if err != nil {
			return
		}
	}
}

// topicsOf reads ?topics=site,bgp; none means all.
func topicsOf(r *http.Request) ([]string, error) {
	q := r.URL.Query().Get("topics")
	if q == "" {
		return nil, nil
	}
	topics := strings.Split(q, ",")
	for _, t := range topics {
		if !slices.Contains([]string{TopicSnapshot, TopicSite, TopicBGP, TopicEvent, TopicTransfer}, t) {
			return nil, fmt.Errorf("stream: %w: no topic %q; there are snapshot, site, bgp, event, transfer", ErrInvalid, t)
		}
	}
	return topics, nil
}

// frames writes server-sent events.
type frames struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
	id  func(message) string
}

func (f *frames) message(m message) error {
	return f.raw(fmt.Sprintf("event: %s\nid: %s\ndata: %s\n\n", m.topic, f.id(m), m.data))
}

func (f *frames) comment(text string) error { return f.raw(": " + text + "\n\n") }

func (f *frames) raw(text string) error {
	// A writer without deadlines (in tests) simply has none.
	_ = f.ctl.SetWriteDeadline(time.Now().Add(streamWrite))
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	return f.ctl.Flush()
}
