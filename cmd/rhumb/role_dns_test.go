package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/authdns"
	"rhumb/authdns/transfer"
	"rhumb/placement"
)

// fakeZones notes what a keeper hands over: "name digest" of each zone, and the
// steered names after a bar.
type fakeZones struct{ set []string }

func (f *fakeZones) SetZones(sources []authdns.Source) []error {
	var out []string
	var steered []string
	for _, s := range sources {
		out = append(out, strings.Join(strings.Fields(s.Zone.Name+" "+string(s.Data)+" "+s.Unserved), " "))
		steered = s.Steered
	}
	f.set = append(f.set, strings.Join(out, ", ")+" | "+strings.Join(steered, " "))
	return nil
}

func (f *fakeZones) Apply(context.Context, *placement.Snapshot) {}

// zoneInv makes an inventory of zones "name digest", with one service's names.
func zoneInv(names string, zones ...string) *placement.Snapshot {
	inv := &placement.Inventory{}
	for _, z := range zones {
		name, sha, _ := strings.Cut(z, " ")
		inv.Zones = append(inv.Zones, placement.Zone{Name: name, SHA256: sha})
	}
	inv.Services = []placement.Service{{Name: "www", Names: strings.Fields(names)}}
	return &placement.Snapshot{Inventory: inv}
}

// TestZoneKeeper: what reaches the server after each snapshot.
func TestZoneKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var missing atomic.Bool // digest 2
		fetched := 0
		zones := &fakeZones{}
		z := &zoneKeeper{zones: zones, log: slog.New(slog.DiscardHandler), wanted: newBox[*placement.Inventory](),
			blob: func(_ context.Context, sha string) ([]byte, error) {
				fetched++
				if sha == "2" && missing.Load() {
					return nil, errors.New("not to be had")
				}
				return []byte(sha), nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- z.run(ctx) }()
		apply := func(s *placement.Snapshot) {
			z.Apply(ctx, s)
			synctest.Wait()
		}
		want := func(step string, sets ...string) {
			t.Helper()
			if !slices.Equal(zones.set, sets) {
				t.Errorf("%s: the server was given %q, want %q", step, zones.set, sets)
			}
			zones.set = nil
		}
		apply(zoneInv("www.a.test", "a.test 1", "b.test 1"))
		want("first", "a.test 1, b.test 1 | www.a.test")
		n := fetched
		apply(zoneInv("www.a.test", "a.test 1", "b.test 1"))
		want("nothing new")
		if fetched != n {
			t.Error("zones that are served were fetched again")
		}
		apply(zoneInv("www.a.test new.a.test", "a.test 1", "b.test 1"))
		want("a steered name more", "a.test 1, b.test 1 | www.a.test new.a.test")

		missing.Store(true)
		apply(zoneInv("w", "a.test 2", "b.test 3", "c.test 2"))
		want("two are missing: one keeps its version, one is not served, the third moves on", "a.test 1, b.test 3 | w")
		missing.Store(false)
		time.Sleep(zoneRetry)
		synctest.Wait()
		want("tried again", "a.test 2, b.test 3, c.test 2 | w")
		time.Sleep(10 * zoneRetry)
		synctest.Wait()
		want("and then no more")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// fakeCopies holds what a test says of each zone.
type fakeCopies struct {
	wanted []string
	held   map[string]transfer.Held
	listed map[string]transfer.Listing
}

func (f *fakeCopies) Set(zones []transfer.Incoming) {
	f.wanted = nil
	for _, z := range zones {
		f.wanted = append(f.wanted, fmt.Sprintf("%s %v %s %g", z.Name, z.Primaries, z.Key, z.KeepNames))
	}
}

func (f *fakeCopies) Held(zone string) (transfer.Held, bool) {
	h, ok := f.held[zone]
	return h, ok
}

func (f *fakeCopies) Listed(zone string) transfer.Listing { return f.listed[zone] }

// TestZoneKeeperCopies: zones that come from primaries reach the server as they are
// held, and keep no other zone waiting.
func TestZoneKeeperCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		zones, held := &fakeZones{}, &fakeCopies{held: map[string]transfer.Held{"c.test": {Unserved: "not received yet"}}}
		changed := make(chan struct{}, 1)
		z := &zoneKeeper{zones: zones, copies: held, changed: changed, log: slog.New(slog.DiscardHandler), wanted: newBox[*placement.Inventory](),
			blob: func(_ context.Context, sha string) ([]byte, error) { return []byte(sha), nil }}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- z.run(ctx) }()
		want := func(step string, sets ...string) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(zones.set, sets) {
				t.Errorf("%s: the server was given %q, want %q", step, zones.set, sets)
			}
			zones.set = nil
		}
		changed <- struct{}{}
		want("nothing is known yet")
		s := zoneInv("w", "a.test 1", "c.test")
		s.Inventory.Safety.KeepNames = 0.7
		s.Inventory.Zones[1].Secondary = &placement.Secondary{Primaries: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Key: "k."}
		z.Apply(ctx, s)
		want("never received", "a.test 1, c.test not received yet | w")
		if got := strings.Join(held.wanted, ", "); got != "c.test [192.0.2.1:53] k. 0.7" {
			t.Errorf("to be copied: %s", got)
		}
		for _, h := range []transfer.Held{{Data: []byte("v1"), SHA256: "1", Serial: 1}, {Data: []byte("v2"), SHA256: "2", Serial: 2}} {
			held.held["c.test"] = h
			changed <- struct{}{}
			want("received", "a.test 1, c.test "+string(h.Data)+" | w")
		}
		changed <- struct{}{}
		want("told, and nothing is new")
		held.held["c.test"] = transfer.Held{Data: []byte("v2"), SHA256: "2", Serial: 2, Unserved: "expired"}
		changed <- struct{}{}
		want("expired", "a.test 1, c.test v2 expired | w")

		shrinks := *s.Inventory.Zones[1].Secondary
		shrinks.AllowShrink = true
		next := zoneInv("w", "a.test 1", "c.test")
		next.Inventory.Safety.KeepNames = 0.7
		next.Inventory.Zones[1].Secondary = &shrinks
		z.Apply(ctx, next)
		synctest.Wait()
		if got := strings.Join(held.wanted, ", "); got != "c.test [192.0.2.1:53] k. 0" {
			t.Errorf("to be copied with allow_shrink: %s", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
