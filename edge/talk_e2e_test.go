//go:build e2e

package edge

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spoken is what a talker saw of a response.
type spoken struct {
	Status int
	Sum    string // SHA-256 of the content
	N      int64  // octets of it
	Err    string
}

// talkRole is a client that does as it is told: "dial", "send" and a quoted string, "begin" to
// read the head of a response and a kilobyte, "rest" to read what is left of it, "more" to read
// whatever else comes until the end.
func talkRole() error {
	var x loadArgs
	if err := json.Unmarshal([]byte(os.Getenv("EDGE_ARGS")), &x); err != nil {
		return err
	}
	p, out := &talker{x: x}, json.NewEncoder(os.Stdout)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		verb, arg, _ := strings.Cut(in.Text(), " ")
		out.Encode(p.do(verb, arg))
	}
	return nil
}

// talker is the client of talkRole.
type talker struct {
	x    loadArgs
	c    net.Conn
	r    *bufio.Reader
	body io.Reader
	seen spoken
	part []byte
}

func (p *talker) do(verb, arg string) spoken {
	var err error
	switch verb {
	case "dial":
		err = p.dial()
	case "send":
		text := ""
		if text, err = strconv.Unquote(arg); err == nil {
			_, err = io.WriteString(p.c, text)
		}
	case "begin":
		err = p.begin()
	case "rest":
		err = p.rest()
	case "more":
		p.seen = spoken{}
		p.seen.N, err = io.Copy(io.Discard, p.r)
	}
	got := p.seen
	if err != nil {
		got.Err = err.Error()
	}
	return got
}

func (p *talker) dial() error {
	d := net.Dialer{Control: func(_, _ string, c syscallConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10) })
	}}
	c, err := d.Dial("tcp", net.JoinHostPort(p.x.VIP, "8080"))
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(60 * time.Second))
	if p.x.CA != "" {
		if c, err = clientTLS(c, p.x.CA); err != nil {
			return err
		}
	}
	p.c, p.r = c, bufio.NewReader(c)
	return nil
}

func (p *talker) begin() error {
	resp, err := http.ReadResponse(p.r, nil)
	if p.seen = (spoken{}); err != nil {
		return err
	}
	p.seen.Status, p.body = resp.StatusCode, resp.Body
	p.part, err = io.ReadAll(io.LimitReader(p.body, 1<<10))
	p.seen.N = int64(len(p.part))
	return err
}

func (p *talker) rest() error {
	h := sha256.New()
	h.Write(p.part)
	n, err := io.Copy(h, p.body)
	p.seen.N += n
	p.seen.Sum = fmt.Sprintf("%x", h.Sum(nil))
	return err
}
