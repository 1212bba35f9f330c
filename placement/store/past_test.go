package store

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"rhumb/placement"
)

// A state of the past is what a follower of that revision saw, on every ground.
func TestStateAt(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s, ctx := open(), ctxFor(t)
		f, _ := sample(nil)
		inv := mustPutFleet(t, s, f, nil, 0)
		term, err := s.Campaign(ctx, "ams1-a")
		if err != nil {
			t.Fatal(err)
		}
		defer term.Resign()
		plan, err := s.Publish(ctx, term, &placement.Plan{Inputs: placement.Inputs{Inventory: inv, ClassTable: "c1"}, By: "ams1-a"})
		if err != nil {
			t.Fatal(err)
		}
		putVote(t, s, vote("ams1", "a", placement.Up, 1))
		then := putVote(t, s, vote("ams1", "b", placement.Down, 1))
		putVote(t, s, vote("ams1", "b", placement.Up, 2))
		putVote(t, s, vote("nyc1", "c", placement.Down, 1))
		f.Version = 9
		mustPutFleet(t, s, f, nil, 0)

		got, err := s.StateAt(ctx, placement.Name{Plan: plan, Votes: then})
		if err != nil {
			t.Fatal(err)
		}
		if got.Inventory.Revision != inv || got.Inventory.Version != 1 || got.ClassTable != "c1" || got.Plan.Revision != plan {
			t.Errorf("made from %+v", got)
		}
		if len(got.Votes) != 2 || got.Votes[0].Vantage != "a" || got.Votes[1].State != placement.Down {
			t.Errorf("votes %+v", got.Votes)
		}
		for _, gone := range []placement.Name{{Plan: plan + 1, Votes: then}, {Plan: plan, Votes: then + 1_000_000}} {
			if _, err := s.StateAt(ctx, gone); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", gone, err)
			}
		}
	})
}

// What the history has forgotten is refused, and never told wrongly.
func TestStateAtForgotten(t *testing.T) {
	m := NewMemory()
	s, ctx := memoryStore(t, m), ctxFor(t)
	f, _ := sample(nil)
	inv := mustPutFleet(t, s, f, nil, 0)
	term, err := s.Campaign(ctx, "ams1-a")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := s.Publish(ctx, term, &placement.Plan{Inputs: placement.Inputs{Inventory: inv}})
	if err != nil {
		t.Fatal(err)
	}
	then := putVote(t, s, vote("ams1", "a", placement.Down, 1))
	m.Compact()
	if got, err := s.StateAt(ctx, placement.Name{Plan: plan, Votes: then}); err != nil || len(got.Votes) != 1 {
		t.Errorf("nothing has changed since, yet %v", err)
	}
	putVote(t, s, vote("ams1", "a", placement.Up, 2))
	if _, err := s.StateAt(ctx, placement.Name{Plan: plan, Votes: then}); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "older than the store's history") {
		t.Errorf("the vote before is forgotten: %v", err)
	}
	orphan, err := s.Publish(ctx, term, &placement.Plan{Inputs: placement.Inputs{Inventory: 12345}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.StateAt(ctx, placement.Name{Plan: orphan, Votes: then}); !errors.Is(err, ErrNotFound) {
		t.Errorf("a plan from an unknown configuration: %v", err)
	}
}

func TestDiskAt(t *testing.T) {
	d := NewDisk(filepath.Join(t.TempDir(), "states"))
	saveAt(t, d, stateAt(1001, 1), 100)
	saveAt(t, d, stateAt(1002, 2), 101)
	if s, err := d.At(placement.Name{Plan: 1001, Votes: 1}); err != nil || s.Name.Plan != 1001 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, gone := range []placement.Name{{Plan: 1001, Votes: 2}, {Plan: 100, Votes: 1}, {Plan: 1001, Votes: 1, Patched: true}} {
		if _, err := d.At(gone); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", gone, err)
		}
	}
}
