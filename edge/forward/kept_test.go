package forward

import (
	"net/netip"
	"testing"
	"time"
)

// keeps tells a table that a site would revive the session of another.
func (b *bench) keeps(f Flow, site, owner string) { b.kept(b.now, f, site, owner) }

// TestKeptWaits: where another site would revive a session, its packets wait while its
// owner is silent, longer than for nobody; they follow the claim.
func TestKeptWaits(t *testing.T) {
	b, f := newBench("a", "b", "c"), claimFlow()
	b.script(t, f, "packet one -> ask a, ask b, ask c", "not c")
	b.keeps(f, "b", "a")
	b.script(t, f, "not b", "wait 1s", "tick -> ask a, ask b", "wait 500ms", "tick", "wait 500ms", "tick -> ask a, ask b",
		"packet two", "mine b -> foreign b, tunnel b one, tunnel b two")
}

// TestKeptEnds: it is the owner's word that counts, and the wait has an end.
func TestKeptEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lines []string
	}{
		{"the owner is alive", []string{"mine a -> foreign a, tunnel a one"}},
		{"the owner has it no more", []string{"not c", "not b", "not a -> back one"}},
		{"the owner has it no more, another site is silent", []string{"not b", "not a", "wait 1s", "tick -> back one"}},
		{"nobody says anything", []string{"not c", "not b", "wait 5900ms", "tick -> ask a, ask b", "wait 100ms", "tick -> back one"}},
	} {
		b, f := newBench("a", "b", "c"), claimFlow()
		b.packet(b.now, f, []byte("one"), false, nil)
		b.keeps(f, "b", "a")
		t.Run(tc.name, func(t *testing.T) { b.script(t, f, tc.lines...) })
	}
	b, f := newBench("a", "b"), claimFlow()
	b.keeps(f, "b", "a") // before anybody asked
	b.script(t, f, "packet one -> ask a, ask b", "not a")
	b.keeps(f, "b", "a") // behind the owner's no
	b.keeps(f, "b", "")
	b.script(t, f, "not b -> back one")
}

// TestMourning: what is beyond the budget of questions is reset, but not while
// sessions of a lost site may come back.
func TestMourning(t *testing.T) {
	b, f := newBench("a", "b"), claimFlow()
	b.budget.rate, b.budget.left = 1, 1
	flow := func(port uint16) Flow {
		g := f
		g.Client = netip.AddrPortFrom(f.Client.Addr(), port)
		return g
	}
	b.script(t, flow(1), "packet one -> ask a, ask b")
	b.script(t, flow(2), "packet two -> back two")
	b.keeps(flow(1), "b", "a")
	b.script(t, flow(2), "packet two")
	b.pass(keptLife)
	b.budget.left, b.budget.last = 0, b.now
	b.script(t, flow(3), "packet three -> back three")
	b.mourn(b.now.Add(time.Second))
	b.mourn(b.now) // never shorter
	b.script(t, flow(3), "packet three")
	if b.counts[overBudget] != 4 {
		t.Errorf("%d counted as over the budget, want 4", b.counts[overBudget])
	}
}

// TestFirstOfOrder: after the loss of a site those are asked first who likely have the record,
// then the group; before and later all at once.
func TestFirstOfOrder(t *testing.T) {
	b, f := newBench("a", "b", "c", "d"), claimFlow()
	b.first = func(Flow) []string { return []string{"d", "b", "z"} }
	b.script(t, f, "packet one -> ask a, ask b, ask c, ask d", "not a", "not b", "not c", "not d -> back one", "wait 1s")
	b.mourn(b.now.Add(reviveLife))
	b.script(t, f, "packet two -> ask b, ask d", "not b", "not d -> ask a, ask c", "mine c -> foreign c, tunnel c two", "wait 1h")
	b.mourn(b.now.Add(reviveLife))
	b.near = map[netip.Prefix]near{}
	b.script(t, f, "packet three -> ask b, ask d", "wait 60ms", "tick -> ask b, ask d, ask a, ask c", "not a", "not b", "not c", "not d -> back three", "wait 1s",
		"packet four -> ask b, ask d", "mine d -> foreign d, tunnel d four", "wait 1h")
	b.near = map[netip.Prefix]near{}
	b.script(t, f, "packet five -> ask a, ask b, ask c, ask d")
	if b.counts[byOrder] != 1 || b.counts[byGroup] != 1 || newMetrics().byResult[byOrder] == nil {
		t.Errorf("counts %v, or there is no counter", b.counts)
	}
}
