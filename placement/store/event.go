package store

import (
	"context"
	"fmt"

	"rhumb/placement"
)

// keptEvents bounds how many events stay.
const keptEvents = 4096

// AddEvent appends to the fleet's log of events. The ID is assigned here: the
// time in nanoseconds, one more where two meet.
func (s *Store) AddEvent(ctx context.Context, e placement.Event) error {
	if e.At.IsZero() {
		e.At = s.now().UTC()
	}
	for e.ID = e.At.UnixNano(); ; e.ID++ {
		_, ok, err := s.write(ctx, []cond{{eventKey(e.ID), 0}}, []op{put(eventKey(e.ID), seal(e))})
		if err != nil {
			return fmt.Errorf("store: add event: %w", err)
		}
		if ok {
			break
		}
	}
	// Now and then is enough: the bound is about space.
	if e.ID%64 != 0 {
		return nil
	}
	return s.sweepEvents(ctx)
}

func (s *Store) sweepEvents(ctx context.Context) error {
	found, _, err := s.read(ctx, query{span: under(dirEvents), limit: keptEvents, desc: true, keysOnly: true})
	if err == nil && len(found[0]) == keptEvents {
		oldest := found[0][keptEvents-1].key
		_, _, err = s.write(ctx, nil, []op{remove(span{dirEvents, oldest})})
	}
	if err != nil {
		return fmt.Errorf("store: remove old events: %w", err)
	}
	return nil
}

// Events returns the events with an ID above since, oldest first, and of those
// the newest up to limit (0: all).
func (s *Store) Events(ctx context.Context, since int64, limit int) ([]placement.Event, error) {
	all := under(dirEvents)
	all.from = eventKey(since + 1)
	found, _, err := s.read(ctx, query{span: all, limit: limit, desc: true})
	if err != nil {
		return nil, fmt.Errorf("store: events: %w", err)
	}
	out := make([]placement.Event, 0, len(found[0]))
	for i := len(found[0]) - 1; i >= 0; i-- {
		// One that a newer release wrote is left out, not fatal.
		if e, err := unseal[placement.Event](found[0][i].value); err == nil {
			out = append(out, e)
		}
	}
	return out, nil
}
