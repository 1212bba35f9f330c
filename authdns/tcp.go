package authdns

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// writeTimeout is how long a peer may take to read what has been written to it.
const writeTimeout = 5 * time.Second

// serveTCP accepts connections until the listener is closed.
func (s *Server) serveTCP(ctx context.Context, k socket, conns *conns) error {
	var group sync.WaitGroup
	defer group.Wait()
	t := s.tallies.worker()
	for {
		c, err := k.stream.Accept()
		switch {
		case err == nil: // also when the context has ended: who is connected here is nowhere else
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			return nil
		default:
			// Out of descriptors, or reset before it was accepted: the next one may do.
			s.metrics.dropped.WithLabelValues("accept").Inc()
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		if conn := s.take(c, k, conns); conn != nil {
			group.Go(func() {
				defer conns.remove(conn)
				s.serveConn(conn, conns, k.tls, t)
			})
		}
	}
}

// take makes a connection of a socket, if there is room for it; else nil.
func (s *Server) take(raw net.Conn, k socket, conns *conns) *conn {
	c := newConn(raw, asker{local: specified(addrPort(raw.LocalAddr())), addr: unmap(addrPort(raw.RemoteAddr())), level: k.level, tcp: true, tls: k.tls != nil})
	c.proxied = s.proxied(c.from.addr.Addr())
	if conns.add(c, s.now()) {
		return c
	}
	s.metrics.dropped.WithLabelValues("tcp_limit").Inc()
	raw.Close()
	return nil
}

// pause waits, and tells whether the context still holds.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// conn is a connection. What is read and written goes through stream, which only
// its own goroutine touches; raw is for whoever ends it. The time of the last query
// and the client it is counted for are guarded by conns.
type conn struct {
	raw, stream net.Conn
	in          *bufio.Reader
	from        asker
	// proxied is set where a PROXY header says who the client is.
	proxied bool
	last    time.Time
	client  client
	// quic ends one over QUIC, which has no raw and no stream.
	quic *quicEnds
}

// end ends a connection at once. Over QUIC the client is told why.
func (c *conn) end(code quic.ApplicationErrorCode) {
	if c.quic != nil {
		c.quic.end(code)
		return
	}
	c.raw.Close()
}

// finish ends it where it waits for a query.
func (c *conn) finish() {
	if c.quic != nil {
		c.quic.finish()
		return
	}
	c.raw.SetReadDeadline(time.Unix(1, 0))
}

// newConn makes a connection of an open socket. The buffer holds a few queries,
// which pipelining sends in one segment, and costs little while idle.
func newConn(raw net.Conn, from asker) *conn {
	return &conn{raw: raw, stream: raw, in: bufio.NewReaderSize(raw, 512), from: from}
}

// serveConn answers the queries of a connection. It ends at end of file, also a
// half-closed one once its queries are answered, when the peer idles or does not
// read, or at anything malformed.
//
// Replies leave in the order of the queries: none of them waits for anything, so
// there is nothing that another could overtake (RFC 7766 section 6.2.1.1 lets
// them, and asks for it where one would wait).
func (s *Server) serveConn(c *conn, conns *conns, conf *tls.Config, t *tally) {
	defer c.raw.Close()
	if err := s.greet(c, conns, conf); err != nil {
		s.metrics.dropped.WithLabelValues("greeting").Inc()
		return
	}
	if c.stream != c.raw {
		defer c.stream.Close() // says goodbye, so that nobody takes the end for an attack
	}
	for s.serveBurst(c, conns, t) {
	}
}

var errTooMany = errors.New("too many connections of one client")

// greet takes what comes before the first query: a PROXY header, a TLS handshake.
// Both together may take no longer than a query.
func (s *Server) greet(c *conn, conns *conns, conf *tls.Config) error {
	if !c.proxied && conf == nil {
		return nil
	}
	if err := c.raw.SetDeadline(time.Now().Add(conns.idle)); err != nil {
		return err
	}
	if c.proxied {
		client, err := readProxy(c.raw, c.from.addr)
		if err != nil {
			return err
		}
		c.from.addr = unmap(client)
		if !conns.rename(c) {
			return errTooMany
		}
	}
	if conf != nil {
		secure := tls.Server(c.raw, conf)
		if err := secure.Handshake(); err != nil {
			return err
		}
		c.stream = secure
	}
	c.in.Reset(c.stream)
	return c.raw.SetDeadline(time.Time{})
}

// tcpBuffer holds a query, and replies behind their lengths: room for any one, and
// for those of a burst before it. It is borrowed for as long as a burst takes, so
// that idle connections cost next to nothing.
type tcpBuffer struct {
	in  [maxTCP]byte
	out [2 * (2 + maxTCP)]byte
}

// serveBurst waits for a query, and answers it together with those that came
// behind it; false ends the connection.
func (s *Server) serveBurst(c *conn, conns *conns, t *tally) bool {
	// One deadline for a whole query: a peer which sends an octet now and then
	// holds the connection no longer than an idle one.
	if !conns.await(c) {
		return false
	}
	n, err := readLength(c.in)
	if err != nil {
		return false
	}
	b, ok := s.buffers.Get().(*tcpBuffer)
	if !ok {
		b = new(tcpBuffer)
	}
	defer s.buffers.Put(b)
	for used := 0; ; {
		if _, err := io.ReadFull(c.in, b.in[:n]); err != nil {
			return false
		}
		conns.touch(c, s.now())
		place := s.shield.tcp.keep(b.in[:n])
		done, err := s.atStream(b.in[:n], b.out[used+2:], c.from.addr.Addr(), c.writer(b.out[:used], func() { conns.touch(c, s.now()) }))
		if done { // with the replies before it; what comes behind is a burst of its own
			s.shield.tcp.release(place)
			return err == nil
		}
		m := s.handleTold(b.in[:n], b.out[used+2:], c.from, t)
		s.shield.tcp.release(place)
		if m == 0 {
			c.send(b.out[:used])
			return false
		}
		binary.BigEndian.PutUint16(b.out[used:], uint16(m))
		used += 2 + m
		if n = c.waiting(); n == 0 || used > len(b.out)/2 {
			return c.send(b.out[:used]) == nil
		}
		c.in.Discard(2)
	}
}

// waiting is the length of a query that has come whole already; else 0.
func (c *conn) waiting() int {
	if c.in.Buffered() < 2 {
		return 0
	}
	b, err := c.in.Peek(2)
	n := int(binary.BigEndian.Uint16(b))
	if err != nil || c.in.Buffered() < 2+n {
		return 0
	}
	return n
}

// send writes replies. A peer that takes none of them for long is let go: while
// it does not read, nothing more is read from it either.
func (c *conn) send(replies []byte) error {
	if len(replies) == 0 {
		return nil
	}
	if err := c.stream.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.stream.Write(replies)
	return err
}

// writer sends messages behind the two octets of their length, the first one behind
// the replies which wait. It tells of each that it was sent, so that a full table does
// not end a transfer under way.
func (c *conn) writer(waiting []byte, sent func()) func([]byte, time.Duration) error {
	var length [2]byte
	return func(msg []byte, limit time.Duration) error {
		defer sent()
		if err := c.stream.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		binary.BigEndian.PutUint16(length[:], uint16(len(msg)))
		_, err := (&net.Buffers{waiting, length[:], msg}).WriteTo(c.stream)
		waiting = nil
		return err
	}
}

var errEmpty = errors.New("message of length 0")

// readLength reads the length before a message (RFC 1035 section 4.2.2).
func readLength(r io.Reader) (int, error) {
	var b [2]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(b[:]))
	if n == 0 {
		return 0, errEmpty
	}
	return n, nil
}
