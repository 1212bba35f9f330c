package health

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
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
// target at once. It owns a goroutine a target; all end with ctx. Only set and
// wait are called from outside, both by its owner.
type scheduler struct {
	ctx     context.Context
	results chan<- look
	prober  func(*placement.Check) Prober
	limit   chan struct{} // looks at once, all targets together
	scripts chan struct{} // scripts at once: a process costs more than a socket
	wg      sync.WaitGroup
	running map[targetKey]context.CancelFunc
}

func newScheduler(ctx context.Context, results chan<- look, atOnce int, prober func(*placement.Check) Prober) *scheduler {
	return &scheduler{ctx: ctx, results: results, prober: prober, limit: make(chan struct{}, atOnce), scripts: make(chan struct{}, scriptsAt), running: make(map[targetKey]context.CancelFunc)}
}

// set makes the targets those given; known ones go on undisturbed. A look at one
// that is dropped is broken off, and its result with it.
func (s *scheduler) set(targets []Target) {
	next := make(map[targetKey]context.CancelFunc, len(targets))
	for _, t := range targets {
		key := keyOf(t)
		if next[key] != nil {
			continue // the same target twice
		}
		if stop := s.running[key]; stop != nil {
			next[key] = stop
			delete(s.running, key)
			continue
		}
		ctx, stop := context.WithCancel(s.ctx)
		next[key] = stop
		s.wg.Go(func() { s.watch(ctx, t) })
	}
	for _, stop := range s.running {
		stop()
	}
	s.running = next
}

// wait blocks until every look has ended; call it after the context did.
func (s *scheduler) wait() {
	s.wg.Wait()
}

// firstWithin bounds the wait for the first look: a check of every hour must not
// leave its cluster unknown for minutes.
const firstWithin = time.Second

// watch looks at one target until its context ends: the first time within a
// tenth of the interval, then every interval give or take a tenth, so that many
// vantages never fall into step.
func (s *scheduler) watch(ctx context.Context, t Target) {
	every := t.Check.Every.Or(placement.DefaultEvery)
	probe := s.prober(&t.Check)
	timer := time.NewTimer(rand.N(min(every/10, firstWithin) + 1))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
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
		if !enter(ctx, s.scripts) {
			return Result{}, false
		}
		defer func() { <-s.scripts }()
	}
	if !enter(ctx, s.limit) {
		return Result{}, false
	}
	defer func() { <-s.limit }()
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

// enter takes a place among a limited number; false when the context ended first.
func enter(ctx context.Context, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}
