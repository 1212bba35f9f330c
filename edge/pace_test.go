package edge

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// handsOn is a pair of sites, a path between them and one thing that does the work, for so
// long of each session. It returns how long so many sessions take, and the longest silence
// of one once the pace is found.
func handsOn(t *testing.T, n int, path, work time.Duration) (all, longest time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s := newLanes().of("b")
		worker := make(chan struct{}, 1)
		begun := time.Now()
		ended := make(chan time.Duration, n)
		for i := range n {
			if err := s.take(t.Context()); err != nil {
				t.Fatal(err)
			}
			go func() {
				at := time.Now()
				time.Sleep(path)
				worker <- struct{}{}
				time.Sleep(work)
				<-worker
				took := time.Since(at)
				s.done(time.Now(), took, resultOK)
				if i < n/4 {
					took = 0
				}
				ended <- took
			}()
		}
		for range n {
			longest = max(longest, <-ended)
		}
		all = time.Since(begun)
	})
	return all, longest
}

// TestPace: near or far, the slower of both works all the time, and a session waits for
// few others.
func TestPace(t *testing.T) {
	for _, tc := range []struct{ path, work time.Duration }{
		{200 * time.Microsecond, 300 * time.Microsecond},
		{40 * time.Millisecond, 300 * time.Microsecond},
		{80 * time.Millisecond, 100 * time.Microsecond},
		{time.Millisecond, 5 * time.Millisecond},
	} {
		const n = 10_000
		all, longest := handsOn(t, n, tc.path, tc.work)
		t.Logf("path %v, work %v: %v, longest silence %v", tc.path, tc.work, all, longest)
		if most := n*tc.work*5/4 + 20*tc.path; all > most {
			t.Errorf("path %v, work %v: took %v, want at most %v", tc.path, tc.work, all, most)
		}
		// Few are let in at once, whatever their work takes.
		if most := tc.path + tc.work + 3*paceQueued + paceLeast*tc.work; longest > most {
			t.Errorf("path %v, work %v: a session was silent for %v, want at most %v", tc.path, tc.work, longest, most)
		}
	}
}

// TestPaceBounds: who does not answer is asked little, and who does so fast, not more than
// the bound; a path that became longer is learnt.
func TestPaceBounds(t *testing.T) {
	p, now := newPace(), time.Unix(1000, 0)
	for range 20 {
		p.failed()
	}
	if p.most != paceLeast {
		t.Errorf("%v at once without answers, want %v", p.most, paceLeast)
	}
	for range 8 * paceMost {
		p.took(now, time.Millisecond)
	}
	if p.most != paceMost {
		t.Errorf("%v at once with fast ones, want %v", p.most, paceMost)
	}
	for range 8 * paceMost {
		p.took(now, 50*time.Millisecond)
	}
	if p.most != paceLeast {
		t.Errorf("%v at once with slow ones, want %v", p.most, paceLeast)
	}
	for range 3 {
		now = now.Add(paceMemory)
		p.took(now, 50*time.Millisecond)
	}
	before := p.most
	if p.took(now, 50*time.Millisecond); p.most <= before {
		t.Errorf("%v at once on a path that became longer, %v before", p.most, before)
	}
}

// TestSlots: who asked first goes first, and who gave up takes nothing along.
func TestSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newLanes().of("b")
		for range paceFirst {
			if err := s.take(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		var order []int
		ctx, cancel := context.WithCancel(t.Context())
		var gaveUp atomic.Int32
		for i := range 4 {
			go func() {
				wait := t.Context()
				if i == 1 {
					wait = ctx
				}
				if err := s.take(wait); errors.Is(err, context.Canceled) {
					gaveUp.Add(1)
				} else {
					order = append(order, i)
				}
			}()
			synctest.Wait()
		}
		cancel()
		synctest.Wait()
		for range 4 { // one more than there are who wait
			s.done(time.Now(), 0, "")
			synctest.Wait()
		}
		if gaveUp.Load() != 1 || len(order) != 3 || order[0] != 0 || order[1] != 2 || order[2] != 3 || s.busy != paceFirst-1 || len(s.queue) != 0 {
			t.Errorf("%d gave up, order %v, %d busy, %d wait", gaveUp.Load(), order, s.busy, len(s.queue))
		}
	})
}

// TestSlotsAllocate: who need not wait leaves nothing for the collector.
func TestSlotsAllocate(t *testing.T) {
	s, now := newLanes().of("b"), time.Now()
	n := testing.AllocsPerRun(1000, func() {
		if s.take(t.Context()) == nil {
			s.done(now, time.Millisecond, resultOK)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a hand-off, want none", n)
	}
}

// TestLanes: a site that does not answer takes no slot of another.
func TestLanes(t *testing.T) {
	l := newLanes()
	for range 5 {
		if err := l.of("b").take(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.of("b").done(time.Now(), time.Second, resultTimeout)
	}
	if b, c := l.of("b").pace.most, l.of("c").pace.most; b != paceLeast || c != paceFirst {
		t.Errorf("%v at once to who is silent and %v to the other, want %v and %v", b, c, paceLeast, paceFirst)
	}
}
