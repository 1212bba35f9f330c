package authdns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Why a connection or a stream ends (RFC 9250 section 4.3).
const (
	doqNoError          = 0x0
	doqInternalError    = 0x1
	doqProtocolError    = 0x2
	doqRequestCancelled = 0x3
	doqExcessiveLoad    = 0x4
)

const (
	// cancelledFree is how many queries a client may cancel that let us answer fewer
	// (RFC 9250 section 4.3.1).
	cancelledFree = 100
	// lingerFor is how long a connection that we end stays open behind its last reply: its
	// end overtakes what has not been sent, and the library does not tell when that is.
	lingerFor = 100 * time.Millisecond
)

// doqError is an error that ends a connection, and what its client is told.
type doqError struct {
	code quic.ApplicationErrorCode
	why  string
}

func (e *doqError) Error() string { return fmt.Sprintf("DNS over QUIC, error %d: %s", e.code, e.why) }

// violated is what a client did that the protocol forbids (RFC 9250 section 4.3.3).
func violated(why string) error { return &doqError{doqProtocolError, why} }

// errFinished ends the wait for queries of a connection.
var errFinished = errors.New("the server ends")

// quicEnds are the two ways in which we end a connection.
type quicEnds struct {
	waiting, all context.CancelCauseFunc
}

// finish ends it where it waits for queries.
func (e *quicEnds) finish() { e.waiting(errFinished) }

// end ends it at once.
func (e *quicEnds) end(code quic.ApplicationErrorCode) { e.all(&doqError{code: code}) }

// quicConn is a connection over QUIC.
type quicConn struct {
	*conn
	on *quic.Conn
	// answering are the streams at hand; answered and cancelled those that have ended.
	answering, answered, cancelled atomic.Int64
}

// serve answers the queries of a connection until it ends.
func (l *quicListener) serve(on *quic.Conn) {
	all, end := context.WithCancelCause(on.Context())
	waiting, finish := context.WithCancelCause(all)
	context.AfterFunc(all, func() { // also where the client ended it, or the network
		e := &doqError{}
		errors.As(context.Cause(all), &e)
		on.CloseWithError(e.code, e.why)
	})
	c := &quicConn{on: on, conn: &conn{quic: &quicEnds{waiting: finish, all: end}, from: asker{
		addr: unmap(addrPort(on.RemoteAddr())), local: specified(addrPort(on.LocalAddr())), level: l.socket.level, tcp: true, tls: true, quic: true}}}
	defer func() {
		end(&doqError{})
		finish(nil)
		<-on.Context().Done()
	}()
	if !l.conns.add(c.conn, l.server.now()) {
		l.server.metrics.dropped.WithLabelValues("tcp_limit").Inc()
		end(&doqError{doqExcessiveLoad, "too many connections"})
		return
	}
	defer l.conns.remove(c.conn)
	var streams sync.WaitGroup
	for {
		st, err := c.await(waiting, l.conns.idle)
		if err != nil {
			break
		}
		c.answering.Add(1)
		streams.Go(func() {
			defer c.answering.Add(-1)
			l.fail(c, st, l.serveStream(c, st))
		})
	}
	streams.Wait()
	if errors.Is(context.Cause(waiting), errFinished) {
		pause(all, lingerFor)
	}
}

// await waits for the next query. A connection without one for so long has ended, unless
// something is still being answered.
func (c *quicConn) await(ctx context.Context, idle time.Duration) (*quic.Stream, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, idle)
		st, err := c.on.AcceptStream(wait)
		cancel()
		if err == nil || !errors.Is(err, context.DeadlineExceeded) || c.answering.Load() == 0 {
			return st, err
		}
	}
}

// fail does what an error on a stream asks for; nil asks for nothing.
func (l *quicListener) fail(c *quicConn, st *quic.Stream, err error) {
	var broken *doqError
	var cancelled *quic.StreamError
	switch {
	case err == nil:
		c.answered.Add(1)
	case errors.As(err, &broken) && broken.code == doqInternalError: // section 4.3.2
		l.server.metrics.dropped.WithLabelValues("quic").Inc()
		st.CancelWrite(doqInternalError)
	case errors.As(err, &broken):
		l.server.metrics.dropped.WithLabelValues("quic").Inc()
		c.quic.all(broken)
	case errors.As(err, &cancelled): // section 4.3.1
		st.CancelRead(doqRequestCancelled)
		st.CancelWrite(doqRequestCancelled)
		if n := c.cancelled.Add(1); n > cancelledFree && n > c.answered.Load() {
			l.server.metrics.dropped.WithLabelValues("quic").Inc()
			c.quic.all(&doqError{doqExcessiveLoad, "too many queries cancelled"})
		}
	case errors.Is(err, os.ErrDeadlineExceeded): // the client takes no reply
		st.CancelWrite(doqRequestCancelled)
	}
}

// serveStream answers the one query of a stream.
func (l *quicListener) serveStream(c *quicConn, st *quic.Stream) error {
	st.SetReadDeadline(time.Now().Add(l.conns.idle))
	in, err := readQuery(st)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return violated("a query does not end")
	}
	if err != nil {
		return err
	}
	if err := context.Cause(st.Context()); err != nil {
		return err // nobody wants the reply any more
	}
	l.conns.touch(c.conn, l.server.now())
	reply, err := l.reply(c, st, in)
	if err != nil {
		return err
	}
	if len(reply) > 0 {
		st.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := st.Write(reply); err != nil {
			return err
		}
	}
	return st.Close()
}

// reply makes the reply behind its length; a transfer writes its own and returns none.
// The large buffer goes back before the client has taken anything.
func (l *quicListener) reply(c *quicConn, st *quic.Stream, in []byte) ([]byte, error) {
	s := l.server
	b, ok := s.buffers.Get().(*tcpBuffer)
	if !ok {
		b = new(tcpBuffer)
	}
	defer s.buffers.Put(b)
	place := s.shield.tcp.keep(in)
	done, err := s.atStream(in, b.out[2:], c.from.addr.Addr(), l.writer(c, st))
	if done {
		s.shield.tcp.release(place)
		return nil, err
	}
	n := s.handleTold(in, b.out[2:2+maxTCP], c.from, l.tally)
	s.shield.tcp.release(place) // not deferred: what ends the process stays noted
	if n == 0 {
		return nil, &doqError{doqInternalError, "no reply"}
	}
	binary.BigEndian.PutUint16(b.out[:], uint16(n))
	return slices.Clone(b.out[:2+n]), nil
}

// writer sends the messages of a transfer, each behind its length (RFC 9250 section 4.2).
func (l *quicListener) writer(c *quicConn, st *quic.Stream) func([]byte, time.Duration) error {
	return func(msg []byte, limit time.Duration) error {
		defer func() { l.conns.touch(c.conn, l.server.now()) }()
		st.SetWriteDeadline(time.Now().Add(limit))
		if _, err := st.Write(binary.BigEndian.AppendUint16(nil, uint16(len(msg)))); err != nil {
			return err
		}
		_, err := st.Write(msg)
		return err
	}
}

// readQuery reads a stream to its end, where one query must have come behind its length
// (RFC 9250 section 4.2), and nothing that a client must not send over QUIC.
func readQuery(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, streamWindow+1))
	if err != nil {
		return nil, err
	}
	if len(b) < 2 {
		return nil, violated("a stream without a query")
	}
	n, in := int(binary.BigEndian.Uint16(b)), b[2:]
	switch {
	case len(in) < n:
		return nil, violated("a query is cut short")
	case len(in) > n:
		return nil, violated("more than one query on a stream")
	case n < headerLen || in[2]&0x80 != 0:
		return nil, violated("no query")
	case binary.BigEndian.Uint16(in) != 0: // section 4.2.1
		return nil, violated("the message ID is not 0")
	}
	if q, _ := parse(in, true); q.edns.keepalive { // section 5.5.2
		return nil, violated("edns-tcp-keepalive")
	}
	return in, nil
}
