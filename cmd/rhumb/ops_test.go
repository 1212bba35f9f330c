package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/internal/api"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/store"
)

// opsUnit is a unit of the sample fleet with a store in memory, and a snapshot in
// which all is up. What it tells the log stays in its queue.
func opsUnit(t *testing.T) *unit {
	t.Helper()
	st, err := store.Open(t.Context(), store.Config{Memory: store.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	inv, c := sampleFleet(t), testClasses(t)
	fleet := inv.Fleet
	fleet.Zones = nil // their bytes are not here
	if inv.Revision, err = st.PutFleet(t.Context(), &fleet, nil, 0, "test", ""); err != nil {
		t.Fatal(err)
	}
	u := &unit{cfg: &config.Node{Node: config.Self{Name: "ams1-a", Site: "ams1"}}, store: st, views: &hub{}, current: &placement.Current{},
		classes: c, log: slog.New(slog.DiscardHandler)}
	u.events = newEventQueue(st.AddEvent, u.log, prometheus.NewRegistry())
	snap := snapshotOf(t, inv, c, "", 1)
	u.current.Store(snap)
	u.views.publish(&store.View{Revision: 1, Inventory: inv, Plan: snap.Plan, Votes: votesOf(inv, ""), Connected: true})
	return u
}

// stored returns the intents in the store, as another node would read them.
func stored(t *testing.T, u *unit) placement.Intents {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fleet := u.views.view().Inventory.Fleet
	fleet.Zones = nil // their bytes are not here
	if _, err := u.store.PutFleet(ctx, &fleet, nil, 0, "test", ""); err != nil {
		t.Fatal(err)
	}
	for v := range u.store.Follow(ctx) {
		if v.Inventory != nil {
			return v.Inventory.Intents
		}
	}
	t.Fatal("the store shows no inventory")
	return placement.Intents{}
}

// storedRevision is the revision of the inventory in the store.
func storedRevision(t *testing.T, u *unit) int64 {
	t.Helper()
	for v := range u.store.Follow(t.Context()) {
		if v.Inventory != nil {
			return v.Inventory.Revision
		}
	}
	t.Fatal("the store shows no inventory")
	return 0
}

// showRevision lets the unit see that its inventory has got a newer revision.
func showRevision(u *unit, revision int64) {
	v := *u.views.view()
	inv := *v.Inventory
	inv.Revision = revision
	v.Inventory, v.Revision = &inv, v.Revision+1
	u.views.publish(&v)
}

// TestJudgedAnew: a drain which was judged before another was stored is judged by
// it, and refused where both together break a rule.
func TestJudgedAnew(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	d := placement.Drain{Site: "tyo1", Audit: placement.Audit{Who: "ann", Reason: "fibre", Override: []string{"min-headroom"}}}
	out, err := o.Drain(ctx, d, false)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(2 * judgePause)
		inv := *u.views.view().Inventory
		inv.Revision, inv.Drains = out.Revision, []placement.Drain{d}
		u.views.publish(&store.View{Revision: 9, Inventory: &inv, Connected: true})
	}()
	second := d
	second.Site = "nyc1"
	var r *placement.Refusal
	if _, err := o.Drain(ctx, second, false); !errors.As(err, &r) || r.Rule != placement.RuleMaxDrains {
		t.Errorf("a second drain, by a view which does not show the first: %v", err)
	}
}

// toldLog takes what waits for the log.
func toldLog(u *unit) (out []string) {
	for {
		select {
		case e := <-u.events.waiting:
			out = append(out, e.Kind+" "+e.Site+" "+e.Who+": "+e.Text)
		default:
			return out
		}
	}
}

// TestDrainByHand: a drain tried, made and taken back.
func TestDrainByHand(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	d := placement.Drain{Site: "tyo1", Audit: placement.Audit{Who: "ann", Reason: "fibre", Since: time.Unix(5, 0)}}
	d.Override = []string{"min-headroom"}
	out, err := o.Drain(ctx, d, true)
	if err != nil || out.Revision != 0 || out.Forecast == nil || len(toldLog(u)) != 0 {
		t.Fatalf("dry run: %+v, %v", out, err)
	}
	if out, err = o.Drain(ctx, d, false); err != nil || out.Revision == 0 || out.Undo != "rhumb undrain tyo1" {
		t.Fatalf("drain: %+v, %v", out, err)
	}
	if got := toldLog(u); !slices.Equal(got, []string{"drain tyo1 ann: tyo1 drains: fibre"}) {
		t.Errorf("told %q", got)
	}
	in := stored(t, u)
	if got := in.Drained("tyo1"); got == nil || got.Reason != "fibre" {
		t.Fatalf("stored: %+v", got)
	}

	if _, err := o.Undrain(ctx, api.Undrain{Site: "tyo1", Who: "ann"}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("undrain of what this unit does not see drained: %v, want not found", err)
	}
	inv := *u.views.view().Inventory
	inv.Drains = []placement.Drain{d}
	u.views.publish(&store.View{Revision: 2, Inventory: &inv, Connected: true})
	if _, err := o.Undrain(ctx, api.Undrain{Site: "tyo1", Who: "ann", Ramp: placement.Duration(time.Minute)}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("a ramp nobody keeps: %v, want invalid", err)
	}
	if _, err := o.Undrain(ctx, api.Undrain{Site: "tyo1", Who: "ann"}); err != nil {
		t.Fatal(err)
	}
	in = stored(t, u)
	if in.Drained("tyo1") != nil {
		t.Error("the drain still holds")
	}
}

// TestDrainOfANode: one edge of a site drains, and not the last one that takes sessions.
func TestDrainOfANode(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	inv := *u.views.view().Inventory
	inv.Sites = slices.Clone(inv.Sites)
	at := slices.IndexFunc(inv.Sites, func(s placement.Site) bool { return s.Name == "tyo1" })
	inv.Sites[at].Edge = netip.AddrPort{}
	inv.Sites[at].Nodes = []placement.EdgeNode{{Name: "n1"}, {Name: "n2"}}
	u.views.publish(&store.View{Revision: 2, Inventory: &inv, Connected: true})
	d := placement.Drain{Site: "tyo1/n1", Audit: placement.Audit{Who: "ann", Reason: "disk", Since: time.Unix(5, 0)}}
	out, err := o.Drain(ctx, d, false)
	if err != nil || out.Forecast != nil || out.Undo != "rhumb undrain tyo1/n1" {
		t.Fatalf("%+v, %v", out, err)
	}
	in := stored(t, u)
	if in.Drained("tyo1/n1") == nil || in.Drained("tyo1") != nil {
		t.Errorf("stored %+v", in.Drains)
	}
	inv.Drains = []placement.Drain{d}
	u.views.publish(&store.View{Revision: 3, Inventory: &inv, Connected: true})
	var refusal *placement.Refusal
	if _, err := o.Drain(ctx, placement.Drain{Site: "tyo1/n2", Audit: d.Audit}, true); !errors.As(err, &refusal) || refusal.Rule != placement.RuleMinSites {
		t.Errorf("the last node: %v", err)
	}
	if _, err := o.Drain(ctx, placement.Drain{Site: "tyo1/n9", Audit: d.Audit}, true); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("no such node: %v", err)
	}
	if out, err := o.Undrain(ctx, api.Undrain{Site: "tyo1/n1", Who: "ann"}); err != nil || !strings.Contains(out.Text, "takes sessions again") {
		t.Errorf("%+v, %v", out, err)
	}
}

// TestRefusedByHand: what a rule refuses is a Refusal, stored nowhere, and told
// to the log unless it was only tried.
func TestRefusedByHand(t *testing.T) {
	u := opsUnit(t)
	inv := *u.views.view().Inventory
	inv.Drains = []placement.Drain{{Site: "nyc1", Audit: placement.Audit{Who: "bob", Reason: "power"}}}
	u.views.publish(&store.View{Revision: 2, Inventory: &inv, Connected: true})
	o := ops{u}
	audit := placement.Audit{Who: "ann", Reason: "x"}
	for name, do := range map[string]func(dry bool) error{
		"drain": func(dry bool) error {
			_, err := o.Drain(t.Context(), placement.Drain{Site: "tyo1", Audit: audit}, dry)
			return err
		},
		"force down": func(dry bool) error {
			_, err := o.Force(t.Context(), placement.Force{Object: placement.SiteID("tyo1"), State: placement.ForceDown, Audit: audit}, dry)
			return err
		},
		"dial": func(dry bool) error {
			_, err := o.Dial(t.Context(), placement.Dial{Site: "tyo1", Audit: audit}, dry)
			return err
		},
	} {
		for _, dry := range []bool{true, false} {
			var r *placement.Refusal
			if err := do(dry); !errors.As(err, &r) {
				t.Errorf("%s: %v, want a refusal", name, err)
			}
			got := toldLog(u)
			if want := !dry; (len(got) == 1 && strings.Contains(got[0], "tyo1 ann: "+name) && strings.Contains(got[0], "refused: ")) != want || len(got) > 1 {
				t.Errorf("%s, dry %v: told %q", name, dry, got)
			}
		}
	}
	in := stored(t, u)
	if len(in.Drains)+len(in.Forces)+len(in.Dials) != 0 {
		t.Errorf("stored all the same: %+v", in)
	}
}

// TestWordsByHand: force, dial, freeze, thaw and pin reach the store, and their ends do.
func TestWordsByHand(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	audit := placement.Audit{Who: "ann", Reason: "x", Since: time.Unix(5, 0)}
	web := placement.ClusterID{Site: "tyo1", Name: "web"}
	must := func(out api.Outcome, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		showRevision(u, max(out.Revision, u.views.view().Inventory.Revision))
	}
	must(o.Force(ctx, placement.Force{Object: web, State: placement.ForceDown, Audit: audit}, false))
	must(o.Dial(ctx, placement.Dial{Site: "tyo1", PerMille: 900, Audit: audit}, false))
	must(o.Dial(ctx, placement.Dial{Site: "tyo1/web", PerMille: 800, Audit: audit}, false))
	must(o.Freeze(ctx, placement.Freeze{Audit: audit}))
	in := stored(t, u)
	if in.Forced(web) != placement.ForceDown || len(in.Dials) != 2 || in.Dials[0].PerMille != 900 || in.Dials[1].Site != "tyo1/web" || in.Dials[1].PerMille != 800 || !in.Frozen() {
		t.Errorf("stored: %+v", in)
	}
	if _, err := o.Thaw(ctx, "ann"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("thaw of what this unit does not see frozen: %v", err)
	}
	inv := *u.views.view().Inventory
	inv.Intents = in
	u.views.publish(&store.View{Revision: 20, Inventory: &inv, Connected: true})
	showRevision(u, storedRevision(t, u))
	must(o.Force(ctx, placement.Force{Object: web, Audit: audit}, false))
	must(o.Dial(ctx, placement.Dial{Site: "tyo1", PerMille: 1000, Audit: audit}, false))
	must(o.Dial(ctx, placement.Dial{Site: "tyo1/web", PerMille: 1000, Audit: audit}, false))
	must(o.Thaw(ctx, "ann"))
	in = stored(t, u)
	if in.Forced(web) != placement.NoForce || in.Dials[0].Live() || in.Dials[1].Live() || in.Frozen() {
		t.Errorf("ended: %+v", in)
	}
	if _, err := o.Pin(ctx, placement.Pin{Site: "tyo1", Revision: 77, Audit: audit}); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a pin to a plan that never was: %v, want not found", err)
	}
}

// TestWishesInVain: what names nothing, or comes too early.
func TestWishesInVain(t *testing.T) {
	u := opsUnit(t)
	o, ctx := ops{u}, t.Context()
	for name, do := range map[string]func() error{
		"drain": func() error { _, err := o.Drain(ctx, placement.Drain{Site: "nowhere"}, false); return err },
		"force": func() error {
			_, err := o.Force(ctx, placement.Force{Object: placement.ClusterID{Site: "ams1", Name: "x"}}, false)
			return err
		},
		"dial": func() error { _, err := o.Dial(ctx, placement.Dial{Site: "nowhere"}, false); return err },
		"dial of no cluster": func() error {
			_, err := o.Dial(ctx, placement.Dial{Site: "tyo1/mail"}, false)
			return err
		},
		"what if no cluster": func() error {
			_, err := o.Simulate(ctx, api.SimulateRequest{Dial: map[string]float64{"tyo1/mail": 5}})
			return err
		},
		"slot":     func() error { _, err := o.FreeSlot(ctx, api.FreeSlot{Number: 1}); return err },
		"simulate": func() error { _, err := o.Simulate(ctx, api.SimulateRequest{Down: []string{"nowhere"}}); return err },
	} {
		if err := do(); !errors.Is(err, api.ErrNotFound) {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
	if _, err := o.Simulate(ctx, api.SimulateRequest{Dial: map[string]float64{"tyo1": 101}}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("more than all: %v, want invalid", err)
	}
	if _, err := o.Simulate(ctx, api.SimulateRequest{Growth: 1.2}); !errors.Is(err, api.ErrInvalid) {
		t.Errorf("half a forecast: %v, want invalid", err)
	}
	u.current = &placement.Current{}
	if _, err := o.Drain(ctx, placement.Drain{Site: "ams1"}, false); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("before the first snapshot: %v, want unavailable", err)
	}
}

// TestSimulateLosses: the table of single losses is worst first, and what a lost
// site carried arrives elsewhere.
func TestSimulateLosses(t *testing.T) {
	f, err := ops{opsUnit(t)}.Simulate(t.Context(), api.SimulateRequest{Down: []string{"tyo1"}, Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	var before, after int64
	for _, s := range f.Sites {
		before, after = before+s.Before, after+s.After
		if s.Site == "tyo1" && (s.Before == 0 || s.After != 0) {
			t.Errorf("the lost site carries %d, carried %d", s.After, s.Before)
		}
	}
	if before == 0 || after != before {
		t.Errorf("%d queries before, %d after", before, after)
	}
	if len(f.Alone) != 3 || !slices.IsSortedFunc(f.Alone, func(a, b api.Failure) int { return cmp.Compare(b.Load, a.Load) }) {
		t.Errorf("single losses: %+v", f.Alone)
	}
}

// TestFleetChanges: what an apply would change, by kind and name, and nothing else.
func TestFleetChanges(t *testing.T) {
	old := sampleFleet(t).Fleet
	next := sampleFleet(t).Fleet
	if got := fleetChanges(&old, &next); len(got) != 0 {
		t.Errorf("nothing changed: %+v", got)
	}
	next.Sites = next.Sites[1:]
	next.Services = append(slices.Clone(next.Services), placement.Service{Name: "new"})
	next.Policies[0].Pick++
	next.Mode = placement.Act
	var got []string
	for _, c := range fleetChanges(&old, &next) {
		got = append(got, fmt.Sprint(c.Kind, " ", c.Object, " ", c.Verb))
	}
	want := []string{"site ams1 removed", "policy " + next.Policies[0].Name + " changed", "service new added", "fleet fleet changed"}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

// TestStoreErrors: the store's errors in the API's words, the cause kept.
func TestStoreErrors(t *testing.T) {
	for _, c := range []struct{ from, want error }{
		{store.ErrConflict, api.ErrConflict}, {store.ErrNotFound, api.ErrNotFound}, {context.DeadlineExceeded, api.ErrUnavailable},
		{errors.Join(context.DeadlineExceeded, store.ErrConflict), api.ErrConflict},
	} {
		if err := storeError(fmt.Errorf("put: %w", c.from)); !errors.Is(err, c.want) || !errors.Is(err, c.from) {
			t.Errorf("%v became %v, want %v", c.from, err, c.want)
		}
	}
	other := errors.New("disk full")
	if err := storeError(other); err != other {
		t.Errorf("another error became %v", err)
	}
	if storeError(nil) != nil {
		t.Error("no error became one")
	}
}

// TestSimulateDial: a cluster that is dialled to nothing carries nothing, and nothing is stored.
func TestSimulateDial(t *testing.T) {
	u := opsUnit(t)
	f, err := ops{u}.Simulate(t.Context(), api.SimulateRequest{Dial: map[string]float64{"tyo1/web": 0}})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range f.Sites {
		if s.Site == "tyo1" && (s.Before == 0 || s.After != 0) {
			t.Errorf("the dialled site carries %d, carried %d", s.After, s.Before)
		}
	}
	if in := stored(t, u); len(in.Dials) != 0 {
		t.Errorf("stored: %+v", in.Dials)
	}
}

// TestApplyNeedsEveryNode: what a node of an earlier release would leave out is not applied
// while it lives, and not by halves.
func TestApplyNeedsEveryNode(t *testing.T) {
	u := opsUnit(t)
	v := *u.views.view()
	v.Nodes = []placement.Node{{Name: "ams1-a", Algorithms: []int{1, 2}}, {Name: "tyo1-a", Unit: "rhumb-dns", Version: "0.0.9", Algorithms: []int{1}}}
	u.views.publish(&v)
	f := v.Inventory.Fleet
	f.Policies = slices.Clone(f.Policies)
	f.Policies[0].SkipFirst = 1
	for _, dry := range []bool{true, false} {
		_, err := ops{u}.Apply(t.Context(), api.ApplyRequest{Fleet: f, Who: "ann", DryRun: dry})
		if !errors.Is(err, api.ErrInvalid) || !strings.Contains(err.Error(), "skip_first of policy "+f.Policies[0].Name+" needs algorithm 2, and node tyo1-a (rhumb-dns, release 0.0.9) runs algorithms [1]: upgrade it first") {
			t.Errorf("dry %v: %v", dry, err)
		}
	}
	v.Nodes[1].Algorithms = placement.Algorithms()
	u.views.publish(&v)
	if _, err := (ops{u}).Apply(t.Context(), api.ApplyRequest{Fleet: f, Who: "ann", DryRun: true}); err != nil {
		t.Errorf("once it is upgraded: %v", err)
	}
}
