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

func newWave(v *revival, begun time.Time, spread time.Duration, sessions int) *wave {
	return &wave{v: v, begun: begun, spread: spread, rounds: make([]*round, 0, sessions), ready: make(chan *round, sessions)}
}

// start makes ready for the first answers.
func (w *wave) start(ctx context.Context) {
	for range runtime.GOMAXPROCS(0) {
		w.workers.Go(func() {
			deepen(0)
			w.work(ctx)
		})
	}
}

// begin claims all sessions, and asks at once those clients whose turn it is. Nobody waits in it.
func (w *wave) begin(claimed []stored) {
	for i, st := range claimed {
		if w.v.a.tab.get(st.rec.Key) != nil {
			continue // it came here before its owner was lost
		}
		rd := w.v.beginIn(w, st, st.rec.Epoch+1, w.begun, reviveLife)
		if rd == nil {
			continue
		}
		// By the verdict, not by when this one was claimed: that takes its time, too.
		rd.due = w.begun.Add(w.spread * time.Duration(i) / time.Duration(len(claimed)))
		w.rounds = append(w.rounds, rd)
		if w.spread == 0 {
			w.ask(rd)
		}
	}
}

// run returns when each round has ended or goes on by itself.
func (w *wave) run(ctx context.Context) {
	if w.spread > 0 {
		w.workers.Go(func() { w.probe(ctx) })
	}
	w.outlast(ctx)
	close(w.ready) // all are taken
	w.workers.Wait()
}

// probe asks the clients of all, each when it is due.
func (w *wave) probe(ctx context.Context) {
	for _, rd := range w.rounds {
		if wait := time.Until(rd.due); wait > 0 && !sleep(ctx, wait) {
			return
		}
		w.ask(rd)
	}
}

// ask sends the first probe, unless the client was heard or the owner lives.
func (w *wave) ask(rd *round) {
	now := time.Now()
	var of round // the session alone: from here on the round may be another goroutine's
	w.mu.Lock()
	asks := !rd.taken && !rd.spared()
	if asks {
		rd.asked, rd.probes = now, 1
		of.rec = rd.rec
	}
	w.mu.Unlock()
	if asks {
		w.v.ask(&of, now)
	}
}

// spared reports whether the owner lives.
func (r *round) spared() bool {
	select {
	case <-r.over:
		return true
	default:
		return false
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

// outlasts reports whether a round is taken. If it is time, or the round is to end, it takes it
// and lets it go on by itself.
func (w *wave) outlasts(ctx context.Context, rd *round) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rd.taken {
		return true
	}
	if !rd.ended(ctx) && (rd.asked.IsZero() || time.Since(rd.asked) < probeEvery) {
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
	seen := v.listen(rd, rd.sight())
	if seen.gone && !rd.ended(ctx) {
		return v.conclude(rd, nil, reviveGone, nil)
	}
	if rd.ended(ctx) || !seen.ready {
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
