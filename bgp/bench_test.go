package bgp

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/placement"
)

var (
	anycast  = netip.MustParsePrefix("192.0.2.0/24")
	anycast6 = netip.MustParsePrefix("2001:db8:100::/48")
	vip      = netip.MustParseAddr("192.0.2.53")
	router   = netip.MustParseAddr("198.51.100.2")
)

// bench is a Speaker of site ams in a bubble with everything around it faked.
type bench struct {
	t      *testing.T
	s      *Speaker
	engine *fakeEngine
	store  *fakeStore
	events []Event
	snap   placement.Snapshot
	live   []placement.Announced
	stop   context.CancelFunc
	done   chan error
}

func start(t *testing.T, change func(*Config, *bench)) *bench {
	b := &bench{t: t, engine: newFakeEngine(), store: &fakeStore{max: 1}, done: make(chan error, 1)}
	b.snap = placement.Snapshot{Name: placement.Name{Plan: 1, Votes: 1},
		Inventory: &placement.Inventory{Fleet: placement.Fleet{Mode: placement.Act,
			Sites:    []placement.Site{{Name: "ams", Number: 1}, {Name: "fra", Number: 2}, {Name: "lon", Number: 3}},
			Prefixes: []placement.Prefix{{Prefix: anycast, Slots: 1, Prepend: 2, MED: 50, Witness: placement.WitnessAdvisory}}}},
		Anchors: []placement.Anchors{{Prefix: anycast, Sites: []string{"fra", "lon"}}}}
	cfg := Config{Site: "ams", SiteNumber: 1, Node: "ams1", ASN: 64500, Engine: b.engine, Slots: b.store, Announcer: b.store,
		Events: func(e Event) { b.events = append(b.events, e) }}
	if change != nil {
		change(&cfg, b)
	}
	b.s = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	b.stop = cancel
	go func() { b.done <- b.s.Run(ctx) }()
	t.Cleanup(func() { cancel() })
	return b
}

// want asks for a step of the anycast prefix.
func (b *bench) want(step placement.Step, change ...func(*placement.Announcement)) {
	a := placement.Announcement{Prefix: anycast, Site: "ams", Want: step, Cause: "test"}
	for _, c := range change {
		c(&a)
	}
	snap := b.snap
	snap.Name.Votes++
	b.snap.Name.Votes++
	snap.Announcements = []placement.Announcement{a}
	b.s.Apply(b.t.Context(), &snap, b.live)
	synctest.Wait()
}

func local(a *placement.Announcement)    { a.Fault = placement.LocalFault }
func shared(a *placement.Announcement)   { a.Fault = placement.SharedFault }
func intent(a *placement.Announcement)   { a.Intent = true }
func observed(a *placement.Announcement) { a.Mode = placement.Observe }

func (b *bench) step() placement.Step {
	b.t.Helper()
	st := b.s.Status()
	if len(st.Routes) == 0 {
		b.t.Fatal("no route in the status")
	}
	return st.Routes[0].Announced
}

func (b *bench) expect(want placement.Step) {
	b.t.Helper()
	synctest.Wait()
	if got := b.step(); got != want {
		b.t.Fatalf("step %v, want %v; refusal %v", got, want, b.s.Status().Routes[0].Refusal)
	}
}

func (b *bench) rule(want placement.RuleName) {
	b.t.Helper()
	r := b.s.Status().Routes[0].Refusal
	if r == nil && want != "" || r != nil && r.Rule != want {
		b.t.Fatalf("refusal %v, want rule %q", r, want)
	}
}

// pass lets time go by in the bubble.
func (b *bench) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// up brings the prefix to announce.
func (b *bench) up() {
	b.t.Helper()
	b.want(placement.Announce)
	b.pass(10 * time.Second)
	b.expect(placement.Announce)
}

func (b *bench) end() {
	b.t.Helper()
	b.stop()
	began := time.Now()
	if err := <-b.done; err != nil {
		b.t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		b.t.Errorf("the exit took %v, want 3s at most", took)
	}
	b.pass(5 * time.Second)
}

// see makes the router show another site's route.
func (b *bench) see(site uint32, gshut bool) {
	a := Attrs{LargeCommunities: []LargeCommunity{{64500, 1, site}}}
	if gshut {
		a.Communities = []uint32{GracefulShutdown}
	}
	b.engine.changes <- Change{Learned: &Learned{Peer: router, Route: Route{Prefix: anycast, Attrs: a}}}
}

func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func countRule(events []Event, rule placement.RuleName) (n int) {
	for _, e := range events {
		if e.Rule == rule {
			n++
		}
	}
	return n
}

// counted returns the counter of that name and action.
func counted(t *testing.T, reg *prometheus.Registry, name, action string) (n float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == "action" && l.GetValue() == action {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}
