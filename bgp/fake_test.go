package bgp

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"rhumb/placement"
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
