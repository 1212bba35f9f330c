package main

import (
	"sync"

	"rhumb/placement/store"
)

// hub hands the store's views to everybody in this process who reads them. Each
// reader has a place for one view, the latest; a slow one misses those between.
type hub struct {
	mu      sync.Mutex
	latest  *store.View
	readers []chan *store.View
}

// subscribe returns a channel which yields the newest view after each change.
// Subscribe before the hub runs; readers stay for the life of the process.
func (h *hub) subscribe() <-chan *store.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan *store.View, 1)
	h.readers = append(h.readers, c)
	return c
}

// publish makes v the latest view.
func (h *hub) publish(v *store.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latest = v
	for _, c := range h.readers {
		select {
		case <-c: // nobody has taken the older one
		default:
		}
		c <- v
	}
}

// view returns the latest view, or an empty one.
func (h *hub) view() *store.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.latest == nil {
		return &store.View{}
	}
	return h.latest
}
