package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/store"
)

// Retire takes a prefix off the world for good: one that the fleet has, or one which
// was deleted and which sites hold.
func (o ops) Retire(ctx context.Context, r placement.Retirement, dryRun bool) (api.Outcome, error) {
	return o.judged(ctx, func() (api.Outcome, error) { return o.retireOnce(ctx, r, dryRun) })
}

func (o ops) retireOnce(ctx context.Context, r placement.Retirement, dryRun bool) (api.Outcome, error) {
	inv, snap, err := o.basis("")
	if err != nil {
		return api.Outcome{}, err
	}
	live := o.u.views.view().Announced
	held := slices.ContainsFunc(live, func(a placement.Announced) bool { return a.Prefix == r.Prefix && a.Step < placement.Withdrawn })
	if inv.Prefix(r.Prefix) == nil && !held {
		return api.Outcome{}, fmt.Errorf("%w: prefix %s: the fleet does not have it, and nobody announces it", api.ErrNotFound, r.Prefix)
	}
	if no := decide.JudgeRetirement(inv, live, r); no != nil {
		return api.Outcome{}, o.refused(r.Who, "config", "", "retirement of "+r.Prefix.String(), no, dryRun)
	}
	out := api.Outcome{Object: r.Prefix.String(), DryRun: dryRun, Snapshot: snap.Name.String(),
		Text: "retires: its sites withdraw it one after another; when it is silent everywhere (rhumb prefixes) it may be deleted",
		Undo: "rhumb prefixes restore " + r.Prefix.String() + " --reason …"}
	if names := api.AnsweredIn(inv, r.Prefix); len(names) > 0 {
		out.Text += ". Clients of " + strings.Join(names, ", ") + " are still sent to an address in it"
	}
	if dryRun {
		return out, nil
	}
	if out.Revision, err = o.u.store.Expecting(inv.Revision).PutRetirement(ctx, r); errors.Is(err, store.ErrConflict) {
		return api.Outcome{}, storeError(err)
	}
	o.audit(r.Who, "config", "", r.Prefix.String()+" retires: "+r.Reason, err)
	return out, storeError(err)
}

// Restore takes a retirement back. Of a prefix which the configuration does not name any
// more nobody could know how to announce it: that is applied first.
func (o ops) Restore(ctx context.Context, r api.Restore) (api.Outcome, error) {
	return o.judged(ctx, func() (api.Outcome, error) { return o.restoreOnce(ctx, r) })
}

func (o ops) restoreOnce(ctx context.Context, r api.Restore) (api.Outcome, error) {
	inv, snap, err := o.basis("")
	if err != nil {
		return api.Outcome{}, err
	}
	standing := inv.Retired(r.Prefix)
	switch {
	case standing == nil:
		return api.Outcome{}, fmt.Errorf("%w: %s is not retired", api.ErrNotFound, r.Prefix)
	case inv.Prefix(r.Prefix) == nil:
		return api.Outcome{}, &placement.Refusal{Rule: placement.RuleRetire, Object: r.Prefix.String(), Have: "not in the fleet any more",
			Limit: "a prefix of the fleet", Hint: "put it back first: rhumb apply, or rhumb config rollback"}
	}
	ended := *standing
	ended.Ended = time.Now().UTC()
	out := api.Outcome{Object: r.Prefix.String(), Snapshot: snap.Name.String(), Text: "comes back: its sites announce it again, prepended first"}
	if out.Revision, err = o.u.store.Expecting(inv.Revision).PutRetirement(ctx, ended); errors.Is(err, store.ErrConflict) {
		return api.Outcome{}, storeError(err)
	}
	o.audit(r.Who, "config", "", r.Prefix.String()+" comes back: "+r.Reason, err)
	return out, storeError(err)
}
