package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"rhumb/placement"
)

// TakeSlot takes one of a prefix's slots for a site, in one transaction: the
// number is free, and the announcements that were counted are unchanged. They
// are live announcements of at least min_announcing other sites; a site that
// holds a slot may fall silent at any moment and does not count.
//
// With seen, only announcements count which the caller saw at the same revision
// (Announced.Revision; 0: any), so that what it judged is what is compared; nil
// counts all that are stored. A site which holds a slot already gets the same
// one again, but by a new count: what it once relied on may be dead by now. A
// broken rule is a *placement.Refusal; the deadline is ctx's.
func (s *Store) TakeSlot(ctx context.Context, p placement.Prefix, site, cause string, seen []placement.Announced) (placement.Slot, error) {
	if !s.slots {
		return placement.Slot{}, &placement.Refusal{Rule: placement.RuleSlots, Object: p.Prefix.String(),
			Have: "a file store, which counts no sites", Limit: "etcd", Hint: "use the anchors, or join the fleet's etcd"}
	}
	for range maxTries {
		slot, err := s.takeSlot(ctx, p, site, cause, seen)
		if errors.Is(err, errRaced) {
			continue
		}
		var refusal *placement.Refusal
		if err != nil && !errors.As(err, &refusal) {
			err = fmt.Errorf("store: take slot of %s for %s: %w", p.Prefix, site, err)
		}
		return slot, err
	}
	return placement.Slot{}, fmt.Errorf("store: take slot of %s for %s: %w", p.Prefix, site, ErrConflict)
}

func (s *Store) takeSlot(ctx context.Context, p placement.Prefix, site, cause string, seen []placement.Announced) (placement.Slot, error) {
	found, _, err := s.read(ctx, query{span: under(slotDir(p.Prefix))},
		query{span: under(announceDir(p.Prefix))}, query{span: only(keyConfig)})
	if err != nil {
		return placement.Slot{}, err
	}
	held, err := slotsOf(found[0])
	if err != nil {
		return placement.Slot{}, err
	}
	sites, err := announcers(p, found[2])
	if err != nil {
		return placement.Slot{}, err
	}
	live := counted(announcedOf(found[1]), seen, held, site)
	number, refusal := judgeSlot(p, sites, held, live, site)
	if refusal != nil {
		return placement.Slot{}, refusal
	}
	slot := placement.Slot{Prefix: p.Prefix, Number: number, Site: site, Cause: cause, Taken: s.now().UTC()}
	key := slotKey(p.Prefix, number)
	conds := make([]cond, 0, len(held)+len(live)+1)
	if !slices.ContainsFunc(held, func(h placement.Slot) bool { return h.Number == number }) {
		conds = append(conds, cond{key, 0})
	}
	for _, h := range held { // two sites never count each other while both take
		conds = append(conds, cond{slotKey(p.Prefix, h.Number), h.Revision})
	}
	for _, a := range live[:p.MinAnchors(sites)] { // as many as must stay; more would only race more
		conds = append(conds, cond{announceKey(p.Prefix, a.Node), a.Revision})
	}
	rev, ok, err := s.write(ctx, conds, []op{put(key, seal(slot))})
	if err == nil && !ok {
		err = errRaced
	}
	slot.Revision = rev
	return slot, err
}

// announcers returns how many sites may announce a prefix.
func announcers(p placement.Prefix, config []pair) (int, error) {
	if len(p.Sites) > 0 || len(config) == 0 {
		return len(p.Sites), nil
	}
	h, err := unseal[head](config[0].value)
	return len(h.Sites), err
}

func slotsOf(pairs []pair) ([]placement.Slot, error) {
	var out []placement.Slot
	for _, p := range pairs {
		slot, err := unseal[placement.Slot](p.value)
		if err != nil {
			// A slot that cannot be read is held by somebody all the same.
			return nil, fmt.Errorf("%s: %w", p.key, err)
		}
		slot.Revision = p.mod
		out = append(out, slot)
	}
	return out, nil
}

func announcedOf(pairs []pair) []placement.Announced {
	var out []placement.Announced
	for _, p := range pairs {
		if a, err := unseal[placement.Announced](p.value); err == nil {
			a.Revision = p.mod
			out = append(out, a)
		}
	}
	return out
}

// counted returns one live announcement for each other site that counts, in
// order of key: one is enough to compare, and the fewer the fewer races.
func counted(all, seen []placement.Announced, held []placement.Slot, site string) []placement.Announced {
	var out []placement.Announced
	for _, a := range all {
		here := func(o placement.Announced) bool { return o.Site == a.Site }
		switch {
		case a.Site == site || a.Step == placement.Withdrawn || a.Twin || slices.ContainsFunc(out, here):
		case slices.ContainsFunc(held, func(h placement.Slot) bool { return h.Site == a.Site }):
		case seen != nil && !slices.ContainsFunc(seen, func(o placement.Announced) bool {
			return o.Site == a.Site && o.Node == a.Node && (o.Revision == 0 || o.Revision == a.Revision)
		}):
		default:
			out = append(out, a)
		}
	}
	return out
}

// judgeSlot finds the number which the site holds, or the lowest free one, or says which
// rule stands against it.
func judgeSlot(p placement.Prefix, sites int, held []placement.Slot, live []placement.Announced, site string) (int, *placement.Refusal) {
	refuse := func(have, limit, hint string) (int, *placement.Refusal) {
		return 0, &placement.Refusal{Rule: placement.RuleSlots, Object: p.Prefix.String(), Have: have, Limit: limit, Hint: hint}
	}
	anchors := p.MinAnchors(sites)
	k := min(p.Slots, sites-anchors)
	own := slices.IndexFunc(held, func(h placement.Slot) bool { return h.Site == site })
	if own < 0 && len(held) >= max(k, 0) {
		have := "no slots"
		for i, h := range held {
			if i == 0 {
				have = "held by " + h.Site
			} else {
				have += ", " + h.Site
			}
		}
		return refuse(have, fmt.Sprintf("%d slots (%d sites, %d anchors)", max(k, 0), sites, anchors),
			"a holder that is gone for good is freed by hand, with a reason")
	}
	if len(live) < anchors {
		return refuse(fmt.Sprintf("%d other sites announcing", len(live)), fmt.Sprintf("%d", anchors), "")
	}
	if own >= 0 {
		return held[own].Number, nil
	}
	for n := 1; ; n++ {
		if !slices.ContainsFunc(held, func(h placement.Slot) bool { return h.Number == n }) {
			return n, nil
		}
	}
}

// FreeSlot gives a slot back. site is the holder; an operator who frees the
// slot of a site that is gone names it as well, and a reason, which goes to the
// log of events. ErrNotFound: it was free; ErrConflict: another site holds it.
func (s *Store) FreeSlot(ctx context.Context, prefix netip.Prefix, number int, site, reason string) error {
	fail := func(err error) error {
		return fmt.Errorf("store: free slot %d of %s: %w", number, prefix, err)
	}
	p, err := s.one(ctx, slotKey(prefix, number))
	if err != nil {
		return fail(err)
	}
	if p.mod == 0 {
		return fail(ErrNotFound)
	}
	slot, err := unseal[placement.Slot](p.value)
	if err != nil {
		return fail(err)
	}
	if slot.Site != site {
		return fail(fmt.Errorf("%w: %s holds it", ErrConflict, slot.Site))
	}
	_, ok, err := s.write(ctx, []cond{{p.key, p.mod}}, []op{{key: p.key, del: true}})
	if err != nil {
		return fail(err)
	}
	if !ok {
		return fail(ErrConflict)
	}
	if reason == "" {
		return nil
	}
	return s.AddEvent(ctx, placement.Event{Kind: "bgp", Site: site,
		Text: fmt.Sprintf("slot %d of %s freed: %s", number, prefix, reason)})
}

// revisionOf is the revision of a key among those read; 0 where it is absent.
func revisionOf(found []pair, key string) int64 {
	if i := slices.IndexFunc(found, func(p pair) bool { return p.key == key }); i >= 0 {
		return found[i].mod
	}
	return 0
}

// LeaveNode drops a node's announcement of a prefix, if another node of the
// site goes on announcing, and knows that the site is an anchor where this one
// does; the last one is the site's own step, which needs a Slot, and is refused.
// Forget it in the node's Session first, lest that puts it back after a lost lease.
func (s *Store) LeaveNode(ctx context.Context, prefix netip.Prefix, node, site string) error {
	for range maxTries {
		err := s.leaveNode(ctx, prefix, node, site)
		if errors.Is(err, errRaced) {
			continue
		}
		var refusal *placement.Refusal
		if err != nil && !errors.As(err, &refusal) {
			err = fmt.Errorf("store: leave %s with %s: %w", prefix, node, err)
		}
		return err
	}
	return fmt.Errorf("store: leave %s with %s: %w", prefix, node, ErrConflict)
}

func (s *Store) leaveNode(ctx context.Context, prefix netip.Prefix, node, site string) error {
	found, _, err := s.read(ctx, query{span: under(announceDir(prefix))})
	if err != nil {
		return err
	}
	all := announcedOf(found[0])
	anchor := slices.ContainsFunc(all, func(a placement.Announced) bool { return a.Node == node && a.Anchor })
	i := slices.IndexFunc(all, func(a placement.Announced) bool {
		return a.Site == site && a.Node != node && !a.Twin && a.Step != placement.Withdrawn && (a.Anchor || !anchor)
	})
	if i < 0 || !s.slots {
		return &placement.Refusal{Rule: placement.RuleLastNode, Object: prefix.String(),
			Have: node + " is the last node of " + site, Limit: "another node of the site announces"}
	}
	// Its own key is demanded as it was seen, too: a leave which is late must not take
	// away what the node announced again meanwhile.
	own := announceKey(prefix, node)
	_, ok, err := s.write(ctx, []cond{{announceKey(prefix, all[i].Node), all[i].Revision}, {own, revisionOf(found[0], own)}},
		[]op{{key: own, del: true}})
	if err == nil && !ok {
		err = errRaced
	}
	return err
}
