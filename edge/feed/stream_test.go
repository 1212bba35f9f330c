package feed

import (
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/edge/token"
)

// soloFeed is a stream of a group of one site, its origin the test.
func soloFeed(t *testing.T, strict bool, header ...string) (*stream, *io.PipeWriter) {
	t.Helper()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	// As if it had been there for long.
	k, err := NewKeepers(KeepersConfig{Site: "a", Secrets: []token.Secret{{9}}, Since: time.Now().Add(-time.Hour), Room: 10})
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(Config{Service: "live", Path: "/", Strict: strict, Keepers: k, Metrics: NewMetrics(nil), Leaving: func() bool { return false },
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, no := f.admit(&http.Request{Method: http.MethodGet, URL: mustURL(t, "/x"), Header: h, ProtoMajor: 1})
	if s == nil {
		t.Fatalf("%+v", no)
	}
	r, w := io.Pipe()
	s.open(r)
	t.Cleanup(func() { s.Close() })
	return s, w
}

// next reads once.
func next(t *testing.T, s *stream) string {
	t.Helper()
	b := make([]byte, 4096)
	n, err := s.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// claimsOf opens the token in a line of a stream.
func claimsOf(t *testing.T, s *stream, text string) token.Claims {
	t.Helper()
	_, rest, _ := strings.Cut(text, "id: ")
	tok, _, _ := strings.Cut(rest, "\n")
	c, err := s.f.cfg.Keepers.keys.Load().Open(tok, time.Now(), token.Expect{Object: s.claims.Object})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return c
}

// TestFeed: a token first and with each event; a comment when it is quiet; a new
// token before the old one has expired.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, origin := soloFeed(t, true)
		began := time.Now()
		if c := claimsOf(t, s, next(t, s)); c.Epoch != 1 || c.Position != "" || !c.Expires.Equal(began.Add(token.Life).Truncate(time.Second)) {
			t.Errorf("first token: %+v", c)
		}
		go io.WriteString(origin, "id: 7\ndata: a\n\n")
		if c := claimsOf(t, s, next(t, s)); c.Position != "7" {
			t.Errorf("token of an event: %+v", c)
		}
		beats := 0
		for text := ""; !strings.HasPrefix(text, "id: "); beats++ {
			if text = next(t, s); strings.HasPrefix(text, "id: ") {
				if c := claimsOf(t, s, text); c.Position != "7" || c.Epoch != 1 || c.Expires.Sub(began) < token.Life+renewAfter {
					t.Errorf("renewed token: %+v", c)
				}
			} else if text != ":\n\n" {
				t.Fatalf("%q in a quiet stream", text)
			}
		}
		if took := time.Since(began); took > renewAfter+2*beatEvery || beats < 10 {
			t.Errorf("renewed after %s and %d beats", took, beats)
		}
		origin.Close()
		if _, err := s.Read(make([]byte, 10)); err != io.EOF {
			t.Errorf("at the origin's end: %v", err)
		}
	})
}

// message is a short text frame of a server.
func message(text string) string { return "\x81" + string(rune(len(text))) + text }

// upgrade returns the fields of a WebSocket's handshake.
func upgrade() []string {
	return []string{"Upgrade", "websocket", "Sec-WebSocket-Protocol", token.SubProtocol}
}

// TestFeedSocket: the same over a WebSocket.
func TestFeedSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, origin := soloFeed(t, true, upgrade()...)
		began := time.Now()
		if text := next(t, s); !strings.HasPrefix(text[4:], "rhumb:token ") {
			t.Errorf("first message: %q", text)
		}
		go io.WriteString(origin, message("rhumb:next 7")+message("a"))
		if text := next(t, s); !strings.HasPrefix(text[4:], "rhumb:next ") || !strings.HasSuffix(text, message("a")) {
			t.Errorf("message with its token: %q", text)
		}
		beats := 0
		for text := ""; len(text) < 100; beats++ {
			if text = next(t, s); len(text) < 100 && text != "\x8a\x00" {
				t.Fatalf("%q in a quiet connection", text)
			}
		}
		if took := time.Since(began); took > renewAfter+2*beatEvery || beats < 10 {
			t.Errorf("renewed after %s and %d beats", took, beats)
		}
		go io.WriteString(origin, "\xc1\x00")
		if text := next(t, s); text != "\x88\x02\x03\xf3" {
			t.Errorf("an extension that nobody asked for is answered by %q", text)
		}
		if _, err := s.Read(make([]byte, 10)); err == nil {
			t.Error("it goes on after a malformed frame")
		}
	})
}

// TestOwns: which paths are streams.
func TestOwns(t *testing.T) {
	f := &Server{cfg: Config{Path: "/live/"}}
	for p, want := range map[string]bool{"/live/": true, "/live/a": true, "/live": false, "/x/../live/a": true, "/live/../a": false, "/lives/a": false, "": false} {
		if f.Owns(p) != want {
			t.Errorf("%q is a stream: %v, want %v", p, !want, want)
		}
	}
	if (*Server)(nil).Owns("/live/") {
		t.Error("a service without streams has one")
	}
}

// TestFieldValue: a position that cannot go back as it is becomes no token.
func TestFieldValue(t *testing.T) {
	for s, want := range map[string]bool{"": true, "7": true, "a b": true, "ü": true, " a": false, "a\t": false, "a\x01": false, "a\x7f": false, "a\r\nb": false} {
		if fieldValue(s) != want {
			t.Errorf("%q: %v, want %v", s, !want, want)
		}
	}
}

// TestFeedSuperseded: a stream whose session goes on elsewhere ends at its next
// renewal, and one that is to leave at its next beat. A WebSocket is told why.
func TestFeedSuperseded(t *testing.T) {
	for name, c := range map[string]struct {
		do    func(*stream)
		limit time.Duration
		err   error
		code  string // to a WebSocket
	}{
		"later epoch": {func(s *stream) {
			q := touchOf(s.claims)
			q.Epoch++
			s.f.cfg.Keepers.ledger.Vote(q, time.Now().Add(time.Hour))
		}, renewAfter + 2*beatEvery, errOver, "\x11\x39"},
		"drain":       {func(s *stream) { s.f.cfg.Leaving = func() bool { return true } }, beatEvery, io.EOF, "\x03\xe9"},
		"no majority": {func(s *stream) { s.f.cfg.Keepers.ledger = token.NewLedger(time.Now().Add(time.Hour), 0) }, token.Life + 2*beatEvery, errOver, "\x11\x39"},
	} {
		for _, header := range [][]string{nil, upgrade()} {
			synctest.Test(t, func(t *testing.T) {
				s, _ := soloFeed(t, true, header...)
				next(t, s)
				c.do(s)
				began := time.Now()
				var err error
				var last string
				for b := make([]byte, 4096); err == nil; {
					var n int
					if n, err = s.Read(b); n > 0 {
						last = string(b[:n])
					}
				}
				if took := time.Since(began); err != c.err || took > c.limit {
					t.Errorf("%s: %v after %s, want %v within %s", name, err, took, c.err, c.limit)
				}
				if header != nil && last != "\x88\x02"+c.code {
					t.Errorf("%s: the last frame is %q, want the end with code %q", name, last, c.code)
				}
			})
		}
	}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
