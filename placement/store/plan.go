package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"rhumb/placement"
)

// ErrTermLost says that another director leads now; the plan was not published.
var ErrTermLost = errors.New("the director's lease is lost")

// Publish makes p the plan in force and returns its revision, the previous one
// plus one; p itself is not changed. Every write of it holds only while the term
// does, so a director which slept through the loss of its lease changes nothing.
// The intents of the inventory that p names travel with it, so that a node which
// comes late can still unfold it.
func (s *Store) Publish(ctx context.Context, t *Term, p *placement.Plan) (int64, error) {
	rev, err := s.publish(ctx, t, *p)
	if err != nil {
		return 0, fmt.Errorf("store: publish plan: %w", err)
	}
	if err := s.sweepPlans(ctx, t); err != nil {
		s.log.Warn("store: old plans were not removed", "err", err)
	}
	return rev, nil
}

func (s *Store) publish(ctx context.Context, t *Term, p placement.Plan) (int64, error) {
	current, err := s.one(ctx, keyPlan)
	if err != nil {
		return 0, err
	}
	last := planHead{}
	if current.mod != 0 {
		if last, err = unseal[planHead](current.value); err != nil {
			return 0, err
		}
	}
	in, err := s.inputs(ctx, p.Inputs.Inventory)
	if err != nil {
		return 0, err
	}
	p.Revision = last.Number + 1
	packed := pack(planDoc{Plan: &p, Intents: in.intents})
	h := planHead{newManifest(p.Revision, packed), in.fleet, p.Made, p.By}
	parts := split(packed)
	if err := s.writeChunks(ctx, planDir(p.Revision), packed, 1, []cond{t.guard()}); err != nil {
		return 0, termLost(err)
	}
	// The first chunk goes with the pointer: most plans are one request.
	_, ok, err := s.write(ctx, []cond{t.guard(), {keyPlan, current.mod}}, []op{
		put(planDir(p.Revision)+chunkName(0), parts[0]),
		put(planHeadKey(p.Revision), seal(h)), put(keyPlan, seal(h))})
	if err == nil && !ok {
		err = ErrTermLost
	}
	return p.Revision, err
}

func termLost(err error) error {
	if errors.Is(err, errRaced) {
		return ErrTermLost
	}
	return err
}

// PlanAt returns a kept plan by its revision, 0 for the one in force.
func (s *Store) PlanAt(ctx context.Context, rev int64) (*placement.Plan, error) {
	key := planHeadKey(rev)
	if rev == 0 {
		key = keyPlan
	}
	p, err := s.one(ctx, key)
	if err == nil && p.mod == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("store: plan %d: %w", rev, err)
	}
	h, err := unseal[planHead](p.value)
	if err != nil {
		return nil, fmt.Errorf("store: plan %d: %w", rev, err)
	}
	doc, err := s.readPlan(ctx, h.manifest)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return doc.Plan, nil
}

// sweepPlans removes plans older than the last kept ones; a pinned one stays.
func (s *Store) sweepPlans(ctx context.Context, t *Term) error {
	found, _, err := s.read(ctx, query{span: under(dirPlanHistory), desc: true, keysOnly: true}, query{span: under(dirPins)})
	if err != nil || len(found[0]) <= keptVersions {
		return err
	}
	pinned := make(map[int64]bool)
	for _, p := range found[1] {
		pin, err := unseal[placement.Pin](p.value)
		if err != nil {
			return err
		}
		pinned[pin.Revision] = pin.Live()
	}
	for _, p := range found[0][keptVersions:] {
		n, ok := numberIn(p.key, dirPlanHistory)
		if !ok || pinned[n] {
			continue
		}
		if _, _, err := s.write(ctx, []cond{t.guard()}, []op{{key: p.key, del: true}, remove(under(planDir(n)))}); err != nil {
			return err
		}
	}
	return nil
}

// inputs are what an inventory revision was made of.
type inputs struct {
	fleet   int64 // number of the configuration
	intents placement.Intents
}

// known remembers the inputs of the last inventories seen.
type known struct {
	mu    sync.Mutex
	byRev map[int64]inputs
}

// knownLen is how many inventories are remembered.
const knownLen = 64

func (k *known) add(rev int64, in inputs) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byRev == nil {
		k.byRev = make(map[int64]inputs)
	}
	k.byRev[rev] = in
	if len(k.byRev) > knownLen {
		oldest := rev
		for r := range k.byRev {
			oldest = min(oldest, r)
		}
		delete(k.byRev, oldest)
	}
}

func (k *known) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.byRev)
}

func (k *known) get(rev int64) (inputs, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	in, ok := k.byRev[rev]
	return in, ok
}

// inputs finds what an inventory was made of: remembered, or still in the store.
// An inventory which is neither was superseded before it was ever seen here;
// the plan is published all the same, for the nodes which hold it.
func (s *Store) inputs(ctx context.Context, rev int64) (inputs, error) {
	if in, ok := s.known.get(rev); ok {
		return in, nil
	}
	found, at, err := s.read(ctx, queries(intentSpans())...)
	if err != nil {
		return inputs{}, err
	}
	c := newContent(s.log)
	c.load(slices.Concat(found...), at)
	if c.inventoryRevision() != rev {
		return inputs{}, nil
	}
	return inputs{fleet: c.config.Number, intents: c.intents()}, nil
}
