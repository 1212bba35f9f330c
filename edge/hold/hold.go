package hold

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Life is how long an address is watched unless that is renewed. It is that of
	// the silence of dead processes: while the one keeps an end back, the other keeps
	// what it would acknowledge.
	Life = 2 * time.Second
	// renewEvery leaves three chances before an element ends.
	renewEvery = 500 * time.Millisecond
	// Mark is the mark of sockets whose acknowledgements are held.
	Mark = 0x52480001
	// number is the queue's. Each network namespace has its own.
	number = 21064
)

// Hold is the hold of this host. One process has it. Safe for concurrent use.
type Hold struct {
	log   *slog.Logger
	held  func(time.Duration) // told how long each segment has waited; under mu
	mu    sync.Mutex
	queue *queue
	nft   *kernel // nil after the end
	lanes *lanes
	vips  []netip.AddrPort
	// impaired holds back the repetition of one complaint.
	impaired bool
	counts   Counts
}

// Counts are what happened to segments.
type Counts struct {
	Held    uint64 // had to wait
	Dropped uint64 // waited in vain
}

// Open binds the queue and loads the rules; nothing is watched yet. held is told of each
// segment that left how long it had waited; it must not block.
func Open(log *slog.Logger, held func(time.Duration)) (*Hold, error) {
	q, err := bind(number)
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	k, err := openKernel()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold: %w", err), q.close())
	}
	return &Hold{log: log, held: held, queue: q, nft: k, lanes: newLanes()}, nil
}

// Apply makes a socket one whose acknowledgements are held, where its address is
// watched; an accepted one has the mark of its listener.
func Apply(c syscall.RawConn) error { return mark(c, Mark) }

// Exempt takes that back.
func Exempt(c syscall.RawConn) error { return mark(c, 0) }

func mark(c syscall.RawConn, m int) error {
	var inner error
	if err := c.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, m) }); err != nil {
		return err
	}
	if inner != nil {
		return fmt.Errorf("hold: set SO_MARK: %w", inner)
	}
	return nil
}

// Watch says at which addresses connections are held, instead of those before.
func (h *Hold) Watch(vips []netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.vips = vips
	if h.nft == nil {
		return errors.New("hold: ended")
	}
	return h.nft.renew(vips)
}

// Enter begins with a connection, which may acknowledge up to a sequence number. Until
// then all its segments wait, for a second at most.
func (h *Hold) Enter(f Flow, upto uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(h.lanes.enter(f, upto))
}

// Allow lets a connection that was entered acknowledge up to a sequence number. It
// never takes back what was allowed.
func (h *Hold) Allow(f Flow, upto uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(h.lanes.allow(f, upto))
}

// Leave ends the hold of a connection, which must be exempt by now.
func (h *Hold) Leave(f Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.release(h.lanes.leave(f))
}

// Discard is Leave for a connection that ends here without a word: what waits is dropped.
func (h *Hold) Discard(f Flow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.give(idsOf(h.lanes.leave(f)))
}

// Works reports whether the kernel took the last word. A nil Hold does not work.
func (h *Hold) Works() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nft != nil && !h.impaired
}

// Counts tells what happened so far.
func (h *Hold) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// release lets segments leave that waited. The caller holds mu.
func (h *Hold) release(ws []waiting) {
	if len(ws) == 0 {
		return
	}
	now := time.Now()
	for _, w := range ws {
		h.held(now.Sub(w.since))
	}
	h.pass(idsOf(ws)...)
}

// pass lets segments leave. The caller holds mu.
func (h *Hold) pass(ids ...uint32) {
	if h.nft != nil {
		h.complain(h.queue.decide(accept, ids...))
	}
}

func idsOf(ws []waiting) []uint32 {
	ids := make([]uint32, len(ws))
	for i, w := range ws {
		ids[i] = w.id
	}
	return ids
}

func (h *Hold) give(ids []uint32) {
	if h.nft != nil && len(ids) > 0 {
		h.counts.Dropped += uint64(len(ids))
		h.complain(h.queue.decide(drop, ids...))
	}
}

// Run judges segments until the context ends. Then the rules go, before Run returns.
func (h *Hold) Run(ctx context.Context) error {
	renewed := time.Time{}
	for ctx.Err() == nil {
		if err := h.queue.receive(h.take); err != nil {
			h.complain(err)
			select { // no busy loop over a broken socket
			case <-ctx.Done():
			case <-time.After(readPause):
			}
		}
		if now := time.Now(); now.Sub(renewed) >= renewEvery {
			renewed = now
			h.renew(now)
		}
	}
	return h.end()
}

func (h *Hold) take(id uint32, packet []byte) {
	f, ack, ok := parse(packet)
	h.mu.Lock()
	defer h.mu.Unlock()
	if !ok {
		h.pass(id)
		return
	}
	leaves, gone := h.lanes.came(f, waiting{id, ack, time.Now()})
	h.give(gone)
	if leaves {
		h.pass(id)
	} else {
		h.counts.Held++
	}
}

// renew tells the kernel again what is watched. If that fails, somebody has removed
// the table, as a firewall does that flushes the ruleset to load its own.
func (h *Hold) renew(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.give(h.lanes.expire(now))
	err := h.nft.renew(h.vips)
	if err != nil {
		if err = h.nft.load(); err == nil {
			err = h.nft.renew(h.vips)
		}
	}
	h.complain(err)
}

// complain logs the first of a row of errors. The caller holds mu, or is Run.
func (h *Hold) complain(err error) {
	if err != nil && !h.impaired {
		h.log.Warn("acknowledgements are not held: a crash now may cost uploads", "err", fmt.Errorf("hold: %w", err))
	}
	h.impaired = err != nil
}

func (h *Hold) end() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := errors.Join(h.nft.destroy(), h.queue.close())
	h.nft = nil
	h.lanes = newLanes()
	return err
}
