package director

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
	"rhumb/placement/decide"
)

// fakeTerm ends when it is told to.
type fakeTerm struct {
	done chan struct{}
	once sync.Once
}

func (t *fakeTerm) Done() <-chan struct{} { return t.done }
func (t *fakeTerm) Resign()               { t.once.Do(func() { close(t.done) }) }

// fakeStore gives terms one by one and notes what is published.
type fakeStore struct {
	mu        sync.Mutex
	terms     chan *fakeTerm
	published []*placement.Plan
	at        []time.Time
	beats     int
	err       error
}

func (s *fakeStore) Campaign(ctx context.Context, _ string) (Term, error) {
	select {
	case t := <-s.terms:
		return t, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *fakeStore) Publish(_ context.Context, _ Term, p *placement.Plan) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	c := *p
	c.Revision = int64(len(s.published) + 100)
	s.published, s.at = append(s.published, &c), append(s.at, time.Now())
	return c.Revision, nil
}

func (s *fakeStore) Heartbeat(context.Context, Term, time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beats++
	return nil
}

func (s *fakeStore) plans() []*placement.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.published)
}

type bench struct {
	t     *testing.T
	store *fakeStore
	views chan View
	log   *strings.Builder
	inv   *placement.Inventory
	stop  func()
}

func start(t *testing.T) *bench {
	b := &bench{t: t, store: &fakeStore{terms: make(chan *fakeTerm)}, views: make(chan View), log: new(strings.Builder), inv: inventory()}
	d := New(Config{Node: "ams1-a", Store: b.store, Views: b.views, Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Classes: func(*placement.Inventory) (*placement.ClassTable, error) {
			return &placement.ClassTable{Digest: "cafe", Locations: []placement.Location{{}, {At: placement.Position{40, -70}}}}, nil
		}, Metrics: prometheus.NewRegistry()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return b
}

func inventory() *placement.Inventory {
	inv := &placement.Inventory{Revision: 7}
	for i, site := range []string{"ams1", "nyc1", "sin1"} {
		inv.Sites = append(inv.Sites, placement.Site{Name: site, At: placement.Position{float64(50 - 20*i), float64(40 * i)},
			Clusters: []placement.Cluster{{Name: "web", Capacity: 100}}})
	}
	inv.Policies = []placement.Policy{{Name: "nearest"}}
	inv.Services = []placement.Service{{Name: "www", Names: []string{"www.test."}, Clusters: []string{"web"}, Policy: "nearest"}}
	inv.Prefixes = []placement.Prefix{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Clusters: []string{"web"}}}
	return inv
}

func votes(down string) []placement.Vote {
	var out []placement.Vote
	for _, site := range []string{"ams1", "nyc1", "sin1"} {
		v := placement.Vote{Object: placement.ClusterID{Site: site, Name: "web"}, Vantage: site + "-a", Site: site, State: placement.Up, Seq: 1}
		if site == down {
			v.State, v.Fault, v.Seq = placement.Down, placement.LocalFault, 2
		}
		out = append(out, v)
	}
	return out
}

func (b *bench) lead() *fakeTerm {
	t := &fakeTerm{done: make(chan struct{})}
	b.store.terms <- t
	synctest.Wait()
	return t
}

func (b *bench) show(v View) {
	b.views <- v
	synctest.Wait()
}

func (b *bench) view(down string, rev int64) View {
	v := View{Inventory: b.inv, Votes: votes(down), VotesRevision: rev, Connected: true}
	if p := b.store.plans(); len(p) > 0 {
		v.Plan = p[len(p)-1]
	}
	return v
}

func (b *bench) wantPlans(n int) []*placement.Plan {
	b.t.Helper()
	p := b.store.plans()
	if len(p) != n {
		b.t.Fatalf("%d plans published, want %d; log:\n%s", len(p), n, b.log)
	}
	return p
}

func TestPublishesOnceWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		b.show(b.view("", 1))
		b.wantPlans(0) // it does not lead yet
		b.lead()
		b.wantPlans(1)
		time.Sleep(time.Minute)
		b.show(b.view("", 2))
		time.Sleep(time.Minute)
		synctest.Wait()
		b.wantPlans(1)
		if b.store.beats < 119 {
			t.Errorf("%d heartbeats in 120 s", b.store.beats)
		}
	})
}

func TestVerdictsAreUrgentOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		b.show(b.view("", 1))
		b.lead()
		time.Sleep(time.Second / 2)
		at := time.Now()
		b.show(b.view("nyc1", 2))
		p := b.wantPlans(2)
		if !b.store.at[1].Equal(at) {
			t.Errorf("published %v after a verdict changed", b.store.at[1].Sub(at))
		}
		if !slices.Equal(p[1].Down, []placement.ClusterID{{Site: "nyc1", Name: "web"}}) {
			t.Errorf("down: %v", p[1].Down)
		}
		b.inv = inventory()
		b.inv.Revision = 8
		at = time.Now()
		b.show(b.view("nyc1", 2))
		b.wantPlans(2)
		time.Sleep(150 * time.Millisecond)
		b.wantPlans(3)
		if got := b.store.at[2].Sub(at); got != debounce {
			t.Errorf("published %v after a configuration, want %v", got, debounce)
		}
	})
}

func TestRecoveryRamps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		b.show(b.view("nyc1", 1))
		b.lead()
		b.show(b.view("", 2))
		first := b.wantPlans(2)[1]
		if len(first.Ramps) != 1 || first.Ramps[0].Cluster.Site != "nyc1" || first.Weights[0].PerMille != 0 {
			t.Fatalf("ramps %+v, weights %+v", first.Ramps, first.Weights)
		}
		time.Sleep(95 * time.Second)
		synctest.Wait()
		plans, last := b.store.plans(), 0
		for _, p := range plans[2:] {
			w := 1000
			if len(p.Weights) > 0 {
				w = p.Weights[0].PerMille
			}
			if w <= last || w-last > rampJump {
				t.Errorf("weight goes from %d to %d", last, w)
			}
			last = w
		}
		if last != 1000 {
			t.Errorf("the ramp ends at %d", last)
		}
	})
}

// rampJump is the largest step of a ramp that a tick of a second may show.
const rampJump = 100

func TestFrozenPublishesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		b.inv.Freeze = placement.Freeze{Audit: placement.Audit{Who: "op", Reason: "audit"}}
		b.show(b.view("", 1))
		b.lead()
		b.wantPlans(1) // there was none at all
		b.show(b.view("nyc1", 2))
		time.Sleep(time.Minute)
		b.wantPlans(1)
		drained := inventory()
		drained.Revision, drained.Freeze = 8, b.inv.Freeze
		drained.Drains = []placement.Drain{{Site: "sin1", Audit: placement.Audit{Who: "op", Reason: "power"}}}
		b.inv = drained
		b.show(b.view("nyc1", 3))
		time.Sleep(3 * time.Minute)
		p := b.store.plans()
		last := p[len(p)-1]
		if d := last.Drain("sin1"); d == nil || d.Phase != placement.PhaseDrained {
			t.Errorf("a drain by hand stops at %+v", last.Drains)
		}
		if len(last.Down) > 0 {
			t.Errorf("followed health while frozen: down %v", last.Down)
		}
	})
}

func TestTermLostAndTakenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		b.show(b.view("", 1))
		term := b.lead()
		term.Resign()
		synctest.Wait()
		b.show(b.view("nyc1", 2))
		time.Sleep(time.Minute)
		b.wantPlans(1)
		b.lead()
		b.wantPlans(2)
	})
}

func TestRefusalsAreLoggedOnce(t *testing.T) {
	cases := []struct {
		name string
		set  func(b *bench, v *View)
		want string
	}{
		{"a node of an older algorithm", func(_ *bench, v *View) {
			v.Nodes = []placement.Node{{Name: "old", Algorithms: []int{0}}}
		}, "runs algorithms"},
		{"a node that would leave half of a policy out", func(_ *bench, v *View) {
			inv := *v.Inventory
			inv.Policies = slices.Clone(inv.Policies)
			inv.Policies[0].SkipFirst = 1
			v.Inventory, v.Nodes = &inv, []placement.Node{{Name: "new", Algorithms: []int{1, 2}}, {Name: "old", Unit: "rhumb-dns", Algorithms: []int{1}}}
		}, "needs algorithm 2, and node old (rhumb-dns) runs algorithms [1]: upgrade it"},
		{"the store refuses", func(b *bench, _ *View) { b.store.err = errors.New("no space") }, "no space"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := start(t)
				v := b.view("", 1)
				tc.set(b, &v)
				b.show(v)
				b.lead()
				time.Sleep(30 * time.Second)
				synctest.Wait()
				b.wantPlans(0)
				b.stop()
				if n := strings.Count(b.log.String(), tc.want); n != 1 {
					t.Errorf("%q was logged %d times:\n%s", tc.want, n, b.log)
				}
			})
		})
	}
}

// TestSmallShiftsOfDemandAreNoPlan: measurements are never twice the same. A crowd is
// a plan once it has lasted, and a new director begins with what the last one planned for.
func TestSmallShiftsOfDemandAreNoPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		b.inv.Services[0].PerQuery = 10
		var last *placement.Plan
		show := func(milli int64) {
			v := b.view("", 1)
			v.Plan = last
			v.Demand = []placement.DemandReport{{Node: "ams1-a", ClassTable: "cafe",
				Services: []placement.ServiceDemand{{Service: "www", Asked: []placement.ClassRate{{Class: 1, Milli: milli}}}}}}
			b.show(v)
			time.Sleep(decide.RiseAfter + 20*time.Second)
			synctest.Wait()
		}
		want := func(plans int, rps int64) {
			t.Helper()
			p := b.wantPlans(plans)
			if last = p[plans-1]; len(last.Services[0].Demand) != 1 || last.Services[0].Demand[0].QPS != rps {
				t.Errorf("planned with %+v, want %d requests/s", last.Services[0].Demand, rps)
			}
		}
		show(1_000_000)
		term := b.lead()
		time.Sleep(decide.RiseAfter + 20*time.Second)
		synctest.Wait()
		want(2, 10_000) // the first one was made before anything was known
		show(1_050_000)
		show(950_000)
		want(2, 10_000)
		show(1_300_000)
		want(3, 13_000)
		show(900_000) // less is no hurry
		want(3, 13_000)
		term.Resign()
		b.lead()
		show(1_290_000)
		want(3, 13_000)
	})
}

func TestDisconnectedDecidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		defer b.stop()
		v := b.view("", 1)
		v.Connected = false
		b.show(v)
		b.lead()
		time.Sleep(time.Minute)
		b.wantPlans(0)
	})
}

// TestOnlyOwnSessionsAreWaitedFor leaves out what nobody can hand over.
func TestOnlyOwnSessionsAreWaitedFor(t *testing.T) {
	got := sessions([]placement.Node{
		{Site: "ams1", Edge: &placement.EdgeStats{Sessions: 3, Foreign: 100}},
		{Site: "ams1", Edge: &placement.EdgeStats{Sessions: 4, Forwarded: 7}},
		{Site: "nyc1", Edge: &placement.EdgeStats{Foreign: 5}},
		{Site: "tyo1"},
	})
	if got["ams1"] != 7 || got["nyc1"] != 0 || got["tyo1"] != 0 {
		t.Errorf("waits for %v", got)
	}
}
