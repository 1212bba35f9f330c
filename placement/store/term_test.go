package store

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

func TestPublish(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		ctx := ctxFor(t)
		s := open()
		f, _ := sample(nil)
		old := mustPutFleet(t, s, f, nil, 0)
		term, err := s.Campaign(ctx, "ams1-a")
		if err != nil {
			t.Fatal(err)
		}
		ch := open().Follow(ctx)
		for want := int64(1); want <= 2; want++ {
			p := &placement.Plan{Inputs: placement.Inputs{Inventory: old}, By: "ams1-a"}
			rev, err := s.Publish(ctx, term, p)
			if err != nil || rev != want || p.Revision != 0 {
				t.Fatalf("revision %d, want %d; the caller's plan has %d; err %v", rev, want, p.Revision, err)
			}
		}
		v := viewWhere(t, ch, "plan 2", func(v *View) bool { return v.Plan != nil && v.Plan.Revision == 2 })
		if v.Leader != "ams1-a" {
			t.Errorf("leader %q", v.Leader)
		}
		if p, err := s.PlanAt(ctx, 1); err != nil || p.Revision != 1 {
			t.Errorf("plan 1: %+v, %v", p, err)
		}
		// The intents move on; who comes late can still unfold the plan.
		if _, err := s.PutFreeze(ctx, placement.Freeze{Audit: placement.Audit{Who: "kim", Reason: "audit"}}); err != nil {
			t.Fatal(err)
		}
		f.Version = 9
		mustPutFleet(t, s, f, nil, 0)
		late := viewWhere(t, open().Follow(ctx), "late", func(v *View) bool { return v.Inventory != nil && v.Inventory.Version == 9 })
		in := late.InventoryAt(old)
		if in == nil || in.Version != 1 || in.Frozen() || !late.Inventory.Frozen() {
			t.Errorf("the plan's inventory: %+v", in)
		}
		term.Resign()
		select {
		case <-term.Done():
		default:
			t.Error("a resigned term goes on")
		}
		if _, err := s.Publish(ctx, term, &placement.Plan{}); !errors.Is(err, ErrTermLost) {
			t.Errorf("publish after the term: %v", err)
		}
	})
}

func TestTermPassesOn(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		ctx := ctxFor(t)
		a, err := open().Campaign(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		won := make(chan *Term, 1)
		b := open()
		go func() {
			term, err := b.Campaign(ctx, "b")
			if err != nil {
				t.Error(err)
			}
			won <- term
		}()
		select {
		case <-won:
			t.Fatal("two lead")
		case <-time.After(100 * time.Millisecond):
		}
		began := time.Now()
		a.Resign()
		term := <-won
		if d := time.Since(began); d >= TermTTL { // by the lease's end, as after a death
			t.Errorf("taking over took %v", d)
		}
		if term.Revision <= a.Revision {
			t.Errorf("term %d after %d", term.Revision, a.Revision)
		}
		term.Resign()
	})
}

// A director that is cut off must stop before another one can begin.
func TestTermLostByCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		a, b := memoryStore(t, m), memoryStore(t, m)
		lost, err := a.Campaign(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // renewed all along
		select {
		case <-lost.Done():
			t.Fatal("lost without a cause")
		default:
		}
		m.Cut()
		cut := time.Now()
		<-lost.Done()
		if d := time.Since(cut); d > TermTTL {
			t.Errorf("stepped down %v after the cut", d)
		}
		m.Heal()
		next, err := b.Campaign(ctx, "b")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Publish(ctx, lost, &placement.Plan{}); !errors.Is(err, ErrTermLost) {
			t.Errorf("publish under a lost term: %v", err)
		}
		if _, err := b.Publish(ctx, next, &placement.Plan{}); err != nil {
			t.Error(err)
		}
		cancel()
		<-next.Done()
	})
}

// What a director left of a plan that it never named does not spoil the next.
func TestPublishAfterABrokenOne(t *testing.T) {
	s := memoryStore(t, NewMemory())
	term, err := s.Campaign(ctxFor(t), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer term.Resign()
	mustWrite(t, s.kv, nil, put(planDir(1)+chunkName(1), []byte("left")), put(planDir(1)+chunkName(0), []byte("left")))
	if _, err := s.Publish(ctxFor(t), term, &placement.Plan{By: "a"}); err != nil {
		t.Fatal(err)
	}
	if p, err := s.PlanAt(ctxFor(t), 0); err != nil || p.By != "a" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestPlansKept(t *testing.T) {
	s := memoryStore(t, NewMemory())
	ctx := ctxFor(t)
	term, err := s.Campaign(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer term.Resign()
	if _, err := s.PutPin(ctx, placement.Pin{Site: "ams1", Revision: 2, Audit: placement.Audit{Reason: "bisect"}}); err != nil {
		t.Fatal(err)
	}
	for range keptVersions + 4 {
		if _, err := s.Publish(ctx, term, &placement.Plan{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		rev  int64
		kept bool
	}{{1, false}, {2, true}, {3, false}, {5, true}, {keptVersions + 4, true}} {
		if _, err := s.PlanAt(ctx, tt.rev); (err == nil) != tt.kept || err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("plan %d: %v", tt.rev, err)
		}
	}
	chunks, _ := mustRead(t, s.kv, query{span: span{planDir(0), planDir(99)}, keysOnly: true})
	if len(chunks[0]) != keptVersions+1 {
		t.Errorf("%d plans are stored", len(chunks[0]))
	}
}
