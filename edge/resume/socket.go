package resume

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// What sites and clients say to each other in a WebSocket; docs/how-to/resume.md.
const (
	subProtocol   = "rhumb.resume.1"
	protocolToken = "rhumb.token."
	wordAny       = "rhumb:"
	wordNext      = "rhumb:next "
	wordToken     = "rhumb:token "
	closeDone     = 1000
	closeStale    = 4409
)

// closeWait is how long the end of a WebSocket may take to be written.
const closeWait = time.Second

// ErrBroken: there is no connection just now. Next makes one.
var ErrBroken = errors.New("resume: no connection just now")

// Message is one that came over a WebSocket.
type Message struct {
	Text bool // and UTF-8; else octets
	Data []byte
}

// Socket is a WebSocket (RFC 6455) that goes on over the connections it takes.
type Socket struct {
	line
	in   frames
	next string // token behind the message to come; empty: none was told

	mu  sync.Mutex
	out io.Writer // nil: broken
}

// OpenSocket makes a WebSocket to a wss URL, by a client's transport; nil: that of
// http.DefaultClient. It connects at the first Next.
func OpenSocket(ctx context.Context, client *http.Client, address string, o Options) (*Socket, error) {
	l, err := newLine(ctx, client, address, "wss", o, webSocket{})
	if err != nil {
		return nil, err
	}
	return &Socket{line: l}, nil
}

// Next waits for a message. io.EOF: the server says that there are no more. Any error
// is the end.
func (s *Socket) Next() (Message, error) {
	for s.over == nil {
		if s.now == nil {
			if s.over = s.connect(); s.over != nil {
				break
			}
			s.opened()
		}
		op, payload, err := s.in.step()
		if err != nil {
			s.broken(err)
			if errors.Is(err, errFrame) || errors.Is(err, errTooBig) || errors.Is(err, errNotText) {
				s.over = err
			}
			continue
		}
		if m, ok := s.take(op, payload); ok {
			return m, nil
		}
	}
	s.stop()
	return Message{}, s.over
}

// Send sends a message over the present connection. Any goroutine may. What was sent
// over a connection that broke may have arrived, or not: only the two ends can tell
// each other.
func (s *Socket) Send(m Message) error {
	if m.Text {
		return s.write(opText, m.Data)
	}
	return s.write(opBytes, m.Data)
}

// Close ends the WebSocket. It may be called at any time, by any goroutine: a Next that
// waits returns.
func (s *Socket) Close() error {
	late := time.AfterFunc(closeWait, s.stop) // whoever writes is cut off
	defer late.Stop()
	_ = s.write(opClose, binary.BigEndian.AppendUint16(nil, closeDone)) // none, none to end
	s.stop()
	return nil
}

// opened begins with a new connection.
func (s *Socket) opened() {
	body := s.now.ReadCloser
	context.AfterFunc(s.now.ctx, func() { body.Close() }) // of a 101 nobody else does
	s.in, s.next = frames{in: bufio.NewReader(s.reader())}, ""
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = body.(io.Writer) // fits has seen it
}

// broken ends a connection.
func (s *Socket) broken(why error) {
	s.lost(why) // first: it cuts off who writes, and has the lock
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = nil
}

func (s *Socket) write(op byte, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		return ErrBroken
	}
	_, err := s.out.Write(appendFrame(nil, op, payload))
	return err
}

// take takes what came. ok tells whether it is a message for the caller.
func (s *Socket) take(op byte, payload []byte) (m Message, ok bool) {
	switch word := string(payload); {
	case op == opClose:
		s.closed(payload)
	case op == opPing:
		_ = s.write(opPong, payload) // the next Read tells that it broke
	case op == opText && strings.HasPrefix(word, wordToken):
		s.stands(strings.TrimPrefix(word, wordToken))
	case op == opText && strings.HasPrefix(word, wordNext):
		s.next = strings.TrimPrefix(word, wordNext)
	case op == opText && strings.HasPrefix(word, wordAny): // of a later version
	case op == opText || op == opBytes:
		if s.next != "" {
			s.stands(s.next)
			s.next = ""
		}
		s.pace.moved(len(payload))
		return Message{op == opText, payload}, true
	}
	// A connection that brings nothing but tokens has to live to be a good one.
	if time.Since(s.pace.began) >= goodLife {
		s.pace.moved(0)
	}
	return m, false
}

// closed takes the server's end of a connection (RFC 6455, section 7.4).
func (s *Socket) closed(payload []byte) {
	_ = s.write(opClose, payload)
	code := uint16(0)
	if len(payload) >= 2 {
		code = binary.BigEndian.Uint16(payload)
	}
	s.broken(fmt.Errorf("resume: closed with code %d", code))
	switch {
	case code == closeDone:
		s.over = io.EOF
	case code == closeStale:
		s.over = ErrStale
	case code >= 1002 && code <= 1010 || code >= 3000: // it will not be otherwise elsewhere
		s.over = s.why
	}
}

// webSocket is how one is asked for.
type webSocket struct{}

// transport speaks HTTP/1.1, in which one connection becomes the WebSocket.
func (webSocket) transport(base http.RoundTripper) http.RoundTripper {
	rt := fresh(base)
	if t, ok := rt.(*http.Transport); ok {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
	}
	return rt
}

func (webSocket) dress(req *http.Request, last string) {
	var key [16]byte
	rand.Read(key[:]) // never fails (crypto/rand)
	protocols := subProtocol
	if last != "" {
		protocols += ", " + protocolToken + last
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Sec-Websocket-Version", "13")
	req.Header.Set("Sec-Websocket-Key", base64.StdEncoding.EncodeToString(key[:]))
	req.Header.Set("Sec-Websocket-Protocol", protocols)
}

// fits checks the server's handshake (RFC 6455, section 4.2.2).
func (webSocket) fits(resp *http.Response) error {
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("resume: status %d", resp.StatusCode)
	}
	_, writes := resp.Body.(io.Writer)
	if !writes || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") ||
		resp.Header.Get("Sec-Websocket-Accept") != acceptOf(resp.Request.Header.Get("Sec-Websocket-Key")) {
		return errors.New("resume: no handshake of a WebSocket")
	}
	if p := resp.Header.Get("Sec-Websocket-Protocol"); p != subProtocol || resp.Header.Get("Sec-Websocket-Extensions") != "" {
		return fmt.Errorf("resume: subprotocol %q, not %q", p, subProtocol)
	}
	return nil
}

// acceptOf is a server's answer to a client's key (RFC 6455, section 1.3).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
