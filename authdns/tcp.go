package authdns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Limits of TCP (RFC 7766 section 6.2, RFC 9210 section 4).
const (
	idleTimeout  = 10 * time.Second
	writeTimeout = 5 * time.Second
	maxConns     = 1024
	maxPerClient = 64
)

// serveTCP accepts connections until the listener is closed.
func (s *Server) serveTCP(ctx context.Context, k socket, conns *conns) error {
	var group sync.WaitGroup
	defer group.Wait()
	t := s.tallies.worker()
	for {
		c, err := k.stream.Accept()
		switch {
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil:
			if c != nil {
				c.Close()
			}
			return nil
		case err != nil:
			// Out of descriptors, or reset before it was accepted: the next one may do.
			s.metrics.dropped.WithLabelValues("accept").Inc()
			if !pause(ctx, 50*time.Millisecond) {
				return nil
			}
			continue
		}
		conn := &conn{Conn: c, from: asker{addr: unmap(addrPort(c.RemoteAddr())), level: k.level, tcp: true}}
		if !conns.add(conn, s.now()) {
			s.metrics.dropped.WithLabelValues("tcp_limit").Inc()
			c.Close()
			continue
		}
		group.Go(func() {
			defer conns.remove(conn)
			s.serveConn(conn, conns, t)
		})
	}
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

// serveConn answers the queries of a connection in turn, pipelined ones from
// what has already arrived. It ends at end of file, also a half-closed one once
// its queries are answered, when the peer idles, or at anything malformed.
func (s *Server) serveConn(c *conn, conns *conns, t *tally) {
	defer c.Close()
	for s.serveMessage(c, conns, t) {
	}
}

// tcpBuffer holds one query and its reply behind their lengths. It is borrowed
// for as long as a message takes, so that idle connections cost next to nothing.
type tcpBuffer struct{ in, out [2 + maxTCP]byte }

// serveMessage answers one query; false ends the connection.
func (s *Server) serveMessage(c *conn, conns *conns, t *tally) bool {
	// One deadline for a whole message: a peer which sends an octet now and
	// then holds the connection no longer than an idle one.
	if c.SetReadDeadline(time.Now().Add(idleTimeout)) != nil {
		return false
	}
	n, err := readLength(c)
	if err != nil {
		return false
	}
	b, ok := s.buffers.Get().(*tcpBuffer)
	if !ok {
		b = new(tcpBuffer)
	}
	defer s.buffers.Put(b)
	if _, err := io.ReadFull(c, b.in[:n]); err != nil {
		return false
	}
	conns.touch(c, s.now())
	if done, err := s.atStream(b.in[:n], b.out[2:], c.from.addr.Addr(), c.writer(b.out[:2], func() { conns.touch(c, s.now()) })); done {
		return err == nil
	}
	m := s.handle(b.in[:n], b.out[2:], c.from, t)
	if m == 0 || c.SetWriteDeadline(time.Now().Add(writeTimeout)) != nil {
		return false
	}
	binary.BigEndian.PutUint16(b.out[:], uint16(m))
	_, err = c.Write(b.out[:2+m])
	return err == nil
}

// writer sends messages behind the two octets of their length. It tells of each
// that it was sent, so that a full table does not end a transfer under way.
func (c *conn) writer(length []byte, sent func()) func([]byte, time.Duration) error {
	return func(msg []byte, limit time.Duration) error {
		defer sent()
		if err := c.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		binary.BigEndian.PutUint16(length, uint16(len(msg)))
		_, err := (&net.Buffers{length, msg}).WriteTo(c.Conn)
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

// conn is a connection with the time of its last query, guarded by conns.
type conn struct {
	net.Conn
	from asker
	last time.Time
}

// conns is the table of all connections. When it is full the one which has been
// idle longest makes room.
type conns struct {
	mu        sync.Mutex
	all       map[*conn]struct{}
	perClient map[netip.Addr]int
	closed    bool
}

// newConns makes an empty table; one serves all listeners.
func newConns() *conns {
	return &conns{all: make(map[*conn]struct{}), perClient: make(map[netip.Addr]int)}
}

// add takes a connection in; false means that its client has too many.
func (t *conns) add(c *conn, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	addr := c.from.addr.Addr()
	if t.closed || t.perClient[addr] >= maxPerClient {
		return false
	}
	if len(t.all) >= maxConns {
		t.evict()
	}
	c.last = now
	t.all[c] = struct{}{}
	t.perClient[addr]++
	return true
}

// evict closes the connection that has been idle longest; mu is held. A scan
// costs microseconds, and only a full table pays them.
func (t *conns) evict() {
	var oldest *conn
	for c := range t.all {
		if oldest == nil || c.last.Before(oldest.last) {
			oldest = c
		}
	}
	oldest.Close()
	t.drop(oldest)
}

// touch notes a query, which keeps the connection from being evicted next.
func (t *conns) touch(c *conn, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.last = now
}

// remove forgets a connection that has ended.
func (t *conns) remove(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(c)
}

// drop forgets a connection once; mu is held.
func (t *conns) drop(c *conn) {
	if _, ok := t.all[c]; !ok {
		return
	}
	delete(t.all, c)
	addr := c.from.addr.Addr()
	if t.perClient[addr]--; t.perClient[addr] == 0 {
		delete(t.perClient, addr)
	}
}

// closeAll ends every connection and takes no more: Run is over.
func (t *conns) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.all {
		c.Close()
	}
}

// unmap makes an IPv4 client of a dual-stack socket an IPv4 client.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
