package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// Limits of an origin.
const (
	originHeader = 10 * time.Second
	originFresh  = time.Minute // then it is asked whether the object changed
	originObject = 16 << 30    // bytes of the largest object
	originKept   = 4096        // objects kept in the spool
	spoolPiece   = 64 << 10
)

// Origin is an HTTP server whose objects are copied here. While the first
// copy is on its way its readers follow it and their sessions are pinned;
// once it is whole its block list is known, and it is an object like any
// other. Spool files have no name, so nothing is left of them after a crash.
// Safe for concurrent use.
type Origin struct {
	base   *url.URL
	client *http.Client
	dir    string
	cache  *Cache
	log    *slog.Logger
	ctx    context.Context // of the fetches: they outlive the request that began them
	stop   context.CancelFunc

	mu     sync.Mutex
	copies map[string]*fetch
	hashes map[[32]byte]*Object
}

// fetch is one copy of one name, on its way or complete.
type fetch struct {
	begun  chan struct{} // closed when status and size are known
	status int           // of the entry, 0: there is an object
	size   int64
	file   *os.File
	etag   string
	since  time.Time // last known to be the origin's

	mu   sync.Mutex
	more *sync.Cond
	have int64
	err  error
	obj  *Object       // once complete
	done chan struct{} // closed then, or when it failed
	interest
}

// NewOrigin makes a source of the HTTP server at base, an http or https URL to whose path
// names are joined. Copies lie in dir, which is made if it is not there, and their blocks
// are kept in cache. Nothing is asked before the first name.
func NewOrigin(base, dir string, cache *Cache, log *slog.Logger) (*Origin, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("content: origin %q is no http URL", base)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("content: spool: %w", err)
	}
	// No compression: the object is what the origin has, not a form of it.
	tr := &http.Transport{DisableCompression: true, ResponseHeaderTimeout: originHeader, MaxIdleConnsPerHost: 16, Proxy: nil}
	o := &Origin{base: u, dir: dir, cache: cache, log: log, copies: map[string]*fetch{}, hashes: map[[32]byte]*Object{},
		client: &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	o.ctx, o.stop = context.WithCancel(context.Background())
	return o, nil
}

// Run ends all fetches with its context, and returns nil.
func (o *Origin) Run(ctx context.Context) error {
	<-ctx.Done()
	o.stop()
	o.client.CloseIdleConnections()
	return nil
}

// Lookup finds what a name stands for. It waits for as long as the origin takes to
// answer, not for the content: while that is on its way Body follows it. What the origin
// refuses is an Entry with 403, 404, 410 or 502; 503 says that ctx ended.
func (o *Origin) Lookup(ctx context.Context, name string) Entry {
	f := o.copy(name)
	select {
	case <-f.begun:
	case <-ctx.Done():
		return Entry{Status: http.StatusServiceUnavailable}
	}
	if f.status != 0 {
		return Entry{Status: f.status}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.obj != nil {
		return f.obj.entry()
	}
	return Entry{Size: f.size, Body: f}
}

// ByHash finds an object that is whole here. If it is not, the name's copy is
// begun, so that a later offer finds it.
func (o *Origin) ByHash(hash [32]byte, name string) (*Object, bool) {
	o.mu.Lock()
	obj, ok := o.hashes[hash]
	o.mu.Unlock()
	if !ok && name != "" {
		o.copy(name)
	}
	return obj, ok
}

// copy returns the fetch of a name, a new one if there is none or the last is
// old and has changed.
func (o *Origin) copy(name string) *fetch {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.begin(name)
	f.wanted = true
	return f
}

// begin is copy without anybody who wants it. The caller holds o.mu.
func (o *Origin) begin(name string) *fetch {
	old := o.copies[name]
	if old != nil && time.Since(old.since) < originFresh {
		return old
	}
	if old == nil && len(o.copies) >= originKept {
		o.evict()
	}
	f := &fetch{begun: make(chan struct{}), done: make(chan struct{}), since: time.Now()}
	f.ctx, f.cancel = context.WithCancel(o.ctx)
	f.wanted = old != nil
	f.more = sync.NewCond(&f.mu)
	o.copies[name] = f
	go o.run(name, f, old)
	return f
}

// evict forgets the copy that is longest unconfirmed. The caller holds o.mu.
func (o *Origin) evict() {
	oldest := ""
	for name, f := range o.copies {
		if oldest == "" || f.since.Before(o.copies[oldest].since) || f.since.Equal(o.copies[oldest].since) && name < oldest {
			oldest = name
		}
	}
	if obj := o.copies[oldest].whole(); obj != nil {
		delete(o.hashes, obj.hash)
	}
	delete(o.copies, oldest)
}

// run fetches, and makes an object of what came.
func (o *Origin) run(name string, f, old *fetch) {
	defer close(f.done)
	defer f.cancel()
	err := o.fetch(name, f, old)
	f.mu.Lock()
	f.err = err
	if err == nil && f.status == 0 && f.obj == nil {
		f.obj, f.err = NewObject(f.file, f.have, o.cache)
	}
	obj, err := f.obj, f.err
	f.more.Broadcast()
	f.mu.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case obj != nil:
		o.hashes[obj.hash] = obj
	case o.copies[name] == f:
		delete(o.copies, name) // nothing to keep: the next request asks again
	}
	if err != nil && f.ctx.Err() == nil {
		o.log.Warn("origin", "name", name, "err", err)
	}
}

// fetch asks the origin, and opens f for its readers as soon as their
// response's length is known.
func (o *Origin) fetch(name string, f, old *fetch) (err error) {
	open := sync.OnceFunc(func() { close(f.begun) })
	defer open()
	f.status = http.StatusBadGateway // until we know better
	req, err := http.NewRequestWithContext(f.ctx, http.MethodGet, o.base.JoinPath(name).String(), nil)
	if err != nil {
		return err
	}
	known := old.whole()
	if known != nil && old.etag != "" {
		req.Header.Set("If-None-Match", old.etag)
	}
	resp, err := o.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		if known == nil {
			return errors.New("unasked 304")
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.status, f.size, f.obj, f.etag = 0, known.size, known, old.etag
		return nil
	case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
		f.status = resp.StatusCode
		return nil
	default:
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return o.spool(f, resp, open)
}

func (o *Origin) spool(f *fetch, resp *http.Response, open func()) error {
	file, err := os.CreateTemp(o.dir, "object-")
	if err != nil {
		return err
	}
	if err := os.Remove(file.Name()); err != nil {
		return err
	}
	f.file, f.etag = file, resp.Header.Get("ETag")
	if resp.ContentLength > originObject {
		return fmt.Errorf("object of %d bytes", resp.ContentLength)
	}
	if resp.ContentLength >= 0 {
		f.status, f.size = 0, resp.ContentLength
		open()
	}
	n, err := io.Copy(f, io.LimitReader(resp.Body, originObject+1))
	switch {
	case err != nil:
		return err
	case n > originObject || resp.ContentLength >= 0 && n != resp.ContentLength:
		return fmt.Errorf("origin sent %d bytes of %d", n, resp.ContentLength)
	}
	if resp.ContentLength < 0 {
		f.status, f.size = 0, n
	}
	return nil
}

// whole is the object, once the copy is complete.
func (f *fetch) whole() *Object {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.obj
}

// Write appends to the copy and wakes its readers.
func (f *fetch) Write(b []byte) (int, error) {
	n, err := f.file.WriteAt(b, f.have) // f.have changes only here
	f.mu.Lock()
	f.have += int64(n)
	f.more.Broadcast()
	f.mu.Unlock()
	return n, err
}

// At waits for the byte at off.
func (f *fetch) At(off int64) ([]byte, error) {
	f.mu.Lock()
	for f.have <= off && f.err == nil && f.obj == nil {
		f.more.Wait()
	}
	have, err := f.have, f.err
	f.mu.Unlock()
	if off >= have {
		return nil, errors.Join(fmt.Errorf("copy ends at %d: %w", have, io.ErrUnexpectedEOF), err)
	}
	b := make([]byte, min(spoolPiece, have-off))
	_, err = f.file.ReadAt(b, off)
	return b, err
}
