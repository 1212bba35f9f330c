package edge

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"rhumb/edge/frame"
)

// kept reports whether a pledge is.
func (p *pledge) kept() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// TestPledgeOfTwo: what waits for a Backup next door and for one elsewhere waits for both,
// however often one of them says so; for one where there is only one.
func TestPledgeOfTwo(t *testing.T) {
	near, far := []Peer{{Name: "s/2"}}, []Peer{{Name: "a"}}
	p := newPledge()
	parts := p.divide([tierCount][]Peer{near, far})
	parts[tierNear].keep()
	parts[tierNear].keep()
	if again := p.divide([tierCount][]Peer{nil, far}); again != parts {
		t.Error("it was divided anew")
	}
	if p.kept() {
		t.Error("kept by one of two")
	}
	parts[tierFar].waive()
	if !p.kept() {
		t.Error("not kept by both")
	}
	one := newPledge()
	parts = one.divide([tierCount][]Peer{tierFar: far})
	parts[tierNear].waive() // there is none
	if one.kept() {
		t.Error("kept by nobody")
	}
	if parts[tierFar].keep(); !one.kept() {
		t.Error("not kept by the only one")
	}
	if parts := (*pledge)(nil).divide([tierCount][]Peer{near, far}); parts != [tierCount]*pledge{} {
		t.Errorf("parts of nothing: %v", parts)
	}
}

// nodesOf is an agent, node 1 of site s, with neighbours and other sites.
func nodesOf(t *testing.T) *Agent {
	t.Helper()
	a := &Agent{cfg: Config{Site: "s/1", Of: "s"}, m: testMetrics(t)}
	a.revival = newRevival(a)
	a.replica = newReplica(a)
	v := &view{byName: map[string]Peer{}}
	for _, p := range []Peer{{Name: "a"}, {Name: "b/1", Of: "b"}, {Name: "s/2", Of: "s"}, {Name: "s/3", Of: "s"}} {
		p.Control, p.Weight = netip.MustParseAddrPort("192.0.2.1:1"), 1
		v.peers = append(v.peers, p)
		v.byName[p.Name] = p
	}
	a.view.Store(v)
	return a
}

func testMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics("s/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestTiers: who is a Backup next door and who elsewhere; the dead are none.
func TestTiers(t *testing.T) {
	a := nodesOf(t)
	var by tiered
	names := func(tier int) (out []string) {
		for _, p := range by.tiers(a)[tier] {
			out = append(out, p.Name)
		}
		return out
	}
	if near, far := names(tierNear), names(tierFar); !slices.Equal(near, []string{"s/2", "s/3"}) || !slices.Equal(far, []string{"a", "b/1"}) {
		t.Errorf("next door %v, elsewhere %v", near, far)
	}
	a.revival.down.Store(&[]string{"s/3", "a"})
	if near, far := names(tierNear), names(tierFar); !slices.Equal(near, []string{"s/2"}) || !slices.Equal(far, []string{"b/1"}) {
		t.Errorf("without the dead: next door %v, elsewhere %v", near, far)
	}
	for _, p := range a.targets(&drain{}) {
		if a.isNear(p) {
			t.Errorf("a site that drains moves sessions to %s, which drains as well", p.Name)
		}
	}
}

// TestWanted: an upload is kept elsewhere, or next door where nobody is elsewhere; other turns in
// both places.
func TestWanted(t *testing.T) {
	near, far := []Peer{{Name: "s/2"}}, []Peer{{Name: "b/1"}}
	both, alone := [tierCount][]Peer{near, far}, [tierCount][]Peer{near, nil}
	up, down := &turn{rec: frame.Record{Flags: frame.Upload}}, idleTurn(1)
	for _, c := range []struct {
		name        string
		t           *turn
		tiers, want [tierCount][]Peer
	}{
		{"download", down, both, both},
		{"download, no other site", down, alone, alone},
		{"upload", up, both, [tierCount][]Peer{nil, far}},
		{"upload, no other site", up, alone, alone},
	} {
		got := c.t.wanted(c.tiers)
		for tier := range got {
			if len(got[tier]) != len(c.want[tier]) {
				t.Errorf("%s: tier %d has %v, want %v", c.name, tier, got[tier], c.want[tier])
			}
		}
	}
}

// TestSuperseded: a record of an earlier epoch goes when a node of its owner's site says
// that it has taken the session over, and at nobody else's word.
func TestSuperseded(t *testing.T) {
	k := frame.Key{Client: netip.MustParseAddrPort("203.0.113.1:5000"), VIP: netip.MustParseAddrPort("192.0.2.10:80")}
	for name, tc := range []struct {
		from  string
		epoch uint64
		keeps bool
	}{{"b/1", 9, true}, {"s/3", 4, true}, {"s/3", 5, false}} {
		a := nodesOf(t)
		a.replica.store[k] = stored{rec: frame.Record{Key: k, Epoch: 4}, from: "s/2", at: time.Now()}
		a.supersededBy(&link{peer: tc.from}, frame.Frame{Type: frame.Claimed, Key: k, Epoch: tc.epoch})
		if a.replica.has(k) != tc.keeps {
			t.Errorf("case %d: at the word of %s, epoch %d, the record of epoch 4 stays: %v, want %v", name, tc.from, tc.epoch, !tc.keeps, tc.keeps)
		}
	}
}

// TestPullsNextDoor: a node may pull any session of its neighbours; of other sites only the
// first of the order may.
func TestPullsNextDoor(t *testing.T) {
	a := nodesOf(t)
	s := &session{svc: &service{Service: Service{Mode: ModeAct}}}
	for _, name := range []string{"s/2", "s/3"} {
		if err := a.permit(s, name); err != nil {
			t.Error(err)
		}
	}
	if err := a.permit(s, "elsewhere"); err == nil {
		t.Error("a site that is no member may pull")
	}
}
