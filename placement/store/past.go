package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"rhumb/placement"
)

// StateAt makes the state of a name from what is kept: the plan, the configuration
// and intents that it was made from, and the votes, which only the store's own
// history holds (about an hour in our embedded etcd). ErrNotFound says which of
// them is gone. Digest stays empty.
func (s *Store) StateAt(ctx context.Context, name placement.Name) (*State, error) {
	st, err := s.stateAt(ctx, name)
	if errors.Is(err, errCompacted) {
		err = fmt.Errorf("votes of revision %d: older than the store's history: %w", name.Votes, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("store: state %s: %w", name, err)
	}
	return st, nil
}

func (s *Store) stateAt(ctx context.Context, name placement.Name) (*State, error) {
	p, err := s.one(ctx, planHeadKey(name.Plan))
	if err == nil && p.mod == 0 {
		err = fmt.Errorf("plan %d: %w", name.Plan, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	h, err := unseal[planHead](p.value)
	if err != nil {
		return nil, err
	}
	doc, err := s.readPlan(ctx, h.manifest)
	if err != nil {
		return nil, err
	}
	if h.Fleet == 0 {
		return nil, fmt.Errorf("plan %d: the configuration it was made from is not known: %w", name.Plan, ErrNotFound)
	}
	fleet, err := s.FleetAt(ctx, h.Fleet)
	if err != nil {
		return nil, err
	}
	votes, err := s.votesAt(ctx, name.Votes)
	if err != nil {
		return nil, err
	}
	return &State{Name: name, ClassTable: doc.Plan.Inputs.ClassTable, Saved: doc.Plan.Made, Plan: doc.Plan, Votes: votes,
		Inventory: &placement.Inventory{Revision: doc.Plan.Inputs.Inventory, Fleet: *fleet, Intents: doc.Intents}}, nil
}

// votesAt reads votes as a follower of that revision saw them.
func (s *Store) votesAt(ctx context.Context, rev int64) ([]placement.Vote, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	done := s.metrics.begin("read")
	pairs, err := s.kv.readAt(ctx, rev, under(dirVotes))
	done(err)
	if err != nil {
		return nil, err
	}
	votes := newContent(s.log).state.votes
	for _, p := range pairs {
		if err := votes.apply(change{pair: p}); err != nil {
			s.log.Error("store: value ignored", "key", p.key, "err", err)
		}
	}
	return votes.sorted(), nil
}

// At returns the state of a name, whole; ErrNotFound if it is not on this disk any
// more. Of two digests of one name the newer file counts.
func (d *Disk) At(name placement.Name) (*State, error) {
	names, err := d.names()
	if err != nil {
		return nil, fmt.Errorf("store: state %s on disk: %w", name, err)
	}
	var here []string
	for _, n := range names {
		if strings.HasPrefix(n, statePrefix+name.String()+"-") {
			here = append(here, n)
		}
	}
	s, refused, _ := d.loadFirst(here)
	if s == nil {
		return nil, fmt.Errorf("store: state %s on disk: %w", name, errors.Join(append(refused, ErrNotFound)...))
	}
	return s, nil
}
