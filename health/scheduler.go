package health

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rhumb/placement"
)

// look is a result with the target that it is about.
type look struct {
	target Target
	result Result
}

// targetKey tells targets apart; a changed check is a new target, lest a server be
// judged by what it was asked before the change.
type targetKey struct {
	object placement.ClusterID
	addr   netip.AddrPort
	host   string // all names
	check  string // all of it
}

func keyOf(t Target) targetKey {
	check, err := json.Marshal(t.Check)
	if err != nil {
		check = []byte(t.Check.Name) // cannot be: a check is texts and numbers
	}
	return targetKey{t.Object, t.Address, strings.Join(append([]string{t.Host}, t.Hosts...), " "), string(check)}
}

// scheduler probes each target at its own interval, never two looks at one
// target at once. It owns a goroutine a target; all end with ctx. Only set,
// lookNow and wait are called from outside, all by its owner.
type scheduler struct {
	ctx     context.Context
	results chan<- look
	prober  func(*placement.Check) Prober
	least   int // looks that may always run at once
	limit   atomic.Pointer[places]
	scripts places // scripts at once: a process costs more than a socket
	wg      sync.WaitGroup
	running map[targetKey]watcher
}

// watcher is the goroutine of one target.
type watcher struct {
	stop  context.CancelFunc
	now   chan struct{} // has room for one wish to look at once
	check string        // its name
}

func newScheduler(ctx context.Context, results chan<- look, atOnce int, prober func(*placement.Check) Prober) *scheduler {
	s := &scheduler{ctx: ctx, results: results, prober: prober, least: atOnce, scripts: make(places, scriptsAt), running: make(map[targetKey]watcher)}
	s.room(nil)
	return s
}

// set makes the targets those given; known ones go on undisturbed. A look at one
// that is dropped is broken off, and its result with it.
func (s *scheduler) set(targets []Target) {
	s.room(targets)
	next := make(map[targetKey]watcher, len(targets))
	for _, t := range targets {
		key := keyOf(t)
		if next[key].stop != nil {
			continue // the same target twice
		}
		if w := s.running[key]; w.stop != nil {
			next[key] = w
			delete(s.running, key)
			continue
		}
		ctx, stop := context.WithCancel(s.ctx)
		w := watcher{stop, make(chan struct{}, 1), t.Check.Name}
		next[key] = w
		s.wg.Go(func() { s.watch(ctx, t, w.now) })
	}
	for _, w := range s.running {
		w.stop()
	}
	s.running = next
}

// room sets how many looks may run at once: no more than it takes to look at every
// target in time when all of them let their timeout run out. With fewer places a
// rack that falls silent would be found down later the larger it is.
func (s *scheduler) room(targets []Target) {
	sum := 0.0
	for i := range targets {
		c := &targets[i].Check
		shortest := c.Every.Or(placement.DefaultEvery) * 9 / 10
		sum += float64(c.Timeout.Or(placement.DefaultTimeout)) / float64(max(shortest, time.Millisecond))
	}
	n := min(max(int(sum*1.25)+1, s.least), mostAtOnce)
	if old := s.limit.Load(); old != nil && cap(*old) == n {
		return
	}
	fresh := make(places, n)
	s.limit.Store(&fresh) // who has a place among the old ones gives it back there
}

// mostAtOnce bounds the sockets that looks take.
const mostAtOnce = 4096

// wait blocks until every look has ended; call it after the context did.
func (s *scheduler) wait() {
	s.wg.Wait()
}

// firstWithin bounds the wait for the first look: a check of every hour must not
// leave its cluster unknown for minutes.
const firstWithin = time.Second

// lookNow has every target of an object looked at without waiting for its turn. One
// that is being looked at is looked at once more.
func (s *scheduler) lookNow(object placement.ClusterID) {
	for key, w := range s.running {
		if key.object == object {
			w.wake()
		}
	}
}

// lookAt has one target looked at without waiting for its turn.
func (s *scheduler) lookAt(id lookID) {
	for key, w := range s.running {
		if key.object == id.object && key.addr == id.addr && w.check == id.check {
			w.wake()
		}
	}
}

func (w *watcher) wake() {
	select {
	case w.now <- struct{}{}:
	default: // it is about to look
	}
}

// watch looks at one target until its context ends: the first time within a
// tenth of the interval, then every interval give or take a tenth, so that many
// vantages never fall into step.
func (s *scheduler) watch(ctx context.Context, t Target, now <-chan struct{}) {
	every := t.Check.Every.Or(placement.DefaultEvery)
	probe := s.prober(&t.Check)
	timer := time.NewTimer(rand.N(min(every/10, firstWithin) + 1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			select {
			case <-now: // its turn has come meanwhile: one look is enough
			default:
			}
		case <-now:
		}
		r, ok := s.look(ctx, probe, t)
		if !ok {
			return
		}
		select {
		case s.results <- look{t, r}:
		case <-ctx.Done():
			return
		}
		// From start to start; a look that took all of it is followed by a pause.
		timer.Reset(max(every*9/10+rand.N(every/5+1)-r.Took, every/10))
	}
}

// look looks once, as soon as fewer than limit others do; the time to wait for
// that is not part of the timeout. ok is false when the target was dropped.
func (s *scheduler) look(ctx context.Context, probe Prober, t Target) (r Result, ok bool) {
	if t.Check.Script != nil {
		if !s.scripts.enter(ctx) {
			return Result{}, false
		}
		defer s.scripts.leave()
	}
	limit := *s.limit.Load()
	if !limit.enter(ctx) {
		return Result{}, false
	}
	defer limit.leave()
	start := time.Now()
	within, cancel := context.WithTimeout(ctx, t.Check.Timeout.Or(placement.DefaultTimeout))
	defer cancel()
	r = probe(within, t)
	r.At, r.Took = time.Now(), time.Since(start)
	if t.Check.Invert {
		r = inverted(r)
	}
	return r, ctx.Err() == nil
}

// places are a limited number of them.
type places chan struct{}

// enter takes a place; false when the context ended first.
func (p places) enter(ctx context.Context) bool {
	select {
	case p <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p places) leave() { <-p }
