package guard

import (
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strings"
	"testing"
)

// This file is docs/explanation/Guard.tla in Go, action by action, and a walk through
// every state which small fleets can come to. It knows nothing of the code of the rules:
// it asks whether the rules, as they are meant, keep the promises.

// specState is a state: for each variable the set of sites for which it holds.
type specState struct{ gshut, silent, reach, lease, named, knows, ack, held, saw uint8 }

// spec is a fleet: how many sites, slots, anchors; off names a condition left out.
type spec struct {
	n, k, min int
	off       string
}

func (f *spec) key(s specState) uint64 {
	var out uint64
	for _, v := range [...]uint8{s.gshut, s.silent, s.reach, s.lease, s.named, s.knows, s.ack, s.held, s.saw} {
		out = out<<f.n | uint64(v)
	}
	return out
}

// specMove is an action of one site, and where it leads.
type specMove struct {
	name string
	site int
	to   specState
}

// next returns what can happen. Conditions which f leaves out hold always.
func (f *spec) next(s specState, out []specMove) []specMove {
	all := uint8(1)<<f.n - 1
	up := all &^ s.silent
	count := func(v uint8) int { return bits.OnesCount8(v) }
	holds := func(condition string, ok bool) bool { return ok || f.off == condition }
	for i := range f.n {
		me := uint8(1) << i
		is := func(v uint8) bool { return v&me != 0 }
		do := func(name string, ok bool, change func(*specState)) {
			if !ok {
				return
			}
			t := s
			if change(&t); t != s {
				out = append(out, specMove{name, i, t})
			}
		}
		stays := !holds("anchors stay", !is(s.knows))
		do("GShut", is(up) && !is(s.gshut), func(t *specState) { t.gshut |= me })
		do("Plain", is(s.gshut), func(t *specState) { t.gshut &^= me })
		do("BySlot", is(s.reach) && is(s.gshut) && !stays && (is(s.held) || holds("slots are counted", count(s.held) < f.k)) &&
			holds("others are counted", count(s.lease&^s.held&^me) >= f.min),
			func(t *specState) {
				t.held |= me
				t.silent, t.gshut, t.lease, t.ack = t.silent|me, t.gshut&^me, t.lease&^me, t.ack&^me
			})
		do("Look", true, func(t *specState) {
			if t.saw &^= me; up&^s.gshut&^me != 0 {
				t.saw |= me
			}
		})
		do("ByWitness", !is(s.reach) && holds("the store has forgotten", !is(s.lease)) && holds("a witness is seen", is(s.saw)) && is(s.gshut) && !stays,
			func(t *specState) { t.silent, t.gshut = t.silent|me, t.gshut&^me })
		do("Back", is(s.silent), func(t *specState) {
			t.silent, t.gshut = t.silent&^me, t.gshut|me
			t.lease |= me & t.reach
		})
		do("Free", is(up&s.reach&s.held), func(t *specState) { t.held &^= me })
		do("Join", !is(s.named) && holds("holders are not named", !is(s.held)), func(t *specState) { t.named |= me })
		do("Learn", is(s.reach&s.named&^s.knows) && holds("back first", is(up)), func(t *specState) { t.knows, t.ack = t.knows|me, t.ack|me })
		do("Leave", is(s.named) && holds("others know", count(s.named&s.ack&^me) >= f.min), func(t *specState) { t.named &^= me })
		do("Forget", is(s.reach&s.knows&^s.named), func(t *specState) { t.knows, t.ack = t.knows&^me, t.ack&^me })
		do("Cut", is(s.reach), func(t *specState) { t.reach &^= me })
		do("Mend", !is(s.reach), func(t *specState) {
			t.reach |= me
			t.lease |= me & up
			t.ack |= me & t.knows
		})
		do("Expire", is(s.lease&^s.reach), func(t *specState) { t.lease, t.ack = t.lease&^me, t.ack&^me })
	}
	return out
}

// broken names the promise which a state breaks, "" if none.
func (f *spec) broken(s specState) string {
	up := (uint8(1)<<f.n - 1) &^ s.silent
	switch {
	case up == 0:
		return "NeverNone"
	case bits.OnesCount8(s.held) > f.k:
		return "NeverAboveK"
	case s.knows&^up != 0:
		return "AnchorsStay"
	case bits.OnesCount8(s.knows) < f.min:
		return "EnoughKnow"
	case s.lease&^up != 0:
		return "CountIsTrue"
	}
	return ""
}

// walk visits every state that can be reached, nearest first. It returns their number,
// or the promise that is broken and the shortest way to it.
func (f *spec) walk() (states int, promise string, way []string) {
	seen := make([]uint64, 1<<(9*f.n-6)+1)
	var queue []specState
	var from []int32 // index of the state before, and
	var by []specMove
	visit := func(m specMove, parent int32) {
		k := f.key(m.to)
		if seen[k/64]&(1<<(k%64)) == 0 {
			seen[k/64] |= 1 << (k % 64)
			queue, from, by = append(queue, m.to), append(from, parent), append(by, specMove{name: m.name, site: m.site})
		}
	}
	all := uint8(1)<<f.n - 1
	for named := range all + 1 {
		if bits.OnesCount8(named) == f.min {
			visit(specMove{"Init", 0, specState{reach: all, lease: all, named: named, knows: named, ack: named}}, -1)
		}
	}
	var moves []specMove
	for i := 0; i < len(queue); i++ {
		if promise = f.broken(queue[i]); promise != "" {
			for j := int32(i); j >= 0; j = from[j] {
				way = append(way, fmt.Sprintf("%s(s%d)", by[j].name, by[j].site))
			}
			slices.Reverse(way)
			return len(queue), promise, way
		}
		moves = f.next(queue[i], moves[:0])
		for _, m := range moves {
			visit(m, int32(i))
		}
	}
	return len(queue), "", nil
}

// TestSpecification: in no state that can be reached is a promise broken.
func TestSpecification(t *testing.T) {
	fleets := []spec{{n: 2, k: 1, min: 1}, {n: 3, k: 1, min: 2}}
	if os.Getenv("RHUMB_SOAK") != "" { // a million states between them
		fleets = append(fleets, spec{n: 3, k: 1, min: 1}, spec{n: 3, k: 2, min: 1})
	}
	for _, f := range fleets {
		states, promise, way := f.walk()
		if promise != "" {
			t.Errorf("%+v: %s is broken by %v", f, promise, way)
		}
		t.Logf("%d sites, %d slots, %d anchors: %d states", f.n, f.k, f.min, states)
		if states < 1000 {
			t.Errorf("only %d states", states)
		}
	}
}

// TestSpecificationNeedsEach leaves out one condition after the other: a promise breaks.
func TestSpecificationNeedsEach(t *testing.T) {
	for _, off := range []string{"anchors stay", "slots are counted", "others know", "back first"} {
		f := spec{n: 3, k: 1, min: 1, off: off}
		_, promise, way := f.walk()
		if promise == "" {
			t.Errorf("nothing breaks without %q", off)
		}
		t.Logf("without %q: %s by %v", off, promise, way)
	}
}

// TestSpecificationIsTheDocument: the page and this file know the same actions and promises.
func TestSpecificationIsTheDocument(t *testing.T) {
	page, err := os.ReadFile("../../docs/explanation/Guard.tla")
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile("spec_test.go")
	if err != nil {
		t.Fatal(err)
	}
	next := string(page)[strings.Index(string(page), "\nNext =="):]
	for _, name := range []string{"GShut", "Plain", "BySlot", "Look", "ByWitness", "Back", "Free", "Join", "Learn", "Leave", "Forget", "Cut", "Mend", "Expire"} {
		if !strings.Contains(next, name+"(s)") || !strings.Contains(string(own), `do("`+name+`"`) {
			t.Errorf("action %s is not in both", name)
		}
	}
	if n := strings.Count(string(own), "\t\tdo(\""); n != strings.Count(next[:strings.Index(next, "Spec ==")], "(s)") {
		t.Errorf("%d actions here, others there", n)
	}
	for _, promise := range []string{"NeverNone", "NeverAboveK", "AnchorsStay", "EnoughKnow", "CountIsTrue"} {
		if !strings.Contains(next, promise+" ") {
			t.Errorf("promise %s is not in the page", promise)
		}
	}
}
