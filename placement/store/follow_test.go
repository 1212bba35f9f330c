package store

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

func vote(site, vantage string, state placement.State, seq uint64) placement.Vote {
	return placement.Vote{Object: placement.ClusterID{Site: site, Name: "web"}, Vantage: vantage,
		Site: site, State: state, Incarnation: 1, Seq: seq}
}

func putVote(t *testing.T, s *Store, v placement.Vote) int64 {
	t.Helper()
	return mustWrite(t, s.kv, nil, put(voteKey(v.Object, v.Vantage), seal(v)))
}

func TestFollowSortsAndNames(t *testing.T) {
	eachGround(t, func(t *testing.T, open func() *Store) {
		s := open()
		ctx := ctxFor(t)
		ch := open().Follow(ctx)
		viewWhere(t, ch, "first", func(v *View) bool { return v.Connected })
		putVote(t, s, vote("lhr1", "b", placement.Up, 1))
		putVote(t, s, vote("lhr1", "a", placement.Down, 1))
		rev := putVote(t, s, vote("ams1", "z", placement.Up, 1))
		v := viewWhere(t, ch, "three votes", func(v *View) bool { return len(v.Votes) == 3 })
		if v.VotesRevision != rev || v.Votes[0].Vantage != "z" || v.Votes[1].Vantage != "a" || v.Votes[2].Vantage != "b" {
			t.Errorf("votes at %d, want %d: %+v", v.VotesRevision, rev, v.Votes)
		}
		gone := mustWrite(t, s.kv, nil, op{key: voteKey(v.Votes[0].Object, "z"), del: true})
		w := viewWhere(t, ch, "two votes", func(v *View) bool { return len(v.Votes) == 2 })
		if w.VotesRevision != gone || len(v.Votes) != 3 {
			t.Errorf("votes at %d, want %d; the older view has %d", w.VotesRevision, gone, len(v.Votes))
		}
		// Loads of several nodes add up, demand is kept by node.
		c := placement.ClusterID{Site: "ams1", Name: "web"}
		for _, node := range []string{"n1", "n2"} {
			mustWrite(t, s.kv, nil, put(loadKey(c, node), seal(placement.Load{Cluster: c, QPS: 5})),
				put(demandKey(node), seal(placement.DemandReport{Node: node, ClassTable: "t1"})))
		}
		w = viewWhere(t, ch, "loads", func(v *View) bool {
			return len(v.Loads) == 1 && v.Loads[0].QPS == 10 && len(v.Demand) == 2
		})
		if w.Demand[0].Node != "n1" || w.Demand[1].ClassTable != "t1" {
			t.Errorf("demand %+v", w.Demand)
		}
	})
}

// A follower that lags behind the kept history lists again.
func TestFollowCompacted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		s := memoryStore(t, m)
		ch := s.Follow(ctx)
		viewWhere(t, ch, "first", func(v *View) bool { return v.Connected })
		synctest.Wait()
		m.mu.Lock() // the watcher cannot look between write and compaction
		m.m.commit(m.m.plan([]op{put(voteKey(placement.SiteID("ams1"), "a"), seal(vote("ams1", "a", placement.Up, 1)))}))
		m.m.compact()
		m.mu.Unlock()
		v := viewWhere(t, ch, "after compaction", func(v *View) bool { return len(v.Votes) == 1 })
		if v.VotesRevision != m.Revision() || !v.Connected {
			t.Errorf("votes at %d, store at %d", v.VotesRevision, m.Revision())
		}
		cancel()
		for range ch {
		}
	})
}

// While the store is away nothing changes but Connected; what ran out meanwhile
// is absent afterwards.
func TestFollowCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		s := memoryStore(t, m)
		lease, err := s.kv.grant(ctx, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, s.kv, nil, op{key: voteKey(placement.SiteID("ams1"), "a"), value: seal(vote("ams1", "a", placement.Up, 1)), lease: lease})
		ch := s.Follow(ctx)
		viewWhere(t, ch, "first", func(v *View) bool { return v.Connected && len(v.Votes) == 1 })
		m.Cut()
		cut := time.Now()
		v := viewWhere(t, ch, "away", func(v *View) bool { return !v.Connected })
		if d := time.Since(cut); d > 6*time.Second || len(v.Votes) != 1 {
			t.Errorf("noticed after %v, with %d votes", d, len(v.Votes))
		}
		time.Sleep(time.Minute) // the lease runs out
		select {
		case v := <-ch:
			t.Errorf("a view while nothing is known: %+v", v)
		default:
		}
		m.Heal()
		healed := time.Now()
		v = viewWhere(t, ch, "back", func(v *View) bool { return v.Connected && len(v.Votes) == 0 })
		if d := time.Since(healed); d > 3*time.Second || v.Since.Before(healed) {
			t.Errorf("back after %v, since %v", d, v.Since)
		}
		cancel()
		for range ch {
		}
	})
}

// A node starts while the store is away: it hears so at once, and once.
func TestFollowStartsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		s := memoryStore(t, m)
		m.Cut()
		ch := s.Follow(ctx)
		v := <-ch
		if v.Connected || v.Revision != 0 || v.Inventory != nil {
			t.Errorf("first view %+v", v)
		}
		time.Sleep(time.Minute)
		m.Heal()
		if v := <-ch; !v.Connected {
			t.Errorf("second view %+v", v)
		}
		cancel()
		for range ch {
		}
	})
}

// What cannot be read counts as absent on every node alike, and the pointers
// keep their last good value.
func TestFollowBadValues(t *testing.T) {
	m := NewMemory()
	s := memoryStore(t, m)
	f, _ := sample(nil)
	rev := mustPutFleet(t, s, f, nil, 0)
	putVote(t, s, vote("ams1", "a", placement.Up, 1))
	ch := s.Follow(ctxFor(t))
	viewWhere(t, ch, "first", func(v *View) bool { return len(v.Votes) == 1 && v.Inventory != nil })
	for _, tt := range []struct{ name, value string }{
		{"not JSON", "{"}, {"newer", `{"schema":2,"value":{}}`}, {"no schema", `{"value":{}}`}, {"another shape", `{"schema":1,"value":7}`},
	} {
		mustWrite(t, s.kv, nil, put(voteKey(vote("ams1", "a", 0, 0).Object, "a"), []byte(tt.value)), put(keyConfig, []byte(tt.value)))
		bad := m.Revision()
		v := viewWhere(t, ch, tt.name, func(v *View) bool { return v.VotesRevision == bad })
		if len(v.Votes) != 0 || v.Inventory == nil || v.Inventory.Revision != rev {
			t.Errorf("%s: %d votes, inventory %+v", tt.name, len(v.Votes), v.Inventory)
		}
	}
	mustWrite(t, s.kv, nil, put(keySchema, []byte(`{"schema":2,"value":"2030-01-01T00:00:00Z"}`)))
	v := viewWhere(t, memoryStore(t, m).Follow(ctxFor(t)), "newer schema", func(v *View) bool { return true })
	if v.Connected || v.Inventory != nil {
		t.Errorf("a newer store was read: %+v", v)
	}
}

// A reader which does not read delays nobody, and then gets the latest.
func TestFollowLatestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := memoryStore(t, NewMemory())
		ch := s.Follow(ctx)
		synctest.Wait()
		var last int64
		for i := range uint64(100) {
			last = putVote(t, s, vote("ams1", "a", placement.Up, i))
			synctest.Wait()
		}
		if v := <-ch; v.VotesRevision != last || v.Votes[0].Seq != 99 {
			t.Errorf("view at %d, store at %d", v.VotesRevision, last)
		}
		cancel()
		for range ch {
		}
	})
}

// deaf is a store whose watches say nothing, as those of a member that is cut off.
type deaf struct{ kv }

func (deaf) watch(ctx context.Context, _ int64, _ ...span) <-chan batch {
	ch := make(chan batch)
	context.AfterFunc(ctx, func() { close(ch) })
	return ch
}

// A live watcher that says nothing is found out by what the store answers.
func TestFollowDeafWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		s, writer := memoryStore(t, m), memoryStore(t, m)
		s.kv = deaf{s.kv}
		ch := s.Follow(ctx)
		viewWhere(t, ch, "first", func(v *View) bool { return v.Connected })
		for i := range uint64(3) {
			began := time.Now()
			putVote(t, writer, vote("ams1", "a", placement.Up, i))
			viewWhere(t, ch, "vote", func(v *View) bool { return len(v.Votes) == 1 && v.Votes[0].Seq == i })
			if d := time.Since(began); d > 6*time.Second {
				t.Errorf("found out after %v", d)
			}
		}
		cancel()
		for range ch {
		}
	})
}

// A document that cannot be read holds nothing else up, and is read when it can be.
func TestFollowDocumentLate(t *testing.T) {
	m := NewMemory()
	s := memoryStore(t, m)
	f, _ := sample(nil)
	old := mustPutFleet(t, s, f, nil, 0)
	ch := s.Follow(ctxFor(t))
	viewWhere(t, ch, "first", func(v *View) bool { return v.Inventory != nil })
	f.Version = 2
	packed := pack(f)
	h := head{manifest: newManifest(9, packed)}
	mustWrite(t, s.kv, nil, put(keyConfig, seal(h)))
	putVote(t, s, vote("ams1", "a", placement.Down, 1))
	v := viewWhere(t, ch, "vote", func(v *View) bool { return len(v.Votes) == 1 })
	if v.Inventory == nil || v.Inventory.Revision != old || v.Inventory.Version != 1 {
		t.Errorf("the last whole inventory is gone: %+v", v.Inventory)
	}
	mustWrite(t, s.kv, nil, put(docDir(9)+chunkName(0), packed))
	viewWhere(t, ch, "late document", func(v *View) bool { return v.Inventory.Version == 2 && v.Inventory.Revision > old })
}
