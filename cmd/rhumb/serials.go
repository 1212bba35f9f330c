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

// judgeSerials refuses a state file whose zones would change without those that copy
// them noticing. A first configuration has nothing to be compared with.
func judgeSerials(ctx context.Context, st *store.Store, fleet *config.Fleet, overrides []string) error {
	was, err := st.FleetAt(ctx, 0)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if r := decide.JudgeSerials(was, &fleet.Fleet, overrides); r != nil {
		return withCode(exitRefused, fmt.Errorf("apply %w\n  raise the serial in the SOA of the zone file; to do it all the same: --override %s --note WHY", error(r), placement.RuleSerial))
	}
	return nil
}
