package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"rhumb/placement"
)

// undo leaves the lab as it was found.
func (r *replayRun) undo(ctx context.Context) error {
	r.step("do", "undone: faults healed, the fleet as it was")
	r.aside.Store(true)
	var errs []error
	errs = append(errs, r.w.heal("", ""))
	if r.changed {
		errs = append(errs, r.await(ctx, calmWithin, func() error { return r.fleet.put(ctx, r.before) }),
			r.await(ctx, calmWithin, func() error { return r.restored(ctx) }))
	}
	if r.naive || r.tale.brings {
		// A prefix that is named no more goes by Slots, one site and not the others; a
		// speaker that starts anew, and remembers nothing, has never heard of it.
		errs = append(errs, r.swap(ctx, false))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: undo: %w; start the lab anew", err)
	}
	check := &labCheck{world: r.w}
	defer check.close()
	began := time.Now()
	err := r.await(ctx, undoneWithin, func() error {
		_, err := check.routes(ctx)
		return errors.Join(err, r.leftovers(ctx, check))
	})
	if err != nil {
		return fmt.Errorf("lab: after the replay: %w", err)
	}
	r.step("see", "all is as before, %.1f s later", time.Since(began).Seconds())
	return nil
}

// leftovers names what is still said to be announced and is no prefix of the fleet as
// it was found: the word of a unit that could not sign off stands until its lease has
// run out.
func (r *replayRun) leftovers(ctx context.Context, check *labCheck) error {
	s, err := check.state(ctx)
	if err != nil {
		return err
	}
	for _, a := range s.Announced {
		if !slices.ContainsFunc(r.before.Prefixes, func(p placement.Prefix) bool { return p.Prefix == a.Prefix }) {
			return fmt.Errorf("%s still names %s, at step %v", a.Node, a.Prefix, a.Step)
		}
	}
	return nil
}

// restored tells whether the fleet as it was found is in force again. Routes alone do
// not show it: where the guard kept them, they never changed, and whoever reads the
// fleet too early takes the mistake for what the operator wants.
func (r *replayRun) restored(ctx context.Context) error {
	now, err := r.fleet.live(ctx)
	if err != nil {
		return err
	}
	want, errWant := json.Marshal(r.before)
	have, errHave := json.Marshal(now)
	if err := errors.Join(errWant, errHave); err != nil {
		return err
	}
	if !bytes.Equal(want, have) {
		return errors.New("the fleet as it was is not in force yet")
	}
	return nil
}
