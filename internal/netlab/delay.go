package netlab

import (
	"container/heap"
	"time"
)

// defaultQueue bounds what a direction holds when the Impairment says nothing:
// 16 MiB are 640 Mbit/s for 200 ms.
const defaultQueue = 16 << 20

// shaper decides the fate of each frame of one direction. It is a value machine:
// time comes in as the duration since the line began, chance as a function.
type shaper struct {
	random func() float64 // uniform in [0, 1)

	held int           // bytes admitted and not yet released
	free time.Duration // when the serializer has sent all it was given
	last time.Duration // due time of the last frame that keeps its order
}

// admit says when a frame of size bytes which arrives now is due, or that it is
// lost. Frames keep their order whatever the jitter, and also when the delay is
// lowered meanwhile; only those that Reorder picks overtake.
func (s *shaper) admit(now time.Duration, size int, imp *Impairment) (due time.Duration, ok bool) {
	bound := imp.Queue
	if bound == 0 {
		bound = defaultQueue
	}
	if s.held+size > bound || (imp.Loss > 0 && s.random() < imp.Loss) {
		return 0, false
	}
	s.held += size
	due = now
	if imp.Rate > 0 {
		s.free = max(s.free, now) + time.Duration(int64(size)*8*int64(time.Second)/imp.Rate)
		due = s.free
	}
	if imp.Reorder > 0 && s.random() < imp.Reorder {
		return due, true
	}
	due += imp.Delay
	if imp.Jitter > 0 {
		due += time.Duration(s.random() * float64(imp.Jitter))
	}
	s.last = max(s.last, due)
	return s.last, true
}

// release tells the shaper that an admitted frame has left.
func (s *shaper) release(size int) { s.held -= size }

// frame is one held frame: where it goes and when.
type frame struct {
	due  time.Duration
	seq  uint64 // breaks ties: first in, first out
	data []byte // with its virtio header
	out  *lineDir
}

// delayQueue holds frames of all directions, the next one due first.
type delayQueue struct {
	frames frameHeap
	seq    uint64
}

// push adds a frame and numbers it, which keeps frames due together in order.
func (q *delayQueue) push(f frame) {
	q.seq++
	f.seq = q.seq
	heap.Push(&q.frames, f)
}

// next reports when the first frame is due.
func (q *delayQueue) next() (time.Duration, bool) {
	if len(q.frames) == 0 {
		return 0, false
	}
	return q.frames[0].due, true
}

// pop removes the first frame if it is due by now.
func (q *delayQueue) pop(now time.Duration) (frame, bool) {
	if len(q.frames) == 0 || q.frames[0].due > now {
		return frame{}, false
	}
	return heap.Pop(&q.frames).(frame), true
}

// frameHeap orders frames by due time, then by arrival.
type frameHeap []frame

// The five methods of heap.Interface.
func (h frameHeap) Len() int { return len(h) }
func (h frameHeap) Less(i, j int) bool {
	return h[i].due < h[j].due || (h[i].due == h[j].due && h[i].seq < h[j].seq)
}
func (h frameHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *frameHeap) Push(x any)   { *h = append(*h, x.(frame)) }
func (h *frameHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = frame{} // let go of the data
	*h = old[:len(old)-1]
	return last
}

// framePool keeps buffers for frames in two sizes: most frames are an Ethernet
// MTU, some are TCP segments of up to 64 KiB which the kernel has not cut yet.
// It belongs to one thread.
type framePool struct {
	small, large [][]byte
}

const (
	smallFrame = 2 << 10
	largeFrame = 72 << 10
	poolKeep   = 4096 // buffers kept of each size
)

// get returns a buffer of length size, used before if there is one.
func (p *framePool) get(size int) []byte {
	list, full := &p.small, smallFrame
	if size > smallFrame {
		list, full = &p.large, largeFrame
	}
	if n := len(*list); n > 0 {
		b := (*list)[n-1]
		*list = (*list)[:n-1]
		return b[:size]
	}
	return make([]byte, size, max(full, size))
}

// put takes a buffer back. Large ones are kept in small number: 4096 of them
// would be a quarter of a gigabyte after one burst.
func (p *framePool) put(b []byte) {
	list, keep := &p.small, poolKeep
	if cap(b) > smallFrame {
		list, keep = &p.large, poolKeep/16
	}
	if len(*list) < keep {
		*list = append(*list, b[:0])
	}
}
