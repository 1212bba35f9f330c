package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// ProbeTCP passes on a handshake and, if the check says so, on the expected
// bytes, and on an end without a reset. A handshake alone proves little: the
// kernel shakes hands for a process that hangs, until its backlog is full. Expected
// bytes prove more.
func ProbeTCP(ctx context.Context, t Target) Result {
	watch := startWatch()
	conn, err := dial(ctx, t)
	if err != nil {
		return watch.stamp(failed(dialKind(err), "connect to "+t.Address.String()+": "+reason(err)))
	}
	defer conn.Close()
	watch.note(func(p *Phases, d time.Duration) { p.Connect = d })
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if s := t.Check.TCP.Send; s != "" {
		if _, err := conn.Write([]byte(s)); err != nil {
			return watch.stamp(failed(dialKind(err), "send: "+reason(err)))
		}
	}
	var r Result
	if want := t.Check.TCP.Expect; want != "" {
		if r = expect(conn, want, watch); !r.OK() {
			return watch.stamp(r)
		}
	}
	if err := leave(conn); err != nil {
		bytes := r.Bytes
		r = failed("reset", "connected, then: "+reason(err))
		r.Bytes = bytes
		return watch.stamp(r)
	}
	return watch.stamp(passed(r))
}

// How a probe takes leave: it waits for the peer's end for no longer than
// resetWait, and reads no more than leaveLimit of what the peer still has to say.
const (
	resetWait  = 20 * time.Millisecond
	leaveLimit = 64 << 10
)

// leave ends a connection in order (RFC 9293, 3.6): our FIN first, then the rest
// of the peer's bytes is read, since closing a socket with unread bytes sends a
// reset, which fills the logs of servers. It returns the reset of a peer which takes
// connections only to drop them, as a balancer without servers does. Silence, bytes
// and an orderly end are all well.
func leave(conn net.Conn) error {
	if c, ok := conn.(*net.TCPConn); ok {
		c.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(resetWait))
	if _, err := io.CopyN(io.Discard, conn, leaveLimit); errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

// expect reads until the wanted bytes came or 5,120 others did.
func expect(conn net.Conn, want string, watch *stopwatch) Result {
	buf := make([]byte, 0, bodyLimit)
	for len(buf) < cap(buf) {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		if len(buf) == 0 && n > 0 {
			watch.note(func(p *Phases, d time.Duration) { p.First = d })
		}
		buf = buf[:len(buf)+n]
		if bytes.Contains(buf, []byte(want)) {
			return passed(Result{Bytes: len(buf)})
		}
		if err != nil {
			r := failed(dialKind(err), fmt.Sprintf("expected %q, have %d bytes: %s", want, len(buf), reason(err)))
			r.Bytes = len(buf)
			return r
		}
	}
	r := failed("body", fmt.Sprintf("expected %q, not in the first %d bytes", want, len(buf)))
	r.Bytes = len(buf)
	return r
}

// dial connects to the target's address; its name is for the layers above.
func dial(ctx context.Context, t Target) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", t.Address.String())
}

// dialKind classes a network error for metrics.
func dialKind(err error) string {
	var ne net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "own"
	}
	return "unreachable"
}

// reason strips what the caller says anyway.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return "no answer in time"
	}
	return err.Error()
}
