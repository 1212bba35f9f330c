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
// bytes. Without expected bytes a peer that resets at once fails all the same.
// That a handshake proves little should be known: the kernel shakes hands for a
// process that hangs, until its backlog is full. Expected bytes prove more.
func ProbeTCP(ctx context.Context, t Target) Result {
	start := time.Now()
	conn, err := dial(ctx, t)
	if err != nil {
		return failed(dialKind(err), "connect to "+t.Address.String()+": "+reason(err))
	}
	defer conn.Close()
	r := Result{Connect: time.Since(start)}
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if s := t.Check.TCP.Send; s != "" {
		if _, err := conn.Write([]byte(s)); err != nil {
			return failed("reset", "send: "+reason(err))
		}
	}
	if want := t.Check.TCP.Expect; want != "" {
		return expect(conn, want, r)
	}
	if err := refusedLate(conn); err != nil {
		return failed("reset", "connected, then: "+reason(err))
	}
	r.OK, r.Kind = true, "ok"
	return r
}

// resetWait is how long a connection is watched for a reset behind the handshake.
const resetWait = 20 * time.Millisecond

// refusedLate returns the reset of a peer which takes connections only to drop
// them, as a balancer without servers does. Silence, bytes and an orderly end are
// all well.
func refusedLate(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(resetWait))
	var one [1]byte
	if _, err := conn.Read(one[:]); errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return nil
}

// expect reads until the wanted bytes came or 5,120 others did.
func expect(conn net.Conn, want string, r Result) Result {
	buf := make([]byte, 0, 5120)
	for len(buf) < cap(buf) {
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		r.Bytes = len(buf)
		if bytes.Contains(buf, []byte(want)) {
			r.OK, r.Kind = true, "ok"
			return r
		}
		if err != nil {
			r.Kind, r.Cause = dialKind(err), fmt.Sprintf("expected %q, have %d bytes: %s", want, len(buf), reason(err))
			return r
		}
	}
	r.Kind, r.Cause = "body", fmt.Sprintf("expected %q, not in the first %d bytes", want, len(buf))
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
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, syscall.EPIPE):
		return "reset"
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
