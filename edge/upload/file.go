package upload

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"sync"
)

// Errors of a File.
var (
	errEnded = errors.New("upload has ended")
	errGap   = errors.New("octets between are missing")
	errLong  = errors.New("more octets than its size")
	// ErrSum: the object is not the one that was announced.
	ErrSum = errors.New("octets are others than announced")
)

// File is an upload on its way. Safe for concurrent use.
type File struct {
	store *Store
	id    ID
	req   Request
	at    string

	mu     sync.Mutex
	f      *os.File // nil after the end
	length int64
	sum    *summer
	digest *[32]byte // once whole
}

// ID and Request are as given.
func (f *File) ID() ID { return f.id }

// Request is what the upload was begun with.
func (f *File) Request() Request { return f.req }

// Length counts the octets that are here.
func (f *File) Length() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.length
}

// Append takes octets from an offset on and returns the length. What is here already
// stays as it is; octets behind a gap are refused.
func (f *File) Append(off int64, b []byte) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := off + int64(len(b))
	switch {
	case f.f == nil:
		return f.length, errEnded
	case off < 0 || off > f.length:
		return f.length, fmt.Errorf("upload: octets from %d behind %d: %w", off, f.length, errGap)
	case end > f.req.Size:
		return f.length, fmt.Errorf("upload: octets up to %d of %d: %w", end, f.req.Size, errLong)
	case end <= f.length:
		return f.length, nil
	}
	b = b[f.length-off:]
	if _, err := f.f.WriteAt(b, f.length); err != nil {
		return f.length, fmt.Errorf("upload: write at %d: %w", f.length, err)
	}
	f.sum.Write(b)
	f.length = end
	return end, nil
}

// ReadAt reads what is here.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return 0, errEnded
	}
	return f.f.ReadAt(b[:max(0, min(int64(len(b)), f.length-off))], off)
}

// Sum is the sum of a whole object, false before it is one.
func (f *File) Sum() ([32]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.length != f.req.Size {
		return [32]byte{}, false
	}
	if f.digest == nil {
		d := f.sum.sum()
		f.digest = &d
	}
	return *f.digest, true
}

// Publish gives the whole object its name, unless the conditions of its request say
// no, and returns the HTTP status of its answer. Asked again it answers the same and
// does nothing. The File is spent, unless there is an error and no status.
func (f *File) Publish(want [32]byte) (int, error) {
	unlock := f.store.lock(f.req.Name)
	defer unlock()
	return f.publish(want, f.store.judge(f.req))
}

// PublishAfter is Publish once somebody else has done it: decide asks, and its answer
// counts. Uploads of one name wait for each other, so that a condition which holds here
// still holds when decide returns, unless it is broken from elsewhere.
func (f *File) PublishAfter(want [32]byte, decide func() (int, error)) (int, error) {
	owner := f.store.lock(ownerOf + f.req.Name)
	defer owner()
	status := f.store.Answered(f.id)
	if status == 0 {
		status = f.store.Judge(f.req)
	}
	if success(status) {
		var err error
		if status, err = decide(); err != nil {
			return 0, err
		}
	}
	unlock := f.store.lock(f.req.Name)
	defer unlock()
	answer, err := f.publish(want, status)
	if answer != 0 {
		answer = status // the effect is there, wherever else it fails
	}
	return answer, err
}

// ownerOf makes a lock of its own of a name: of those two, this one is held while another
// site is asked, which takes the other one there.
const ownerOf = "owner of "

func success(status int) bool {
	return status == http.StatusCreated || status == http.StatusNoContent
}

// publish acts by a status. The caller holds the name.
func (f *File) publish(want [32]byte, status int) (int, error) {
	if was := f.store.Answered(f.id); was != 0 {
		return was, nil
	}
	if sum, whole := f.Sum(); !whole || sum != want {
		return 0, fmt.Errorf("upload: publish %s: %w", f.req.Name, ErrSum)
	}
	var err error
	if success(status) {
		if err = f.rename(); err != nil {
			status = StatusOf(err)
		}
	}
	f.store.answer(f.id, status)
	return status, errors.Join(err, f.end(!success(status)))
}

// rename is the effect. What it renames is on disk, and so is the name afterwards.
func (f *File) rename() error {
	rel, err := relative(f.req.Name)
	if err != nil {
		return err
	}
	f.mu.Lock()
	file := f.f
	f.mu.Unlock() // a disk may take its time, and others ask how long the File is
	if file == nil {
		return errEnded
	}
	if err := errors.Join(file.Chmod(0o644), file.Sync()); err != nil {
		return fmt.Errorf("upload: synchronize %s: %w", f.req.Name, err)
	}
	dir := path.Dir(rel)
	if err := f.store.root.MkdirAll(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("upload: directory of %s: %w", f.req.Name, err)
	}
	if err := f.store.root.Rename(f.at, rel); err != nil {
		return fmt.Errorf("upload: publish %s: %w", f.req.Name, err)
	}
	// It is published; what fails here is the loss of power in the next seconds.
	if d, err := f.store.root.Open(dir); err == nil {
		_ = d.Sync()
		_ = d.Close()
	}
	return nil
}

// Drop ends an upload that will not be published.
func (f *File) Drop() error { return f.end(true) }

func (f *File) end(remove bool) error {
	f.mu.Lock()
	if f.f == nil {
		f.mu.Unlock()
		return nil
	}
	err := f.f.Close()
	f.f = nil
	f.mu.Unlock()
	if remove {
		err = errors.Join(err, f.store.root.Remove(f.at))
	}
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.leave(f.id, f.req.Size)
	return err
}
