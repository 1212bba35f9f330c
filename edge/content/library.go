package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Times of a library.
const (
	scanEvery = 5 * time.Second
	// keepOld is how long replaced content can still be found by its hash,
	// for sessions that began with it elsewhere and come here.
	keepOld = 10 * time.Minute
)

// Library is a directory of objects, a file each. It never leaves the directory, not
// by symbolic links either. Safe for concurrent use.
type Library struct {
	root   *os.Root
	cache  *Cache
	hidden func(name string) bool
	log    *slog.Logger
	glance time.Duration // for how long a look at a file is good

	mu     sync.Mutex
	names  map[string]*indexed
	hashes map[[32]byte]*Object
	unused map[[32]byte]time.Time // since when no name has the hash
}

// indexed is a name's content. Its object is computed once, by whoever comes
// first; others wait for the same.
type indexed struct {
	stamp  Stamp
	load   func() (*Object, error)
	looked time.Time // the file had that stamp; guarded by mu of the Library
}

// NewLibrary opens a directory. Its blocks are kept in cache, which several sources may
// share. hidden says which files and directories are no content, by their path below dir
// ("a/b"): they are neither indexed nor found. An error names dir.
func NewLibrary(dir string, cache *Cache, hidden func(name string) bool, log *slog.Logger) (*Library, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("content: root %s: %w", dir, err)
	}
	return &Library{root: root, cache: cache, hidden: hidden, log: log, names: map[string]*indexed{}, hashes: map[[32]byte]*Object{}, unused: map[[32]byte]time.Time{}}, nil
}

// Glance lets a look at a file be good for a while d, for all that ask for the same name in
// it: who is asked for one object thousands of times a second looks less often. What
// replaces a file is then found by so much later, which is nothing to clients and too late
// for who writes and reads again. Without it each Lookup looks. Call it before all others.
func (l *Library) Glance(d time.Duration) { l.glance = d }

// Run indexes all files and goes on looking for changes, so that a session
// which comes here finds its object by hash at once. It returns nil when ctx ends.
func (l *Library) Run(ctx context.Context) error {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for {
		l.scan(ctx)
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			l.expire(now)
		}
	}
}

func (l *Library) scan(ctx context.Context) {
	err := fs.WalkDir(l.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && l.hidden(name) {
			return fs.SkipDir
		}
		if err == nil && d.Type().IsRegular() {
			_, err = l.object("/" + name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("index", "name", name, "err", err)
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		l.log.Error("index", "err", err)
	}
}

// Lookup finds what a name stands for now. It reads the whole file if that is new or has
// changed. A file that cannot be read is an Entry with 403, 404 or 500.
func (l *Library) Lookup(_ context.Context, name string) Entry {
	o, err := l.object(name)
	switch {
	case err == nil:
		return o.entry()
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoFile) || errors.Is(err, syscall.ENOTDIR):
		return Entry{Status: http.StatusNotFound}
	case errors.Is(err, fs.ErrPermission):
		return Entry{Status: http.StatusForbidden}
	}
	l.log.Error("read object", "name", name, "err", err)
	return Entry{Status: http.StatusInternalServerError}
}

// ByHash finds an object that is here, or was replaced within the last keepOld, by its
// hash. name says where to look if the index does not know it yet; "" for nowhere.
func (l *Library) ByHash(hash [32]byte, name string) (*Object, bool) {
	l.mu.Lock()
	o := l.hashes[hash]
	l.mu.Unlock()
	if o != nil {
		return o, true
	}
	// Not indexed yet, perhaps. A large file takes longer than the offer
	// lives; then the next one finds it.
	o, err := l.object(name)
	return o, err == nil && o.hash == hash
}

var errNoFile = errors.New("not a regular file")

// object returns the present content of a name, indexed anew if the file has
// changed since.
func (l *Library) object(name string) (*Object, error) {
	rel := strings.TrimPrefix(name, "/")
	if rel == "" || l.hidden(rel) {
		return nil, errNoFile
	}
	ix, err := l.look(name, rel)
	if err != nil {
		return nil, err
	}
	o, err := ix.load()
	if err != nil {
		l.drop(name, ix)
	}
	return o, err
}

// look finds the present content of a name, which may not be loaded yet.
func (l *Library) look(name, rel string) (*indexed, error) {
	begun := time.Now()
	l.mu.Lock()
	ix := l.names[name]
	seen := ix != nil && begun.Sub(ix.looked) < l.glance
	l.mu.Unlock()
	if seen {
		return ix, nil
	}
	st, err := l.root.Stat(rel)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNoFile
	}
	now := StampOf(st)
	l.mu.Lock()
	defer l.mu.Unlock()
	if ix = l.names[name]; ix == nil || ix.stamp != now {
		ix = &indexed{stamp: now, load: sync.OnceValues(func() (*Object, error) { return l.index(rel) })}
		l.names[name] = ix
	}
	ix.looked = begun
	return ix, nil
}

func (l *Library) index(rel string) (*Object, error) {
	f, err := l.root.Open(rel)
	if err != nil {
		return nil, err
	}
	o, err := openObject(f, l.cache)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("content: index %s: %w", rel, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// The newest wins: an older file of the same hash may have been
	// overwritten in place since.
	l.hashes[o.hash] = o
	return o, nil
}

// expire drops names whose file is gone, and hashes that no name has had for
// keepOld.
func (l *Library) expire(now time.Time) {
	live := map[[32]byte]bool{}
	for name, ix := range l.copyNames() {
		if _, err := l.root.Stat(strings.TrimPrefix(name, "/")); err != nil {
			l.drop(name, ix)
		} else if o, err := ix.load(); err == nil { // takes l.mu itself
			live[o.hash] = true
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for hash := range l.hashes {
		switch since, dated := l.unused[hash]; {
		case live[hash]:
			delete(l.unused, hash)
		case !dated:
			l.unused[hash] = now
		case now.Sub(since) >= keepOld:
			delete(l.unused, hash)
			delete(l.hashes, hash)
		}
	}
}

func (l *Library) copyNames() map[string]*indexed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.names)
}

// drop forgets a name unless it has new content by now.
func (l *Library) drop(name string, ix *indexed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names[name] == ix {
		delete(l.names, name)
	}
}
