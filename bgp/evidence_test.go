package bgp

import (
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rhumb/bgp/rpki"
	"rhumb/placement"
)

// here is what sites say that they announce; ams is ourselves.
func here(sites ...string) (out []placement.Announced) {
	for _, s := range sites {
		out = append(out, placement.Announced{Prefix: anycast, Site: s, Node: s + "1", Step: placement.Announce})
	}
	return out
}

// TestForgottenPrefixesCount: a configuration which names announcements no more is an
// intent, and is counted as one, however it came about.
func TestForgottenPrefixesCount(t *testing.T) {
	tests := []struct {
		name  string
		live  []placement.Announced
		named []string // sites which the new snapshot names
		aside []string
		step  placement.Step
		rule  placement.RuleName
	}{
		{"one site of three", here("ams", "fra", "lon"), []string{"fra", "lon"}, nil, placement.Withdrawn, ""},
		{"all but an offline one (as in July 2025)", here("ams", "fra", "lon"), []string{"tyo"}, nil, placement.Announce, placement.RuleBlastRadius},
		{"two of three", here("ams", "fra", "lon"), []string{"lon"}, nil, placement.Announce, placement.RuleBlastRadius},
		{"two of three, by name: then too few are left", here("ams", "lon"), []string{"lon"}, []string{"blast-radius"}, placement.GShut, placement.RuleMinSites},
		{"two of three, by all the names", here("ams", "lon"), []string{"lon"}, []string{"blast-radius", "min-sites"}, placement.Withdrawn, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, nil)
				b.live = tt.live
				b.up()
				snap := b.snap
				inv := *snap.Inventory
				inv.SetAside.Override = tt.aside
				snap.Inventory, snap.Announcements = &inv, nil
				for _, site := range tt.named {
					snap.Announcements = append(snap.Announcements, placement.Announcement{Prefix: anycast, Site: site})
				}
				b.s.Apply(t.Context(), &snap, tt.live)
				b.pass(20 * time.Second)
				b.expect(tt.step)
				b.rule(tt.rule)
				b.end()
			})
		})
	}
}

// TestOverridesReachTheGuard: what an operator set aside for a drain, or for a force,
// holds for the routes as well, and for his own site alone.
func TestOverridesReachTheGuard(t *testing.T) {
	anchor := []placement.Anchors{{Prefix: anycast, Sites: []string{"ams", "fra"}}}
	audit := placement.Audit{Who: "ann", Reason: "fire", Override: []string{"anchors"}}
	for name, tt := range map[string]struct {
		intents placement.Intents
		want    placement.Step
	}{
		"none":                  {placement.Intents{}, placement.GShut},
		"of the drain":          {placement.Intents{Drains: []placement.Drain{{Site: "ams", Audit: audit}}}, placement.Withdrawn},
		"of another's drain":    {placement.Intents{Drains: []placement.Drain{{Site: "fra", Audit: audit}}}, placement.GShut},
		"of the force":          {placement.Intents{Forces: []placement.Force{{Object: placement.SiteID("ams"), State: placement.ForceDown, Audit: audit}}}, placement.Withdrawn},
		"of a force taken back": {placement.Intents{Forces: []placement.Force{{Object: placement.SiteID("ams"), Audit: placement.Audit{Ended: time.Unix(1, 0), Override: audit.Override}}}}, placement.GShut},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, nil)
				b.up()
				inv := *b.snap.Inventory
				inv.Intents = tt.intents
				b.snap.Inventory, b.snap.Anchors = &inv, anchor
				b.want(placement.Withdrawn, intent)
				b.pass(20 * time.Second)
				b.expect(tt.want)
				b.end()
			})
		})
	}
}

// TestSlotForOneSilence: what the store counted for one silence is not good for the next.
func TestSlotForOneSilence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(time.Second)
		b.expect(placement.Withdrawn)
		b.store.mu.Lock()
		b.store.away = true // so that the slot cannot be given back
		b.store.mu.Unlock()
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.want(placement.Withdrawn, local)
		b.pass(10 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleWitness)
		b.end()
	})
}

// TestOldCountIsNoCount: a Slot which was granted while something else kept the route
// is asked for again when that is gone.
func TestOldCountIsNoCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.snap.Inventory.Prefixes[0].Witness = placement.WitnessRequired
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(20 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleWitness)
		b.store.mu.Lock()
		b.store.max, b.store.holders = 0, nil // others are dead by now
		b.store.mu.Unlock()
		b.pass(5 * time.Second)
		b.see(2, false)
		b.pass(5 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleSlots)
		b.end()
	})
}

// TestWitnessUntilTheStoreIsBack: a silence without a Slot asks for one when it can, and
// ends where it gets none; while the store says nothing, it goes on.
func TestWitnessUntilTheStoreIsBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		max  int
		want placement.Step
	}{{"a slot is free", 1, placement.Withdrawn}, {"none is", 0, placement.GShut}} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, func(_ *Config, b *bench) { b.store.away = true })
				b.up()
				b.see(2, false)
				b.want(placement.Withdrawn, local)
				b.pass(20 * time.Second)
				b.expect(placement.Withdrawn)
				b.pass(time.Minute)
				b.expect(placement.Withdrawn)
				b.store.mu.Lock()
				b.store.away, b.store.max = false, tt.max
				b.store.mu.Unlock()
				b.pass(20 * time.Second)
				b.expect(tt.want)
				if got := b.store.held(); got != tt.max {
					t.Errorf("%d slots held, want %d", got, tt.max)
				}
				b.end()
			})
		})
	}
}

// TestStoreMayStillCountOnUs: with the store away a witness waits until nobody's Slot
// can rest on our announcement.
func TestStoreMayStillCountOnUs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var renewed time.Time
		b := start(t, func(c *Config, b *bench) {
			b.store.away = true
			c.Renewed = func() time.Time { return renewed }
		})
		b.up()
		b.see(2, false)
		renewed = time.Now().Add(2 * time.Second) // the last sign of the store
		b.want(placement.Withdrawn, local)
		b.pass(16 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleWitness)
		b.pass(5 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

// TestLostSlotIsNoticed: a Slot which was freed by hand, or by a sibling, is no right.
func TestLostSlotIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, b *bench) {
			c.Held = func(netip.Prefix) bool {
				b.store.mu.Lock()
				defer b.store.mu.Unlock()
				return slices.Contains(b.store.holders, "ams")
			}
		})
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(time.Minute)
		b.expect(placement.Withdrawn)
		b.store.mu.Lock()
		b.store.holders, b.store.max = []string{"lon"}, 1
		b.store.mu.Unlock()
		b.pass(20 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleSlots)
		b.end()
	})
}

// TestAnchorAcknowledges: the fleet is told when this node knows that it stays, and
// when it need not any more.
func TestAnchorAcknowledges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		last := func() placement.Announced {
			b.store.mu.Lock()
			defer b.store.mu.Unlock()
			return b.store.published[len(b.store.published)-1]
		}
		if last().Anchor {
			t.Error("no anchor yet")
		}
		for _, sites := range [][]string{{"ams", "fra", "lon"}, {"fra", "lon"}} {
			b.snap.Anchors = []placement.Anchors{{Prefix: anycast, Sites: sites}}
			b.want(placement.Announce)
			if want := slices.Contains(sites, "ams"); last().Anchor != want || last().Step != placement.Announce {
				t.Errorf("anchors %v: told %+v", sites, last())
			}
		}
		n := len(b.store.published)
		b.want(placement.Announce)
		if len(b.store.published) != n {
			t.Error("told again though nothing changed")
		}
		b.end()
	})
}

// TestOriginIsJudgedOnce: an origin that the RPKI calls invalid keeps a prefix from being
// announced for the first time; later it is an alarm, and after a restart as well.
func TestOriginIsJudgedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "known.json")
	table := func(asn uint32) *rpki.Table {
		return rpki.NewTable([]rpki.VRP{{Prefix: anycast, MaxLength: 24, ASN: asn}}, time.Now())
	}
	run := func(name string, asn uint32, check func(*bench, *rpki.Source)) {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				source := rpki.NewSource(rpki.Config{})
				if asn != 0 {
					source.Set(table(asn))
				}
				known, err := rpki.OpenKnown(path)
				if err != nil {
					t.Fatal(err)
				}
				b := start(t, func(c *Config, _ *bench) { c.RPKI, c.Known = source, known })
				b.want(placement.Announce)
				b.pass(10 * time.Second)
				check(b, source)
				b.end()
			})
		})
	}
	origin := func(b *bench) string { return b.s.Status().Routes[0].Origin }
	run("invalid at first", 64501, func(b *bench, source *rpki.Source) {
		b.expect(placement.Withdrawn)
		b.rule(placement.RuleRPKIInvalid)
		inv := *b.snap.Inventory
		inv.SetAside.Override = []string{"max-announced"}
		b.snap.Inventory = &inv
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		source.Set(table(64500))
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		if origin(b) != "valid" {
			t.Errorf("origin %q", origin(b))
		}
		source.Set(table(64501))
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		told := slices.ContainsFunc(b.events, func(e Event) bool { return e.Cause == "the RPKI calls our origin invalid: 192.0.2.0/24-24 AS64501" })
		if origin(b) != "invalid" || !told {
			t.Errorf("origin %q, told %v", origin(b), told)
		}
	})
	run("invalid after a restart", 64501, func(b *bench, _ *rpki.Source) { b.expect(placement.Announce) })
	path = filepath.Join(t.TempDir(), "other.json")
	run("no data", 0, func(b *bench, _ *rpki.Source) {
		b.expect(placement.Announce)
		if origin(b) != "stale" {
			t.Errorf("origin %q", origin(b))
		}
	})
	path = filepath.Join(t.TempDir(), "third.json")
	run("set aside by name", 64501, func(b *bench, _ *rpki.Source) {
		inv := *b.snap.Inventory
		inv.SetAside = placement.Audit{Who: "ann", Reason: "the ROA follows", Override: []string{"rpki-invalid"}}
		b.snap.Inventory = &inv
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
	})
}

// TestExitIsTold: the end of an anchor's process is told by the guard's own words.
func TestExitIsTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.snap.Anchors = []placement.Anchors{{Prefix: anycast, Sites: []string{"ams", "fra"}}}
		b.up()
		b.end()
		if n := countRule(b.events, placement.RuleAnchors); n != 1 {
			t.Errorf("told %d times", n)
		}
	})
}
