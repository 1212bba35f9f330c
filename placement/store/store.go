package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// Config says which ground a Store stands on: exactly one of Etcd, File and Memory.
type Config struct {
	Etcd *Etcd
	// File is the path of a file store: a role alone, without etcd.
	File   string
	Memory *Memory
	// BlobCache is a directory which keeps zones by digest, so that they can be
	// served while the store is away; "" keeps none.
	BlobCache  string
	TermTTL    time.Duration         // 0: TermTTL
	Logger     *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics
	// Now is the clock of what is written into values; nil: time.Now.
	Now func() time.Time
}

// Etcd says how to reach an etcd cluster, embedded or not.
type Etcd struct {
	Endpoints []string // URLs
	// Group guards connections to members of our own; TLS, those to https:// endpoints
	// of somebody else's cluster.
	Group    *ClientTLS
	TLS      *tls.Config
	Username string
	Password string
}

// ErrConflict says that somebody else changed the object since it was read.
var ErrConflict = errors.New("changed by somebody else meanwhile")

// ErrNotFound says that the store holds no such thing.
var ErrNotFound = errors.New("not in the store")

// opTimeout bounds an operation whose context has no deadline: a caller must
// never hang because the store is away.
const opTimeout = 5 * time.Second

// Store is the typed door to what the fleet shares. Safe for concurrent use.
type Store struct {
	kv      kv
	slots   bool // a file store has none: one machine alone cannot count sites
	cache   cache
	known   known
	termTTL time.Duration
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time
}

// Open returns a store. It does not wait for the store to answer: a node
// starts, and serves from disk, while etcd is away.
func Open(ctx context.Context, c Config) (*Store, error) {
	s := &Store{log: c.Logger, now: c.Now, cache: cache{dir: c.BlobCache}, slots: c.File == ""}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.termTTL = c.TermTTL; s.termTTL == 0 {
		s.termTTL = TermTTL
	}
	if s.now == nil {
		s.now = time.Now
	}
	ground, err := openGround(ctx, c, s.log)
	if err != nil {
		return nil, err
	}
	if s.metrics, err = newMetrics(c.Registerer); err != nil {
		return nil, errors.Join(fmt.Errorf("store: metrics: %w", err), ground.close())
	}
	s.kv = ground
	return s, nil
}

func openGround(ctx context.Context, c Config, log *slog.Logger) (kv, error) {
	switch {
	case c.Etcd != nil && c.File == "" && c.Memory == nil:
		return openEtcd(ctx, *c.Etcd, log)
	case c.File != "" && c.Etcd == nil && c.Memory == nil:
		return openFile(c.File, log)
	case c.Memory != nil && c.Etcd == nil && c.File == "":
		return c.Memory, nil
	}
	return nil, errors.New("store: want exactly one of etcd, file and memory")
}

// Close ends the store's connection. Follow channels and sessions end by their
// own contexts, which must be done before.
func (s *Store) Close() error { return s.kv.close() }

// Link tells how the connections of this store run; of a file there are none.
func (s *Store) Link() Link {
	if e, ok := s.kv.(*etcd); ok {
		return e.dial.link()
	}
	return Link{}
}

// LearnTLS asks the members whether they all know each other by TLS, and remembers the
// answer: after a yes this client connects in clear no more. To be called now and then.
func (s *Store) LearnTLS(ctx context.Context) error {
	e, ok := s.kv.(*etcd)
	if !ok || e.dial.mode == TLSOff {
		return nil
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := e.learn(ctx); err != nil {
		return fmt.Errorf("store: how the members know each other: %w", err)
	}
	return nil
}

// bounded gives an operation without a deadline one.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, opTimeout)
}

func (s *Store) read(ctx context.Context, queries ...query) ([][]pair, int64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	done := s.metrics.begin("read")
	out, rev, err := s.kv.read(ctx, queries...)
	done(err)
	return out, rev, err
}

func (s *Store) write(ctx context.Context, conds []cond, ops []op) (int64, bool, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	done := s.metrics.begin("write")
	rev, ok, err := s.kv.write(ctx, conds, ops)
	done(err)
	return rev, ok, err
}

// one reads a single key; the zero pair (mod 0) where it is absent.
func (s *Store) one(ctx context.Context, key string) (pair, error) {
	found, _, err := s.read(ctx, query{span: only(key)})
	if err != nil || len(found[0]) == 0 {
		return pair{}, err
	}
	return found[0][0], nil
}

// Heartbeat writes the moment; the director does so every second. Readers judge
// by it how old what they see is, since a watcher of a dead server says nothing.
func (s *Store) Heartbeat(ctx context.Context) error {
	if _, _, err := s.write(ctx, nil, []op{put(keyHeartbeat, seal(s.now().UTC()))}); err != nil {
		return fmt.Errorf("store: heartbeat: %w", err)
	}
	return nil
}

// checkSchema refuses to write into a store of a newer data model.
func (s *Store) checkSchema(ctx context.Context) error {
	p, err := s.one(ctx, keySchema)
	if err != nil || p.mod == 0 {
		return err
	}
	_, err = unseal[placement.Time](p.value)
	return err
}
