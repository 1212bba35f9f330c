package main

import (
	"context"
	"errors"
	"fmt"

	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/store"
)

// judgeZones refuses a state file whose zones would change without those that copy them
// noticing, or that leaves out a catalog with all that it lists. A first configuration has nothing to be compared with.
func judgeZones(ctx context.Context, st *store.Store, fleet *config.Fleet, overrides []string) error {
	was, err := st.FleetAt(ctx, 0)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r := decide.JudgeZones(was, &fleet.Fleet, overrides); r != nil {
		hint := ""
		if r.Rule == placement.RuleSerial {
			hint = "raise the serial in the SOA of the zone file; "
		}
		return withCode(exitRefused, fmt.Errorf("apply %w\n  %sto do it all the same: --override %s --note WHY", error(r), hint, r.Rule))
	}
	return nil
}
