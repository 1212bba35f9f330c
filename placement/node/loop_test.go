package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/decide"
	"rhumb/placement/lpm"
)

// fakeDisk keeps one state.
type fakeDisk struct {
	mu    sync.Mutex
	saved []State
	err   error
}

func (d *fakeDisk) Save(s State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.saved = append(d.saved, s)
	return d.err
}

func (d *fakeDisk) Newest() (State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.saved) == 0 {
		return State{}, errors.New("empty")
	}
	return d.saved[len(d.saved)-1], nil
}

// recorder notes the names of the snapshots that it was given.
type recorder struct {
	mu    sync.Mutex
	names []string
}

func (r *recorder) Apply(_ context.Context, s *placement.Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, s.Name.String())
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.names, " ")
}

// bench is a node with everything around it faked.
type bench struct {
	t       *testing.T
	n       *Node
	views   chan View
	heard   chan []placement.Vote
	current *placement.Current
	disk    *fakeDisk
	applied *recorder
	log     *strings.Builder
	classes *placement.ClassTable
	inv     *placement.Inventory
	stop    func()
}

func newBench(t *testing.T, disk *fakeDisk) *bench {
	b := &bench{t: t, views: make(chan View), heard: make(chan []placement.Vote), current: new(placement.Current), disk: disk,
		applied: new(recorder), log: new(strings.Builder), inv: inventory(7)}
	table, err := lpm.Build([]lpm.Entry{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Value: 0}})
	if err != nil {
		t.Fatal(err)
	}
	b.classes = &placement.ClassTable{Prefixes: table, Locations: []placement.Location{{At: placement.Position{52, 5}}}, Digest: "cafe"}
	b.n = New(Config{Node: "ams1-a", Site: "ams1", Views: b.views, Heard: b.heard, Disk: disk, Current: b.current,
		Classes:  func(*placement.Inventory) (*placement.ClassTable, error) { return b.classes, nil },
		Appliers: []Applier{b.applied}, Log: slog.New(slog.NewTextHandler(b.log, nil)), Metrics: prometheus.NewRegistry()})
	return b
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- b.n.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	}
	synctest.Wait()
}

// inventory is two sites with a cluster each, and one service.
func inventory(revision int64) *placement.Inventory {
	inv := &placement.Inventory{Revision: revision}
	for i, site := range []string{"ams1", "nyc1", "sin1"} {
		inv.Sites = append(inv.Sites, placement.Site{Name: site, At: placement.Position{float64(50 - 20*i), float64(40 * i)},
			Clusters: []placement.Cluster{{Name: "web", Capacity: 100}}})
	}
	inv.Policies = []placement.Policy{{Name: "nearest"}}
	inv.Services = []placement.Service{{Name: "www", Names: []string{"www.test."}, Clusters: []string{"web"}, Policy: "nearest"}}
	inv.Prefixes = []placement.Prefix{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Clusters: []string{"web"}}}
	return inv
}

func (b *bench) plan(revision int64, votes []placement.Vote, votesRevision int64) *placement.Plan {
	p, _ := decide.Plan(decide.PlanInput{Inventory: b.inv, Classes: b.classes, Votes: votes, VotesRevision: votesRevision, Now: time.Now()})
	p.Revision = revision
	return p
}

func (b *bench) show(v View) {
	b.views <- v
	synctest.Wait()
}

func (b *bench) want(name string) *placement.Snapshot {
	b.t.Helper()
	s := b.current.Load()
	if s == nil {
		b.t.Fatalf("nothing in force, want %s", name)
	}
	if s.Name.String() != name {
		b.t.Fatalf("in force %s, want %s", s.Name, name)
	}
	return s
}

// wantDown wants a snapshot in force by which ams1's cluster is down.
func (b *bench) wantDown(name string) {
	b.t.Helper()
	if got := b.want(name).Verdict(placement.ClusterID{Site: "ams1", Name: "web"}); got.State != placement.Down {
		b.t.Errorf("ams1/web is %v in %s", got.State, name)
	}
}

func (b *bench) alarms() string {
	var kinds []string
	for _, a := range b.n.Alarms() {
		kinds = append(kinds, a.Kind)
	}
	return strings.Join(kinds, " ")
}

func says(site string, state placement.State, seq uint64) placement.Vote {
	v := placement.Vote{Object: placement.ClusterID{Site: site, Name: "web"}, Vantage: site + "-a", Site: site, State: state, Seq: seq, Since: time.Unix(int64(seq), 0)}
	if state == placement.Down {
		v.Fault = placement.LocalFault
	}
	return v
}

func allSay(state placement.State) []placement.Vote {
	return []placement.Vote{says("ams1", state, 1), says("nyc1", state, 1), says("sin1", state, 1)}
}

func TestFollowsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		votes := allSay(placement.Up)
		b.show(View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, VotesRevision: 9, Connected: true, Heartbeat: time.Now()})
		s := b.want("4.9")
		if s.Digest != s.Plan.Digest {
			t.Errorf("digest %s, the plan's is %s", s.Digest, s.Plan.Digest)
		}
		if b.applied.String() != "4.9" {
			t.Errorf("applied %q", b.applied)
		}
		if len(b.disk.saved) != 1 || b.disk.saved[0].Name != "4.9" {
			t.Errorf("on disk: %+v", b.disk.saved)
		}
		if b.alarms() != "" {
			t.Errorf("alarms %q", b.alarms())
		}
	})
}

func TestStartsFromDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := new(fakeDisk)
		b := newBench(t, disk)
		votes := allSay(placement.Up)
		disk.saved = []State{{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, Revision: 9, Name: "4.9"}}
		b.run()
		defer b.stop()
		b.want("4.9")
		time.Sleep(9 * time.Second)
		synctest.Wait()
		if b.alarms() != "" {
			t.Errorf("alarms after 9 s: %q", b.alarms())
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if b.alarms() != AlarmStateStale {
			t.Errorf("alarms after 13 s without a store: %q", b.alarms())
		}
		b.want("4.9")
	})
}

// TestNobodyHasEverDirected: a name server alone has no director, and is no older for
// that; that its store went away it says like any other.
func TestNobodyHasEverDirected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		time.Sleep(5 * time.Second) // until the store answers for the first time
		v := View{Inventory: b.inv, Votes: allSay(placement.Up), Connected: true}
		b.show(v)
		time.Sleep(time.Hour)
		synctest.Wait()
		if b.alarms() != AlarmNoPlan {
			t.Errorf("alarms after an hour without a director: %q", b.alarms())
		}
		v.Connected = false
		b.show(v)
		time.Sleep(13 * time.Second)
		synctest.Wait()
		if b.alarms() != AlarmStateStale+" "+AlarmNoPlan {
			t.Errorf("alarms 13 s after the store went away: %q", b.alarms())
		}
		if text := b.n.Alarms()[0].Text; !strings.Contains(text, "for 12s") && !strings.Contains(text, "for 13s") {
			t.Errorf("13 s after the store went away: %s", text)
		}
	})
}

func TestMissingInputKeepsTheLast(t *testing.T) {
	votes := allSay(placement.Up)
	cases := []struct {
		name   string
		change func(b *bench, v *View)
	}{
		{"inventory not at hand", func(b *bench, v *View) { p := *v.Plan; p.Inputs.Inventory = 99; v.Plan = &p }},
		{"another class table", func(b *bench, v *View) { p := *v.Plan; p.Inputs.ClassTable = "beef"; v.Plan = &p }},
		{"an algorithm of tomorrow", func(b *bench, v *View) { p := *v.Plan; p.Inputs.Algorithm++; v.Plan = &p }},
		{"the director's digest differs", func(b *bench, v *View) { p := *v.Plan; p.Digest = strings.Repeat("0", 64); v.Plan = &p }},
		{"too few anchors", func(b *bench, v *View) { p := *v.Plan; p.Anchors = nil; v.Plan = &p }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, new(fakeDisk))
				b.run()
				defer b.stop()
				good := View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, VotesRevision: 9, Heartbeat: time.Now()}
				b.show(good)
				bad := good
				bad.Plan = b.plan(5, votes, 9)
				tc.change(b, &bad)
				b.show(bad)
				b.want("4.9")
				if b.alarms() != AlarmSnapshotStale {
					t.Errorf("alarms %q", b.alarms())
				}
				good.Plan = b.plan(6, votes, 9)
				b.show(good)
				b.want("6.9")
				if b.alarms() != "" {
					t.Errorf("alarms %q after it was mended", b.alarms())
				}
			})
		})
	}
}

func TestPatchesAheadOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		votes := allSay(placement.Up)
		v := View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, VotesRevision: 9, Heartbeat: time.Now()}
		b.show(v)
		b.heard <- []placement.Vote{says("ams1", placement.Down, 2)}
		synctest.Wait()
		b.wantDown("4.9+p")
		if len(b.disk.saved) != 1 {
			t.Errorf("a patch was saved: %+v", b.disk.saved)
		}
		b.heard <- []placement.Vote{says("ams1", placement.Up, 1), says("gone1", placement.Down, 9)} // the one the store has, the other nobody knows
		synctest.Wait()
		b.want("4.9")
		v.Votes, v.VotesRevision = []placement.Vote{says("ams1", placement.Down, 2), votes[1], votes[2]}, 10
		b.show(v)
		b.want("4.10")
	})
}

func TestHearsBeforeTheStoreAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := new(fakeDisk)
		b := newBench(t, disk)
		votes := allSay(placement.Up)
		disk.saved = []State{{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, Revision: 9, Name: "4.9"}}
		b.run()
		defer b.stop()
		b.want("4.9")
		b.heard <- []placement.Vote{says("ams1", placement.Down, 2)}
		synctest.Wait()
		b.wantDown("4.9+p")
	})
}

func TestHealthGoesOnWhileAPlanCannotBeFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		votes := allSay(placement.Up)
		v := View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, VotesRevision: 9, Heartbeat: time.Now()}
		b.show(v)
		other := *b.plan(5, votes, 9)
		other.Inputs.ClassTable = "beef"
		v.Plan, v.Votes, v.VotesRevision = &other, []placement.Vote{says("ams1", placement.Down, 2), votes[1], votes[2]}, 10
		b.show(v)
		b.wantDown("4.10")
		if b.alarms() != AlarmSnapshotStale {
			t.Errorf("alarms %q", b.alarms())
		}
	})
}

func TestFirstStartWithAnotherClassTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := new(fakeDisk)
		b := newBench(t, disk)
		votes := allSay(placement.Up)
		other := *b.plan(4, votes, 9)
		other.Inputs.ClassTable = "beef"
		disk.saved = []State{{Inventory: b.inv, Plan: &other, Votes: votes, Revision: 9, Name: "4.9"}}
		b.run()
		defer b.stop()
		s := b.want("4.9+p")
		if c, ok := s.Choose("www", netip.MustParseAddr("10.0.0.1"), nil); !ok || c.Head < 0 {
			t.Errorf("nobody serves: %+v", c)
		}
		if b.alarms() != AlarmSnapshotStale || len(disk.saved) != 1 {
			t.Errorf("alarms %q, %d on disk", b.alarms(), len(disk.saved))
		}
		newer := other
		newer.Revision = 5
		b.show(View{Inventory: b.inv, Plan: &newer, Votes: []placement.Vote{says("ams1", placement.Down, 2)}, VotesRevision: 10, Heartbeat: time.Now()})
		b.wantDown("5.10+p")
		b.show(View{Inventory: b.inv, Plan: b.plan(6, votes, 11), Votes: votes, VotesRevision: 11, Heartbeat: time.Now()})
		b.want("6.11")
		if b.alarms() != "" {
			t.Errorf("alarms %q after it was mended", b.alarms())
		}
	})
}

func TestFirstStartWithoutAPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		b.show(View{Inventory: b.inv, Heartbeat: time.Now()})
		s := b.want("0.0")
		if b.alarms() != AlarmNoPlan {
			t.Errorf("alarms %q", b.alarms())
		}
		if c, ok := s.Choose("www", netip.MustParseAddr("10.0.0.1"), nil); !ok || c.Head < 0 {
			t.Errorf("nobody serves: %+v", c)
		}
		b.show(View{Inventory: b.inv, Votes: []placement.Vote{says("ams1", placement.Down, 2)}, VotesRevision: 1, Heartbeat: time.Now()})
		b.wantDown("0.1")
	})
}

func TestFreezeHoldsTheVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		votes := allSay(placement.Up)
		b.inv.Freeze = placement.Freeze{Audit: placement.Audit{Reason: "audit", Who: "op"}}
		v := View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, VotesRevision: 9, Heartbeat: time.Now()}
		b.show(v)
		v.Votes, v.VotesRevision = []placement.Vote{says("ams1", placement.Down, 2)}, 10
		b.show(v)
		b.heard <- v.Votes
		synctest.Wait()
		b.want("4.9")
	})
}

func TestPinHoldsThePlanAndFoldsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		b.run()
		defer b.stop()
		votes := allSay(placement.Up)
		v := View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes, VotesRevision: 9, Heartbeat: time.Now()}
		b.show(v)
		pinned := *b.inv
		pinned.Revision = 8
		pinned.Pins = []placement.Pin{{Site: "ams1", Revision: 4}}
		v.Inventory, v.Recent = &pinned, []*placement.Inventory{b.inv}
		v.Plan = b.plan(5, votes, 9)
		v.VotesRevision = 10
		b.show(v)
		b.want("4.10")
	})
}

func TestSlowApplierSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, new(fakeDisk))
		gate := make(chan struct{})
		slow := &gated{recorder: b.applied, gate: gate}
		b.n = New(Config{Node: "ams1-a", Site: "ams1", Views: b.views, Current: b.current, Log: slog.New(slog.DiscardHandler),
			Classes: b.n.c.Classes, Appliers: []Applier{slow}})
		b.run()
		defer b.stop()
		votes := allSay(placement.Up)
		v := View{Inventory: b.inv, Plan: b.plan(4, votes, 9), Votes: votes}
		for rev := range int64(5) {
			v.VotesRevision = rev + 1
			b.show(v)
		}
		close(gate)
		synctest.Wait()
		if got := b.applied.String(); got != "4.1 4.5" {
			t.Errorf("applied %q, want the first and the last", got)
		}
	})
}

// gated waits for its gate before each snapshot.
type gated struct {
	*recorder
	gate chan struct{}
}

func (g *gated) Apply(ctx context.Context, s *placement.Snapshot) {
	<-g.gate
	g.recorder.Apply(ctx, s)
}
