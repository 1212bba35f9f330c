package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"rhumb/placement"
)

// sample is a fleet of three sites and a zone.
func sample(zone []byte) (*placement.Fleet, map[string][]byte) {
	f := &placement.Fleet{Version: 1, Mode: placement.Act,
		Sites:    []placement.Site{{Name: "ams1", Number: 1}, {Name: "fra1", Number: 2}, {Name: "lhr1", Number: 3}},
		Prefixes: []placement.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Slots: 1}}}
	if zone == nil {
		return f, nil
	}
	f.Zones = []placement.Zone{{Name: "example.test.", SHA256: digest(zone), Size: len(zone)}}
	return f, map[string][]byte{digest(zone): zone}
}

// viewWhere waits for a view that satisfies ok.
func viewWhere(t *testing.T, ch <-chan *View, what string, ok func(*View) bool) *View {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		select {
		case v, open := <-ch:
			if !open {
				t.Fatalf("views ended before: %s", what)
			}
			if ok(v) {
				return v
			}
		case <-limit.C:
			t.Fatalf("no view: %s", what)
		}
	}
}

func mustPutFleet(t *testing.T, s *Store, f *placement.Fleet, blobs map[string][]byte, expect int64) int64 {
	t.Helper()
	rev, err := s.PutFleet(ctxFor(t), f, blobs, expect, "kim", "test")
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestInventoryRevision(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s := open()
		ctx := ctxFor(t)
		ch := open().Follow(ctx)
		viewWhere(t, ch, "empty", func(v *View) bool { return v.Connected && v.Inventory == nil })
		f, blobs := sample([]byte("zone"))
		rev := mustPutFleet(t, s, f, blobs, 0)
		v := viewWhere(t, ch, "configuration", func(v *View) bool { return v.Inventory != nil })
		if v.Inventory.Revision != rev || len(v.Inventory.Sites) != 3 {
			t.Errorf("inventory %d with %d sites, want %d with 3", v.Inventory.Revision, len(v.Inventory.Sites), rev)
		}
		drained, err := s.PutDrain(ctx, placement.Drain{Site: "ams1", Audit: placement.Audit{Who: "kim", Reason: "disk"}})
		if err != nil {
			t.Fatal(err)
		}
		// What no inventory is made of must not change its revision.
		if err := s.Heartbeat(ctx); err != nil {
			t.Fatal(err)
		}
		v = viewWhere(t, ch, "drain and heartbeat", func(v *View) bool {
			return v.Inventory.Drained("ams1") != nil && !v.Heartbeat.IsZero()
		})
		if v.Inventory.Revision != drained || v.InventoryAt(rev) == nil || v.InventoryAt(rev).Drained("ams1") != nil {
			t.Errorf("inventory %d, want %d, with %d unchanged beside it", v.Inventory.Revision, drained, rev)
		}
		// Another process which comes later sees the same under the same name.
		w := viewWhere(t, open().Follow(ctx), "late", func(v *View) bool { return v.Inventory != nil })
		if w.Inventory.Revision != drained {
			t.Errorf("a late reader names it %d, want %d", w.Inventory.Revision, drained)
		}
		// A second drain judged before the first one was stored must be judged anew.
		second := placement.Drain{Site: "nyc1", Audit: placement.Audit{Who: "lee", Reason: "power"}}
		if _, err := s.Expecting(rev).PutDrain(ctx, second); !errors.Is(err, ErrConflict) {
			t.Errorf("a drain upon an old inventory: %v", err)
		}
		if drained, err = s.Expecting(drained).PutForce(ctx, placement.Force{Object: placement.SiteID("ams1"), State: placement.ForceUp}); err != nil {
			t.Errorf("a force upon the newest inventory: %v", err)
		}
		if _, err := s.PutFleet(ctx, f, nil, rev, "lee", ""); !errors.Is(err, ErrConflict) {
			t.Errorf("apply upon an old inventory: %v", err)
		}
		mustPutFleet(t, s, f, nil, drained)
	})
}

func TestDocumentsLargerThanARequest(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s := open()
		// Noise, since the document is compressed: 2.4 MB after it.
		noise := make([]byte, 32)
		zone := make([]byte, 3*chunkSize/2)
		x := uint32(1)
		for i := range zone {
			x = x*1664525 + 1013904223
			zone[i] = byte(x >> 24)
		}
		f, blobs := sample(zone)
		for i := range 50_000 {
			for k := range noise {
				x = x*1664525 + 1013904223
				noise[k] = byte(x >> 24)
			}
			f.Services = append(f.Services, placement.Service{Name: fmt.Sprintf("svc%d-%x", i, noise)})
		}
		mustPutFleet(t, s, f, blobs, 0)
		p, err := s.one(ctxFor(t), keyConfig)
		if err != nil {
			t.Fatal(err)
		}
		h, err := unseal[head](p.value)
		if err != nil || h.Chunks < 3 {
			t.Fatalf("%d chunks, err %v: the test proves nothing", h.Chunks, err)
		}
		v := viewWhere(t, open().Follow(ctxFor(t)), "configuration", func(v *View) bool { return v.Inventory != nil })
		if n := len(v.Inventory.Services); n != 50_000 {
			t.Errorf("%d services came back", n)
		}
		if b, err := s.Blob(ctxFor(t), digest(zone)); err != nil || !bytes.Equal(b, zone) {
			t.Errorf("zone: %d bytes, %v", len(b), err)
		}
	})
}

func TestHistory(t *testing.T) {
	s := memoryStore(t, NewMemory())
	rev := int64(0)
	for i := range keptVersions + 5 {
		f, blobs := sample(fmt.Appendf(nil, "zone %d", i))
		f.Version = i + 1
		rev = mustPutFleet(t, s, f, blobs, 0)
	}
	all, err := s.History(ctxFor(t))
	if err != nil || len(all) != keptVersions {
		t.Fatalf("%d versions, err %v", len(all), err)
	}
	if all[0].Number != keptVersions+5 || all[0].Who != "kim" || all[0].Revision != rev || all[1].Revision >= rev {
		t.Errorf("newest: %+v", all[0])
	}
	f, err := s.FleetAt(ctxFor(t), all[len(all)-1].Number)
	if err != nil || f.Version != 6 {
		t.Fatalf("oldest kept: %+v, %v", f, err)
	}
	if _, err := s.Blob(ctxFor(t), f.Zones[0].SHA256); err != nil {
		t.Errorf("its zone: %v", err)
	}
	if _, err := s.FleetAt(ctxFor(t), 5); !errors.Is(err, ErrNotFound) {
		t.Errorf("beyond the kept ones: %v", err)
	}
	if _, err := s.Blob(ctxFor(t), digest([]byte("zone 4"))); !errors.Is(err, ErrNotFound) {
		t.Errorf("a zone that nothing names: %v", err)
	}
	docs, _ := mustRead(t, s.kv, query{span: under(dirDocs), keysOnly: true})
	if len(docs[0]) != keptVersions {
		t.Errorf("%d documents left", len(docs[0]))
	}
}

func TestPutFleetRefuses(t *testing.T) {
	s := memoryStore(t, NewMemory())
	zone := []byte("zone")
	named, blobs := sample(zone)
	for _, tt := range []struct {
		name  string
		blobs map[string][]byte
		want  string
	}{
		{"a zone nobody gave", nil, "neither given nor stored"},
		{"a zone of another content", map[string][]byte{digest(zone): []byte("other")}, "does not match"},
		{"a zone too large", map[string][]byte{digest(zone): make([]byte, maxBlob+1)}, "at most"},
	} {
		_, err := s.PutFleet(ctxFor(t), named, tt.blobs, 0, "kim", "")
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	mustPutFleet(t, s, named, blobs, 0)
	mustWrite(t, s.kv, nil, put(keySchema, []byte(`{"schema":2,"value":"2030-01-01T00:00:00Z"}`)))
	if _, err := s.PutFleet(ctxFor(t), named, blobs, 0, "kim", ""); !errors.Is(err, ErrSchema) {
		t.Errorf("newer schema: %v", err)
	}
}

// memoryStore opens a Store on a twin.
func memoryStore(t testing.TB, m *Memory) *Store {
	t.Helper()
	s, err := Open(context.Background(), Config{Memory: m})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Appliers and sweeps race; whatever stays in the history is whole, its zones too.
func TestAppliersRace(t *testing.T) {
	m := NewMemory()
	var appliers sync.WaitGroup
	for a := range 4 {
		s := memoryStore(t, m)
		appliers.Go(func() {
			for i := range 15 {
				// Few different zones, so that one is dropped by some and taken up by others.
				f, blobs := sample(fmt.Appendf(nil, "zone %d", (i+a)%3))
				_, err := s.PutFleet(ctxFor(t), f, blobs, 0, "kim", "")
				if err != nil && !errors.Is(err, ErrConflict) {
					t.Error(err)
				}
			}
		})
	}
	appliers.Wait()
	s := memoryStore(t, m)
	all, err := s.History(ctxFor(t))
	if err != nil || len(all) < keptVersions {
		t.Fatalf("%d versions, %v", len(all), err)
	}
	for _, v := range all {
		f, err := s.FleetAt(ctxFor(t), v.Number)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Blob(ctxFor(t), f.Zones[0].SHA256); err != nil {
			t.Errorf("version %d: %v", v.Number, err)
		}
	}
}

// Of two who judged the same inventory one is told that it changed.
func TestApplyComparesInventory(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s := open()
		f, _ := sample(nil)
		rev := mustPutFleet(t, s, f, nil, 0)
		errs := make(chan error)
		for range 3 {
			door := open()
			go func() {
				_, err := door.PutFleet(ctxFor(t), f, nil, rev, "kim", "")
				errs <- err
			}()
		}
		won := 0
		for range 3 {
			if err := <-errs; err == nil {
				won++
			} else if !errors.Is(err, ErrConflict) {
				t.Error(err)
			}
		}
		if won != 1 {
			t.Errorf("%d of three applied upon inventory %d", won, rev)
		}
	})
}

// Zones are served while the store is away, and never a damaged one.
func TestBlobCache(t *testing.T) {
	m, dir := NewMemory(), t.TempDir()
	s, err := Open(t.Context(), Config{Memory: m, BlobCache: dir})
	if err != nil {
		t.Fatal(err)
	}
	zone := []byte("zone")
	f, blobs := sample(zone)
	mustPutFleet(t, s, f, blobs, 0)
	if _, err := s.Blob(ctxFor(t), digest(zone)); err != nil {
		t.Fatal(err)
	}
	m.Cut()
	if b, err := s.Blob(ctxFor(t), digest(zone)); err != nil || !bytes.Equal(b, zone) {
		t.Errorf("while away: %q, %v", b, err)
	}
	if err := os.WriteFile(s.cache.path(digest(zone)), []byte("zond"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if b, err := s.Blob(ctx, digest(zone)); err == nil {
		t.Errorf("a damaged zone was served: %q", b)
	}
	m.Heal()
	if b, err := s.Blob(ctxFor(t), digest(zone)); err != nil || !bytes.Equal(b, zone) {
		t.Errorf("after: %q, %v", b, err)
	}
	// What the store holds is verified too.
	mustWrite(t, s.kv, nil, put(blobDir("ab")+chunkName(0), zone))
	if b, err := s.Blob(ctxFor(t), "ab"); err == nil {
		t.Errorf("a wrong digest was served: %q", b)
	}
}
