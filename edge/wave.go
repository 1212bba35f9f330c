package edge

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// wave is the revival of all sessions of one lost site, up to the second probe. They come
// all at once, and then it is the processor for which their clients wait: so one goroutine
// sends the first probes, and as many as there are processors restore, in the order of the
// answers. A round that does not end so goes on by itself.
type wave struct {
	v       *revival
	rounds  []*round // in the order of their probes
	begun   time.Time
	spread  time.Duration // over which the first probes leave
	ready   chan *round   // whose clients were heard, in order; has room for all
	workers sync.WaitGroup

	// mu guards taken of all rounds, and until a round is taken its trail.
	mu sync.Mutex
}

// spreadOf is over how long the probes of so many sessions leave: what the bucket does not give
// at once, in proportion.
func spreadOf(sessions, rate int) time.Duration {
	return min(time.Second*time.Duration(max(sessions-rate/10, 0))/time.Duration(rate), spreadMost)
}

func newWave(v *revival, begun time.Time, spread time.Duration, room int) *wave {
	return &wave{v: v, begun: begun, spread: spread, ready: make(chan *round, room)}
}

// run returns when each round has ended or goes on by itself.
func (w *wave) run(ctx context.Context) {
	for range runtime.GOMAXPROCS(0) {
		w.workers.Go(func() {
			deepen(0)
			w.work(ctx)
		})
	}
	w.workers.Go(func() { w.probe(ctx) })
	w.outlast(ctx)
	close(w.ready) // all are taken
	w.workers.Wait()
}

// due is when the probe of the ith round leaves.
func (w *wave) due(i int) time.Time {
	// By the verdict, not by when this one was claimed: that takes its time, too.
	return w.begun.Add(w.spread * time.Duration(i) / time.Duration(len(w.rounds)))
}

// probe sends the first probe of each.
func (w *wave) probe(ctx context.Context) {
	for i, rd := range w.rounds {
		if wait := time.Until(w.due(i)); wait > 0 && !sleep(ctx, wait) {
			return
		}
		now := time.Now()
		w.mu.Lock()
		asks := !rd.taken
		if asks {
			rd.asked, rd.probes = now, 1
		}
		w.mu.Unlock()
		if asks {
			w.v.ask(rd, now)
		}
	}
}

// outlast lets those go on by themselves whose clients are not heard in time.
func (w *wave) outlast(ctx context.Context) {
	for _, rd := range w.rounds {
		for !w.outlasts(ctx, rd) {
			w.mu.Lock()
			wait := probeEvery / 4 // not even asked
			if !rd.asked.IsZero() {
				wait = time.Until(rd.asked.Add(probeEvery))
			}
			w.mu.Unlock()
			sleep(ctx, max(wait, time.Millisecond))
		}
	}
}

// outlasts reports whether a round is taken. If it is time it takes it, and lets it go on by
// itself.
func (w *wave) outlasts(ctx context.Context, rd *round) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rd.taken {
		return true
	}
	if ctx.Err() == nil && (rd.asked.IsZero() || time.Since(rd.asked) < probeEvery) {
		return false
	}
	rd.taken = true
	w.v.a.wg.Go(func() { w.v.run(ctx, rd, rd.sight(), 0) })
	return true
}

// heard is told that a round's client was.
func (w *wave) heard(rd *round) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !rd.taken {
		rd.taken, rd.told = true, now
		w.ready <- rd
	}
}

// revivedOf is a session whose watch is to begin.
type revivedOf struct {
	s     *session
	rd    *round
	first reach
}

// work restores the sessions whose clients were heard, until there is none to come.
func (w *wave) work(ctx context.Context) {
	var done []revivedOf
	for rd := range w.ready {
		if s := w.restore(ctx, rd); s != nil {
			if first, err := reached(s); err == nil { // else it has ended
				done = append(done, revivedOf{s, rd, first})
			}
		}
		// What was restored writes now, before the next is.
		runtime.Gosched()
	}
	for _, x := range done {
		w.v.a.wg.Go(func() { w.v.watch(ctx, x.s, x.rd, x.first) })
	}
}

// restore ends a round whose client was heard, or lets it go on by itself.
func (w *wave) restore(ctx context.Context, rd *round) *session {
	v := w.v
	if wait := time.Until(rd.told.Add(settleFor)); wait > 0 {
		sleep(ctx, wait) // what is on its way is newer
	}
	seen, ready := v.listen(rd, rd.sight()), false
	select {
	case <-rd.over:
	case <-ctx.Done():
	default:
		ready = seen.ready && !seen.gone
	}
	if !ready {
		rd.told = time.Time{}
		pause := max(time.Until(rd.asked.Add(probeEvery)), 0)
		v.a.wg.Go(func() { v.run(ctx, rd, seen, pause) })
		return nil
	}
	s, result, err := v.restore(ctx, rd, seen)
	if result == "" {
		v.a.wg.Go(func() { v.run(ctx, rd, seen, retryEvery) })
		return nil
	}
	return v.conclude(rd, s, result, err)
}

// sleep reports whether the context lasted.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
