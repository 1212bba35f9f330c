package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rhumb/placement"
)

// keptVersions is how many configurations, and how many plans, stay for rollback.
const keptVersions = 20

// errRaced says that a compare failed; a new attempt reads anew.
var errRaced = errors.New("raced with another change")

// maxTries bounds how often a change that lost a race is tried anew.
const maxTries = 5

// PutFleet makes f the configuration, in one change: zones first, then the
// document in chunks, then the pointer which makes all of it true. blobs are the
// zone files by SHA-256; those which the store has may be left out. expect is
// the Inventory.Revision which the caller judged (0: any); if it has changed
// since, ErrConflict. It returns the new Inventory.Revision.
func (s *Store) PutFleet(ctx context.Context, f *placement.Fleet, blobs map[string][]byte, expect int64, who, note string) (int64, error) {
	packed := pack(f)
	for range maxTries {
		rev, err := s.putFleet(ctx, f, packed, blobs, expect, head{Who: who, Note: note, At: s.now().UTC()})
		if errors.Is(err, errRaced) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("store: put fleet: %w", err)
		}
		s.sweep(ctx)
		return rev, nil
	}
	return 0, fmt.Errorf("store: put fleet: %w", ErrConflict)
}

func (s *Store) putFleet(ctx context.Context, f *placement.Fleet, packed []byte, blobs map[string][]byte, expect int64, h head) (int64, error) {
	if err := s.checkSchema(ctx); err != nil {
		return 0, err
	}
	found, _, err := s.read(ctx, query{span: only(keyConfig)}, query{span: only(keyIntents)},
		query{span: only(keySweep)}, query{span: under(dirDocs), limit: 1, desc: true, keysOnly: true})
	if err != nil {
		return 0, err
	}
	current, intents, sweep := first(found[0]), first(found[1]), first(found[2])
	if expect != 0 && expect != max(current.mod, intents.mod) {
		return 0, ErrConflict
	}
	if h.Blobs, err = s.putBlobs(ctx, f.Zones, blobs); err != nil {
		return 0, err
	}
	// A number is never used twice, not even one that a broken apply left behind.
	n := int64(1)
	if last, ok := numberIn(first(found[3]).key, dirDocs); ok {
		n = last + 1
	}
	h.manifest = newManifest(n, packed)
	for _, site := range f.Sites {
		h.Sites = append(h.Sites, site.Name)
	}
	if err := s.claimDoc(ctx, n, packed); err != nil {
		return 0, err
	}
	conds := []cond{{keyConfig, current.mod}, {keySweep, sweep.mod}}
	if expect != 0 {
		conds = append(conds, cond{keyIntents, intents.mod})
	}
	rev, ok, err := s.write(ctx, conds, []op{put(keyConfig, seal(h)), put(historyKey(n), seal(h)), put(keySchema, seal(h.At))})
	if err == nil && !ok {
		err = errRaced
	}
	return rev, err
}

// claimDoc writes a document under a number that nobody else has: whoever
// creates the first chunk owns the number.
func (s *Store) claimDoc(ctx context.Context, n int64, packed []byte) error {
	key := docDir(n) + chunkName(0)
	_, ok, err := s.write(ctx, []cond{{key, 0}}, []op{put(key, split(packed)[0])})
	if err != nil {
		return err
	}
	if !ok {
		return errRaced
	}
	return s.writeChunks(ctx, docDir(n), packed, 1, nil)
}

func first(pairs []pair) pair {
	if len(pairs) == 0 {
		return pair{}
	}
	return pairs[0]
}

// History returns the kept configurations, newest first.
func (s *Store) History(ctx context.Context) ([]Version, error) {
	found, _, err := s.read(ctx, query{span: under(dirHistory), desc: true})
	if err != nil {
		return nil, fmt.Errorf("store: history: %w", err)
	}
	var out []Version
	for _, p := range found[0] {
		h, err := unseal[head](p.value)
		if err != nil {
			return nil, fmt.Errorf("store: history %s: %w", p.key, err)
		}
		out = append(out, Version{h.Number, p.mod, h.Who, h.Note, h.At, h.SHA256})
	}
	return out, nil
}

// FleetAt returns a kept configuration by its number, 0 for the current one.
func (s *Store) FleetAt(ctx context.Context, n int64) (*placement.Fleet, error) {
	key := historyKey(n)
	if n == 0 {
		key = keyConfig
	}
	p, err := s.one(ctx, key)
	if err == nil && p.mod == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("store: configuration %d: %w", n, err)
	}
	h, err := unseal[head](p.value)
	if err != nil {
		return nil, fmt.Errorf("store: configuration %d: %w", n, err)
	}
	f, err := s.readFleet(ctx, h.manifest)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return f, nil
}

// sweep removes configurations older than the last kept ones, the remains of
// broken applies, and the zones which only those named. What the plan in force
// was made from stays. Failure costs space only, so it is logged and no more.
func (s *Store) sweep(ctx context.Context) {
	if err := s.sweepOnce(ctx); err != nil {
		s.log.Warn("store: old configurations were not removed", "err", err)
	}
}

func (s *Store) sweepOnce(ctx context.Context) error {
	rev, _, err := s.write(ctx, nil, []op{s.sweepMark()})
	if err != nil {
		return err
	}
	found, _, err := s.read(ctx, query{span: under(dirHistory), desc: true}, query{span: under(dirPlanHistory)},
		query{span: under(dirDocs), keysOnly: true}, query{span: under(dirBlobs), keysOnly: true},
		query{span: only(keyConfig), keysOnly: true})
	if err != nil {
		return err
	}
	keep, newest := plannedFleets(found[1]), int64(0)
	var ops []op
	named := make(map[string]bool)
	for i, p := range found[0] {
		h, err := unseal[head](p.value)
		if err != nil {
			return err // a newer release's: not ours to judge
		}
		newest = max(newest, h.Number)
		if i >= keptVersions && !keep[h.Number] {
			ops = append(ops, op{key: p.key, del: true})
			continue
		}
		keep[h.Number] = true
		for _, sha := range h.Blobs {
			named[blobDir(sha)] = true
		}
	}
	ops = append(ops, staleDocs(found[2], keep, newest)...)
	ops = append(ops, staleBlobs(found[3], named, rev)...)
	return s.sweepAway(ctx, ops, rev, first(found[4]).mod)
}

// sweepMark is written with every removal: an apply compares it, so that one
// which counted on an old zone just removed fails, and uploads the zone again.
func (s *Store) sweepMark() op { return put(keySweep, seal(s.now().UTC())) }

// sweepAway removes in requests of a permitted size, for as long as nobody
// applies or sweeps beside it.
func (s *Store) sweepAway(ctx context.Context, ops []op, mark, config int64) error {
	for part := range slices.Chunk(ops, 100) {
		rev, ok, err := s.write(ctx, []cond{{keySweep, mark}, {keyConfig, config}}, append(slices.Clone(part), s.sweepMark()))
		if err != nil {
			return err
		}
		if !ok {
			return nil // the next apply sweeps again
		}
		mark = rev
	}
	return nil
}

// plannedFleets are the configurations that kept plans were made from.
func plannedFleets(plans []pair) map[int64]bool {
	out := make(map[int64]bool)
	for _, p := range plans {
		if h, err := unseal[planHead](p.value); err == nil && h.Fleet > 0 {
			out[h.Fleet] = true
		}
	}
	return out
}

// staleDocs removes the documents below newest which nothing names.
func staleDocs(keys []pair, keep map[int64]bool, newest int64) []op {
	var out []op
	for _, p := range keys {
		if n, ok := numberIn(p.key, dirDocs); ok && !keep[n] && n < newest {
			out = append(out, op{key: p.key, del: true})
		}
	}
	return out
}

// staleBlobs removes the zones which nothing names and which were there before
// the sweep began; a younger one may belong to an apply that is under way.
func staleBlobs(keys []pair, named map[string]bool, before int64) []op {
	var out []op
	for _, p := range keys {
		dir := p.key[:len(p.key)-len(chunkName(0))]
		if !named[dir] && p.mod < before {
			out = append(out, op{key: p.key, del: true})
		}
	}
	return out
}
