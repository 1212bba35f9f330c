package main

import (
	"context"
	"os"
	"slices"
	"time"

	"rhumb/placement"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// add makes the tasks of the stage: views and votes come in, views for the loop go out.
// It returns the votes that the loop may hear.
func (t *twin) add(u *unit, views <-chan *store.View, votes <-chan []placement.Vote, out box[node.View]) box[[]placement.Vote] {
	own, wanted := newBox[[]placement.Vote](), newBox[[]placement.Zone]()
	u.add("twin", func(ctx context.Context) error {
		t.run(ctx, twinPorts{views: views, votes: votes, out: out, own: own, zones: wanted}, time.Now)
		return nil
	})
	u.add("twin-zones", func(ctx context.Context) error {
		here := make(map[string]bool)
		for {
			select {
			case <-ctx.Done():
				return nil
			case zones := <-wanted:
				here = t.fetch(ctx, u.store.Blob, zones, here)
			}
		}
	})
	return own
}

// twinPorts are where things come from and go to.
type twinPorts struct {
	views <-chan *store.View
	votes <-chan []placement.Vote
	out   box[node.View]
	own   box[[]placement.Vote]
	zones box[[]placement.Zone]
}

// run feeds the loop until ctx ends.
func (t *twin) run(ctx context.Context, p twinPorts, clock func() time.Time) {
	tick := time.NewTicker(twinTick)
	defer tick.Stop()
	view := &store.View{}
	var heard []placement.Vote
	t.copies.take(t.queue.Current.Value, t.late)
	for {
		t.step(view, p, clock())
		if t.queue.Current.Value != nil {
			p.out.put(t.late2view(view))
			p.own.put(t.ownVotes(view, heard))
		}
		select {
		case <-ctx.Done():
			return
		case view = <-p.views:
		case heard = <-p.votes:
		case <-tick.C:
		}
	}
}

// step takes in what the store shows, and lets pass what is due.
func (t *twin) step(v *store.View, p twinPorts, now time.Time) {
	if t.follow() {
		t.drop(t.queue.Forget())
		t.wave.Clear(now)
	}
	if v.Connected {
		t.know(now)
		if why := t.wave.Look(now, v.Nodes, v.Announced); why != "" {
			t.stop(now, why)
		}
	}
	held, waits := t.isHeld(), t.waits(v, now)
	if v.Connected && v.Inventory != nil && (!held || t.queue.Current.Value == nil) {
		t.keep(t.input(v, now), p)
	}
	if !held && waits == "" {
		was := t.queue.Current.Value
		t.drop(t.queue.Pass(now))
		if cur := t.queue.Current.Value; cur != was {
			t.copies.take(cur, t.late)
			t.log.Info("twin: inputs in force", "of", cur.At, "inventory", cur.Inventory.Revision)
		}
	}
	t.tell(held, waits)
}

func (t *twin) isHeld() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hold.held()
}

// know notes that everything was seen until now, for the next process as well.
func (t *twin) know(now time.Time) {
	t.queue.Know(now)
	if now.Sub(t.known) < twinKnown {
		return
	}
	t.known = now
	if err := os.WriteFile(t.knownFile(), []byte(now.UTC().Format(time.RFC3339)), 0o644); err != nil {
		t.log.Warn("twin: a restart will not know how old its inputs are", "err", err)
	}
}

// waits says why time does not pass for the queue: while the store is away nobody knows
// what becomes of others, and for a while after nobody can tell who is gone.
func (t *twin) waits(v *store.View, now time.Time) string {
	switch {
	case !v.Connected:
		return "the store does not answer"
	case now.Sub(v.Since) < t.wave.Grace:
		return "the store has just come back"
	}
	return ""
}

// tell notes what others may know.
func (t *twin) tell(held bool, waits string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = placement.TwinStatus{Delay: t.conf.Delay, Inputs: t.queue.AsOf().UTC(), Waits: waits}
	flag := 0.0
	if held {
		t.seen.Held, t.seen.HeldSince, flag = t.hold.Why, t.hold.Since.UTC(), 1
	}
	t.metrics.inputs.Set(float64(t.queue.AsOf().Unix()))
	t.metrics.held.Set(flag)
	t.metrics.queued.Set(float64(len(t.queue.Waiting)))
}

// input is what a view is made of.
func (t *twin) input(v *store.View, now time.Time) *store.LateInput {
	in := &store.LateInput{At: now.UTC(), Inventory: v.Inventory, Plan: v.Plan, Votes: v.Votes,
		VotesRevision: v.VotesRevision, VotesListed: v.VotesListed, Copies: t.copies.refs(t.late, t.log)}
	if v.Plan != nil && v.Plan.Inputs.Inventory != v.Inventory.Revision {
		in.Planned = v.InventoryAt(v.Plan.Inputs.Inventory)
	}
	return in
}

// keep puts an input into the queue, and onto disk, if it says anything new.
func (t *twin) keep(in *store.LateInput, p twinPorts) {
	if last := t.queue.Newest().Value; last != nil && last.Same(in) {
		return
	}
	first := t.queue.Current.Value == nil
	dropped, replaced := t.queue.Put(in.At, in)
	if err := t.late.Put(in); err != nil {
		t.log.Error("twin: a restart would forget an input", "err", err)
	}
	if replaced {
		t.drop([]node.Late[*store.LateInput]{dropped})
	}
	if first {
		t.log.Warn("twin: nothing is known of the past, so what is in force now is taken at once", "inventory", in.Inventory.Revision)
		t.copies.take(in, t.late)
	}
	p.zones.put(t.zonesWanted())
}

// zonesWanted are the zones of all that waits: they are fetched when they are new, since
// the store may not have them any more when their time comes.
func (t *twin) zonesWanted() []placement.Zone {
	var out []placement.Zone
	for _, l := range append([]node.Late[*store.LateInput]{t.queue.Current}, t.queue.Waiting...) {
		for _, inv := range []*placement.Inventory{l.Value.Inventory, l.Value.Planned} {
			if inv != nil {
				out = append(out, inv.Zones...)
			}
		}
	}
	return out
}

// fetch has zones by digest in the cache on disk, but for those that are here already, and
// returns which of them are. What cannot be had is tried again with the next input, and
// when its time comes.
func (t *twin) fetch(ctx context.Context, blob func(context.Context, string) ([]byte, error), zones []placement.Zone, here map[string]bool) map[string]bool {
	out := make(map[string]bool)
	for _, z := range zones {
		if _, done := out[z.SHA256]; done || z.SHA256 == "" || z.Secondary != nil {
			continue
		}
		if out[z.SHA256] = here[z.SHA256]; out[z.SHA256] {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, zoneTimeout)
		_, err := blob(bounded, z.SHA256)
		cancel()
		if out[z.SHA256] = err == nil; err != nil && ctx.Err() == nil {
			t.log.Warn("twin: a zone that will be needed cannot be had yet", "zone", z.Name, "err", err)
		}
	}
	return out
}

// drop removes inputs that are over from the disk.
func (t *twin) drop(over []node.Late[*store.LateInput]) {
	if len(over) == 0 {
		return
	}
	for _, l := range over {
		if err := t.late.Drop(l.At); err != nil {
			t.log.Warn("twin: an input that is over stays on disk", "err", err)
		}
	}
	var left []*store.LateInput
	for _, l := range append([]node.Late[*store.LateInput]{t.queue.Current}, t.queue.Waiting...) {
		left = append(left, l.Value)
	}
	if err := t.late.Tidy(left); err != nil {
		t.log.Warn("twin: copies of zones that are over stay on disk", "err", err)
	}
}

// late2view is what the loop sees: the intents in force here, and of now who is there
// and whether the store lives. So an input is not stale for being late, and a twin is as
// loud as others about a director that says nothing.
func (t *twin) late2view(v *store.View) node.View {
	in := t.queue.Current.Value
	out := node.View{Inventory: in.Inventory, Plan: in.Plan, Votes: in.Votes, VotesRevision: in.VotesRevision, VotesListed: in.VotesListed,
		Nodes: v.Nodes, Heartbeat: v.Heartbeat, Connected: v.Connected}
	if in.Planned != nil {
		out.Recent = []*placement.Inventory{in.Planned}
	}
	return out
}

// ownVotes are those of this site: what it measures of itself is not late, or it would
// announce for a time that it is well when it is not.
func (t *twin) ownVotes(v *store.View, heard []placement.Vote) []placement.Vote {
	other := func(vote placement.Vote) bool { return vote.Site != t.site }
	return slices.DeleteFunc(slices.Concat(v.Votes, heard), other)
}
