package netlab

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestShaperAdmit(t *testing.T) {
	const ms = time.Millisecond
	type step struct {
		at   time.Duration
		size int
		imp  Impairment
		rnd  float64
		due  time.Duration // -1: lost
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"nothing to do", []step{{at: 5 * ms, size: 100, due: 5 * ms}}},
		{"delay", []step{{at: 5 * ms, size: 100, imp: Impairment{Delay: 40 * ms}, due: 45 * ms}}},
		{"order is kept when the delay is lowered", []step{
			{at: 0, size: 100, imp: Impairment{Delay: 200 * ms}, due: 200 * ms},
			{at: 10 * ms, size: 100, imp: Impairment{Delay: ms}, due: 200 * ms},
			{at: 300 * ms, size: 100, imp: Impairment{Delay: ms}, due: 301 * ms},
		}},
		{"order is kept under jitter", []step{
			{at: 0, size: 100, imp: Impairment{Delay: 10 * ms, Jitter: 10 * ms}, rnd: 0.9, due: 19 * ms},
			{at: ms, size: 100, imp: Impairment{Delay: 10 * ms, Jitter: 10 * ms}, rnd: 0.1, due: 19 * ms},
		}},
		{"a reordered frame overtakes and holds up nobody", []step{
			{at: 0, size: 100, imp: Impairment{Delay: 10 * ms}, due: 10 * ms},
			{at: ms, size: 100, imp: Impairment{Delay: 10 * ms, Reorder: 1}, due: ms},
			{at: 2 * ms, size: 100, imp: Impairment{Delay: 10 * ms}, due: 12 * ms},
		}},
		{"loss", []step{
			{at: 0, size: 100, imp: Impairment{Loss: 0.5}, rnd: 0.4, due: -1},
			{at: 0, size: 100, imp: Impairment{Loss: 0.5}, rnd: 0.5, due: 0},
		}},
		{"rate of 8 Mbit/s: 1000 bytes take 1 ms", []step{
			{at: 0, size: 1000, imp: Impairment{Rate: 8e6, Delay: 10 * ms}, due: 11 * ms},
			{at: 0, size: 2000, imp: Impairment{Rate: 8e6, Delay: 10 * ms}, due: 13 * ms},
			{at: 9 * ms, size: 1000, imp: Impairment{Rate: 8e6, Delay: 10 * ms}, due: 20 * ms},
		}},
		{"queue bound", []step{
			{at: 0, size: 1000, imp: Impairment{Delay: ms, Queue: 1500}, due: ms},
			{at: 0, size: 1000, imp: Impairment{Delay: ms, Queue: 1500}, due: -1},
			{at: 0, size: 500, imp: Impairment{Delay: ms, Queue: 1500}, due: ms},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var rnd float64
			s := shaper{random: func() float64 { return rnd }}
			for i, st := range tc.steps {
				rnd = st.rnd
				due, ok := s.admit(st.at, st.size, &st.imp)
				if !ok {
					due = -1
				}
				if due != st.due {
					t.Errorf("step %d: due %s, want %s", i, due, st.due)
				}
			}
		})
	}
}

func TestShaperReleasesItsBound(t *testing.T) {
	s := shaper{random: rand.Float64}
	imp := Impairment{Queue: 1000}
	for range 100 {
		if _, ok := s.admit(0, 1000, &imp); !ok {
			t.Fatal("a released frame still counts")
		}
		s.release(1000)
	}
}

// The queue against sorting, with many equal times.
func TestDelayQueueOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var q delayQueue
	var want []int // due times; equal ones must come in the order they went in
	var got []int
	for i := range 2000 {
		due := random.IntN(50)
		want = append(want, due)
		q.push(frame{due: time.Duration(due), data: []byte{byte(i >> 8), byte(i)}})
	}
	slices.Sort(want)
	order := map[int]int{}
	for {
		f, ok := q.pop(100)
		if !ok {
			break
		}
		i := int(f.data[0])<<8 | int(f.data[1])
		if before, seen := order[int(f.due)]; seen && before > i {
			t.Fatalf("frame %d due %d came after frame %d", i, f.due, before)
		}
		order[int(f.due)] = i
		got = append(got, int(f.due))
	}
	if !slices.Equal(got, want) {
		t.Error("frames came out of order")
	}
	if _, ok := q.next(); ok {
		t.Error("the empty queue has a next frame")
	}
}

func TestDelayQueueHoldsUntilDue(t *testing.T) {
	var q delayQueue
	q.push(frame{due: 10})
	if _, ok := q.pop(9); ok {
		t.Error("a frame left early")
	}
	if due, ok := q.next(); !ok || due != 10 {
		t.Errorf("next due %d, %v", due, ok)
	}
	if _, ok := q.pop(10); !ok {
		t.Error("a frame did not leave in time")
	}
}

func TestFramePool(t *testing.T) {
	var p framePool
	for _, size := range []int{60, smallFrame, smallFrame + 1, largeFrame} {
		b := p.get(size)
		if len(b) != size {
			t.Errorf("asked for %d bytes, got %d", size, len(b))
		}
		p.put(b)
		if again := p.get(size); &again[0] != &b[0] || len(again) != size {
			t.Errorf("the buffer of %d bytes was not used again", size)
		}
		p.put(b)
	}
	for range 3 * poolKeep {
		p.put(make([]byte, 1))
	}
	if len(p.small) != poolKeep {
		t.Errorf("the pool keeps %d buffers", len(p.small))
	}
}

func BenchmarkDelayQueue(b *testing.B) {
	var q delayQueue
	for i := range 1000 {
		q.push(frame{due: time.Duration(i)})
	}
	now := time.Duration(1000)
	b.ReportAllocs()
	for b.Loop() {
		now++
		q.push(frame{due: now})
		q.pop(now)
	}
}
