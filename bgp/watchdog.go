package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pulse is a file which a living speaker holds locked and touches each second.
// The kernel lets go of the lock when the process dies, however it dies; a
// process which hangs stops touching. A nil pulse is none.
type pulse struct{ file *os.File }

// holdPulse locks the file, or says that somebody else has it. The lock belongs
// to the open file (fcntl_locking(2), open file description locks), so that a
// look at it from the same process does not drop it.
func holdPulse(path string) (*pulse, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("bgp: pulse: %w", err)
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, wholeFile())
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		err = errors.New("another process writes these routes")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bgp: pulse %s: %w", path, err), f.Close())
	}
	p := &pulse{f}
	return p, p.beat()
}

// wholeFile is a write lock of a file.
func wholeFile() *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK} }

// beat says that the speaker's loop goes round.
func (p *pulse) beat() error {
	if p == nil {
		return nil
	}
	now := time.Now()
	if err := os.Chtimes(p.file.Name(), now, now); err != nil {
		return fmt.Errorf("bgp: pulse: %w", err)
	}
	return nil
}

// release lets go; the file stays, with the time of the last beat.
func (p *pulse) release() error {
	if p == nil {
		return nil
	}
	return p.file.Close()
}

// feel tells whether a process holds the pulse, and when it last beat. A file
// which is not there was never held.
func feel(path string) (held bool, beat time.Time, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, time.Time{}, nil
	}
	if err != nil {
		return false, time.Time{}, fmt.Errorf("bgp: pulse: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	lock := wholeFile()
	if err == nil {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, lock)
	}
	if err != nil {
		return false, time.Time{}, fmt.Errorf("bgp: pulse %s: %w", path, err)
	}
	return lock.Type != unix.F_UNLCK, info.ModTime(), nil
}

// WatchdogConfig says whose pulse is felt and whose routes are moved.
type WatchdogConfig struct {
	Pulse    string
	Table    int   // as in KernelConfig
	Protocol uint8 // as in KernelConfig
	// After is how long the speaker may be gone or silent: a restart should fit in (5 s).
	After  time.Duration
	Logger *slog.Logger
}

// Watchdog moves the routes of a dead or hanging speaker to gshut: nobody looks
// after them any more, so clients should go elsewhere where there is elsewhere.
// It never removes one: silence needs a Slot or a witness, and nobody is left to ask.
type Watchdog struct {
	cfg   WatchdogConfig
	fib   fib
	since time.Time // when the speaker was first missed; zero while it lives
}

// watchdogEvery is how often the pulse is felt.
const watchdogEvery = 250 * time.Millisecond

// NewWatchdog returns a Watchdog; Run starts it.
func NewWatchdog(c WatchdogConfig) (*Watchdog, error) {
	f, err := openTable(cmp.Or(c.Table, DefaultKernelTable), cmp.Or(c.Protocol, DefaultKernelProtocol))
	if err != nil {
		return nil, err
	}
	return newWatchdog(c, f), nil
}

// newWatchdog is NewWatchdog on any table.
func newWatchdog(c WatchdogConfig, f fib) *Watchdog {
	c.After = cmp.Or(c.After, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Watchdog{cfg: c, fib: f}
}

// Run watches until the context ends. An error of one look is told and the next
// look is taken: a watchdog that ends helps nobody.
func (w *Watchdog) Run(ctx context.Context) error {
	tick := time.NewTicker(watchdogEvery)
	defer tick.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch err := w.look(time.Now()); {
		case err == nil:
			told = ""
		case err.Error() != told:
			told = err.Error()
			w.cfg.Logger.Error("bgp: watchdog", "err", err)
		}
	}
}

// look feels the pulse once, and acts when it has been gone for long enough.
// A pulse which cannot be felt counts as alive: no evidence is not a death.
func (w *Watchdog) look(now time.Time) error {
	held, beat, err := feel(w.cfg.Pulse)
	if err != nil {
		return err
	}
	if !w.missed(held, beat, now) {
		return nil
	}
	moved, err := lift(w.fib)
	for _, p := range moved {
		w.cfg.Logger.Warn("bgp: watchdog: nobody looks after this route", "prefix", p, "to", "gshut", "missed_s", int(now.Sub(w.since).Seconds()))
	}
	return err
}

// missed tells whether the speaker has been gone, or silent, for After.
func (w *Watchdog) missed(held bool, beat, now time.Time) bool {
	switch {
	case held && now.Sub(beat) < w.cfg.After:
		w.since = time.Time{}
		return false
	case held:
		w.since = beat
	case w.since.IsZero():
		w.since = now
	}
	return now.Sub(w.since) >= w.cfg.After
}
