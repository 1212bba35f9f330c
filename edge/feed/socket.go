package feed

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"rhumb/edge/token"
)

// socket is a stream over a WebSocket. What the client sends goes to the origin as
// it is: which of it arrived before a connection broke nobody knows but the two.
type socket struct {
	io.ReadCloser
	io.Writer
}

// isSocket tells whether a request is the handshake of a WebSocket (RFC 6455, section
// 4.2.1). Over HTTP/2 there are none.
func isSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// shownIn reads the token off a handshake, where it stands among the subprotocols. ok
// tells whether the client knows what tokens are: else it would take them for the
// origin's messages.
func shownIn(r *http.Request) (text string, ok bool) {
	for _, word := range strings.Split(strings.Join(r.Header.Values("Sec-Websocket-Protocol"), ","), ",") {
		word = strings.TrimSpace(word)
		if shown, is := strings.CutPrefix(word, token.ProtocolToken); is {
			text = shown
		}
		ok = ok || word == token.SubProtocol
	}
	return text, ok
}

// patient gives a client its time anew for each write.
type patient struct {
	http.ResponseWriter
	ctl   *http.ResponseController
	limit time.Duration
}

func (p *patient) Write(b []byte) (int, error) {
	if err := p.ctl.SetWriteDeadline(time.Now().Add(p.limit)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// Hijack hands out a connection with the same patience.
func (p *patient) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, b, err := p.ctl.Hijack()
	return patientConn{c, p.limit}, b, err
}

// Unwrap lets a ResponseController flush what is behind.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

type patientConn struct {
	net.Conn
	limit time.Duration
}

func (c patientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
