package bgp

import (
	"errors"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

// every is all that an operator can set aside by name, and the rule which he cannot.
func every() []string {
	return []string{"anchors", "slots", "witness", "min-sites", "blast-radius", "retire"}
}

// fleetOf hands the speaker a snapshot in which the anycast prefix may be deleted and
// retired; steps are those of the plan.
func (b *bench) fleetOf(deleted, retired bool, steps ...placement.Announcement) {
	b.t.Helper()
	snap := b.snap
	snap.Name.Plan++
	b.snap.Name.Plan++
	inv := *snap.Inventory
	other := placement.Prefix{Prefix: netip.MustParsePrefix("198.51.100.0/24"), Slots: 1}
	inv.Prefixes = append([]placement.Prefix{other}, inv.Prefixes...)
	inv.SetAside = placement.Audit{Who: "job", Override: every()}
	snap.Inventory, snap.Plan = &inv, &placement.Plan{Steps: steps}
	snap.Announcements = []placement.Announcement{{Prefix: other.Prefix, Site: "fra"}}
	if deleted {
		inv.Prefixes = inv.Prefixes[:1]
	} else {
		a := placement.Announcement{Prefix: anycast, Site: "ams", Want: snap.Plan.Step(anycast, "ams")}
		a.Intent = a.Want > placement.Announce
		snap.Announcements = append(snap.Announcements, a)
	}
	if retired {
		inv.Retirements = []placement.Retirement{{Prefix: anycast, Audit: placement.Audit{Who: "ann", Reason: "sold"}}}
	}
	b.s.Apply(b.t.Context(), &snap, b.live)
	b.pass(10 * time.Second)
}

func stepTo(want placement.Step) placement.Announcement {
	return placement.Announcement{Prefix: anycast, Site: "ams", Want: want, Intent: true}
}

// TestOnlyARetirementSilences: a prefix which is deleted stays, whatever its apply set
// aside; retired, it goes without a Slot, though the site is an anchor and alone; taken
// back, it comes back.
func TestOnlyARetirementSilences(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := start(t, func(c *Config, b *bench) { b.store.max, c.Registerer = 0, reg })
		b.snap.Anchors = []placement.Anchors{{Prefix: anycast, Sites: []string{"ams", "fra"}}}
		b.live = here("ams")
		b.up()

		b.fleetOf(true, false)
		b.expect(placement.GShut)
		b.rule(placement.RuleRetire)
		if e := b.events[len(b.events)-1]; e.Rule != placement.RuleRetire || !strings.Contains(e.Cause, "rhumb prefixes retire 192.0.2.0/24") {
			t.Errorf("the last event does not name the command: %+v", e)
		}

		b.fleetOf(false, true) // named again, and others go first
		b.expect(placement.Announce)
		b.fleetOf(false, true, stepTo(placement.Withdrawn))
		b.expect(placement.Withdrawn)
		b.rule("")
		b.fleetOf(true, true) // and deleted at last
		b.expect(placement.Withdrawn)
		if missed(t, reg) {
			t.Error("a retired prefix is still counted as announced nowhere")
		}

		b.fleetOf(false, false)
		b.expect(placement.Announce)
		if b.store.taken > 0 {
			t.Errorf("%d slots were asked for", b.store.taken)
		}
		b.end()
	})
}

// TestRetirementBesideADrain: neither keeps the other from going on, and more prefixes
// than one intent may lower are not retired at once, but by name.
func TestRetirementBesideADrain(t *testing.T) {
	drained := func(p netip.Prefix) placement.Announcement {
		return placement.Announcement{Prefix: p, Site: "lon", Want: placement.Withdrawn, Intent: true, Cause: "drained"}
	}
	second := netip.MustParsePrefix("203.0.113.0/24")
	for name, tt := range map[string]struct {
		other    func(*placement.Inventory) // what else is on its way
		override []string
		want     placement.Step
		rule     placement.RuleName
	}{
		"a drain of another site": {func(*placement.Inventory) {}, nil, placement.Withdrawn, ""},
		"a retirement of another prefix": {func(inv *placement.Inventory) {
			inv.Retirements = append(inv.Retirements, placement.Retirement{Prefix: second, Audit: placement.Audit{Who: "ann"}})
		}, nil, placement.Announce, placement.RuleBlastRadius},
		"a retirement of another prefix, by name": {func(inv *placement.Inventory) {
			inv.Retirements = append(inv.Retirements, placement.Retirement{Prefix: second, Audit: placement.Audit{Who: "ann"}})
		}, []string{"blast-radius"}, placement.Withdrawn, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, nil)
				b.live = append(here("ams", "fra", "lon"), placement.Announced{Prefix: second, Site: "lon", Node: "lon1"})
				b.up()
				snap, inv := b.snap, *b.snap.Inventory
				inv.Retirements = []placement.Retirement{{Prefix: anycast, Audit: placement.Audit{Who: "ann", Override: tt.override}}}
				tt.other(&inv)
				snap.Inventory, snap.Plan = &inv, &placement.Plan{}
				snap.Announcements = []placement.Announcement{stepTo(placement.Withdrawn), drained(second), drained(anycast6)}
				b.s.Apply(t.Context(), &snap, b.live)
				b.pass(10 * time.Second)
				b.expect(tt.want)
				b.rule(tt.rule)
				b.end()
			})
		})
	}
}

// TestRetiredAfterItsDeletion: a prefix that was deleted first waits at gshut for its turn.
func TestRetiredAfterItsDeletion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.live = here("ams", "fra", "lon")
		b.up()
		b.fleetOf(true, false)
		b.fleetOf(true, true, stepTo(placement.GShut))
		b.expect(placement.GShut)
		b.rule("")
		b.fleetOf(true, true, stepTo(placement.Withdrawn))
		b.expect(placement.Withdrawn)
		b.end()
	})
}

// TestAddressesOfARetiredPrefix: they stay on lo as long as a cluster has them, whose
// other prefixes would go with it; and they go when none has. A prefix deleted with its
// clusters by mistake keeps its address and stays.
func TestAddressesOfARetiredPrefix(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var host *fakeHost
		b := start(t, func(c *Config, b *bench) {
			host = &fakeHost{bound: make(map[netip.Addr]bool), log: b.engine}
			c.Host = host
		})
		on := func(want bool, when string) {
			t.Helper()
			if got, _ := host.Bound(vip); got != want {
				t.Errorf("%s: address on lo: %v, want %v", when, got, want)
			}
		}
		clusters := b.snap.Inventory.Sites[0].Clusters
		clusters = append(clusters, placement.Cluster{Name: "dns", Addresses: []netip.AddrPort{netip.AddrPortFrom(vip, 53)}})
		b.snap.Inventory.Sites[0].Clusters = clusters
		b.up()
		b.with(nil).fleetOf(true, false)
		b.expect(placement.GShut)
		b.rule(placement.RuleRetire)
		on(true, "deleted with its clusters")
		b.with(clusters).fleetOf(false, true, stepTo(placement.Withdrawn))
		b.expect(placement.Withdrawn)
		on(true, "retired")
		b.fleetOf(true, true)
		on(true, "retired and deleted, and the cluster has it still")
		b.with(nil).fleetOf(true, true)
		on(false, "and the cluster not any more")
		b.end()
	})
}

// with gives the site other clusters from here on.
func (b *bench) with(clusters []placement.Cluster) *bench {
	inv := *b.snap.Inventory
	inv.Sites = append([]placement.Site{{Name: "ams", Number: 1, Clusters: clusters}}, inv.Sites[1:]...)
	b.snap.Inventory = &inv
	return b
}

// TestRetiredWithoutItsServer: who retires a prefix may stop its servers before: that
// their loss would be held by the rules of failures keeps nothing.
func TestRetiredWithoutItsServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var dead atomic.Bool
		b := start(t, func(c *Config, b *bench) {
			b.store.max = 0
			c.Listening = func(netip.Prefix) error {
				if dead.Load() {
					return errors.New("nobody listens on 192.0.2.53")
				}
				return nil
			}
		})
		b.snap.Anchors = []placement.Anchors{{Prefix: anycast, Sites: []string{"ams", "fra"}}}
		b.up()
		dead.Store(true)
		b.pass(5 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleAnchors)
		b.fleetOf(false, true, stepTo(placement.Withdrawn))
		b.expect(placement.Withdrawn)
		b.end()
	})
}

// missed tells whether the anycast prefix is told as one which should be announced.
func missed(t *testing.T, reg *prometheus.Registry) bool {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "rhumb_anycast_prefix_announced" && l.GetValue() == anycast.String() {
					return true
				}
			}
		}
	}
	return false
}
