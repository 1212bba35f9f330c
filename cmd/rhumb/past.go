package main

import (
	"context"
	"errors"
	"fmt"

	"rhumb/internal/api"
	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/store"
)

// past unfolds a state anew that was in force: from this node's disk, else from
// what the store keeps. Anything of it that is gone is ErrNotFound with its name:
// an explanation from half a state would be a story.
func (u *unit) past(ctx context.Context, name placement.Name) (*placement.Snapshot, error) {
	if name.Patched {
		return nil, fmt.Errorf("%w: a patched state is one node's for a moment and not kept; ask without +p for what the store said", api.ErrNotFound)
	}
	st, err := diskOf(u.cfg.Node.DataDir).d.At(name)
	if err != nil {
		var gone error
		if st, gone = u.store.StateAt(ctx, name); gone != nil {
			if !errors.Is(err, store.ErrNotFound) {
				gone = errors.Join(gone, err) // on the disk, but damaged
			}
			return nil, storeError(gone)
		}
	}
	return u.unfold(st)
}

// unfold makes the snapshot of a kept state, and refuses one that comes out other
// than it was.
func (u *unit) unfold(st *store.State) (*placement.Snapshot, error) {
	classes, err := u.classes.of(st.Inventory)
	if err != nil {
		return nil, err
	}
	if st.ClassTable != "" && st.ClassTable != classes.Digest {
		return nil, fmt.Errorf("%w: it was made with the class table %.12s, this node has %.12s now", api.ErrNotFound, st.ClassTable, classes.Digest)
	}
	s, err := decide.Unfold(st.Inventory, classes, st.Plan, decide.Fold(st.Inventory, st.Votes, st.Plan), st.Name.Votes, false)
	if err != nil {
		return nil, err
	}
	want := st.Digest
	if want == "" && st.Name.Votes == st.Plan.Votes {
		want = st.Plan.Digest
	}
	if want != "" && want != s.Digest {
		return nil, fmt.Errorf("%w: it unfolds to digest %.12s here and was %.12s: another release made it", api.ErrNotFound, s.Digest, want)
	}
	return s, nil
}
