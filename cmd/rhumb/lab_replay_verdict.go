package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rhumb/placement"
)

// expectGone waits until a naive fleet is off the world.
func (r *replayRun) expectGone(ctx context.Context) error {
	err := r.await(ctx, goneWithin, r.look.gone)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.step("end", "NOT AS TOLD: the prefix should be gone: %v", err)
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	r.step("end", "gone, as told: no site announces, no router has a way to one, no client is answered")
	return nil
}

// expectKept watches until routes stand still, and at least as long as the tale
// wants, and wants that at no moment too few sites announced.
func (r *replayRun) expectKept(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < r.watch || r.look.quiet() < quietFor; {
		if time.Since(began) > r.watch+restWithin {
			r.step("end", "NOT AS TOLD: routes do not come to rest")
			return errors.New("lab: routes do not come to rest")
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := r.look.kept(r.before); err != nil {
		r.step("end", "NOT AS TOLD: %v", err)
		return err
	}
	r.step("end", "kept, as told: %s", r.look.summary())
	return nil
}

// kept judges the worst that was seen since the blow.
func (x *onlooker) kept(fleet *placement.Fleet) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	var errs []error
	for _, p := range x.prefixes {
		slots := 1 // of a prefix that the tale brought along
		if known := fleet.Prefix(p); known != nil {
			slots = known.Slots
		}
		if need := len(labSites(x.w.topo)) - slots; x.worst.sites[p] < need {
			errs = append(errs, fmt.Errorf("%s was announced at %d sites for a while, want %d", p, x.worst.sites[p], need))
		}
	}
	if x.worst.routes > 0 {
		errs = append(errs, fmt.Errorf("%d prefixes had no route at some router for a while", x.worst.routes))
	}
	if x.worst.gap > outage {
		errs = append(errs, fmt.Errorf("a region got no answer for %.1f s, want at most %s", x.worst.gap.Seconds(), outage))
	}
	if x.worst.asked == 0 {
		errs = append(errs, errors.New("no client asked anything"))
	}
	return errors.Join(errs...)
}

// summary tells the worst of a fleet that was kept.
func (x *onlooker) summary() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	least := len(labSites(x.w.topo))
	for _, p := range x.prefixes {
		least = min(least, x.worst.sites[p])
	}
	text := fmt.Sprintf("never at fewer than %d of %d sites, every router had a route all the time, clients lost %d of %d answers",
		least, len(labSites(x.w.topo)), x.worst.failed, x.worst.asked)
	if x.worst.failed > 0 {
		text += fmt.Sprintf(" (%.1f s without any, at the longest)", x.worst.gap.Seconds())
	}
	return text
}
