package store

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"rhumb/placement"
)

// anycast is the prefix of the slot tests; announcing writes who announces it.
func anycast() placement.Prefix {
	return placement.Prefix{Prefix: netip.MustParsePrefix("2001:db8::/48"), Slots: 1, MinAnnouncing: 2,
		Sites: []string{"ams1", "fra1", "lhr1", "par1"}}
}

func announcing(t *testing.T, s *Store, step placement.Step, sites ...string) []placement.Announced {
	t.Helper()
	p := anycast().Prefix
	var out []placement.Announced
	for _, site := range sites {
		a := placement.Announced{Prefix: p, Site: site, Node: site + "-a", Step: step}
		a.Revision = mustWrite(t, s.kv, nil, put(announceKey(p, a.Node), seal(a)))
		out = append(out, a)
	}
	return out
}

// refusedBy returns the rule of a refusal, "" for success, and fails on anything else.
func refusedBy(t *testing.T, err error) placement.RuleName {
	t.Helper()
	var r *placement.Refusal
	if err == nil {
		return ""
	}
	if !errors.As(err, &r) {
		t.Errorf("not a refusal: %v", err)
		return "?"
	}
	return r.Rule
}

func TestTakeSlot(t *testing.T) {
	all := []string{"ams1", "fra1", "lhr1", "par1"}
	for _, tt := range []struct {
		name   string
		prefix func(p *placement.Prefix)
		before func(t *testing.T, s *Store)
		rule   placement.RuleName
		number int
	}{
		{"free", nil, func(t *testing.T, s *Store) { announcing(t, s, placement.Announce, all...) }, "", 1},
		{"gshut still announces", nil, func(t *testing.T, s *Store) { announcing(t, s, placement.GShut, all...) }, "", 1},
		{"nobody else announces", nil, func(t *testing.T, s *Store) { announcing(t, s, placement.Announce, "ams1") }, placement.RuleSlots, 0},
		{"one other site is not two", nil, func(t *testing.T, s *Store) { announcing(t, s, placement.Announce, "ams1", "fra1") }, placement.RuleSlots, 0},
		{"withdrawn counts for nobody", nil, func(t *testing.T, s *Store) {
			announcing(t, s, placement.Announce, "ams1", "fra1")
			announcing(t, s, placement.Withdrawn, "lhr1", "par1")
		}, placement.RuleSlots, 0},
		{"taken", nil, func(t *testing.T, s *Store) {
			announcing(t, s, placement.Announce, all...)
			take(t, s, anycast(), "fra1")
		}, placement.RuleSlots, 0},
		{"a second slot", func(p *placement.Prefix) { p.Slots = 2 }, func(t *testing.T, s *Store) {
			announcing(t, s, placement.Announce, all...)
			take(t, s, anycast(), "fra1")
		}, "", 2},
		{"a holder counts for nobody", func(p *placement.Prefix) { p.Slots = 2 }, func(t *testing.T, s *Store) {
			announcing(t, s, placement.Announce, "ams1", "fra1", "lhr1")
			take(t, s, anycast(), "fra1")
		}, placement.RuleSlots, 0},
		{"never more than sites without anchors", func(p *placement.Prefix) { p.Slots, p.Sites = 9, p.Sites[:3] }, func(t *testing.T, s *Store) {
			announcing(t, s, placement.Announce, all...)
			take(t, s, anycast(), "fra1")
		}, placement.RuleSlots, 0},
		{"no slots at all", func(p *placement.Prefix) { p.Slots = 0 }, func(t *testing.T, s *Store) { announcing(t, s, placement.Announce, all...) }, placement.RuleSlots, 0},
		{"every site of the fleet", func(p *placement.Prefix) { p.Sites = nil }, func(t *testing.T, s *Store) {
			f, _ := sample(nil)
			mustPutFleet(t, s, f, nil, 0)
			announcing(t, s, placement.Announce, "ams1", "fra1", "lhr1")
		}, "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := memoryStore(t, NewMemory())
			tt.before(t, s)
			p := anycast()
			if tt.prefix != nil {
				tt.prefix(&p)
			}
			slot, err := s.TakeSlot(ctxFor(t), p, "ams1", "test", nil)
			if rule := refusedBy(t, err); rule != tt.rule || slot.Number != tt.number {
				t.Errorf("slot %d, rule %q; want %d, %q", slot.Number, rule, tt.number, tt.rule)
			}
		})
	}
}

func take(t *testing.T, s *Store, p placement.Prefix, site string) placement.Slot {
	t.Helper()
	slot, err := s.TakeSlot(ctxFor(t), p, site, "test", nil)
	if err != nil {
		t.Fatal(err)
	}
	return slot
}

func TestTakeSlotComparesWhatWasSeen(t *testing.T) {
	s := memoryStore(t, NewMemory())
	seen := announcing(t, s, placement.Announce, "ams1", "fra1", "lhr1")
	announcing(t, s, placement.GShut, "fra1")
	if _, err := s.TakeSlot(ctxFor(t), anycast(), "ams1", "test", seen); refusedBy(t, err) != placement.RuleSlots {
		t.Errorf("fra1 has changed since: %v", err)
	}
	seen[1].Revision = 0
	first, err := s.TakeSlot(ctxFor(t), anycast(), "ams1", "test", seen)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.TakeSlot(ctxFor(t), anycast(), "ams1", "test", nil)
	if err != nil || again.Number != first.Number {
		t.Errorf("the holder asks again: %+v, %v; has %+v", again, err, first)
	}
	if _, err := s.TakeSlot(ctxFor(t), anycast(), "ams1", "test", []placement.Announced{}); refusedBy(t, err) != placement.RuleSlots {
		t.Errorf("the holder asks again when nobody else is there: %v", err)
	}
}

// Sites race for one slot: exactly one gets it, and gives it to the next.
func TestSlotRace(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s := open()
		if !s.slots {
			_, err := s.TakeSlot(ctxFor(t), anycast(), "ams1", "test", nil)
			if refusedBy(t, err) != placement.RuleSlots {
				t.Errorf("a file store counts no sites: %v", err)
			}
			return
		}
		announcing(t, s, placement.Announce, anycast().Sites...)
		for range 5 {
			won := raceForSlot(t, s, open)
			if len(won) != 1 {
				t.Fatalf("%d sites hold one slot: %v", len(won), won)
			}
			if err := s.FreeSlot(ctxFor(t), won[0].Prefix, won[0].Number, "elsewhere", ""); !errors.Is(err, ErrConflict) {
				t.Errorf("freed by a stranger: %v", err)
			}
			if err := s.FreeSlot(ctxFor(t), won[0].Prefix, won[0].Number, won[0].Site, ""); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func raceForSlot(t *testing.T, s *Store, open func() *Store) []placement.Slot {
	var mu sync.Mutex
	var won []placement.Slot
	var racers sync.WaitGroup
	other := open()
	for i, site := range anycast().Sites {
		door := []*Store{s, other}[i%2]
		racers.Go(func() {
			slot, err := door.TakeSlot(ctxFor(t), anycast(), site, "race", nil)
			if refusedBy(t, err) == "" {
				mu.Lock()
				won = append(won, slot)
				mu.Unlock()
			}
		})
	}
	racers.Wait()
	return won
}

func TestFreeSlotByHand(t *testing.T) {
	s := memoryStore(t, NewMemory())
	announcing(t, s, placement.Announce, anycast().Sites...)
	slot := take(t, s, anycast(), "ams1")
	if err := s.FreeSlot(ctxFor(t), slot.Prefix, slot.Number, "ams1", "the machine burned"); err != nil {
		t.Fatal(err)
	}
	events, err := s.Events(ctxFor(t), 0, 0)
	if err != nil || len(events) != 1 || events[0].Site != "ams1" {
		t.Errorf("events %+v, %v", events, err)
	}
	if err := s.FreeSlot(ctxFor(t), slot.Prefix, slot.Number, "ams1", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("freed twice: %v", err)
	}
}

func TestTakeSlotWhileAway(t *testing.T) {
	m := NewMemory()
	s := memoryStore(t, m)
	announcing(t, s, placement.Announce, anycast().Sites...)
	m.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var r *placement.Refusal
	if _, err := s.TakeSlot(ctx, anycast(), "ams1", "test", nil); err == nil || errors.As(err, &r) {
		t.Errorf("a store that is away refuses by no rule: %v", err)
	}
}

// Of the nodes of a site all but one may leave, however they race.
func TestLastNodeStays(t *testing.T) {
	s := memoryStore(t, NewMemory())
	p := anycast().Prefix
	for _, n := range []string{"n1", "n2", "n3"} {
		mustWrite(t, s.kv, nil, put(announceKey(p, n), seal(placement.Announced{Prefix: p, Site: "ams1", Node: n})))
	}
	announcing(t, s, placement.Announce, "fra1") // another site's does not count, nor a twin
	mustWrite(t, s.kv, nil, put(announceKey(p, "late"), seal(placement.Announced{Prefix: p, Site: "ams1", Node: "late", Twin: true})))
	errs := make(chan error)
	for _, n := range []string{"n1", "n2", "n3"} {
		go func() { errs <- s.LeaveNode(ctxFor(t), p, n, "ams1") }()
	}
	refused := 0
	for range 3 {
		if refusedBy(t, <-errs) == placement.RuleLastNode {
			refused++
		}
	}
	left, _ := mustRead(t, s.kv, query{span: under(announceDir(p))})
	if refused != 1 || len(left[0]) != 3 {
		t.Errorf("%d refused, %v left", refused, keysOf(left[0]))
	}
}
