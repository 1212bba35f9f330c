package store

import (
	"context"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// inSession runs a test beside a running session, in a bubble.
func inSession(t *testing.T, test func(t *testing.T, m *Memory, s *Store, session *Session)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		m := NewMemory()
		s := memoryStore(t, m)
		session := s.Session("n1", 0)
		ended := make(chan error, 1)
		go func() { ended <- session.Run(ctx) }()
		synctest.Wait()
		test(t, m, s, session)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if left := stored(t, m, root); len(left) > 0 {
			t.Errorf("left after the session: %v", keysOf(left))
		}
	})
}

// stored reads a twin behind its cut.
func stored(t *testing.T, m *Memory, prefix string) []pair {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m.query(query{span: under(prefix)})
}

func storedVote(t *testing.T, m *Memory) placement.Vote {
	t.Helper()
	all := stored(t, m, dirVotes)
	if len(all) == 0 {
		return placement.Vote{}
	}
	v, err := unseal[placement.Vote](all[0].value)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSessionPace(t *testing.T) {
	inSession(t, func(t *testing.T, m *Memory, s *Store, session *Session) {
		session.SetVote(vote("ams1", "n1", placement.Up, 1))
		synctest.Wait()
		if v := storedVote(t, m); v.Seq != 1 {
			t.Fatalf("a new vote is not written at once: %+v", v)
		}
		session.SetVote(vote("ams1", "n1", placement.Up, 2))
		synctest.Wait()
		if v := storedVote(t, m); v.Seq != 1 {
			t.Errorf("a renewal is written at once: %+v", v)
		}
		session.SetVote(vote("ams1", "n1", placement.Down, 3))
		synctest.Wait()
		if v := storedVote(t, m); v.State != placement.Down {
			t.Errorf("a change of mind waits: %+v", v)
		}
		// A busy key is written once a second, with its latest value.
		before := m.Revision()
		for i := range uint64(300) {
			session.SetVote(vote("ams1", "n1", placement.Down, 4+i))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if n := m.Revision() - before; n < 3 || n > 5 {
			t.Errorf("%d writes in 4 s", n)
		}
		if v := storedVote(t, m); v.Seq != 303 {
			t.Errorf("the latest did not win: %+v", v)
		}
		session.DropVote(placement.ClusterID{Site: "ams1", Name: "web"})
		synctest.Wait()
		if v := stored(t, m, dirVotes); len(v) > 0 {
			t.Errorf("a dropped vote stays: %v", keysOf(v))
		}
	})
}

func TestSessionStaysAlive(t *testing.T) {
	inSession(t, func(t *testing.T, m *Memory, s *Store, session *Session) {
		session.SetNode(placement.Node{Name: "n1", Unit: "rhumb-dns"})
		session.SetAnnounced(placement.Announced{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Node: "n1"})
		session.SetLoad(placement.Load{Cluster: placement.ClusterID{Site: "ams1", Name: "web"}, QPS: 1})
		time.Sleep(time.Minute)
		if all := stored(t, m, root); len(all) != 3 {
			t.Errorf("after a minute: %v", keysOf(all))
		}
		if all := stored(t, m, dirAnnounce); len(all) != 1 || all[0].key != root+"announce/192.0.2.0_24/n1" {
			t.Errorf("announcement: %v", keysOf(all))
		}
	})
}

// The lease runs out during a cut; all keys come back under a new one, with the
// values of by then, and the setters never waited.
func TestSessionAfterCut(t *testing.T) {
	inSession(t, func(t *testing.T, m *Memory, s *Store, session *Session) {
		session.SetVote(vote("ams1", "n1", placement.Up, 1))
		session.SetVote(vote("fra1", "n1", placement.Up, 1))
		session.SetNode(placement.Node{Name: "n1", Unit: "rhumb-bgp"})
		time.Sleep(2 * time.Second)
		m.Cut()
		time.Sleep(time.Minute)
		if all := stored(t, m, root); len(all) != 0 {
			t.Fatalf("the lease did not run out: %v", keysOf(all))
		}
		began := time.Now()
		session.SetVote(vote("ams1", "n1", placement.Down, 2))
		session.DropVote(placement.ClusterID{Site: "fra1", Name: "web"})
		if time.Since(began) != 0 {
			t.Error("a setter waited for the store")
		}
		m.Heal()
		time.Sleep(time.Second)
		if all := stored(t, m, root); len(all) != 2 || storedVote(t, m).State != placement.Down {
			t.Errorf("after the cut: %v", keysOf(all))
		}
	})
}

func TestSessionDemand(t *testing.T) {
	inSession(t, func(t *testing.T, m *Memory, s *Store, session *Session) {
		for milli := range int64(3) {
			session.SetDemand(placement.DemandReport{Node: "n1", Services: []placement.ServiceDemand{
				{Service: "www", Asked: []placement.ClassRate{{Class: 4, Milli: milli}}}}})
		}
		time.Sleep(2 * time.Second)
		all := stored(t, m, dirDemand)
		if len(all) != 1 {
			t.Fatalf("%v", keysOf(all))
		}
		if r, err := unseal[placement.DemandReport](all[0].value); err != nil || r.Services[0].Asked[0].Milli != 2 {
			t.Errorf("%+v %v", r, err)
		}
	})
}

// One session dies while another of the same node has taken its keys over.
func TestSessionTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := memoryStore(t, m)
		old, oldEnd := context.WithCancel(t.Context())
		young, youngEnd := context.WithCancel(t.Context())
		done := make(chan error, 2)
		for _, ctx := range []context.Context{old, young} {
			session := s.Session("n1", 0)
			session.SetVote(vote("ams1", "n1", placement.Up, 1))
			go func() { done <- session.Run(ctx) }()
			synctest.Wait()
		}
		oldEnd()
		<-done
		if all := stored(t, m, dirVotes); len(all) != 1 {
			t.Errorf("the old session took the young one's vote along")
		}
		youngEnd()
		<-done
	})
}

// The other way round: the old one writes last. What goes with it is put again.
func TestSessionOutlivesItsTwin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := memoryStore(t, m)
		old, oldEnd := context.WithCancel(t.Context())
		young, youngEnd := context.WithCancel(t.Context())
		done := make(chan error, 2)
		sessions := [2]*Session{}
		for i, ctx := range []context.Context{old, young} {
			sessions[i] = s.Session("n1", 0)
			sessions[i].SetVote(vote("ams1", "n1", placement.Up, 1))
			go func() { done <- sessions[i].Run(ctx) }()
			synctest.Wait()
		}
		sessions[0].SetVote(vote("ams1", "n1", placement.Down, 2))
		time.Sleep(20 * time.Second)
		if v := storedVote(t, m); v.State != placement.Down {
			t.Errorf("stored beside the old session: %+v", v)
		}
		oldEnd()
		<-done
		time.Sleep(5 * time.Second)
		if v := storedVote(t, m); v.State != placement.Up {
			t.Errorf("stored after the old session's end: %+v", v)
		}
		youngEnd()
		<-done
	})
}

// tardy answers nobody for a while, and carries out later what it was asked to write
// then: a request which a dead connection delivers when it is alive again.
type tardy struct {
	kv
	late atomic.Pointer[[]func()]
}

func (t *tardy) write(ctx context.Context, conds []cond, ops []op) (int64, bool, error) {
	late := t.late.Load()
	if late == nil {
		return t.kv.write(ctx, conds, ops)
	}
	*late = append(*late, func() { t.kv.write(context.WithoutCancel(ctx), conds, ops) })
	<-ctx.Done()
	return 0, false, ctx.Err()
}

// What was given up and comes late changes nothing that was written after it, neither a
// value nor a key that is gone nor one that is there again.
func TestSessionLateWrite(t *testing.T) {
	prefix := netip.MustParsePrefix("192.0.2.0/24")
	at := func(step placement.Step) placement.Announced {
		return placement.Announced{Prefix: prefix, Site: "ams1", Node: "n1", Step: step}
	}
	for _, tt := range []struct {
		name              string
		before, late, now func(*Session)
		want              []placement.Step
	}{
		{"a value", func(s *Session) { s.SetAnnounced(at(placement.Announce)) }, func(s *Session) { s.SetAnnounced(at(placement.GShut)) },
			func(s *Session) { s.SetAnnounced(at(placement.Announce)) }, []placement.Step{placement.Announce}},
		{"a value in between", func(s *Session) { s.SetAnnounced(at(placement.Announce)) }, func(s *Session) { s.SetAnnounced(at(placement.GShut)) },
			func(s *Session) { s.SetAnnounced(at(placement.Prepend)) }, []placement.Step{placement.Prepend}},
		{"a value of a key that is gone", func(s *Session) { s.SetAnnounced(at(placement.Announce)) }, func(s *Session) { s.SetAnnounced(at(placement.GShut)) },
			func(s *Session) { s.DropAnnounced(prefix) }, nil},
		{"a deletion", func(s *Session) { s.SetAnnounced(at(placement.Announce)) }, func(s *Session) { s.DropAnnounced(prefix) },
			func(s *Session) { s.SetAnnounced(at(placement.GShut)) }, []placement.Step{placement.GShut}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMemory()
				s := memoryStore(t, m)
				slow := &tardy{kv: s.kv}
				s.kv = slow
				session := s.Session("n1", 0)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- session.Run(ctx) }()
				tt.before(session)
				synctest.Wait()
				var late []func()
				slow.late.Store(&late)
				tt.late(session)
				synctest.Wait()
				if len(late) != 1 {
					t.Fatalf("%d writes are under way, want 1", len(late))
				}
				slow.late.Store(nil)
				tt.now(session)
				time.Sleep(5 * time.Second) // the write is given up, and the next one done
				for _, write := range late {
					write()
				}
				var got []placement.Step
				for _, a := range announcedOf(stored(t, m, dirAnnounce)) {
					got = append(got, a.Step)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("stored: %v, want %v", got, tt.want)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
