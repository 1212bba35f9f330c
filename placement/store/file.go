package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// filePoll is how often the file is looked at for the writes of others.
	filePoll = 50 * time.Millisecond
	// fileSlack is how far a file may outgrow its content before it is rewritten.
	fileSlack = 4 << 20
)

// file is the ground of a role alone, without etcd: one append-only journal,
// shared by the processes of one machine. Writers take a lock on a file beside
// it; readers follow its end. A rewritten journal is a new file under the old
// name, so a reader meets a whole one at any moment.
type file struct {
	path string
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}

	mu   sync.Mutex
	m    *machine
	f    *os.File // nil until the journal exists
	off  int64    // what was read so far
	live int64    // size of the journal when it was written anew
	// damaged is set while the file holds more than could be read; said once.
	damaged bool
}

func openFile(path string, log *slog.Logger) (kv, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("store: file: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &file{path: path, log: log, stop: stop, done: make(chan struct{}), m: newMachine()}
	f.catchUp()
	go f.follow(ctx)
	return f, nil
}

func (f *file) close() error {
	f.stop()
	<-f.done
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return nil
	}
	return f.f.Close()
}

// follow takes in what others write, and ends leases whose time has run out.
func (f *file) follow(ctx context.Context) {
	defer close(f.done)
	tick := time.NewTicker(filePoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.peek() {
			if err := f.expire(ctx); err != nil && ctx.Err() == nil {
				f.log.Warn("store: file: leases not ended", "err", err)
			}
		}
	}
}

// peek refreshes and tells whether a lease has run out.
func (f *file) peek() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp()
	return len(f.m.expired(time.Now())) > 0
}

// catchUp refreshes; what was whole goes on serving where the file is damaged,
// until the next writer repairs it. A line that is not whole yet is no damage:
// somebody is writing it.
func (f *file) catchUp() {
	err := f.refresh()
	if err != nil && !errors.Is(err, errTorn) && !f.damaged {
		f.log.Error("store: file is damaged", "path", f.path, "err", err)
	}
	f.damaged = err != nil && !errors.Is(err, errTorn)
}

func (f *file) expire(ctx context.Context) error {
	return f.locked(ctx, func() error {
		for _, id := range f.m.expired(time.Now()) {
			if err := f.end(id); err != nil {
				return err
			}
		}
		return nil
	})
}

// refresh reads what was appended, or the whole file where it is a new one.
func (f *file) refresh() error {
	now, err := os.Stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if f.f != nil {
		if mine, err := f.f.Stat(); err != nil || !os.SameFile(mine, now) || now.Size() < f.off {
			f.f.Close()
			f.f = nil
		}
	}
	if f.f == nil {
		if f.f, err = os.OpenFile(f.path, os.O_RDWR, 0); err != nil {
			f.f = nil
			return err
		}
		f.off, f.live = 0, now.Size()
	}
	if now.Size() == f.off {
		return nil
	}
	b, err := io.ReadAll(io.NewSectionReader(f.f, f.off, now.Size()-f.off))
	if err != nil {
		return err
	}
	for len(b) > 0 {
		r, n, err := decodeRecord(b)
		if err == nil && f.off == 0 && !r.Base {
			err = errors.New("a journal begins with its base")
		}
		if err == nil {
			err = f.m.replay(r)
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", f.off, err)
		}
		b, f.off = b[n:], f.off+int64(n)
	}
	return nil
}

// locked runs a change with the file to itself and its end read.
func (f *file) locked(ctx context.Context, change func() error) error {
	lock, err := os.OpenFile(f.path+".lock", os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return err
	}
	defer lock.Close() // releases the lock
	for {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if pause(ctx, 2*time.Millisecond); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refresh(); err != nil {
		if err := f.repair(err); err != nil {
			return err
		}
	}
	return change()
}

// repair cuts a damaged end off. Under the lock nobody else writes, so a line
// that is not whole is what a crash left; anything else is kept aside, since
// somebody may want to know what was in it.
func (f *file) repair(cause error) error {
	if f.f == nil {
		return cause
	}
	if !errors.Is(cause, errTorn) {
		aside := fmt.Sprintf("%s.damaged-%d", f.path, time.Now().Unix())
		f.log.Error("store: file is damaged; the rest is kept aside", "path", aside, "err", cause)
		b, err := os.ReadFile(f.path)
		if err == nil {
			err = writeWhole(aside, b)
		}
		if err != nil {
			return errors.Join(cause, err)
		}
	}
	return f.rewrite()
}

// rewrite puts the content into a new file under the old name.
func (f *file) rewrite() error {
	line, err := encodeRecord(f.m.base())
	if err != nil {
		return err
	}
	if err := writeWhole(f.path, line); err != nil {
		return err
	}
	fresh, err := os.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if f.f != nil {
		f.f.Close()
	}
	f.f, f.off, f.live = fresh, int64(len(line)), int64(len(line))
	return nil
}

// append writes one record and makes it true here. sync makes it durable.
func (f *file) append(r record, sync bool) error {
	if f.f == nil || f.off == 0 || f.off > 4*f.live+fileSlack {
		if err := f.rewrite(); err != nil {
			return err
		}
	}
	line, err := encodeRecord(r)
	if err != nil {
		return err
	}
	if _, err := f.f.WriteAt(line, f.off); err != nil {
		return errors.Join(err, f.f.Truncate(f.off))
	}
	if sync {
		if err := f.f.Sync(); err != nil {
			return errors.Join(err, f.f.Truncate(f.off))
		}
	}
	f.off += int64(len(line))
	return f.m.replay(r)
}

func (f *file) read(ctx context.Context, queries ...query) ([][]pair, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp()
	return f.m.read(queries), f.m.rev, nil
}

func (f *file) readAt(ctx context.Context, rev int64, s span) ([]pair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp()
	return f.m.readAt(rev, s)
}

func (f *file) write(ctx context.Context, conds []cond, ops []op) (rev int64, ok bool, err error) {
	if err := checkSize(ops); err != nil {
		return 0, false, err
	}
	err = f.locked(ctx, func() error {
		if rev = f.m.rev; !f.m.holds(conds) {
			return nil
		}
		if !f.m.leased(ops) {
			return errLease
		}
		ok = true
		changes := f.m.plan(ops)
		if len(changes) == 0 {
			return nil
		}
		// What a lease holds up need not survive a power cut.
		durable := slices.ContainsFunc(ops, func(o op) bool { return o.lease == 0 })
		err := f.append(recordOf(f.m.rev, changes), durable)
		rev = f.m.rev
		return err
	})
	return rev, ok && err == nil, err
}

func (f *file) watch(ctx context.Context, from int64, spans ...span) <-chan batch {
	return watchMachine(ctx, from, spans, func(from int64) ([]batch, int64, bool, <-chan struct{}) {
		f.mu.Lock()
		defer f.mu.Unlock()
		out, next, ok := f.m.since(from, spans)
		return out, next, ok, f.m.wake
	})
}

func (f *file) grant(ctx context.Context, ttl time.Duration) (id int64, err error) {
	err = f.locked(ctx, func() error {
		for id == 0 || f.m.leases[id].ttl != 0 {
			id = rand.Int64() // several processes grant; nothing decides by it
		}
		l := leaseTerm{ttl, time.Now().Add(ttl)}
		return f.append(record{Rev: f.m.rev, Term: []termLine{lineOf(id, l)}}, false)
	})
	return id, err
}

func (f *file) keep(ctx context.Context, id int64) error {
	return f.locked(ctx, func() error {
		l, ok := f.m.leases[id]
		if !ok || !time.Now().Before(l.until) {
			return errLease
		}
		l.until = time.Now().Add(l.ttl)
		return f.append(record{Rev: f.m.rev, Term: []termLine{lineOf(id, l)}}, false)
	})
}

func (f *file) revoke(ctx context.Context, id int64) error {
	return f.locked(ctx, func() error {
		if _, ok := f.m.leases[id]; !ok {
			return errLease
		}
		return f.end(id)
	})
}

// end removes a lease with its keys.
func (f *file) end(id int64) error {
	r := recordOf(f.m.rev, f.m.plan(f.m.orphans(id)))
	r.Gone = []int64{id}
	return f.append(r, false)
}
