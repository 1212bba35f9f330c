package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// serveUnix takes clients at a socket of this machine until the context ends, and
// returns when all of them have been served. What names the socket in errors.
func serveUnix(ctx context.Context, path, what string, log *slog.Logger, serve func(net.Conn)) error {
	l, err := listenUnix(path)
	if err != nil {
		return fmt.Errorf("health: %s %s: %w", what, path, err)
	}
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("health: %s %s: %w", what, path, err)
		case err != nil: // no file descriptors, say: that passes, and clients wait in the backlog
			log.Warn("a client cannot be taken", "socket", path, "err", err)
			pause(ctx, retryAccept)
		default:
			wg.Go(func() { serve(conn) })
		}
	}
}

// untilGone serves clients that only listen: the context of each ends when it goes, or
// with ours. Its connection is closed then, which ends a write as well.
func untilGone(ctx context.Context, serve func(context.Context, net.Conn)) func(net.Conn) {
	return func(conn net.Conn) {
		ctx, cancel := context.WithCancel(ctx)
		var watch sync.WaitGroup
		defer watch.Wait() // runs last: the connection is closed by then
		defer cancel()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		defer conn.Close()
		watch.Go(func() { // a client says nothing; its end is seen by reading
			defer cancel()
			var one [1]byte
			conn.Read(one[:])
		})
		serve(ctx, conn)
	}
}

// listenUnix opens a socket for the units of this machine. One left behind by a
// process that was killed is replaced.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
