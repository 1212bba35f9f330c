package bgp

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhumb/placement"
)

// TestNodeWish: a node goes where it is drained and another one stays, and nowhere else.
func TestNodeWish(t *testing.T) {
	other := []placement.Announced{{Prefix: anycast, Site: "ams", Node: "ams2"}}
	drain := &placement.Drain{Site: "ams/ams1", Audit: placement.Audit{Who: "eve", Reason: "memory"}}
	for name, tc := range map[string]struct {
		site   placement.Step
		drain  *placement.Drain
		others []placement.Announced
		want   placement.Step
		alone  bool
		no     bool
	}{
		"not drained":                  {site: placement.Announce, others: other, want: placement.Announce},
		"drained":                      {site: placement.Announce, drain: drain, others: other, want: placement.Withdrawn, alone: true},
		"drained, the last":            {site: placement.Announce, drain: drain, want: placement.Announce, no: true},
		"drained, the site at gshut":   {site: placement.GShut, drain: drain, others: other, want: placement.Withdrawn, alone: true},
		"drained, the last at gshut":   {site: placement.GShut, drain: drain, want: placement.GShut, no: true},
		"drained, the site is to go":   {site: placement.Withdrawn, drain: drain, others: other, want: placement.Withdrawn},
		"drained, it and its site are": {site: placement.Withdrawn, drain: drain, want: placement.Withdrawn},
	} {
		a := placement.Announcement{Prefix: anycast, Site: "ams", Want: tc.site, Fault: placement.SharedFault, Cause: "site"}
		got, alone, no := nodeWish(a, "ams/ams1", tc.drain, tc.others)
		if got.Want != tc.want || alone != tc.alone || (no != nil) != tc.no {
			t.Errorf("%s: %+v, alone %t, %v", name, got, alone, no)
		}
		if alone && (!got.Intent || got.Fault != placement.NoFault || got.Cause != "node drained by eve: memory") || !alone && got != a {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// drains is the inventory with these drains of ours.
func (b *bench) drains(names ...string) {
	inv := *b.snap.Inventory
	inv.Drains = nil
	for _, n := range names {
		inv.Drains = append(inv.Drains, placement.Drain{Site: n, Audit: placement.Audit{Who: "eve", Reason: "memory"}})
	}
	b.snap.Inventory = &inv
	b.want(placement.Announce)
}

func sibling(node string, step placement.Step) placement.Announced {
	return placement.Announced{Prefix: anycast, Site: "ams", Node: node, Step: step}
}

// TestNodeDrained goes down by the ladder, stands at gshut for its time, takes no Slot, and
// comes back by undrain.
func TestNodeDrained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Addresses = nil })
		b.snap.Anchors[0].Sites = []string{"ams", "fra"} // the site is an anchor, and stays one
		b.live = []placement.Announced{sibling("ams1", placement.Announce), sibling("ams2", placement.Announce)}
		b.up()
		b.engine.told(true)
		b.drains("ams/ams1")
		b.pass(time.Second)
		b.expect(placement.GShut)
		b.pass(defaultNodeGShut - 2*time.Second)
		b.expect(placement.GShut)
		b.pass(3 * time.Second)
		b.expect(placement.Withdrawn)
		if got := b.engine.told(true); !slices.Equal(got, []string{"set", "set", "withdraw"}) {
			t.Errorf("the engine was told %v", got)
		}
		if b.store.taken > 0 {
			t.Error("a slot was asked for one node of two")
		}
		b.rule("")
		b.drains()
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

// TestNodeDrainedLast: whoever is the last stays as loud as its site, and says so; it goes
// when another one is back, and comes back when that one dies.
func TestNodeDrainedLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.live = []placement.Announced{sibling("ams1", placement.Announce)}
		b.up()
		for name, live := range map[string][]placement.Announced{
			"alone":                   {sibling("ams1", placement.Announce)},
			"the other is withdrawn":  {sibling("ams1", placement.Announce), sibling("ams2", placement.Withdrawn)},
			"the other is less loud":  {sibling("ams1", placement.Announce), sibling("ams2", placement.Prepend)},
			"the other is to go, too": {sibling("ams1", placement.Announce), sibling("ams3", placement.Announce)},
			"the other is elsewhere":  {sibling("ams1", placement.Announce), {Prefix: anycast, Site: "fra", Node: "fra1"}},
			"the store shows nothing": nil,
		} {
			b.live = live
			b.drains("ams/ams1", "ams/ams3")
			b.pass(20 * time.Second)
			if b.step() != placement.Announce {
				t.Errorf("%s: it is at %s", name, b.step())
			}
			b.rule(placement.RuleLastNode)
		}
		if n := countRule(b.events, placement.RuleLastNode); n != 1 {
			t.Errorf("it was told %d times", n)
		}
		b.live = []placement.Announced{sibling("ams1", placement.Announce), sibling("ams2", placement.Announce)}
		b.drains("ams/ams1")
		b.pass(20 * time.Second)
		b.expect(placement.Withdrawn)
		b.rule("")
		b.live = nil
		b.drains("ams/ams1")
		b.pass(20 * time.Second)
		b.expect(placement.Announce)
		b.rule(placement.RuleLastNode)
		b.end()
	})
}

// TestNodeDrainedStaysAway: once it has gone it is not called back while its site comes back
// from gshut, when no other node is as loud yet as the site is to be; it is when none
// announces any more.
func TestNodeDrainedStaysAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.live = []placement.Announced{sibling("ams1", placement.Announce), sibling("ams2", placement.Announce)}
		b.up()
		b.drains("ams/ams1")
		b.pass(20 * time.Second)
		b.expect(placement.Withdrawn)
		b.engine.told(true)
		for _, at := range []placement.Step{placement.GShut, placement.Prepend, placement.Announce} {
			b.live = []placement.Announced{sibling("ams2", at)}
			b.want(placement.GShut, shared)
			b.pass(20 * time.Second)
			b.want(placement.Announce)
			b.pass(20 * time.Second)
			b.expect(placement.Withdrawn)
			b.rule("")
		}
		if got := b.engine.told(true); len(got) > 0 {
			t.Errorf("the engine was told %v", got)
		}
		b.live = []placement.Announced{sibling("ams2", placement.Withdrawn)}
		b.want(placement.Announce)
		b.pass(20 * time.Second)
		b.expect(placement.Announce)
		b.rule(placement.RuleLastNode)
		b.end()
	})
}

// TestNodeDrainedAddresses: a node that is drained alone has its addresses on lo, also one
// whose speaker begins then: health looks at them for the whole site. They leave when the
// site is drained as well.
func TestNodeDrainedAddresses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		host := &fakeHost{bound: make(map[netip.Addr]bool)}
		b := start(t, func(c *Config, b *bench) {
			host.log = b.engine
			c.Host, c.Addresses = host, []netip.Addr{vip}
		})
		bound := func(when string, want bool) {
			t.Helper()
			if have, _ := host.Bound(vip); have != want {
				t.Errorf("%s: bound %t", when, have)
			}
		}
		b.live = []placement.Announced{sibling("ams2", placement.Announce)}
		b.drains("ams/ams1")
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		bound("begun while it is drained", true)
		b.drains()
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.drains("ams/ams1")
		b.pass(time.Hour)
		b.expect(placement.Withdrawn)
		bound("drained", true)
		b.want(placement.Withdrawn, intent)
		b.pass(2 * time.Second)
		bound("its site drained, too", false)
		b.end()
	})
}

// TestNodeDrainedStoreAway: without the store's word that another node stays it is gshut.
func TestNodeDrainedStoreAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *bench) { b.store.leaveErr = errors.New("etcd: no leader") })
		b.live = []placement.Announced{sibling("ams1", placement.Announce), sibling("ams2", placement.Announce)}
		b.up()
		b.drains("ams/ams1")
		b.pass(30 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleLastNode)
		if b.store.taken > 0 {
			t.Error("the site's slot was asked for")
		}
		b.end()
	})
}

// TestNodeDrainedObserved says what it would do.
func TestNodeDrainedObserved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.live = []placement.Announced{sibling("ams1", placement.Announce), sibling("ams2", placement.Announce)}
		b.up()
		inv := *b.snap.Inventory
		inv.Mode = placement.Observe
		b.snap.Inventory = &inv
		b.drains("ams/ams1")
		b.engine.told(true)
		b.pass(30 * time.Second)
		b.expect(placement.Announce)
		if got := b.engine.told(true); len(got) > 0 {
			t.Errorf("the engine was told %v", got)
		}
		last := b.events[len(b.events)-1]
		if !last.Observed || last.To != placement.Withdrawn {
			t.Errorf("the last event is %+v", last)
		}
		b.end()
	})
}
