package main

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/store"
)

// see publishes a view in which a retirement stands, and who announces the prefix.
func see(t *testing.T, u *unit, change func(*placement.Inventory), live ...placement.Announced) {
	t.Helper()
	v := *u.views.view()
	inv := *v.Inventory
	inv.Mode, inv.Roles = placement.Act, nil // what only observes may be deleted
	change(&inv)
	inv.Revision = storedRevision(t, u)
	u.views.publish(&store.View{Revision: v.Revision + 1, Inventory: &inv, Plan: v.Plan, Votes: v.Votes, Announced: live, Connected: true})
}

// TestRetireByHand: a prefix is retired, may not be deleted before it is silent, then
// may, and comes back only into a fleet which has it.
func TestRetireByHand(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	inv := u.views.view().Inventory
	p := inv.Prefixes[0].Prefix
	live := placement.Announced{Prefix: p, Site: "ams1", Node: "ams1-a"}
	deleted := inv.Fleet
	deleted.Prefixes = nil
	apply := func() string {
		res, err := o.Apply(ctx, api.ApplyRequest{Fleet: deleted, DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range res.Refusals {
			if r.Object == p.String() && r.Rule == placement.RuleRetire {
				out = append(out, r.Have+" | "+r.Hint)
			}
		}
		return strings.Join(out, "\n")
	}
	see(t, u, func(*placement.Inventory) {}, live)
	if got := apply(); !strings.Contains(got, "rhumb prefixes retire "+p.String()) {
		t.Errorf("a deletion without a retirement: %q", got)
	}
	r := placement.Retirement{Prefix: p, Audit: placement.Audit{Who: "ann", Reason: "sold"}}
	if out, err := o.Retire(ctx, r, true); err != nil || out.Revision != 0 || stored(t, u).Retirements != nil {
		t.Fatalf("dry run: %+v, %v", out, err)
	}
	see(t, u, func(*placement.Inventory) {}, live)
	out, err := o.Retire(ctx, r, false)
	if err != nil || out.Undo != "rhumb prefixes restore "+p.String()+" --reason …" {
		t.Fatalf("%+v, %v", out, err)
	}
	in := stored(t, u)
	if in.Retired(p) == nil {
		t.Fatalf("stored: %+v", in)
	}
	stands := func(inv *placement.Inventory) { inv.Intents = in }
	see(t, u, stands, live)
	if got := apply(); !strings.Contains(got, "still announced at ams1") {
		t.Errorf("a deletion while it goes: %q", got)
	}
	see(t, u, stands)
	if got := apply(); got != "" {
		t.Errorf("a deletion after it went: %q", got)
	}
	see(t, u, func(inv *placement.Inventory) { inv.Prefixes = nil })
	var no *placement.Refusal
	if _, err := o.Restore(ctx, api.Restore{Prefix: p, Who: "ann"}); !errors.As(err, &no) || no.Rule != placement.RuleRetire {
		t.Errorf("a return into a fleet without it: %v", err)
	}
	see(t, u, func(i *placement.Inventory) { i.Prefixes = inv.Prefixes })
	if _, err := o.Restore(ctx, api.Restore{Prefix: p, Who: "ann", Reason: "not sold"}); err != nil {
		t.Fatal(err)
	}
	if in = stored(t, u); in.Retired(p) != nil || len(in.Retirements) != 1 {
		t.Errorf("taken back: %+v", in.Retirements)
	}
	for _, err := range []error{
		func() error {
			_, err := o.Retire(ctx, placement.Retirement{Prefix: netip.MustParsePrefix("203.0.113.0/24")}, false)
			return err
		}(),
		func() error {
			_, err := o.Restore(ctx, api.Restore{Prefix: netip.MustParsePrefix("203.0.113.0/24")})
			return err
		}(),
	} {
		if !errors.Is(err, api.ErrNotFound) {
			t.Errorf("of a prefix which nobody knows: %v, want not found", err)
		}
	}
}
