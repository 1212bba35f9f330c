package upload

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Staging is the directory of Files in that of a Store's objects: a rename must not
// leave the file system. No object has a name in it.
const Staging = ".rhumb-staging"

// Times of what nobody goes on with.
const (
	staleAfter  = 10 * time.Minute // of a File left by an earlier process
	answerLife  = 10 * time.Minute // of the outcome of an upload
	answersMost = 1 << 16
)

// Errors a caller answers by a status of their own.
var (
	// ErrFull: as many uploads, or octets of them, as the Store takes.
	ErrFull = errors.New("no room for another upload")
	// ErrName: no object can have this name.
	ErrName = errors.New("name is none of an object")
)

// Limits bound a Store.
type Limits struct {
	Size    int64 // of one object
	Uploads int   // on their way at once
	Bytes   int64 // of these together
}

// Store is the directory of a service's uploaded objects. Safe for concurrent use.
type Store struct {
	root   *os.Root
	site   string // sites may share a directory, not Files
	limits Limits

	mu      sync.Mutex
	files   map[ID]*File
	bytes   int64 // promised to files
	answers map[ID]answer
	names   map[string]*nameLock
	effects uint64 // objects that were given their name
}

// answer is how an upload ended, for whoever asks again.
type answer struct {
	status int
	at     time.Time
}

// nameLock is held while a name is judged and given. Its users are counted so that it
// goes with the last of them.
type nameLock struct {
	sync.Mutex
	users int
}

// NewStore opens a directory and its staging.
func NewStore(dir, site string, limits Limits) (*Store, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("upload: directory %s: %w", dir, err)
	}
	if err := root.Mkdir(Staging, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("upload: staging in %s: %w", dir, err)
	}
	s := &Store{root: root, site: site, limits: limits, files: map[ID]*File{}, answers: map[ID]answer{}, names: map[string]*nameLock{}}
	return s, s.Sweep(time.Now())
}

// Limits are as given.
func (s *Store) Limits() Limits { return s.limits }

// Len counts the uploads on their way, and their octets.
func (s *Store) Len() (uploads int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.files), s.bytes
}

// Effects counts the objects that were given their names since the start.
func (s *Store) Effects() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.effects
}

// Begin stages an upload. Its whole size is set aside on disk, where the file system
// can do that: a full one is found out before the client sends for minutes.
func (s *Store) Begin(id ID, req Request) (*File, error) {
	if _, err := relative(req.Name); err != nil {
		return nil, err
	}
	if err := s.enter(id, req.Size); err != nil {
		return nil, err
	}
	at := path.Join(Staging, s.fileName(id))
	f, err := s.root.OpenFile(at, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil && req.Size > 0 {
		if err = setAside(f, req.Size); err != nil {
			err = errors.Join(err, f.Close(), s.root.Remove(at))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.leave(id, req.Size)
		return nil, fmt.Errorf("upload: stage %s: %w", req.Name, err)
	}
	file := &File{store: s, id: id, req: req, at: at, f: f, sum: newSummer()}
	s.files[id] = file
	return file, nil
}

func setAside(f *os.File, size int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = unix.Fallocate(int(fd), unix.FALLOC_FL_KEEP_SIZE, 0, size) }); err != nil {
		return err
	}
	if errors.Is(inner, unix.EOPNOTSUPP) || errors.Is(inner, unix.EINTR) {
		return nil // then a full disk is found out later
	}
	return inner
}

func (s *Store) enter(id ID, size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.files[id]
	switch {
	case size < 0 || size > s.limits.Size:
		return fmt.Errorf("upload: %d octets, at most %d", size, s.limits.Size)
	case there, len(s.files) >= s.limits.Uploads, s.bytes+size > s.limits.Bytes:
		return fmt.Errorf("upload: %d on their way with %d octets: %w", len(s.files), s.bytes, ErrFull)
	}
	s.files[id] = nil // taken
	s.bytes += size
	return nil
}

// leave forgets a File. The caller holds mu.
func (s *Store) leave(id ID, size int64) {
	delete(s.files, id)
	s.bytes -= size
}

// Sweep removes Files that an earlier process left and nobody has touched for long, and
// forgets old outcomes.
func (s *Store) Sweep(now time.Time) error {
	s.mu.Lock()
	for id, a := range s.answers {
		if now.Sub(a.at) > answerLife {
			delete(s.answers, id)
		}
	}
	live := map[string]bool{}
	for id := range s.files {
		live[s.fileName(id)] = true
	}
	s.mu.Unlock()
	dir, err := fs.ReadDir(s.root.FS(), Staging)
	if err != nil {
		return fmt.Errorf("upload: staging: %w", err)
	}
	var errs []error
	for _, e := range dir {
		st, err := e.Info()
		if err != nil || live[e.Name()] || now.Sub(st.ModTime()) < staleAfter {
			continue // gone by itself, or somebody's
		}
		errs = append(errs, s.root.Remove(path.Join(Staging, e.Name())))
	}
	return errors.Join(errs...)
}

// relative is a name's path in the directory.
func relative(name string) (string, error) {
	rel, ok := strings.CutPrefix(name, "/")
	switch {
	case !ok || rel == "" || path.Clean(name) != name || strings.ContainsRune(name, 0):
		return "", fmt.Errorf("upload: %q: %w", name, ErrName)
	case Hidden(name):
		return "", fmt.Errorf("upload: %q: %w", name, ErrName)
	}
	for part := range strings.SplitSeq(rel, "/") {
		if len(part) > 255 {
			return "", fmt.Errorf("upload: %q: %w", name, ErrName)
		}
	}
	return rel, nil
}

// Hidden reports whether a name is in a staging directory: no client sees such ones.
func Hidden(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == Staging {
			return true
		}
	}
	return false
}

// lock keeps others from judging or giving a name.
func (s *Store) lock(name string) (unlock func()) {
	s.mu.Lock()
	l := s.names[name]
	if l == nil {
		l = &nameLock{}
		s.names[name] = l
	}
	l.users++
	s.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(s.names, name)
		}
	}
}

// fileName is a File's in the staging directory.
func (s *Store) fileName(id ID) string { return id.String() + "." + s.site }

// Answered returns how an upload ended, 0 if it has not.
func (s *Store) Answered(id ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers[id].status
}

func (s *Store) answer(id ID, status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) >= answersMost {
		clear(s.answers)
	}
	s.answers[id] = answer{status, time.Now()}
	if success(status) {
		s.effects++
	}
}

// noSpace reports whether an error says that the disk is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
