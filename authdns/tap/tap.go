package tap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config says where the messages go, and of whom they are.
type Config struct {
	// Network and Address of the collector: unix and a path, or tcp and HOST:PORT.
	Network, Address string
	// Every is of how many exchanges one is told; 0 is all.
	Every int
	// Identity and Version stand in every message.
	Identity, Version string
	Log               *slog.Logger
	// Size of a ring in octets, a multiple of 8; 0 is a megabyte. Retry is the pause
	// after a collector that is not there; 0 is a second.
	Size  int
	Retry time.Duration
}

// Tap streams what lies in its rings to a collector. Rings may be made at any time; Run
// is called once.
type Tap struct {
	cfg   Config
	mu    sync.Mutex
	rings []*Ring
	// sent counts exchanges that a collector was given, lost those that a broken
	// connection took along.
	sent, lost atomic.Uint64
	connected  atomic.Bool
}

// New makes a Tap.
func New(c Config) *Tap {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.Size, c.Retry, c.Every = cmp.Or(c.Size, ringSize), cmp.Or(c.Retry, time.Second), max(c.Every, 1)
	return &Tap{cfg: c}
}

// Ring makes one more; nil from a nil Tap.
func (t *Tap) Ring() *Ring {
	if t == nil {
		return nil
	}
	r := &Ring{every: uint64(t.cfg.Every), buf: make([]byte, t.cfg.Size)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rings = append(t.rings, r)
	return r
}

// Counts are exchanges told, and dropped since a collector was slow or away.
func (t *Tap) Counts() (sent, dropped uint64, connected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rings {
		dropped += r.dropped.Load()
	}
	return t.sent.Load(), dropped + t.lost.Load(), t.connected.Load()
}

// look is how often the rings are looked at while nothing lies there.
const look = 10 * time.Millisecond

// endWithin is how long a collector may take, once the server ends, for what lies there
// still and to confirm it.
const endWithin = time.Second

// Run streams until ctx ends, and then what lies there still. A collector that goes is
// looked for again; that it is away is logged once for each cause.
func (t *Tap) Run(ctx context.Context) error {
	told := ""
	for ctx.Err() == nil {
		err := t.stream(ctx)
		if t.connected.Swap(false) {
			told = ""
		}
		if ctx.Err() != nil {
			return nil
		}
		if why := cause(err); why != told {
			told = why
			t.cfg.Log.Warn("dnstap: no collector; exchanges are dropped once there is no room", "collector", t.cfg.Address, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(t.cfg.Retry):
		}
	}
	return nil
}

// cause is an error without the port of one connection: the next one has another.
func cause(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Op + ": " + op.Err.Error()
	}
	return err.Error()
}

// stream serves one collector. It ends with an error unless ctx has ended.
func (t *Tap) stream(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(bounded, t.cfg.Network, t.cfg.Address)
	if err != nil {
		return err
	}
	defer c.Close()
	return t.converse(ctx, c)
}

// converse is stream with a collector at the other end of a connection.
func (t *Tap) converse(ctx context.Context, c net.Conn) error {
	over, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { closeAfter(over, c) })()
	if err := greet(c); err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	t.connected.Store(true)
	t.cfg.Log.Info("dnstap: a collector listens", "collector", t.cfg.Address)
	w := &writer{conn: c, identity: t.cfg.Identity, version: t.cfg.Version}
	for {
		last := ctx.Err() != nil // asked before: what came while the rings were read lies there still
		n, err := t.drain(w)
		switch {
		case err != nil:
			return err
		case last:
			return part(c)
		case n > 0:
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(look):
		}
	}
}

// closeAfter closes a connection that is not over when endWithin has passed.
func closeAfter(over context.Context, c net.Conn) {
	select {
	case <-over.Done():
	case <-time.After(endWithin):
		c.Close()
	}
}

// drain writes what lies in the rings, and returns how many exchanges that was.
func (t *Tap) drain(w *writer) (n uint64, err error) {
	t.mu.Lock()
	rings := t.rings[:len(t.rings):len(t.rings)]
	t.mu.Unlock()
	for _, r := range rings {
		r.take(func(e *Exchange) bool {
			err = w.add(e)
			return err == nil
		})
		if err != nil {
			break
		}
	}
	if err == nil {
		err = w.flush()
	}
	n, w.written = w.written, 0
	t.sent.Add(n)
	t.lost.Add(uint64(w.pending))
	return n, err
}

// writer gathers frames for one collector.
type writer struct {
	conn              net.Conn
	identity, version string
	buf, scratch      []byte
	pending           int    // exchanges in buf
	written           uint64 // exchanges that were sent
}

// flushAt is how much is written at once.
const flushAt = 64 << 10

func (w *writer) add(e *Exchange) error {
	w.buf = w.frames(w.buf, e)
	w.pending++
	if len(w.buf) < flushAt {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	if w.pending == 0 {
		return nil
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := w.conn.Write(w.buf); err != nil {
		return err
	}
	w.written += uint64(w.pending)
	w.buf, w.pending = w.buf[:0], 0
	return nil
}
