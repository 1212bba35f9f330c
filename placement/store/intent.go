package store

import (
	"context"
	"fmt"

	"rhumb/placement"
)

// PutDrain stores a drain, or its end (Ended set); intents are never deleted.
// It returns the new Inventory.Revision, as the other intents do.
func (s *Store) PutDrain(ctx context.Context, d placement.Drain) (int64, error) {
	return s.putIntent(ctx, dirDrains+segment(d.Site), seal(d))
}

// PutForce stores the operator's word on a cluster or site.
func (s *Store) PutForce(ctx context.Context, f placement.Force) (int64, error) {
	return s.putIntent(ctx, forceKey(f.Object), seal(f))
}

// PutDial stores the limit of a site's share.
func (s *Store) PutDial(ctx context.Context, d placement.Dial) (int64, error) {
	return s.putIntent(ctx, dirDials+segment(d.Site), seal(d))
}

// PutFreeze stores a freeze, or its thaw (Ended set).
func (s *Store) PutFreeze(ctx context.Context, f placement.Freeze) (int64, error) {
	return s.putIntent(ctx, keyFreeze, seal(f))
}

// PutPin stores which plan a site is held at.
func (s *Store) PutPin(ctx context.Context, p placement.Pin) (int64, error) {
	return s.putIntent(ctx, dirPins+segment(p.Site), seal(p))
}

func (s *Store) putIntent(ctx context.Context, key string, value []byte) (int64, error) {
	rev, _, err := s.write(ctx, nil, []op{put(key, value), put(keyIntents, seal(s.now().UTC()))})
	if err != nil {
		return 0, fmt.Errorf("store: put %s: %w", key[len(root):], err)
	}
	return rev, nil
}
