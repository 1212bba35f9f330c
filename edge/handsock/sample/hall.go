package main

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"rhumb/edge/handsock"
)

// hall knows the sessions. It is the handsock.Handler.
type hall struct {
	mu     sync.Mutex
	by     map[handsock.Key]*session
	coming map[handsock.Key]state // taken, not started
}

func newHall() *hall {
	return &hall{by: map[handsock.Key]*session{}, coming: map[handsock.Key]state{}}
}

// accept serves until the listener closes.
func (h *hall) accept(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		t := c.(*net.TCPConn)
		h.start(keyOf(t), t, state{})
	}
}

// keyOf names a connection as the agent does: IPv4 plain.
func keyOf(c *net.TCPConn) handsock.Key {
	return handsock.Key{Client: plain(c.RemoteAddr()), VIP: plain(c.LocalAddr())}
}

func plain(a net.Addr) netip.AddrPort {
	p := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (h *hall) start(k handsock.Key, c *net.TCPConn, st state) {
	s := &session{conn: c, state: st}
	h.mu.Lock()
	h.by[k] = s
	h.mu.Unlock()
	s.ended = func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.by[k] == s {
			delete(h.by, k)
		}
	}
	s.resume()
}

func (h *hall) get(k handsock.Key) *session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.by[k]
}

// Give lets a session rest and tells what it is about.
func (h *hall) Give(k handsock.Key) (syscall.Conn, []byte, error) {
	s := h.get(k)
	if s == nil || !s.pause() {
		return nil, nil, errors.New("no such session")
	}
	return s.conn, s.state.append(nil), nil
}

// Resume goes on with it.
func (h *hall) Resume(k handsock.Key) {
	if s := h.get(k); s != nil {
		s.resume()
	}
}

// Leave forgets it.
func (h *hall) Leave(k handsock.Key) {
	if s := h.get(k); s != nil {
		s.close()
	}
}

// Take reads where a session stands.
func (h *hall) Take(k handsock.Key, record []byte) error {
	st, err := readState(record)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.coming[k] = st
	return nil
}

// Start goes on with it here.
func (h *hall) Start(k handsock.Key, c *net.TCPConn) {
	h.mu.Lock()
	st := h.coming[k]
	delete(h.coming, k)
	h.mu.Unlock()
	h.start(k, c, st)
}

// Discard forgets what Take read.
func (h *hall) Discard(k handsock.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.coming, k)
}
