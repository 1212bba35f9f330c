package resume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// follow reads a stream to its end.
func follow(t testing.TB, w *world, o Options) (got []string, err error) {
	t.Helper()
	s, err := OpenWith(t.Context(), w.client(), "https://live.test/scores", o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		e, err := s.Next()
		if err != nil {
			return got, err
		}
		got = append(got, e.Type+" "+e.Data+" "+e.ID)
	}
}

func TestStreamGoesOn(t *testing.T) {
	const head = "id: t1\n\n"
	end := status(http.StatusNoContent, nil)
	for _, c := range []struct {
		name  string
		steps []step
		want  []string
		shown []string // Last-Event-ID of each request
		tries []string // with which try
		err   error
	}{
		{"over", []step{stream(head+"id: t2\ndata: a\n\n", io.EOF), end}, []string{"message a t2"}, []string{"", "t2"}, []string{"1", "1"}, io.EOF},
		{"cut in an event", []step{stream(head+"id: t2\ndata: a\n\nid: t3\ndata: b", errCut), stream("event: x\nid: t3\ndata: b\n\n", errCut), end},
			[]string{"message a t2", "x b t3"}, []string{"", "t2", "t3"}, []string{"1", "1", "1"}, io.EOF},
		{"only the token came", []step{stream(head, errCut), stream("id: t5\n\n", errCut), end}, nil, []string{"", "t1", "t5"}, []string{"1", "1", "1"}, io.EOF},
		{"the answer is lost", []step{stream(head, errCut), refused, status(http.StatusBadGateway, nil), stream("data: a\n\n", errCut), end},
			[]string{"message a t1"}, []string{"", "t1", "t1", "t1", "t1"}, []string{"1", "1", "2", "3", "4"}, io.EOF},
		{"stale", []step{stream(head, errCut), status(http.StatusConflict, nil)}, nil, []string{"", "t1"}, nil, ErrStale},
		{"expired", []step{stream(head, errCut), status(http.StatusGone, nil)}, nil, []string{"", "t1"}, nil, ErrExpired},
		{"nobody there", []step{refused}, nil, nil, nil, ErrGivenUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{steps: c.steps}
				got, err := follow(t, w, Options{})
				if fmt.Sprint(got) != fmt.Sprint(c.want) || !errors.Is(err, c.err) {
					t.Errorf("events %q, %v, want %q, %v", got, err, c.want, c.err)
				}
				key := ""
				for i, want := range c.shown {
					h := w.asked[i].Header
					k, try, _ := strings.Cut(h.Get("Rhumb-Client"), ";try=")
					if i == 0 {
						key = k
					}
					if h.Get("Last-Event-ID") != want || len(k) < 16 || k != key || c.tries != nil && try != c.tries[i] {
						t.Errorf("request %d: Last-Event-ID %q, try %s, key as before: %v, want %q, try %v", i, h.Get("Last-Event-ID"), try, k == key, want, c.tries)
					}
				}
				if c.shown != nil && len(w.asked) != len(c.shown) {
					t.Errorf("%d requests, want %d", len(w.asked), len(c.shown))
				}
			})
		})
	}
}

// TestStreamWaits: silence is death; the server may say how long to wait.
func TestStreamWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{steps: []step{stream("id: 1\ndata: a\n\n", nil), stream("retry: 4000\nid: 2\ndata: b\n\n", errCut), status(http.StatusNoContent, nil)}}
		got, err := follow(t, w, Options{Stall: 20 * time.Second})
		if len(got) != 2 || err != io.EOF {
			t.Fatalf("%q, %v", got, err)
		}
		if silent := w.at[1].Sub(w.at[0]); silent != 20*time.Second {
			t.Errorf("silence was found after %s", silent)
		}
		if waited := w.at[2].Sub(w.at[1]); waited != 4*time.Second {
			t.Errorf("waited %s, asked for 4s", waited)
		}
	})
}

func TestStreamRefuses(t *testing.T) {
	for _, bad := range []string{"http://live.test/", "live.test", "https://", "://"} {
		if _, err := Open(t.Context(), bad, Options{}); err == nil {
			t.Errorf("%q was opened", bad)
		}
	}
	moved := func(to string) step { return status(http.StatusFound, map[string]string{"Location": to}) }
	for name, s := range map[string]step{
		"a page": status(http.StatusOK, map[string]string{"Content-Type": "text/html"}), "forbidden": status(http.StatusForbidden, nil),
		"sent elsewhere": moved("https://evil.test/"), "sent to clear": moved("http://live.test/"),
	} {
		w := &world{steps: []step{s}}
		if _, err := follow(t, w, Options{}); err == nil || errors.Is(err, ErrGivenUp) || len(w.asked) != 1 {
			t.Errorf("%s: %v after %d requests", name, err, len(w.asked))
		}
	}
	w := &world{steps: []step{stream("data: "+strings.Repeat("x", maxLine+1)+"\n\n", errCut)}}
	if _, err := follow(t, w, Options{}); err == nil || len(w.asked) != 1 {
		t.Errorf("a line without end: %v after %d requests", err, len(w.asked))
	}
}

func TestStreamCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{steps: []step{stream("", nil)}}
		s, err := OpenWith(t.Context(), w.client(), "https://live.test/", Options{Stall: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { s.Close() })
		if _, err := s.Next(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// events reads a whole stream at once: the oracle.
func events(text string) (out []Event) {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(strings.TrimPrefix(text, "\xef\xbb\xbf"))
	lines := strings.Split(text, "\n")
	kind, id := "", ""
	var data []string
	for _, line := range lines[:len(lines)-1] {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if data != nil {
				out = append(out, Event{or(kind, "message"), strings.Join(data, "\n"), id})
			}
			kind, data = "", nil
		case name == "event":
			kind = value
		case name == "data":
			data = append(data, value)
		case name == "id" && !strings.Contains(value, "\x00"):
			id = value
		}
	}
	return out
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"id: 1\ndata: a\n\n", "\xef\xbb\xbfdata:a\r\rdata\r\n\r\n", ": x\nretry: 5\nevent: y\ndata: 1\ndata: 2\n\n\nid\n\ndata: cut", "id: a\x00b\ndata:\n\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range []io.Reader{strings.NewReader(s), iotest.OneByteReader(strings.NewReader(s))} {
			p := newParser(r, "")
			var got []Event
			for {
				e, done, err := p.step()
				if errors.Is(err, bufio.ErrTooLong) {
					return
				}
				if err != nil {
					break
				}
				if done {
					got = append(got, e)
				}
			}
			if want := events(s); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%q is %q, want %q", s, got, want)
			}
		}
	})
}
