package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"rhumb/placement"
)

// replayRun is one replay under way, inside the lab.
type replayRun struct {
	w     *world
	tale  *tale
	naive bool
	// watch is the least time watched after the blow.
	watch time.Duration
	fleet labFleet
	// before is the fleet as it was found, and as it is left.
	before *placement.Fleet
	// changed is set once the fleet is not as it was.
	changed bool
	look    *onlooker
	say     func(replayLine)
	// aside is set while the lab is prepared or put back.
	aside atomic.Bool
}

// see passes on what the onlooker says.
func (r *replayRun) see(l replayLine) {
	l.Aside = r.aside.Load()
	r.say(l)
}

// step says something of a kind, now.
func (r *replayRun) step(kind, format string, args ...any) {
	r.say(replayLine{At: time.Now(), Kind: kind, Text: fmt.Sprintf(format, args...)})
}

// The limits of a replay's parts.
const (
	calmWithin   = 90 * time.Second // until all is announced and answered
	goneWithin   = 25 * time.Second // a naive fleet's end
	quietFor     = 3 * time.Second  // routes which have stood still are done moving
	restWithin   = 40 * time.Second
	undoneWithin = 3 * time.Minute
	// outage is what clients must not have: when all sites change their routes at
	// once, routers hunt for the best one, and packets under way are lost for a
	// moment; a lost SYN is sent again after 1 s (RFC 6298, 2.1).
	outage = 2 * time.Second
)

// play runs the tale and undoes it. over closes when the lab ends: then there is
// nothing to undo.
func (r *replayRun) play(ctx context.Context, over <-chan struct{}) error {
	var err error
	if r.before, err = r.fleet.live(ctx); err != nil {
		return fmt.Errorf("lab: the fleet in force: %w", err)
	}
	staged, err := copyFleet(r.before)
	if err != nil {
		return err
	}
	if r.tale.stage != nil {
		r.tale.stage(staged)
	}
	prefixes := r.tale.judged(staged)
	r.look = newOnlooker(r.w, prefixes, r.tale.ask(staged), r.see)
	looking, stop := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan error, 1)
	go func() { watched <- r.look.run(looking) }()
	err = r.act(ctx, staged)
	select {
	case <-over: // the lab ends, and everything with it
		stop()
		return errors.Join(err, <-watched)
	default:
	}
	undoing, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoneWithin)
	defer cancel()
	go func() {
		select {
		case <-over:
			cancel()
		case <-undoing.Done():
		}
	}()
	undone := r.undo(undoing)
	stop()
	if watchErr := <-watched; err == nil && watchErr != nil {
		err = fmt.Errorf("lab: nobody watches: %w", watchErr)
	}
	return errors.Join(err, undone)
}

// act is everything up to the verdict.
func (r *replayRun) act(ctx context.Context, staged *placement.Fleet) error {
	for _, t := range r.tale.here {
		r.step("here", "%s", t)
	}
	r.aside.Store(true)
	if r.tale.stage != nil {
		if err := r.stage(ctx, staged); err != nil {
			return err
		}
	}
	if r.naive {
		r.step("do", "naive: at every site the unit of routes and health is replaced by one without the guard")
		if err := r.swap(ctx, true); err != nil {
			return err
		}
	}
	if err := r.await(ctx, calmWithin, r.look.calm); err != nil {
		return fmt.Errorf("lab: before the blow: %w", err)
	}
	r.aside.Store(false)
	r.step("see", "all is well: %s announced at %d sites, clients answered", counting(len(r.look.prefixes), "prefix", "prefixes"), len(labSites(r.w.topo)))
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	r.look.mark()
	if err := r.tale.blow(ctx, r, staged); err != nil {
		return err
	}
	if r.naive {
		return r.expectGone(ctx)
	}
	return r.expectKept(ctx)
}

// stage puts the tale's own services into the fleet, as an operator would.
func (r *replayRun) stage(ctx context.Context, staged *placement.Fleet) error {
	r.changed = true
	refused, err := r.fleet.apply(ctx, staged, "replay "+r.tale.name)
	if err != nil || len(refused) > 0 {
		return errors.Join(fmt.Errorf("lab: the fleet of the replay is refused: %v", refused), err)
	}
	return nil
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// await asks again and again until the answer is nil, or returns the last one.
func (r *replayRun) await(ctx context.Context, limit time.Duration, ok func() error) error {
	for began := time.Now(); ; {
		err := ok()
		if err == nil {
			return nil
		}
		if time.Since(began) > limit {
			return fmt.Errorf("not within %s: %w", limit, err)
		}
		if e := sleep(ctx, 50*time.Millisecond); e != nil {
			return fmt.Errorf("%w, and until then: %w", e, err)
		}
	}
}

// swap puts the naive unit in the place of rhumb-bgp at every site, or back. What this
// one remembers of what it announced is forgotten.
func (r *replayRun) swap(ctx context.Context, naive bool) error {
	g, _ := errgroup.WithContext(ctx)
	for _, site := range labSites(r.w.topo) {
		args := r.w.unitArgs(site, "bgp")
		if naive {
			args = []string{"lab", "naive", "--config", r.w.dir.nodeFile(site)}
		}
		for _, p := range r.w.of(site, "bgp") {
			g.Go(func() error {
				return p.restart(args, func() error {
					return os.RemoveAll(filepath.Join(filepath.Dir(r.w.dir.nodeFile(site)), "data", heldFile))
				})
			})
		}
	}
	return g.Wait()
}

// swapGrace is how long a unit of routes may take to leave in order.
const swapGrace = 8 * time.Second

// restart ends the process in order, does something else, and starts it with another
// command line.
func (p *labProc) restart(args []string, meanwhile func() error) error {
	p.stop(swapGrace)
	if err := meanwhile(); err != nil {
		return err
	}
	p.mu.Lock()
	p.args = args
	p.mu.Unlock()
	return p.start()
}

// change puts a changed fleet in force: by the rules if they let it, and past them
// if they do not or if nobody asks them.
func (r *replayRun) change(ctx context.Context, what string, fleet *placement.Fleet) error {
	r.changed = true
	r.step("mark", "%s", what)
	if !r.naive {
		refused, err := r.fleet.apply(ctx, fleet, what)
		if err != nil {
			return err
		}
		if len(refused) == 0 {
			r.step("see", "rhumb apply takes it: no rule stands against it")
			return nil
		}
		for _, no := range refused {
			r.step("see", "rhumb apply refuses: rule %s, object %s, have %s, limit %s", no.Rule, no.Object, no.Have, no.Limit)
		}
		r.step("do", "it is written into the store all the same, past that rule, to see what the sites do")
	}
	return r.fleet.put(ctx, fleet)
}

// counting is "1 prefix", "2 prefixes".
func counting(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
