package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"rhumb/placement"
)

// Config is what a Server needs; State is required, the rest may be absent.
type Config struct {
	// State returns what is known now; it is called for each request and must be quick.
	State func() State
	// Past returns a snapshot that was in force, ErrNotFound if it is not kept.
	Past func(ctx context.Context, name placement.Name) (*placement.Snapshot, error)
	// Delegation says what the parent of a zone must hold; the name has its root's dot.
	Delegation func(ctx context.Context, zone string) (*Delegation, error)
	Ops        Ops
	Events     EventLog
	// Gatherer is served under /metrics; Registerer takes this package's own metrics.
	Gatherer   prometheus.Gatherer
	Registerer prometheus.Registerer
	// Tokens let callers in beside those whom the connection tells; nil: none.
	Tokens *Tokens
	// Assets serves the pages, at / and below.
	Assets http.Handler
	Identity
	Logger *slog.Logger
}

// Server answers on every listener with the same handler.
type Server struct {
	cfg     Config
	log     *slog.Logger
	clock   func() time.Time
	metrics *metrics
	meter   meter
	hub     *hub
	handler http.Handler
}

// New makes a server; Serve starts it.
func New(cfg Config) (*Server, error) {
	if cfg.State == nil {
		return nil, errors.New("api: no source of state")
	}
	s := &Server{cfg: cfg, log: cfg.Logger, clock: time.Now}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("api: metrics: %w", err)
	}
	s.hub = newHub(s.document, s.eventsSince, s.metrics)
	s.handler = s.routes()
	return s, nil
}

// Handler returns the handler of every listener, for tests and for other servers.
func (s *Server) Handler() http.Handler { return s.handler }

// Notify tells the stream that the state has changed. It never blocks.
func (s *Server) Notify() { s.hub.notify() }

// Serve answers on the listeners until ctx ends, and closes them.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.hub.run(ctx) })
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       func(c context.Context, conn net.Conn) context.Context { return admit(c, conn, s.cfg.Lab) },
	}
	for _, l := range listeners {
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("api: serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(end) != nil {
			return srv.Close()
		}
		return nil
	})
	return g.Wait()
}

// ListenUnix opens a unit's socket for its owner and group, and takes the place
// of one which a dead process left behind.
func ListenUnix(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("api: listen on %s: another process answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("api: listen on %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("api: listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("api: listen on %s: %w", path, err)
	}
	return l, nil
}
