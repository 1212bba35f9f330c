package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"rhumb/edge/content"
)

// web serves a service's objects by net/http, HTTP/2 with it, over connections
// whose TLS is crypto/tls's. Their sessions stay at this site.
type web struct {
	svc     *service
	server  *http.Server
	conns   chan net.Conn
	stopped chan struct{}
	once    sync.Once
}

func newWeb(svc *service, cfg *tls.Config, log *slog.Logger) *web {
	w := &web{svc: svc, conns: make(chan net.Conn), stopped: make(chan struct{})}
	w.server = &http.Server{Handler: w, TLSConfig: cfg, ReadHeaderTimeout: svc.limits.Header, IdleTimeout: svc.limits.Idle,
		MaxHeaderBytes: maxRequest, DisableGeneralOptionsHandler: true, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	return w
}

// serve runs until stop. Connections which it has go on to their own end.
func (w *web) serve() { _ = w.server.Serve(w) }

func (w *web) stop() { w.once.Do(func() { close(w.stopped) }) }

// take serves one connection whose handshake is done, until it is closed.
func (w *web) take(c *tls.Conn, closed <-chan struct{}) {
	select {
	case w.conns <- c:
		<-closed
	case <-w.stopped:
		c.Close()
	}
}

// Accept, Close and Addr make web the listener of its server.
func (w *web) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.stopped:
		return nil, net.ErrClosed
	}
}

// Close does nothing: stop ends the listener.
func (w *web) Close() error { return nil }

// Addr is any address: nobody asks.
func (w *web) Addr() net.Addr { return &net.TCPAddr{} }

// watched tells when a connection was closed.
type watched struct {
	net.Conn
	done chan struct{}
	once sync.Once
}

func (c *watched) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// ServeHTTP answers as a session of ours does: the same decision, the same
// fields, the same checked blocks.
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if w.svc.feeds.Owns(r.URL.Path) {
		w.svc.feeds.ServeHTTP(rw, r)
		return
	}
	req, e := webRequest(r), content.Entry{}
	if req.status == 0 {
		e = w.svc.lookup(r.Context(), req)
	}
	rec := answer(req, e, time.Now())
	wire, err := newWire(rec, e.Body)
	if err == nil {
		err = w.respond(rw, r, wire)
	}
	if err != nil {
		// Part of the promised length is missing: only a cut tells.
		panic(http.ErrAbortHandler)
	}
}

// respond writes a response of ours through net/http.
func (w *web) respond(rw http.ResponseWriter, r *http.Request, wire wire) error {
	head, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(wire.head)), &http.Request{Method: http.MethodHead})
	if err != nil {
		return fmt.Errorf("edge: own head: %w", err)
	}
	for k, v := range head.Header {
		rw.Header()[k] = v
	}
	rw.WriteHeader(head.StatusCode)
	if r.Method == http.MethodHead {
		return nil
	}
	ctl := http.NewResponseController(rw)
	for off := int64(bytes.Index(wire.head, []byte("\r\n\r\n")) + 4); ; {
		b, err := wire.at(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		// A slow client has its time anew for each piece.
		b = b[:min(len(b), unsentMost)]
		if err := ctl.SetWriteDeadline(time.Now().Add(w.svc.limits.Write)); err != nil {
			return err
		}
		if _, err := rw.Write(b); err != nil {
			return err
		}
		off += int64(len(b))
	}
}

// webRequest is what of a request decides its answer. Connection fields are net/http's.
func webRequest(r *http.Request) request {
	req := request{method: r.Method, rangeSpec: r.Header.Get("Range"), ifRange: r.Header.Get("If-Range"),
		ifMatch: strings.Join(r.Header.Values("If-Match"), ","), ifNoneMatch: strings.Join(r.Header.Values("If-None-Match"), ",")}
	ok := false
	switch req.name, ok = nameOf(r.URL.Path); {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		req.status = http.StatusMethodNotAllowed
	case !ok:
		req.status = http.StatusBadRequest
	}
	return req
}
