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

// Expecting returns a way to store intents that were judged by the inventory of a
// revision: where another has been written since, nothing is stored and the error
// is ErrConflict, since both may be right alone and wrong together.
func (s *Store) Expecting(revision int64) Judged { return Judged{s, revision} }

// Judged stores intents which hold for one inventory alone.
type Judged struct {
	s        *Store
	revision int64
}

// PutDrain stores a drain.
func (j Judged) PutDrain(ctx context.Context, d placement.Drain) (int64, error) {
	return j.put(ctx, dirDrains+segment(d.Site), seal(d))
}

// PutForce stores the operator's word on a cluster or site.
func (j Judged) PutForce(ctx context.Context, f placement.Force) (int64, error) {
	return j.put(ctx, forceKey(f.Object), seal(f))
}

// PutDial stores the limit of a site's share.
func (j Judged) PutDial(ctx context.Context, d placement.Dial) (int64, error) {
	return j.put(ctx, dirDials+segment(d.Site), seal(d))
}

// PutRetirement stores that a prefix goes for good, or its end.
func (j Judged) PutRetirement(ctx context.Context, r placement.Retirement) (int64, error) {
	return j.put(ctx, dirRetired+segment(r.Prefix.String()), seal(r))
}

func (j Judged) put(ctx context.Context, key string, value []byte) (int64, error) {
	found, _, err := j.s.read(ctx, query{span: only(keyConfig)}, query{span: only(keyIntents)})
	if err != nil {
		return 0, fmt.Errorf("store: put %s: %w", key[len(root):], err)
	}
	config, intents := first(found[0]), first(found[1])
	if max(config.mod, intents.mod) != j.revision {
		return 0, fmt.Errorf("store: put %s: %w", key[len(root):], ErrConflict)
	}
	rev, ok, err := j.s.write(ctx, []cond{{keyConfig, config.mod}, {keyIntents, intents.mod}}, []op{put(key, value), put(keyIntents, seal(j.s.now().UTC()))})
	if err == nil && !ok {
		err = ErrConflict
	}
	if err != nil {
		return 0, fmt.Errorf("store: put %s: %w", key[len(root):], err)
	}
	return rev, nil
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
