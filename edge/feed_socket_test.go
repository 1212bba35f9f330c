package edge

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"rhumb/edge/resume"
	"rhumb/edge/token"
)

// talk is the story over a WebSocket, with its numbers as marks.
func (s *story) talk(rw http.ResponseWriter, r *http.Request, last int) {
	if r.Header.Get("Sec-WebSocket-Protocol") != token.SubProtocol || r.Header.Get("Sec-WebSocket-Extensions") != "" {
		s.leaked.Store(true) // of what is between site and client nothing comes here
	}
	c, b, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	protocol := token.SubProtocol
	if r.URL.Path == "/live/other" {
		protocol = "chat"
	}
	fmt.Fprintf(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: %s\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		protocol, base64.StdEncoding.EncodeToString(sum[:]))
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.hear(b.Reader)
	}()
	s.follow(last, gone, func(n int) error {
		if _, err := b.WriteString(message(fmt.Sprintf("rhumb:next n%d", n))); err != nil {
			return err
		}
		_, err := b.WriteString(message(fmt.Sprint(n)))
		return err
	}, func() { _ = b.Flush() })
	c.Close()
	<-gone
}

// message is a short text frame of a server.
func message(text string) string { return "\x81" + string(rune(len(text))) + text }

// hear reads short messages of a client to the connection's end.
func (s *story) hear(in io.Reader) {
	for {
		var head [6]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		b := make([]byte, head[1]&0x7f)
		if _, err := io.ReadFull(in, b); err != nil {
			return
		}
		for i := range b {
			b[i] ^= head[2+i%4]
		}
		s.mu.Lock()
		if s.heard = append(s.heard, string(b)); head[0]&15 == 8 {
			s.heard = s.heard[:len(s.heard)-1]
		}
		s.mu.Unlock()
	}
}

// handshake asks a site for a WebSocket, with a token if it is not empty.
func (g *group) handshake(site int, path, last string, header ...string) *http.Response {
	protocols := token.SubProtocol
	if last != "" {
		protocols += ", " + token.ProtocolToken + last
	}
	return g.get(site, path, "", append([]string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13",
		"Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol", protocols, "Sec-WebSocket-Extensions", "permessage-deflate"}, header...)...)
}

// firstWord reads the token with which a WebSocket begins, and closes it.
func (g *group) firstWord(resp *http.Response) string {
	g.t.Helper()
	defer resp.Body.Close()
	in := bufio.NewReader(resp.Body)
	head := make([]byte, 4)
	_, err := io.ReadFull(in, head)
	if resp.StatusCode != http.StatusSwitchingProtocols || err != nil || head[1] != 126 {
		g.t.Fatalf("status %d, frame %x, %v: want a token", resp.StatusCode, head, err)
	}
	b := make([]byte, int(head[2])<<8|int(head[3]))
	_, err = io.ReadFull(in, b)
	text, ok := strings.CutPrefix(string(b), "rhumb:token ")
	if !ok || err != nil || len(text) > token.MaxText {
		g.t.Fatalf("first message %q, %v: want a token", b, err)
	}
	return text
}

// TestSocketResumesElsewhere: each site dies in turn but the last, and no message is
// missed or told twice, with one request a change.
func TestSocketResumesElsewhere(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, false)
	ws, err := resume.OpenSocket(t.Context(), &http.Client{Transport: g.transport()}, "wss://video.test/live/scores?of=all", resume.Options{Stall: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(2*time.Minute, func() { ws.Close() })
	defer late.Stop()
	for n := 1; n <= 60; n++ {
		s.tell(1)
		m, err := ws.Next()
		if err != nil || string(m.Data) != fmt.Sprint(n) || !m.Text {
			t.Fatalf("message %d is %s, %v", n, m.Data, err)
		}
		if err := ws.Send(resume.Message{Text: true, Data: fmt.Appendf(nil, "got %d", n)}); err != nil {
			t.Fatalf("answer to message %d: %v", n, err)
		}
		s.await(t, fmt.Sprintf("got %d", n))
		if n%20 == 0 && n < 60 {
			g.now.Store(int32(n / 20))
			g.sites[n/20-1].kill()
		}
	}
	ws.Close()
	if requests, dials := g.requests(), g.dials.Load(); requests != 3 || dials != 3 {
		t.Errorf("%d requests over %d connections, want one a site", requests, dials)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fmt.Sprint(s.asked) != "[ n20 n40]" || s.leaked.Load() || len(s.heard) != 60 {
		t.Errorf("the origin was asked for what comes behind %q and heard %d messages; leaks: %v", s.asked, len(s.heard), s.leaked.Load())
	}
}

// await waits until a client's message has come.
func (s *story) await(t testing.TB, want string) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n, last := len(s.heard), ""
		if n > 0 {
			last = s.heard[n-1]
		}
		s.mu.Unlock()
		if last == want {
			return
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("the origin heard %q last, want %q", last, want)
		}
	}
}

// TestSocketRefused: a token of a WebSocket is that of no event stream, and the other
// way about; it is good once; and what is no stream with positions is not served.
func TestSocketRefused(t *testing.T) {
	s := newStory(t)
	g := newGroup(t, 3, t.TempDir(), s.URL, false)
	stream, ws := g.first(g.get(0, "/live/a", "")), g.firstWord(g.handshake(0, "/live/a", ""))
	plain := []string{"Sec-WebSocket-Protocol", "chat"}
	for _, c := range []struct {
		name string
		resp *http.Response
		want int
	}{
		{"token of an event stream", g.handshake(1, "/live/a", stream), http.StatusForbidden},
		{"token of a WebSocket", g.get(1, "/live/a", ws), http.StatusForbidden},
		{"another path", g.handshake(1, "/live/b", ws), http.StatusForbidden},
		{"no subprotocol of ours", g.handshake(1, "/live/a", "", plain...), http.StatusBadRequest},
		{"not the origin's subprotocol", g.handshake(1, "/live/other", ""), http.StatusBadGateway},
		{"an event stream", g.handshake(1, "/live/page", ""), http.StatusBadGateway},
		{"origin's error", g.handshake(1, "/live/broken", ""), http.StatusInternalServerError},
	} {
		if c.resp.Body.Close(); c.resp.StatusCode != c.want {
			t.Errorf("%s: status %d, want %d", c.name, c.resp.StatusCode, c.want)
		}
	}
	next := g.firstWord(g.handshake(1, "/live/a", ws))
	for i := range g.sites {
		resp := g.handshake(i, "/live/a", ws)
		if resp.Body.Close(); resp.StatusCode != http.StatusConflict {
			t.Errorf("stale token at site %d: status %d, want %d", i, resp.StatusCode, http.StatusConflict)
		}
	}
	g.firstWord(g.handshake(2, "/live/a", next))
	if s.leaked.Load() {
		t.Error("a token, a key or an offer reached the origin")
	}
}
