package main

import (
	"context"
	"sync"
	"testing"

	"rhumb/placement"
	"rhumb/placement/store"
)

// TestBoxKeepsTheNewest: one value, the last one put, and then nothing.
func TestBoxKeepsTheNewest(t *testing.T) {
	b := newBox[int]()
	for i := range 5 {
		b.put(i)
	}
	if got := <-b; got != 4 {
		t.Errorf("got %d, want the newest, 4", got)
	}
	select {
	case got := <-b:
		t.Errorf("an outdated %d is still there", got)
	default:
	}
}

// TestBoxNeverBlocks: writers and readers race; every put returns, and when all
// writers are done a value is there or was read.
func TestBoxNeverBlocks(t *testing.T) {
	const writers, each = 8, 2000
	b := newBox[int]()
	stop := make(chan struct{})
	var readers, group sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-b:
				case <-stop:
					return
				}
			}
		})
	}
	for range writers {
		group.Go(func() {
			for i := range each {
				b.put(i)
			}
		})
	}
	group.Wait() // hangs, and the test with it, if a put can wait for a reader
	close(stop)
	readers.Wait()
}

// TestHub: every reader gets the newest view, also one that comes late; a slow
// one misses those between and delays nobody.
func TestHub(t *testing.T) {
	h := &hub{}
	if v := h.view(); v == nil || v.Revision != 0 {
		t.Fatalf("before the first view: %+v, want an empty one", v)
	}
	early := h.subscribe()
	for rev := range int64(3) {
		h.publish(&store.View{Revision: rev + 1})
	}
	late := h.subscribe()
	for name, c := range map[string]<-chan *store.View{"early": early, "late": late} {
		if v := <-c; v.Revision != 3 {
			t.Errorf("%s reader got revision %d, want 3", name, v.Revision)
		}
	}
	if h.view().Revision != 3 {
		t.Errorf("view is at %d, want 3", h.view().Revision)
	}
}

// TestPump: what comes in goes out in the other's words; the last one stays for
// a reader who comes late.
func TestPump(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	in, out := make(chan int), newBox[string]()
	done := make(chan error)
	go func() { done <- pump(ctx, in, out, func(n int) string { return string(rune('a' + n)) }) }()
	for i := range 3 {
		in <- i
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := <-out; got != "c" {
		t.Errorf("got %q, want the last one, c", got)
	}
}

// TestSnapshotBox: an applier whose role is busy keeps the newest snapshot only.
func TestSnapshotBox(t *testing.T) {
	b := newSnapshotBox()
	for plan := range int64(3) {
		b.Apply(t.Context(), &placement.Snapshot{Name: placement.Name{Plan: plan}})
	}
	if s := <-b.box; s.Name.Plan != 2 {
		t.Errorf("got plan %d, want 2", s.Name.Plan)
	}
}
