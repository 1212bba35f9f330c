package detect

import (
	"slices"
	"testing"
	"time"
)

// TestSomeAreWatched: two nodes which watch different ones tell each other of those whom
// both watch, and agree on who that is; who has no word on a subject is not asked.
func TestSomeAreWatched(t *testing.T) {
	_, at := listenUDP(t)
	node := func(self uint16, watches map[uint16][]uint16) *Link {
		l := idle(t, 0, 300*ms)
		l.cfg.Node, l.roster.self = self, self
		var peers []Peer
		for _, id := range []uint16{1, 2, 3, 4, 5, 6} {
			if w, ok := watches[id]; ok {
				peers = append(peers, Peer{Node: id, Addr: at, Keys: [][32]byte{keyOf(id)}, Watches: w})
			}
		}
		l.d.Watch(l.roster.set(peers))
		return l
	}
	a := node(1, map[uint16][]uint16{2: {1, 3, 5, 6}, 3: {1, 2}, 4: {1, 9}, 5: {1, 2}})
	b := node(2, map[uint16][]uint16{1: {2, 3, 4, 5}, 3: {1, 2}, 5: {1, 2}, 6: {2}})
	for i, id := range []uint16{3, 4, 5} {
		a.hear(say(id, KindBeat, 100+uint32(i), nil))
	}
	if !b.hearVector(b.roster.byNode[1], a.vector(nil, a.roster.byNode[2])) {
		t.Fatal("1 and 2 do not agree on whom they both watch: 3 and 5")
	}
	if b.d.Slot(3) != 100 || b.d.Slot(5) != 102 || b.d.State(6) != Unknown {
		t.Errorf("told of 3: slot %d, want 100; of 5: %d, want 102; 6 is %v, want unknown", b.d.Slot(3), b.d.Slot(5), b.d.State(6))
	}
	if len(a.vector(nil, a.roster.byNode[4])) != 0 {
		t.Error("1 has a word for 4, though they watch nobody in common")
	}
	a.now = 10 * time.Second
	a.d.Due(a.now)
	a.ask()
	a.out.flush()
	var asked []uint16
	for _, p := range a.roster.peers {
		if n := p.out[OK].Load(); n > 0 {
			asked = append(asked, p.Node)
		}
	}
	// 3, 4 and 5 owe a beat. 2 hears 3 and 5; those two hear 2 alone, of whom nobody asks.
	if !slices.Equal(asked, []uint16{2}) {
		t.Errorf("asked %v, want 2 alone", asked)
	}
	c := node(2, map[uint16][]uint16{1: {2, 3, 4}, 3: {1, 2}, 5: {1, 2}})
	if c.hearVector(c.roster.byNode[1], a.vector(nil, a.roster.byNode[2])) {
		t.Error("believed, though by the fleet of 2 only 3 is watched by both")
	}
}
