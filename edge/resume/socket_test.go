package resume

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// served is a frame of a server: not masked.
func served(op byte, payload string) string {
	b := []byte{0x80 | op}
	if n := len(payload); n < 126 {
		b = append(b, byte(n))
	} else {
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return string(b) + payload
}

func said(words ...string) (out string) {
	for _, w := range words {
		out += served(opText, w)
	}
	return out
}

func closing(code uint16) string {
	return served(opClose, string(binary.BigEndian.AppendUint16(nil, code)))
}

// upgraded is a site's handshake, with another end.
func upgraded(body io.ReadCloser, head map[string]string) step {
	return func(r *http.Request) (*http.Response, error) {
		h := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Protocol": subProtocol,
			"Sec-WebSocket-Accept": acceptOf(r.Header.Get("Sec-WebSocket-Key"))}
		for k, v := range head {
			h[k] = v
		}
		return respond(r, http.StatusSwitchingProtocols, h, body), nil
	}
}

// sends is a site that says something and falls silent, or cuts the connection.
func sends(text string, cut bool) step {
	return func(r *http.Request) (*http.Response, error) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, far)
			close(done)
		}()
		go func() {
			_, _ = io.WriteString(far, text)
			if !cut {
				<-done
			}
			far.Close()
		}()
		return upgraded(near, nil)(r)
	}
}

// talk reads a socket to its end.
func talk(t testing.TB, w *world, o Options) (got []string, err error) {
	t.Helper()
	s, err := OpenSocket(t.Context(), w.client(), "wss://live.test/chat", o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for {
		m, err := s.Next()
		if err != nil {
			return got, err
		}
		got = append(got, fmt.Sprintf("%s %v", m.Data, m.Text))
	}
}

func TestSocketGoesOn(t *testing.T) {
	const head = "rhumb:token t1"
	say := func(text string) step { return sends(text, true) }
	end := say(closing(closeDone))
	for _, c := range []struct {
		name  string
		steps []step
		want  []string
		shown []string // token of each request
		err   error
	}{
		{"over", []step{say(said(head, "rhumb:next t2", "a") + served(opBytes, "b") + closing(closeDone))}, []string{"a true", "b false"}, []string{""}, io.EOF},
		{"cut between a mark and its message", []step{say(said(head, "rhumb:next t2", "a", "rhumb:next t3")), say(said("rhumb:token t2", "rhumb:next t3", "b")), end},
			[]string{"a true", "b true"}, []string{"", "t2", "t3"}, io.EOF},
		{"cut in a message", []step{say(said(head, "rhumb:next t2", "a", "rhumb:next t3") + "\x81\x05bb"), say(said("rhumb:next t3", "b")), end},
			[]string{"a true", "b true"}, []string{"", "t2", "t3"}, io.EOF},
		{"in pieces, with a ping", []step{say(said(head, "rhumb:next t2") + "\x01\x01a" + served(opPing, "?") + "\x80\x01b"), end}, []string{"ab true"}, []string{"", "t2"}, io.EOF},
		{"a later word", []step{say(said(head, "rhumb:whatever", "a")), end}, []string{"a true"}, []string{"", "t1"}, io.EOF},
		{"the site leaves", []step{say(said(head) + closing(1001)), end}, nil, []string{"", "t1"}, io.EOF},
		{"the answer is lost", []step{say(said(head)), refused, status(http.StatusBadGateway, nil), end}, nil, []string{"", "t1", "t1", "t1"}, io.EOF},
		{"superseded", []step{say(said(head) + closing(closeStale))}, nil, []string{""}, ErrStale},
		{"stale", []step{say(said(head)), status(http.StatusConflict, nil)}, nil, []string{"", "t1"}, ErrStale},
		{"expired", []step{say(said(head)), status(http.StatusGone, nil)}, nil, []string{"", "t1"}, ErrExpired},
		{"a frame that is none", []step{say(said(head) + "\xf1\x00")}, nil, []string{""}, errFrame},
		{"masked", []step{say(said(head) + "\x81\x81abcdx")}, nil, []string{""}, errFrame},
		{"no text", []step{say(said("\xff"))}, nil, []string{""}, errNotText},
		{"too much", []step{say("\x82\x7f\x00\x00\x00\x00\x01\x00\x00\x01")}, nil, []string{""}, errTooBig},
		{"nobody there", []step{refused}, nil, nil, ErrGivenUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{steps: c.steps}
				got, err := talk(t, w, Options{})
				if fmt.Sprint(got) != fmt.Sprint(c.want) || !errors.Is(err, c.err) {
					t.Errorf("messages %q, %v, want %q, %v", got, err, c.want, c.err)
				}
				for i, want := range c.shown {
					_, shown, _ := strings.Cut(w.asked[i].Header.Get("Sec-WebSocket-Protocol"), protocolToken)
					if shown != want || w.asked[i].URL.Scheme != "https" {
						t.Errorf("request %d shows token %q over %s, want %q", i, shown, w.asked[i].URL.Scheme, want)
					}
				}
				if c.shown != nil && len(w.asked) != len(c.shown) {
					t.Errorf("%d requests, want %d", len(w.asked), len(c.shown))
				}
			})
		})
	}
}

// TestSocketSends: what is sent arrives, masked, and a ping is answered; without a
// connection nothing is sent; silence is death.
func TestSocketSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		w := &world{steps: []step{upgraded(near, nil), refused}}
		s, err := OpenSocket(t.Context(), w.client(), "wss://live.test/chat", Options{Stall: 20 * time.Second, Tries: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(Message{true, []byte("early")}); err != ErrBroken {
			t.Errorf("sent before there was a connection: %v", err)
		}
		var heard []string
		go func() {
			_, _ = io.WriteString(far, said("hello")+served(opPing, "?"))
			in := bufio.NewReader(far)
			for range 4 {
				heard = append(heard, unmasked(in))
			}
			// From here on it is silent.
		}()
		if m, err := s.Next(); err != nil || string(m.Data) != "hello" {
			t.Fatalf("%s, %v", m.Data, err)
		}
		long := bytes.Repeat([]byte("x"), 70_000)
		go func() {
			for _, m := range []Message{{true, []byte("text")}, {false, long[:300]}, {false, long}} {
				if err := s.Send(m); err != nil {
					t.Error(err)
				}
			}
		}()
		began := time.Now()
		_, err = s.Next() // there is no message, only silence, and then nobody
		if !errors.Is(err, ErrGivenUp) || time.Since(began) < 20*time.Second || time.Since(began) > 40*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if err := s.Send(Message{}); err != ErrBroken {
			t.Errorf("sent over a connection that broke: %v", err)
		}
		synctest.Wait()
		want := map[string]bool{"10 ?": true, "1 text": true, "2 " + string(long[:300]): true, "2 " + string(long): true}
		for _, h := range heard {
			delete(want, h)
		}
		if len(heard) != 4 || len(want) > 0 {
			t.Errorf("%d messages arrived, %d of those sent did not", len(heard), len(want))
		}
	})
}

// unmasked reads a frame of a client.
func unmasked(in *bufio.Reader) string {
	var head [2]byte
	if _, err := io.ReadFull(in, head[:]); err != nil || head[1]&0x80 == 0 {
		return "not masked"
	}
	size, _ := (&frames{in: in}).size(head[1])
	b := make([]byte, 4+size)
	_, _ = io.ReadFull(in, b)
	for i := range b[4:] {
		b[4+i] ^= b[i%4]
	}
	return fmt.Sprintf("%d %s", head[0]&15, b[4:])
}

func TestSocketRefuses(t *testing.T) {
	for _, bad := range []string{"ws://live.test/", "https://live.test/", "wss://", "://"} {
		if _, err := OpenSocket(t.Context(), nil, bad, Options{}); err == nil {
			t.Errorf("%q was opened", bad)
		}
	}
	for name, s := range map[string]step{
		"a page": status(http.StatusOK, nil), "forbidden": status(http.StatusForbidden, nil), "no body": upgraded(http.NoBody, nil),
		"another protocol": upgraded(pipeEnd(t), map[string]string{"Upgrade": "h2c"}), "another answer": upgraded(pipeEnd(t), map[string]string{"Sec-WebSocket-Accept": "x"}),
		"another subprotocol": upgraded(pipeEnd(t), map[string]string{"Sec-WebSocket-Protocol": "chat"}),
		"an extension":        upgraded(pipeEnd(t), map[string]string{"Sec-WebSocket-Extensions": "permessage-deflate"}),
	} {
		w := &world{steps: []step{s}}
		if _, err := talk(t, w, Options{}); err == nil || errors.Is(err, ErrGivenUp) || len(w.asked) != 1 {
			t.Errorf("%s: %v after %d requests", name, err, len(w.asked))
		}
	}
}

func pipeEnd(t testing.TB) net.Conn {
	near, far := net.Pipe()
	t.Cleanup(func() { far.Close() })
	return near
}

func TestSocketCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{steps: []step{sends("", false)}}
		s, err := OpenSocket(t.Context(), w.client(), "wss://live.test/", Options{Stall: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Minute, func() { s.Close() })
		if _, err := s.Next(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func FuzzFrames(f *testing.F) {
	for _, s := range []string{said("a", "b"), "\x01\x01a" + served(opPing, "?") + "\x80\x01b", served(opBytes, strings.Repeat("x", 300)), closing(1000), "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var results []string
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b))} {
			in, got, total := frames{in: bufio.NewReader(r)}, "", 0
			for {
				op, payload, err := in.step()
				if err != nil {
					break
				}
				got += fmt.Sprintf("%d %q;", op, payload)
				total += len(payload)
			}
			if total > len(b) {
				t.Errorf("%d octets out of %d", total, len(b))
			}
			results = append(results, got)
		}
		if results[0] != results[1] {
			t.Errorf("%q is %s or %s", b, results[0], results[1])
		}
	})
}
