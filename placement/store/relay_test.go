package store

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
)

// relay stands on the way to a member and keeps every byte.
type relay struct {
	to string // where the member listens

	mu   sync.Mutex
	seen bytes.Buffer
	all  map[net.Conn]bool
	wg   sync.WaitGroup
}

// newRelay takes a member's address, and gives the member one of its own.
func newRelay(t *testing.T, m *Member) *relay {
	t.Helper()
	l, err := net.Listen("tcp", hostOf(m.PeerURL))
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{to: hostOf(freeURL(t)), all: make(map[net.Conn]bool)}
	r.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.pass(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		r.wg.Wait()
	})
	return r
}

func (r *relay) pass(c net.Conn) {
	defer c.Close()
	to, err := net.Dial("tcp", r.to)
	if err != nil {
		return // it restarts
	}
	r.mu.Lock()
	r.all[c], r.all[to] = true, true
	r.mu.Unlock()
	var back sync.WaitGroup
	copied := func(dst, src net.Conn) {
		io.Copy(dst, io.TeeReader(src, r))
		dst.Close()
		src.Close()
	}
	back.Go(func() { copied(c, to) })
	copied(to, c)
	back.Wait()
	r.mu.Lock()
	delete(r.all, c)
	delete(r.all, to)
	r.mu.Unlock()
}

// Write keeps what passes.
func (r *relay) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(b)
}

// saw tells whether a word passed in clear.
func (r *relay) saw(word string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.seen.Bytes(), []byte(word))
}

// cut ends what passes now.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.all {
		c.Close()
	}
}
