package main

import (
	"context"
	"sync"

	"rhumb/placement"
	"rhumb/placement/store"
)

// box has room for one value, the newest one put. Whoever reads slowly misses
// what was between and keeps nobody waiting. Safe for any number of writers and
// readers; where the order of several writers matters, they agree on it first.
type box[T any] chan T

func newBox[T any]() box[T] { return make(box[T], 1) }

// put replaces what lies in the box. It never waits for a reader: a turn of the
// loop fails only when another writer has filled the place in between, and then
// that one is done.
func (b box[T]) put(v T) {
	for {
		select {
		case b <- v:
			return
		default:
		}
		select {
		case <-b:
		default:
		}
	}
}

// snapshotBox is the applier of a role which takes its snapshots in a loop of its
// own. The zero value is of no use; make it by newSnapshotBox.
type snapshotBox struct{ box[*placement.Snapshot] }

func newSnapshotBox() snapshotBox { return snapshotBox{newBox[*placement.Snapshot]()} }

// Apply never blocks: an older snapshot nobody took is dropped.
func (b snapshotBox) Apply(_ context.Context, s *placement.Snapshot) { b.put(s) }

// hub hands the store's views to everybody in this process who reads them. Each
// reader has a place for one view, the latest; a slow one misses those between.
// Safe for concurrent use.
type hub struct {
	mu      sync.Mutex // also keeps the views in order on their way to the readers
	latest  *store.View
	readers []box[*store.View]
}

// subscribe returns a channel which yields the newest view after each change,
// the one in force first if there is one. Readers stay for the life of the process.
func (h *hub) subscribe() <-chan *store.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := newBox[*store.View]()
	if h.latest != nil {
		b.put(h.latest)
	}
	h.readers = append(h.readers, b)
	return b
}

// publish makes v the latest view. Only the follower of the store calls it.
func (h *hub) publish(v *store.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latest = v
	for _, b := range h.readers {
		b.put(v)
	}
}

// view returns the latest view, or an empty one. It is shared: nobody changes it.
func (h *hub) view() *store.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.latest == nil {
		return &store.View{}
	}
	return h.latest
}

// pump passes values of one kind on as another until the context ends; the
// reader gets the latest.
func pump[A, B any](ctx context.Context, in <-chan A, out box[B], convert func(A) B) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-in:
			out.put(convert(a))
		}
	}
}
