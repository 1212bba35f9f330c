package authdns

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS over HTTPS (RFC 8484), as an authoritative server speaks it: for whoever may not
// be seen asking, or has no other way out. HTTP/2 and HTTP/1.1 come from the library;
// connections are counted with those of TCP and bounded alike.

const (
	// mediaType is the one that is spoken (RFC 8484 section 6).
	mediaType = "application/dns-message"
	// maxHTTPHeader holds a query of 4 KB in a URL, and what browsers send along.
	maxHTTPHeader = 16 << 10
	// maxStreams is how many queries of one connection are answered at once.
	maxStreams = 64
	// shortQuery holds all but odd queries: so much of each stream is read at once, and
	// what is longer of one stream of a connection at a time.
	shortQuery = 2 << 10
	// httpWindow is how much of a stream may come before it is read. A connection's is
	// that of all its streams: those that wait for another's long query hold up nobody.
	httpWindow = 16 << 10
)

// serveHTTP answers on a listener until ctx ends. Who is connected then hears so
// (GOAWAY), and what was asked by then is answered.
func (s *Server) serveHTTP(ctx context.Context, k socket, conns *conns) error {
	t := s.tallies.worker()
	mux := http.NewServeMux()
	mux.HandleFunc(k.http, func(w http.ResponseWriter, r *http.Request) { s.answerHTTP(w, r, conns, t) })
	srv := &http.Server{
		Handler: mux, TLSConfig: k.tls.Clone(), MaxHeaderBytes: maxHTTPHeader,
		ReadTimeout: conns.idle, WriteTimeout: writeTimeout, IdleTimeout: conns.idle,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: writeTimeout,
			MaxReceiveBufferPerStream: httpWindow, MaxReceiveBufferPerConnection: maxStreams * httpWindow},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // strangers' handshakes
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, httpConnKey{}, c.(*tls.Conn).NetConn())
		},
	}
	srv.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), endOut)
		defer cancel()
		if srv.Shutdown(bounded) != nil {
			srv.Close()
		}
	})
	err := srv.ServeTLS(&httpListener{server: s, socket: k, conns: conns}, "", "")
	if !stop() {
		<-stopped // connections end before we do
	}
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// httpConnKey finds the connection of a request.
type httpConnKey struct{}

// httpListener lets in whom the limits of TCP let in.
type httpListener struct {
	server *Server
	socket socket
	conns  *conns
}

func (l *httpListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.socket.stream.Accept()
		if err != nil {
			return nil, err
		}
		if c := l.server.take(raw, l.socket, l.conns); c != nil {
			c.from.https = true
			return &httpConn{Conn: raw, conn: c, conns: l.conns, long: make(chan struct{}, 1)}, nil
		}
	}
}

func (l *httpListener) Close() error   { return nil } // the Server's own
func (l *httpListener) Addr() net.Addr { return l.socket.stream.Addr() }

// httpConn is a connection below TLS. Who the client of a proxied one is stands in its
// first octets, and is read before the handshake's.
type httpConn struct {
	net.Conn
	conn  *conn
	conns *conns
	long  chan struct{} // held by the stream whose long query is read
	once  sync.Once
	err   error
}

func (c *httpConn) Read(b []byte) (int, error) {
	c.once.Do(func() {
		if !c.conn.proxied {
			return
		}
		var client netip.AddrPort
		if client, c.err = readProxy(c.Conn, c.conn.from.addr); c.err != nil {
			return
		}
		c.conn.from.addr = unmap(client)
		if !c.conns.rename(c.conn) {
			c.err = errTooMany
		}
	})
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

func (c *httpConn) Close() error {
	c.conns.remove(c.conn)
	return c.Conn.Close()
}

// answerHTTP answers one request.
func (s *Server) answerHTTP(w http.ResponseWriter, r *http.Request, conns *conns, t *tally) {
	c, ok := r.Context().Value(httpConnKey{}).(*httpConn)
	if !ok {
		http.Error(w, "no connection", http.StatusInternalServerError)
		return
	}
	query, status := queryHTTP(r, c.long)
	if status != http.StatusOK {
		s.metrics.dropped.WithLabelValues("http").Inc()
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", "GET, HEAD, POST")
		}
		http.Error(w, http.StatusText(status), status)
		return
	}
	conns.touch(c.conn, s.now())
	reply := s.replyHTTP(query, c.conn.from, t)
	if len(reply) == 0 { // what is no query at all
		http.Error(w, http.StatusText(http.StatusBadRequest), http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(reply)))
	// An answer may be one client's alone, so no cache may keep it for others; for how
	// long, its records say (section 5.1).
	h.Set("Cache-Control", "private, max-age="+strconv.FormatUint(uint64(freshFor(reply)), 10))
	w.Write(reply) // who has gone hears nothing
}

// replyHTTP is the reply to a query, in room of its own: who takes long to read it must
// not hold a buffer meanwhile.
func (s *Server) replyHTTP(query []byte, from asker, t *tally) []byte {
	b, ok := s.buffers.Get().(*tcpBuffer)
	if !ok {
		b = new(tcpBuffer)
	}
	defer s.buffers.Put(b)
	place := s.shield.tcp.keep(query)
	n := s.handleTold(query, b.out[:maxTCP], from, t)
	s.shield.tcp.release(place)
	return bytes.Clone(b.out[:n])
}

// queryHTTP reads the query of a request, of maxTCP octets at most, and says with which
// status it is turned away if it is none.
func queryHTTP(r *http.Request, long chan struct{}) ([]byte, int) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		query, err := base64.RawURLEncoding.DecodeString(r.URL.Query().Get("dns"))
		if err != nil || len(query) < headerLen || len(query) > maxTCP {
			return nil, http.StatusBadRequest
		}
		return query, http.StatusOK
	case http.MethodPost:
		if !strings.EqualFold(r.Header.Get("Content-Type"), mediaType) { // RFC 9110 section 8.3.1
			return nil, http.StatusUnsupportedMediaType
		}
		query, err := readBody(r, long)
		switch {
		case len(query) > maxTCP:
			return nil, http.StatusRequestEntityTooLarge
		case err != nil || len(query) < headerLen:
			return nil, http.StatusBadRequest
		}
		return query, http.StatusOK
	}
	return nil, http.StatusMethodNotAllowed
}

// readBody reads a body, and of one that is too long an octet more than may be. Who opens
// many streams and says little on each has little room for each.
func readBody(r *http.Request, long chan struct{}) ([]byte, error) {
	query := make([]byte, shortQuery)
	n, err := io.ReadFull(r.Body, query)
	if err != nil {
		return query[:n], atEnd(err)
	}
	select {
	case long <- struct{}{}:
		defer func() { <-long }()
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	query = append(make([]byte, 0, maxTCP+1), query...)
	n, err = io.ReadFull(r.Body, query[shortQuery:cap(query)])
	return query[:shortQuery+n], atEnd(err)
}

// atEnd is nil where a body ended before a buffer was full. One that was broken off does
// not end so: its connection, or stream, fails.
func atEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// freshFor is how long a reply is fresh, in seconds: as long as its answer's shortest
// TTL; without an answer, as its SOA tells (RFC 2308 section 5); an error, not at all.
func freshFor(reply []byte) uint32 {
	m := new(dns.Msg)
	if m.Unpack(reply) != nil || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	if len(m.Answer) == 0 {
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				return min(soa.Hdr.Ttl, soa.Minttl)
			}
		}
	}
	records := m.Answer
	if len(records) == 0 {
		records = m.Ns // a referral
	}
	least := uint32(0)
	for i, rr := range records {
		if ttl := rr.Header().Ttl; i == 0 || ttl < least {
			least = ttl
		}
	}
	return least
}
