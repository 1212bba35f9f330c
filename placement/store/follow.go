package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"rhumb/placement"
)

const (
	// probeEvery is how often a follower asks for proof that the store lives.
	probeEvery = time.Second
	// staleAfter is how old the last proof may be.
	staleAfter = 3 * time.Second
	// relistAfter is the pause after a failed list.
	relistAfter = 250 * time.Millisecond
	// recentLen is how many inventories a View holds.
	recentLen = 8
)

// Follow reports the store's content: a first whole list, then a View after
// every change. The channel holds one View, the latest; a slow reader misses
// those between and delays nobody. It closes when ctx ends. While the store is
// away the last View is repeated once with Connected false; where nothing was
// read yet that is an empty one.
func (s *Store) Follow(ctx context.Context) <-chan *View {
	f := &follower{store: s, out: make(chan *View, 1), content: newContent(s.log),
		fetched: make(chan fetched, 1), probes: make(chan probe), link: link{since: s.now()}}
	go f.run(ctx)
	return f.out
}

// follower keeps one content equal to the store. All its fields belong to the
// goroutine of run.
type follower struct {
	store    *Store
	out      chan *View
	content  *content
	docs     documents
	fetched  chan fetched // at most one fetch is under way
	fetching bool
	probes   chan probe
	rev      int64 // of the content; 0 before the first list
	link     link
}

// link is what a follower knows of its connection.
type link struct {
	connected bool
	since     time.Time
	told      bool      // whether readers have heard of it at all
	proof     time.Time // when the last answered read was asked
	// ahead is a revision which the store is known to have had at noticed; a
	// watch which does not come to it is deaf.
	ahead   int64
	noticed time.Time
	// floor is our revision when the last proof was judged: a later one below
	// it comes from another store.
	floor int64
}

// documents are the large values which the pointers name.
type documents struct {
	fleets map[int64]*placement.Fleet
	plan   *planDoc
	// inventory is the newest whole one, recent the last distinct ones.
	inventory *placement.Inventory
	recent    []*placement.Inventory
}

// fetched is a document read by name.
type fetched struct {
	number int64
	fleet  *placement.Fleet
	plan   *planDoc
	err    error
}

// probe is one answer to the question whether the store lives.
type probe struct {
	rev   int64
	asked time.Time
	err   error
}

func (f *follower) run(ctx context.Context) {
	defer close(f.out)
	probed := make(chan struct{})
	go func() {
		defer close(probed)
		f.probe(ctx)
	}()
	defer func() { <-probed }()
	for ctx.Err() == nil {
		if err := f.list(ctx); err != nil {
			f.unlisted(ctx, err)
			continue
		}
		f.watch(ctx)
	}
}

// probe asks for proof of life until ctx ends. A list or a watch may hang on a
// member that is cut off; this read shows it.
func (f *follower) probe(ctx context.Context) {
	for ctx.Err() == nil {
		p := probe{asked: time.Now()}
		pctx, cancel := context.WithTimeout(ctx, probeEvery)
		_, p.rev, p.err = f.store.kv.read(pctx, query{span: only(keyHeartbeat), keysOnly: true})
		cancel()
		select {
		case f.probes <- p:
		case <-ctx.Done():
			return
		}
		pause(ctx, probeEvery)
	}
}

// unlisted waits after a failed list, and tells readers once that the store is away.
func (f *follower) unlisted(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if f.link.connected || !f.link.told {
		f.store.log.Warn("store: away", "err", err)
		f.connect(false)
		f.publish()
	}
	wait := time.NewTimer(relistAfter)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
			return
		case <-f.probes:
		case <-ctx.Done():
			return
		}
	}
}

// list reads everything at one revision, documents included.
func (f *follower) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	asked := time.Now()
	found, rev, err := f.store.read(ctx, queries(listed())...)
	if err != nil {
		return err
	}
	pairs := slices.Concat(found...)
	if err := knownSchema(pairs); err != nil {
		return err
	}
	if rev < f.rev { // another store altogether: what we remember is of the old one
		f.docs = documents{}
		f.store.known.reset()
	}
	f.content.load(pairs, rev)
	f.rev, f.link.ahead, f.link.floor = rev, 0, 0
	f.store.metrics.listed()
	for f.want() != nil {
		doc := f.want()(ctx)
		if doc.err != nil {
			// The list stands all the same: votes must not wait for a document.
			f.store.log.Error("store: document not read", "err", doc.err)
			break
		}
		f.take(doc)
	}
	f.link.proof = asked
	f.connect(true)
	f.assemble()
	f.publish()
	return nil
}

// knownSchema refuses a store whose data model is newer than this release.
func knownSchema(pairs []pair) error {
	for _, p := range pairs {
		if p.key == keySchema {
			_, err := unseal[placement.Time](p.value)
			return err
		}
	}
	return nil
}

// watch follows the changes until everything must be listed anew.
func (f *follower) watch(ctx context.Context) {
	wctx, cancel := context.WithCancel(ctx)
	changes := f.store.kv.watch(wctx, f.rev+1, watched()...)
	defer func() {
		cancel()
		for range changes { // let the watch end before the next one begins
		}
	}()
	for {
		f.fetch(ctx)
		select {
		case b, open := <-changes:
			if !open || b.err != nil {
				f.ended(ctx, b.err)
				return
			}
			f.apply(b, changes)
		case doc := <-f.fetched:
			f.fetching = false
			if doc.err != nil {
				f.store.log.Warn("store: document not read", "err", doc.err)
				continue
			}
			f.take(doc)
			f.publish()
		case p := <-f.probes:
			if !f.judge(p) {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// ended logs why a watch is over; compaction is nothing to worry about.
func (f *follower) ended(ctx context.Context, err error) {
	if ctx.Err() == nil && !errors.Is(err, errCompacted) {
		f.store.log.Warn("store: watch ended, listing anew", "err", err)
	}
}

// apply takes a batch in, and whatever else has arrived, then publishes once.
func (f *follower) apply(b batch, more <-chan batch) {
	for {
		f.content.apply(b.changes)
		f.rev = max(f.rev, b.rev)
		select {
		case next, open := <-more:
			if open && next.err == nil {
				b = next
				continue
			}
		default:
		}
		break
	}
	f.assemble()
	f.publish()
}

// judge weighs a proof of life; false means that everything must be listed anew:
// the store is another one, or the watch is deaf, since it has not come to a
// revision which the store had long ago. Changes outside the watched spans look
// like that too; they are rare, and a list too many does no harm.
func (f *follower) judge(p probe) bool {
	l := &f.link
	if p.err == nil {
		l.proof = p.asked
	}
	if alive := time.Since(l.proof) < staleAfter; alive != l.connected {
		if !alive {
			f.store.log.Warn("store: away", "err", p.err)
		}
		f.connect(alive)
		f.publish()
	}
	if p.err == nil && p.rev < l.floor {
		f.store.log.Warn("store: goes on from an older revision; it was replaced", "revision", p.rev, "had", l.floor)
		return false
	}
	l.floor = f.rev
	if l.ahead != 0 && f.rev < l.ahead {
		return time.Since(l.noticed) < staleAfter
	}
	l.ahead = 0
	if p.err == nil && p.rev > f.rev {
		l.ahead, l.noticed = p.rev, time.Now()
	}
	return true
}

func (f *follower) connect(alive bool) {
	if f.link.connected != alive {
		f.link.since = f.store.now()
	}
	f.link.connected, f.link.told = alive, true
	f.store.metrics.reached(alive)
}

// want returns how to read the next document that is missing, or nil.
func (f *follower) want() func(context.Context) fetched {
	c, d, s := f.content, &f.docs, f.store
	if n := c.config.Number; n > 0 && d.fleets[n] == nil {
		m := c.config.manifest
		return func(ctx context.Context) fetched {
			fleet, err := s.readFleet(ctx, m)
			return fetched{number: n, fleet: fleet, err: err}
		}
	}
	if n := c.plan.Number; n > 0 && (d.plan == nil || d.plan.Plan.Revision != n) {
		m := c.plan.manifest
		return func(ctx context.Context) fetched {
			plan, err := s.readPlan(ctx, m)
			return fetched{number: n, plan: plan, err: err}
		}
	}
	if n := c.plan.Fleet; n > 0 && d.fleets[n] == nil && f.lacksInputs() {
		return func(ctx context.Context) fetched {
			fleet, err := s.FleetAt(ctx, n)
			return fetched{number: n, fleet: fleet, err: err}
		}
	}
	return nil
}

// fetch reads the next missing document beside the watch.
func (f *follower) fetch(ctx context.Context) {
	get := f.want()
	if get == nil || f.fetching {
		return
	}
	f.fetching = true
	go func() {
		fctx, cancel := context.WithTimeout(ctx, opTimeout)
		defer cancel()
		doc := get(fctx)
		if doc.err != nil {
			pause(ctx, relistAfter)
		}
		f.fetched <- doc // has room: one fetch at a time
	}()
}

// take puts a document in its place.
func (f *follower) take(doc fetched) {
	if doc.plan != nil {
		f.docs.plan = doc.plan
	}
	if doc.fleet != nil {
		if f.docs.fleets == nil {
			f.docs.fleets = make(map[int64]*placement.Fleet)
		}
		f.docs.fleets[doc.number] = doc.fleet
	}
	f.assemble()
}

// lacksInputs tells whether the plan names an inventory that is not at hand.
func (f *follower) lacksInputs() bool {
	d := &f.docs
	return d.plan != nil && !slices.ContainsFunc(d.recent, func(in *placement.Inventory) bool {
		return in.Revision == d.plan.Plan.Inputs.Inventory
	})
}

// assemble makes the inventory of the document and the intents. Until the
// document that the pointer names is here, the last whole one stays.
func (f *follower) assemble() {
	c, d := f.content, &f.docs
	if fleet := d.fleets[c.config.Number]; fleet != nil && (d.inventory == nil || d.inventory.Revision != c.inventoryRevision()) {
		d.inventory = &placement.Inventory{Revision: c.inventoryRevision(), Fleet: *fleet, Intents: c.intents()}
		d.remember(d.inventory)
		f.store.known.add(d.inventory.Revision, inputs{c.config.Number, d.inventory.Intents})
	}
	if fleet := d.fleets[c.plan.Fleet]; fleet != nil && f.lacksInputs() {
		d.remember(&placement.Inventory{Revision: d.plan.Plan.Inputs.Inventory, Fleet: *fleet, Intents: d.plan.Intents})
	}
	for n := range d.fleets {
		if n != c.config.Number && n != c.plan.Fleet {
			delete(d.fleets, n)
		}
	}
}

// remember keeps an inventory among the recent ones, newest first; the list is
// made anew, since views hold the old one.
func (d *documents) remember(in *placement.Inventory) {
	list := append([]*placement.Inventory{in}, d.recent...)
	slices.SortStableFunc(list, func(a, b *placement.Inventory) int { return cmp.Compare(b.Revision, a.Revision) })
	list = slices.CompactFunc(list, func(a, b *placement.Inventory) bool { return a.Revision == b.Revision })
	for len(list) > recentLen {
		last := len(list) - 1
		if d.plan != nil && list[last].Revision == d.plan.Plan.Inputs.Inventory {
			last-- // what the plan names is kept before a younger one
		}
		list = slices.Delete(list, last, last+1)
	}
	d.recent = list
}

// publish hands the newest view out, in place of one that nobody took.
func (f *follower) publish() {
	v := &View{Revision: f.rev, Inventory: f.docs.inventory, Recent: f.docs.recent,
		Connected: f.link.connected, Since: f.link.since}
	if f.docs.plan != nil {
		v.Plan = f.docs.plan.Plan
	}
	f.content.fill(v)
	select {
	case <-f.out:
	default:
	}
	f.out <- v // has room: nobody else sends
}
