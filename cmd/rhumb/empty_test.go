package main

import (
	"errors"
	"testing"

	"rhumb/internal/api"
	"rhumb/placement"
)

// TestEmptySelectorChangesNothing: a name that is missing means nobody, never everybody.
func TestEmptySelectorChangesNothing(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	before := storedRevision(t, u)
	audit := placement.Audit{Who: "job", Reason: "clean-up"}
	for name, try := range map[string]func() error{
		"drain": func() error { _, err := o.Drain(ctx, placement.Drain{Audit: audit}, false); return err },
		"dial":  func() error { _, err := o.Dial(ctx, placement.Dial{Audit: audit}, false); return err },
		"pin":   func() error { _, err := o.Pin(ctx, placement.Pin{Revision: 1, Audit: audit}); return err },
		"force down": func() error {
			_, err := o.Force(ctx, placement.Force{State: placement.ForceDown, Audit: audit}, false)
			return err
		},
		"force up": func() error {
			_, err := o.Force(ctx, placement.Force{State: placement.ForceUp, Audit: audit}, false)
			return err
		},
		"an empty fleet": func() error {
			_, err := o.Apply(ctx, api.ApplyRequest{Override: []string{"empty-selector", "blast-radius", "min-sites", "shrink"}, Note: "x"})
			return err
		},
		"a prefix of no site": func() error {
			f := u.views.view().Inventory.Fleet
			f.Zones = nil
			f.Prefixes = append([]placement.Prefix(nil), f.Prefixes...)
			f.Prefixes[0].Sites = []string{"nowhere1"}
			_, err := o.Apply(ctx, api.ApplyRequest{Fleet: f, Override: []string{"empty-selector"}, Note: "x"})
			return err
		},
	} {
		var r *placement.Refusal
		if err := try(); !errors.As(err, &r) || r.Rule != placement.RuleEmptySelector {
			t.Errorf("%s: %v, want it refused by empty-selector", name, err)
		}
	}
	if _, err := o.Undrain(ctx, api.Undrain{}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("undrain of nobody: %v", err)
	}
	if after := storedRevision(t, u); after != before {
		t.Errorf("revision %d, was %d", after, before)
	}
}
