package edge

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

	"rhumb/edge/upload"
)

// Times of a library.
const (
	scanEvery = 5 * time.Second
	// keepOld is how long replaced content can still be found by its hash,
	// for sessions that began with it elsewhere and come here.
	keepOld = 10 * time.Minute
)

// entry is what a name stands for: an object, or bytes still on their way.
type entry struct {
	found
	body body
}

// source finds objects by name, and by hash for a session that comes from
// another site; the name then tells where to look.
type source interface {
	lookup(ctx context.Context, name string) entry
	byHash(hash [32]byte, name string) (*object, bool)
	// ahead begins to make an object of a name, for nobody yet. over is closed when it is
	// one or will not be; drop gives up what nobody else has come to want meanwhile.
	ahead(name string) (over <-chan struct{}, drop func())
	// coming reports whether the object of a name is on its way here.
	coming(name string) bool
	Run(ctx context.Context) error
}

// library is a directory of objects. It never leaves the directory, not by
// symbolic links either. Safe for concurrent use.
type library struct {
	root  *os.Root
	cache *blockCache
	log   *slog.Logger

	mu     sync.Mutex
	names  map[string]*indexed
	hashes map[[32]byte]*object
	unused map[[32]byte]time.Time // since when no name has the hash
}

// stamp tells one content of a file from the next.
type stamp struct {
	size         int64
	mtime, ctime int64 // ns
	inode        uint64
}

// indexed is a name's content. Its object is computed once, by whoever comes
// first; others wait for the same.
type indexed struct {
	stamp stamp
	load  func() (*object, error)
}

func newLibrary(dir string, cache *blockCache, log *slog.Logger) (*library, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("edge: root %s: %w", dir, err)
	}
	return &library{root: root, cache: cache, log: log, names: map[string]*indexed{}, hashes: map[[32]byte]*object{}, unused: map[[32]byte]time.Time{}}, nil
}

// Run indexes all files and goes on looking for changes, so that a session
// which comes here finds its object by hash at once.
func (l *library) Run(ctx context.Context) error {
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

func (l *library) scan(ctx context.Context) {
	err := fs.WalkDir(l.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == upload.Staging {
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

func (l *library) lookup(_ context.Context, name string) entry {
	o, err := l.object(name)
	switch {
	case err == nil:
		return entry{found{hash: o.hash, size: o.size, known: true}, o}
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoFile) || errors.Is(err, syscall.ENOTDIR):
		return entry{found: found{status: http.StatusNotFound}}
	case errors.Is(err, fs.ErrPermission):
		return entry{found: found{status: http.StatusForbidden}}
	}
	l.log.Error("read object", "name", name, "err", err)
	return entry{found: found{status: http.StatusInternalServerError}}
}

func (l *library) byHash(hash [32]byte, name string) (*object, bool) {
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
func (l *library) object(name string) (*object, error) {
	rel := strings.TrimPrefix(name, "/")
	if rel == "" || upload.Hidden(rel) {
		return nil, errNoFile
	}
	st, err := l.root.Stat(rel)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNoFile
	}
	now := stampOf(st)
	l.mu.Lock()
	ix := l.names[name]
	if ix == nil || ix.stamp != now {
		ix = &indexed{now, sync.OnceValues(func() (*object, error) { return l.index(rel) })}
		l.names[name] = ix
	}
	l.mu.Unlock()
	o, err := ix.load()
	if err != nil {
		l.drop(name, ix)
	}
	return o, err
}

func (l *library) index(rel string) (*object, error) {
	f, err := l.root.Open(rel)
	if err != nil {
		return nil, err
	}
	o, err := openObject(f, l.cache)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("edge: index %s: %w", rel, err)
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
func (l *library) expire(now time.Time) {
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

func (l *library) copyNames() map[string]*indexed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.names)
}

// drop forgets a name unless it has new content by now.
func (l *library) drop(name string, ix *indexed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names[name] == ix {
		delete(l.names, name)
	}
}

func stampOf(st fs.FileInfo) stamp {
	s := stamp{size: st.Size(), mtime: st.ModTime().UnixNano()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.inode, s.ctime = sys.Ino, sys.Ctim.Nano()
	}
	return s
}
