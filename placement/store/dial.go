package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// helloTime bounds a handshake where clear is the way out: a server that does not
// speak TLS may wait for more bytes instead of closing.
const helloTime = 3 * time.Second

// Link is how a client's connections run.
type Link struct {
	// TLS and Clear count open connections; Clear those that leave this machine. What
	// stays on it (the own member) is counted by neither while in clear.
	TLS, Clear int
	// Closed tells that this client has learned that the cluster takes TLS alone.
	Closed bool
}

// dialer opens the connections of a client. Safe for concurrent use.
type dialer struct {
	mode   TLSMode
	config *tls.Config
	marker string
	above  bool        // gRPC does TLS by itself, above these connections
	closed atomic.Bool // clear is no way out any more
	// connections by kind; near ones are in clear and do not leave this machine
	tls, clear, near atomic.Int64
}

func newDialer(c *ClientTLS) *dialer {
	if c == nil || c.Mode == TLSOff {
		return &dialer{mode: TLSOff}
	}
	d := &dialer{mode: c.Mode, config: c.Config.Clone(), marker: c.Marker}
	d.config.NextProtos = []string{"h2"} // etcd's API is gRPC
	_, err := os.Stat(d.marker)
	d.closed.Store(d.marker != "" && err == nil)
	return d
}

// dial connects: by TLS, and in clear only where mode and knowledge permit it and the
// other side does not speak TLS. A certificate that is wrong is never a reason.
func (d *dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := connect(ctx, addr)
	if err != nil || d.mode == TLSOff {
		return d.counted(raw, raw, err)
	}
	strict := d.strict()
	hello := ctx
	if !strict {
		var cancel context.CancelFunc
		hello, cancel = context.WithTimeout(ctx, helloTime)
		defer cancel()
	}
	c := tls.Client(raw, d.config)
	if err = c.HandshakeContext(hello); err == nil {
		return d.counted(c, raw, nil)
	}
	raw.Close()
	if strict && d.mode != TLSRequire && speaksClear(err) {
		return nil, fmt.Errorf("store: TLS with %s, since %s says that there is nothing else: %w", addr, d.marker, err)
	}
	if strict || ctx.Err() != nil || !speaksClear(err) {
		return nil, fmt.Errorf("store: TLS with %s: %w", addr, err)
	}
	raw, err = connect(ctx, addr)
	return d.counted(raw, raw, err)
}

// strict tells whether clear is out of the question.
func (d *dialer) strict() bool {
	return d.mode == TLSRequire || d.mode == TLSAuto && d.closed.Load()
}

func connect(ctx context.Context, addr string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

// speaksClear tells whether a handshake failed as it does with a server that knows no
// TLS: it hangs up, answers something else, or waits.
func speaksClear(err error) bool {
	var header tls.RecordHeaderError
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &header)
}

// learn takes over what the members say of themselves: whether all know each other by
// TLS. In clear anybody on the way could have said it.
func (d *dialer) learn(closed bool) error {
	if d.mode == TLSOff || d.tls.Load() == 0 || d.clear.Load()+d.near.Load() > 0 {
		return nil
	}
	if d.closed.Swap(closed) == closed || d.marker == "" {
		return nil
	}
	return mark(d.marker, closed)
}

// mark writes or removes a file that says: from here on TLS alone.
func mark(file string, there bool) error {
	if !there {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte("The members of the store take TLS alone: no connection in clear from here on.\n"), 0o644)
}

// options have gRPC connect this way. To it the connection is in clear: TLS lies below.
func (d *dialer) options() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(d.dial), grpc.WithTransportCredentials(insecure.NewCredentials())}
}

// inClear returns endpoints whose scheme has gRPC itself do no TLS.
func inClear(urls []string) []string {
	out := make([]string, len(urls))
	for i, u := range urls {
		if rest, ok := strings.CutPrefix(u, "https:"); ok {
			u = "http:" + rest
		}
		out[i] = u
	}
	return out
}

func (d *dialer) link() Link {
	return Link{TLS: int(d.tls.Load()), Clear: int(d.clear.Load()), Closed: d.strict()}
}

// counted adds a connection to the figures until it closes.
func (d *dialer) counted(c, raw net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	n := &d.tls
	switch {
	case c != raw, d.above:
	case local(raw):
		n = &d.near
	default:
		n = &d.clear
	}
	n.Add(1)
	return &countedConn{Conn: c, end: sync.OnceFunc(func() { n.Add(-1) })}, nil
}

// local tells whether both ends of a connection are on this machine.
func local(c net.Conn) bool {
	here, ok1 := c.LocalAddr().(*net.TCPAddr)
	there, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return !ok1 || !ok2 || there.IP.IsLoopback() || here.IP.Equal(there.IP)
}

type countedConn struct {
	net.Conn
	end func()
}

// Close ends the connection and its place in the figures.
func (c *countedConn) Close() error {
	c.end()
	return c.Conn.Close()
}
