package forward

import (
	"slices"
	"testing"
	"time"
)

// TestNeighboursFirst: the other edges of this site are asked first and all at once, with
// the site that likely has the flow; the rest when they don't have it.
func TestNeighboursFirst(t *testing.T) {
	for _, tc := range []struct {
		name, paired string
		lines        []string
		how          result
	}{
		{"a neighbour has it", "", []string{"packet one -> ask s/1, ask s/2", "mine s/2 -> foreign s/2, tunnel s/2 one"}, byNeighbour},
		{"none has it", "", []string{"packet one -> ask s/1, ask s/2", "not s/2", "not s/1 -> ask a, ask b", "mine b -> foreign b, tunnel b one"}, byGroup},
		{"with the likely site", "b", []string{"packet one -> ask b, ask s/1, ask s/2", "mine b -> foreign b, tunnel b one"}, byPair},
		{"a neighbour instead of the likely site", "b", []string{"packet one -> ask b, ask s/1, ask s/2", "mine s/1 -> foreign s/1, tunnel s/1 one"}, byNeighbour},
		{"nobody", "", []string{"packet one -> ask s/1, ask s/2", "not s/2", "not s/1 -> ask a, ask b", "not b", "not a -> back one"}, byNobody},
		{"a silent neighbour holds up nobody for long", "", []string{"packet one -> ask s/1, ask s/2", "not s/1", "wait 60ms", "tick -> ask s/2, ask a, ask b", "mine a -> foreign a, tunnel a one"}, byGroup},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench("a", "b", "s/1", "s/2")
			b.beside, b.paired = []string{"s/1", "s/2"}, tc.paired
			b.script(t, flow4(1), tc.lines...)
			if b.counts[tc.how] != 1 {
				t.Errorf("counted as %v, want one as %s", b.counts, tc.how)
			}
		})
	}
}

// TestNeighbourIsNoMemory: which neighbour had one flow of a network tells nothing of the
// next one.
func TestNeighbourIsNoMemory(t *testing.T) {
	b := newBench("a", "s/1", "s/2")
	b.beside = []string{"s/1", "s/2"}
	b.script(t, flow4(1), "packet one -> ask s/1, ask s/2", "mine s/2 -> foreign s/2, tunnel s/2 one")
	if len(b.near) != 0 {
		t.Errorf("remembers %v", b.near)
	}
}

// TestSilentNeighbour: what was believed of a dead neighbour is forgotten at once. Its
// sessions are given back soon, unless somebody would revive them; then it is not asked.
func TestSilentNeighbour(t *testing.T) {
	b := newBench("a", "s/1", "s/2")
	b.beside = []string{"s/1", "s/2"}
	b.script(t, flow4(1), "packet one -> ask s/1, ask s/2", "mine s/2 -> foreign s/2, tunnel s/2 one")
	if fell := b.setSilent(b.now, []string{"s/2"}); !slices.Equal(fell, []string{"s/2"}) {
		t.Errorf("%v fell silent, want s/2", fell)
	}
	if fell := b.setSilent(b.now, []string{"s/2"}); len(fell) != 0 {
		t.Errorf("%v fell silent again", fell)
	}
	b.pass(silentGrace - 500*time.Millisecond)
	b.script(t, flow4(1), "packet two -> ask s/1, ask s/2", "not s/1", "wait 60ms", "tick -> ask s/2, ask a", "not a",
		"wait 430ms", "tick -> ask s/2", "wait 10ms", "tick -> back two")
	b.pass(nobodyLife)
	b.script(t, flow4(1), "packet three -> ask s/1", "not s/1 -> ask a", "not a -> back three")

	kept := flow4(2)
	b.setSilent(b.now, nil)
	b.script(t, kept, "packet one -> ask s/1, ask s/2", "not s/1")
	b.setSilent(b.now, []string{"s/2"})
	b.kept(b.now, kept, "s/1", "s/2")
	b.pass(silentGrace)
	b.script(t, kept, "tick -> ask s/2, ask s/1, ask a", "not a", "packet two", "mine s/1 -> foreign s/1, tunnel s/1 one, tunnel s/1 two")

	b.setSilent(b.now, nil)
	b.script(t, flow4(3), "packet one -> ask s/1, ask s/2")
}

// TestRehash: a router spreads thousands of flows anew. All of them find their owner next
// door, none is reset, and the budget of questions to other sites is not spent on them.
func TestRehash(t *testing.T) {
	b := newBench("a", "s/1", "s/2")
	b.beside = []string{"s/1", "s/2"}
	const flows = 30_000
	given := 0
	note := func(steps []step) {
		for _, s := range steps {
			if s.do == doGiveBack {
				given++
			}
		}
	}
	found := make(map[int]bool)
	for range 4 { // clients repeat themselves
		for i := range flows {
			f := flow6(uint16(i))
			note(b.packet(b.now, f, []byte("x"), false, nil))
			if r := b.flows[f]; r != nil && r.is == asking {
				note(b.mine(b.now, f, "s/1", nil))
				found[i] = true
			}
		}
		b.pass(time.Second)
	}
	if given > 0 || len(found) != flows {
		t.Errorf("%d packets were given back, %d of %d flows found their owner", given, len(found), flows)
	}
	if b.budget.left != b.budget.rate {
		t.Errorf("%v of %v questions to other sites are left, want all", b.budget.left, b.budget.rate)
	}
}

// TestScanBesideNeighbours: what no neighbour has is asked of other sites only as often as
// without neighbours.
func TestScanBesideNeighbours(t *testing.T) {
	b := newBench("a", "s/1")
	b.beside = []string{"s/1"}
	asks, back := 0, 0
	for i := range 10_000 {
		f := flow6(uint16(i))
		b.packet(b.now, f, []byte("x"), false, nil)
		for _, s := range b.notMine(b.now, f, "s/1", nil) {
			switch s.do {
			case doAsk:
				asks++
			case doGiveBack:
				back++
			}
		}
	}
	if asks != askRate || back != 10_000-askRate || len(b.flows) != askRate || len(b.asking) != askRate {
		t.Errorf("%d questions to the other site, %d given back, %d flows, %d asked; want %d, %d", asks, back, len(b.flows), len(b.asking), askRate, 10_000-askRate)
	}
	// While a neighbour's sessions may come back, what is too much is lost, not reset.
	b.setSilent(b.now, []string{"s/1"})
	f := flow4(9)
	b.script(t, f, "packet one -> ask s/1", "not s/1")
	if b.flows[f] != nil {
		t.Error("a question for which there is no budget is remembered")
	}
}
