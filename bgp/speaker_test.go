package bgp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
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

// fakeEngine holds routes as a router would see them and keeps a history.
type fakeEngine struct {
	mu      sync.Mutex
	routes  map[netip.Prefix]Attrs
	history []string
	err     error
	changes chan Change
}

func newFakeEngine() *fakeEngine {
	return &fakeEngine{routes: make(map[netip.Prefix]Attrs), changes: make(chan Change)}
}

func (f *fakeEngine) put(what string, r Route) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	f.routes[r.Prefix] = r.Attrs
	f.history = append(f.history, what)
	return nil
}
func (f *fakeEngine) Announce(_ context.Context, r Route) error { return f.put("announce", r) }
func (f *fakeEngine) SetAttrs(_ context.Context, r Route) error { return f.put("set", r) }
func (f *fakeEngine) Withdraw(_ context.Context, p netip.Prefix) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.routes, p)
	f.history = append(f.history, "withdraw")
	return f.err
}
func (f *fakeEngine) PeerState(context.Context) (State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := State{Peers: []PeerState{{Address: router, ASN: 64501, State: "established", Established: true}}}
	for p, a := range f.routes {
		s.Routes = append(s.Routes, Route{Prefix: p, Attrs: a})
	}
	return s, nil
}
func (f *fakeEngine) Watch(ctx context.Context, fn func(Change)) error {
	for {
		select {
		case c := <-f.changes:
			fn(c)
		case <-ctx.Done():
			return nil
		}
	}
}
func (f *fakeEngine) get(p netip.Prefix) (Attrs, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.routes[p]
	return a, ok
}

// told returns the history so far and begins a new one when asked to.
func (f *fakeEngine) told(forget bool) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.history)
	if forget {
		f.history = nil
	}
	return out
}

// fakeStore grants up to max Slots and keeps what was published.
type fakeStore struct {
	mu        sync.Mutex
	max       int
	holders   []string
	away      bool
	hang      bool
	taken     int
	published []placement.Announced
	leaveErr  error
}

func (f *fakeStore) TakeSlot(ctx context.Context, p placement.Prefix, site, cause string, _ []placement.Announced) (placement.Slot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken++
	switch {
	case f.hang:
		f.mu.Unlock()
		<-ctx.Done()
		f.mu.Lock()
		return placement.Slot{}, ctx.Err()
	case f.away:
		return placement.Slot{}, errors.New("etcd: no leader")
	case !slices.Contains(f.holders, site) && len(f.holders) >= f.max:
		return placement.Slot{}, &placement.Refusal{Rule: placement.RuleSlots, Object: p.Prefix.String(), Have: "held by lon", Limit: "1"}
	}
	f.holders = append(f.holders, site)
	return placement.Slot{Prefix: p.Prefix, Number: 1, Site: site, Cause: cause}, nil
}
func (f *fakeStore) SetAnnounced(a placement.Announced) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.published = append(f.published, a)
}
func (f *fakeStore) LeaveNode(context.Context, placement.Announced, []placement.Announced) error {
	return f.leaveErr
}
func (f *fakeStore) FreeSlot(_ context.Context, _ netip.Prefix, site string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holders = slices.DeleteFunc(f.holders, func(s string) bool { return s == site })
	return nil
}
func (f *fakeStore) held() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.holders)
}

// fakeHost is lo.
type fakeHost struct {
	mu    sync.Mutex
	bound map[netip.Addr]bool
	log   *fakeEngine // shares the history, to see the order
}

func (h *fakeHost) note(what string, a netip.Addr, v bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bound[a] = v
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.history = append(h.log.history, what)
}
func (h *fakeHost) Bind(a netip.Addr) error   { h.note("bind", a, true); return nil }
func (h *fakeHost) Unbind(a netip.Addr) error { h.note("unbind", a, false); return nil }
func (h *fakeHost) Bound(a netip.Addr) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bound[a], nil
}

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

func bubble(t *testing.T, f func(*testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestUpByTheLadder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.want(placement.Announce)
		b.expect(placement.Withdrawn) // the warm-up first
		b.pass(time.Second + time.Millisecond)
		b.expect(placement.Prepend)
		a, _ := b.engine.get(anycast)
		want := Attrs{Prepend: 2, MED: 50, LargeCommunities: []LargeCommunity{{64500, 1, 1}}}
		if !a.Equal(want) {
			t.Errorf("attributes %+v, want %+v", a, want)
		}
		b.pass(time.Second)
		b.expect(placement.Announce)
		if a, _ := b.engine.get(anycast); a.Prepend != 0 || a.MED != 0 {
			t.Errorf("plain announcement carries %+v", a)
		}
		b.end()
	})
}

func TestDownByTheLadder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, intent)
		b.expect(placement.Prepend)
		b.pass(251 * time.Millisecond)
		b.expect(placement.GShut)
		if a, _ := b.engine.get(anycast); !a.GShut() || a.Prepend != 2 || a.MED != 50 {
			t.Errorf("gshut lost attributes: %+v", a)
		}
		b.pass(251 * time.Millisecond)
		b.expect(placement.Withdrawn)
		if b.store.held() != 1 {
			t.Errorf("%d slots held, want 1", b.store.held())
		}
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		if b.store.held() != 0 {
			t.Error("the slot was kept after the return")
		}
		b.end()
	})
}

func TestLocalFaultJumps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, local)
		b.expect(placement.GShut)
		b.pass(251 * time.Millisecond)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestRules(t *testing.T) {
	anchor := func(b *bench) { b.snap.Anchors[0].Sites = []string{"ams", "fra"} }
	tests := []struct {
		name  string
		setup func(*bench)
		mods  []func(*placement.Announcement)
		step  placement.Step
		rule  placement.RuleName
		taken bool // may the store be asked for a slot
	}{
		{"fault", nil, []func(*placement.Announcement){shared}, placement.GShut, placement.RuleFault, false},
		{"anchors", anchor, []func(*placement.Announcement){local}, placement.GShut, placement.RuleAnchors, false},
		{"slots", func(b *bench) { b.store.max = 0 }, []func(*placement.Announcement){local}, placement.GShut, placement.RuleSlots, true},
		{"witness, store away", func(b *bench) { b.store.away = true }, []func(*placement.Announcement){local}, placement.GShut, placement.RuleWitness, true},
		{"witness, store late", func(b *bench) { b.store.hang = true }, []func(*placement.Announcement){local}, placement.GShut, placement.RuleWitness, true},
		{"witness for a quorum", nil, nil, placement.GShut, placement.RuleWitness, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := start(t, nil)
				b.up()
				if tt.setup != nil {
					tt.setup(b)
				}
				b.want(placement.Withdrawn, tt.mods...)
				b.pass(30 * time.Second)
				b.expect(tt.step)
				b.rule(tt.rule)
				if got := b.store.taken > 0; got != tt.taken {
					t.Errorf("store asked: %v, want %v", got, tt.taken)
				}
				if n := countRule(b.events, tt.rule); n != 1 {
					t.Errorf("refusal told %d times, want once", n)
				}
				b.end()
			})
		})
	}
}

func countRule(events []Event, rule placement.RuleName) (n int) {
	for _, e := range events {
		if e.Rule == rule {
			n++
		}
	}
	return n
}

// see makes the router show another site's route.
func (b *bench) see(site uint32, gshut bool) {
	a := Attrs{LargeCommunities: []LargeCommunity{{64500, 1, site}}}
	if gshut {
		a.Communities = []uint32{GracefulShutdown}
	}
	b.engine.changes <- Change{Learned: &Learned{Peer: router, Route: Route{Prefix: anycast, Attrs: a}}}
}

func TestWitnessWithoutStore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Slots, c.Announcer = nil, nil })
		b.up()
		b.want(placement.Withdrawn, local)
		b.see(2, true) // asks to be avoided itself: no fallback
		b.pass(20 * time.Second)
		b.expect(placement.GShut)
		b.see(2, false)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestWitnessNotBeforeTenSeconds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Slots, c.Announcer = nil, nil })
		b.up()
		b.see(2, false)
		b.want(placement.Withdrawn, local)
		b.pass(9 * time.Second)
		b.expect(placement.GShut)
		b.pass(3 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestWitnessGoesWithItsPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.Slots, c.Announcer = nil, nil })
		b.up()
		b.see(2, false)
		b.engine.changes <- Change{Peer: &PeerState{Address: router, State: "idle"}}
		b.want(placement.Withdrawn, local)
		b.pass(20 * time.Second)
		b.expect(placement.GShut)
		b.end()
	})
}

func TestNodeOfSeveralLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.snap.Anchors[0].Sites = []string{"ams", "fra"} // the site stays by its other node
		b.live = []placement.Announced{{Prefix: anycast, Site: "ams", Node: "ams2", Step: placement.Announce}}
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(time.Second)
		b.expect(placement.Withdrawn)
		if b.store.held() != 0 {
			t.Error("a slot was taken for one node of two")
		}
		b.end()
	})
}

func TestLastNodeIsTheSite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *bench) {
			b.store.max = 0
			b.store.leaveErr = &placement.Refusal{Rule: placement.RuleLastNode, Object: "ams"}
		})
		b.live = []placement.Announced{{Prefix: anycast, Site: "ams", Node: "ams2", Step: placement.Announce}}
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(5 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleSlots)
		b.end()
	})
}

func TestOwnListenerGone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		var dead error
		set := func(err error) { mu.Lock(); dead = err; mu.Unlock() }
		set(errors.New("nobody listens on 192.0.2.53"))
		b := start(t, func(c *Config, _ *bench) {
			c.Listening = func(netip.Prefix) error { mu.Lock(); defer mu.Unlock(); return dead }
		})
		b.want(placement.Announce)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		b.rule(placement.RuleAddress)
		set(nil)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		set(errors.New("nobody listens on 192.0.2.53"))
		b.pass(time.Second + time.Millisecond) // seen at the next audit, then no dwell
		b.expect(placement.Withdrawn)
		set(nil)
		b.pass(20 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

func TestObserveTouchesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		b := start(t, func(c *Config, _ *bench) { c.Registerer = reg })
		b.want(placement.Announce, observed)
		b.pass(10 * time.Second)
		b.want(placement.Withdrawn, observed, local)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		if len(b.engine.told(false)) != 0 || b.store.taken != 0 || len(b.store.published) != 0 {
			t.Errorf("observe touched: engine %v, store %d, published %v", b.engine.told(false), b.store.taken, b.store.published)
		}
		for _, step := range []string{"prepend", "announce", "gshut", "withdrawn"} {
			if n := counted(t, reg, "rhumb_anycast_would_change_total", step); n != 1 {
				t.Errorf("would change to %s: counted %v, want 1", step, n)
			}
		}
		b.want(placement.Announce) // acts from now on, from the bottom
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
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

func TestFreeze(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.snap.Inventory.Freeze = placement.Freeze{Audit: placement.Audit{Who: "test", Reason: "work"}}
		b.up() // a restart under freeze must come up
		b.want(placement.Withdrawn, local)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.want(placement.Withdrawn, intent)
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestReconcile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.engine.Withdraw(t.Context(), anycast)
		b.pass(auditEvery + time.Millisecond)
		if _, ok := b.engine.get(anycast); !ok {
			t.Fatal("a lost route was not announced again")
		}
		b.engine.Announce(t.Context(), Route{Prefix: anycast, Attrs: Attrs{Prepend: 9}})
		b.engine.Announce(t.Context(), Route{Prefix: anycast6, Attrs: Attrs{}})
		b.pass(auditEvery + time.Millisecond)
		if a, _ := b.engine.get(anycast); a.Prepend != 0 {
			t.Error("foreign attributes stayed")
		}
		if _, ok := b.engine.get(anycast6); ok {
			t.Error("a route nobody wants stayed")
		}
		b.end()
	})
}

func TestEngineError(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.engine.err = errors.New("engine: no")
		b.want(placement.Announce)
		b.pass(5 * time.Second)
		b.expect(placement.Withdrawn)
		b.engine.mu.Lock()
		b.engine.err = nil
		b.engine.mu.Unlock()
		b.pass(5 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

// TestOrder holds the order of address and route, both ways and at exit.
func TestOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, b *bench) {
			c.Host = &fakeHost{bound: make(map[netip.Addr]bool), log: b.engine}
			c.Addresses = []netip.Addr{vip}
		})
		b.up()
		b.want(placement.Withdrawn, intent)
		b.pass(1500 * time.Millisecond)
		b.expect(placement.Withdrawn)
		early := []string{"bind", "announce", "set", "set", "set", "withdraw"}
		if got := b.engine.told(false); !slices.Equal(got, early) {
			t.Errorf("history %v, want %v: the address stays for the routers' FIBs", got, early)
		}
		b.pass(2 * time.Second)
		if got, want := b.engine.told(true), append(early, "unbind"); !slices.Equal(got, want) {
			t.Errorf("history %v, want %v", got, want)
		}
		b.up()
		b.end()
		want := []string{"bind", "announce", "set", "set", "withdraw", "unbind"}
		if got := b.engine.told(false); !slices.Equal(got, want) {
			t.Errorf("history to the exit %v, want %v", got, want)
		}
	})
}

// TestAddressInUseStays keeps an address on lo as long as sessions on it last, but
// not for ever.
func TestAddressInUseStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var used atomic.Bool
		host := &fakeHost{bound: make(map[netip.Addr]bool)}
		b := start(t, func(c *Config, b *bench) {
			host.log = b.engine
			c.Host, c.Addresses = host, []netip.Addr{vip}
			c.InUse = func(a netip.Addr) bool { return a == vip && used.Load() }
		})
		bound := func(want bool) {
			t.Helper()
			synctest.Wait()
			if have, _ := host.Bound(vip); have != want {
				t.Errorf("bound %v, want %v", have, want)
			}
		}
		b.up()
		used.Store(true)
		b.want(placement.Withdrawn, intent)
		b.pass(30 * time.Minute)
		b.expect(placement.Withdrawn)
		bound(true)
		used.Store(false)
		b.pass(2 * time.Second)
		bound(false)
		b.up()
		used.Store(true)
		b.want(placement.Withdrawn, intent)
		b.pass(keepLimit + time.Minute)
		bound(false)
		b.up()
		b.end()
		bound(true) // other processes go on with it
	})
}

func TestStartWhileUnwanted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(_ *Config, b *bench) { b.store.max = 0 })
		b.want(placement.Withdrawn, local)
		b.pass(5 * time.Second)
		b.expect(placement.GShut) // no slot: a fleet restarted in a bad hour must not be silent
		b.store.mu.Lock()
		b.store.max = 1
		b.store.mu.Unlock()
		b.pass(5 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestNamedAnchorWhileSilent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Withdrawn, local)
		b.pass(time.Second)
		b.expect(placement.Withdrawn)
		b.snap.Anchors = []placement.Anchors{{Prefix: anycast, Sites: []string{"ams", "fra"}}}
		b.want(placement.Withdrawn, local)
		b.pass(10 * time.Second)
		b.expect(placement.GShut)
		b.rule(placement.RuleAnchors)
		b.end()
	})
}

func TestEmptySnapshotIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		empty := b.snap
		empty.Announcements = nil
		b.s.Apply(t.Context(), &empty, nil)
		b.pass(10 * time.Second)
		b.expect(placement.Announce)
		b.end()
	})
}

func TestPrefixNoLongerNamed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, nil)
		b.up()
		b.want(placement.Announce, func(a *placement.Announcement) { a.Site = "fra" })
		b.pass(10 * time.Second)
		b.expect(placement.Withdrawn)
		b.end()
	})
}

func TestMaxAnnounced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := start(t, func(c *Config, _ *bench) { c.MaxAnnounced = 1 })
		snap := b.snap
		snap.Announcements = []placement.Announcement{{Prefix: anycast, Site: "ams"}, {Prefix: anycast6, Site: "ams"}}
		b.s.Apply(t.Context(), &snap, nil)
		b.pass(10 * time.Second)
		st := b.s.Status()
		if st.Routes[0].Announced != placement.Announce || st.Routes[1].Announced != placement.Withdrawn {
			t.Errorf("routes %+v", st.Routes)
		}
		if r := st.Routes[1].Refusal; r == nil || r.Rule != placement.RuleMaxAnnounced {
			t.Errorf("refusal %v", r)
		}
		b.end()
	})
}
