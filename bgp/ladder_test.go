package bgp

import (
	"testing"
	"time"

	"rhumb/placement"
)

func TestUpByTheLadder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.want(placement.Announce)
		b.expect(placement.Withdrawn) // the warm-up first
		b.pass(time.Second + time.Millisecond)
		b.expect(placement.Prepend)
		a, _ := b.engine.get(anycast)
		want := Attrs{Prepend: 2, MED: 50, LargeCommunities: []LargeCommunity{{64500, 1, 1}}}
		if !a.Equal(want) {
			t.Errorf("attributes %+v, want %+v", a, want)
		}
		b.pass(time.Second)
		b.expect(placement.Announce)
		if a, _ := b.engine.get(anycast); a.Prepend != 0 || a.MED != 0 {
			t.Errorf("plain announcement carries %+v", a)
		}
		b.end()
	})
}

func TestDownByTheLadder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, intent)
		b.expect(placement.Prepend)
		b.pass(251 * time.Millisecond)
		b.expect(placement.GShut)
		if a, _ := b.engine.get(anycast); !a.GShut() || a.Prepend != 2 || a.MED != 50 {
			t.Errorf("gshut lost attributes: %+v", a)
		}
		b.pass(251 * time.Millisecond)
		b.expect(placement.Withdrawn)
		if b.store.held() != 1 {
			t.Errorf("%d slots held, want 1", b.store.held())
		}
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		if b.store.held() != 0 {
			t.Error("the slot was kept after the return")
		}
		b.end()
	})
}

func TestLocalFaultJumps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, local)
		b.expect(placement.GShut)
		b.pass(251 * time.Millisecond)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestRules(t *testing.T) {
	anchor := func(b *bench) { b.snap.Anchors[0].Sites = []string{"ams", "fra"} }
	tests := []struct {
		name  string
		setup func(*bench)
		mods  []func(*placement.Announcement)
		step  placement.Step
		rule  placement.RuleName
		taken bool // may the store be asked for a slot
	}{
		{"fault", nil, []func(*placement.Announcement){shared}, placement.GShut, placement.RuleFault, false},
		{"anchors", anchor, []func(*placement.Announcement){local}, placement.GShut, placement.RuleAnchors, false},
		{"slots", func(b *bench) { b.store.max = 0 }, []func(*placement.Announcement){local}, placement.GShut, placement.RuleSlots, true},
		{"witness, store away", func(b *bench) { b.store.away = true }, []func(*placement.Announcement){local}, placement.GShut, placement.RuleWitness, true},
		{"witness, store late", func(b *bench) { b.store.hang = true }, []func(*placement.Announcement){local}, placement.GShut, placement.RuleWitness, true},
		{"witness for a quorum", nil, nil, placement.GShut, placement.RuleWitness, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, nil)
				b.up()
				if tt.setup != nil {
					tt.setup(b)
				}
				b.want(placement.Withdrawn, tt.mods...)
				b.pass(30 * time.Second)
				b.expect(tt.step)
				b.rule(tt.rule)
				if got := b.store.taken > 0; got != tt.taken {
					t.Errorf("store asked: %v, want %v", got, tt.taken)
				}
				if n := countRule(b.events, tt.rule); n != 1 {
					t.Errorf("refusal told %d times, want once", n)
				}
				b.end()
			})
		})
	}
}

func TestNodeOfSeveralLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.snap.Anchors[0].Sites = []string{"ams", "fra"} // the site stays by its other node
		b.live = []placement.Announced{{Prefix: anycast, Site: "ams", Node: "ams2", Step: placement.Announce}}
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(time.Second)
		b.expect(placement.Withdrawn)
		if b.store.held() != 0 {
			t.Error("a slot was taken for one node of two")
		}
		b.end()
	})
}

func TestLastNodeIsTheSite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *bench) {
			b.store.max = 0
			b.store.leaveErr = &placement.Refusal{Rule: placement.RuleLastNode, Object: "ams"}
		})
		b.live = []placement.Announced{{Prefix: anycast, Site: "ams", Node: "ams2", Step: placement.Announce}}
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(5 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleSlots)
		b.end()
	})
}

func TestFreeze(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.snap.Inventory.Freeze = placement.Freeze{Audit: placement.Audit{Who: "test", Reason: "work"}}
		b.up() // a restart under freeze must come up
		b.want(placement.Withdrawn, local)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.want(placement.Withdrawn, intent)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestStartWhileUnwanted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *bench) { b.store.max = 0 })
		b.want(placement.Withdrawn, local)
		b.pass(5 * time.Second)
		b.expect(placement.GShut) // no slot: a fleet restarted in a bad hour must not be silent
		b.store.mu.Lock()
		b.store.max = 1
		b.store.mu.Unlock()
		b.pass(5 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestNamedAnchorWhileSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(time.Second)
		b.expect(placement.Withdrawn)
		b.snap.Anchors = []placement.Anchors{{Prefix: anycast, Sites: []string{"ams", "fra"}}}
		b.want(placement.Withdrawn, local)
		b.pass(10 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleAnchors)
		b.end()
	})
}

func TestMaxAnnounced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.MaxAnnounced = 1 })
		snap := b.snap
		snap.Announcements = []placement.Announcement{{Prefix: anycast, Site: "ams"}, {Prefix: anycast6, Site: "ams"}}
		b.s.Apply(t.Context(), &snap, nil)
		b.pass(10 * time.Second)
		st := b.s.Status()
		if st.Routes[0].Announced != placement.Announce || st.Routes[1].Announced != placement.Withdrawn {
			t.Errorf("routes %+v", st.Routes)
		}
		if r := st.Routes[1].Refusal; r == nil || r.Rule != placement.RuleMaxAnnounced {
			t.Errorf("refusal %v", r)
		}
		b.end()
	})
}
