package store

import (
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// promises is how many schedules are played; with RHUMB_SOAK=1 it is more than a million.
func promises() uint64 {
	switch {
	case os.Getenv("RHUMB_SOAK") != "":
		return 1_000_000
	case raceEnabled: // a world has one goroutine: the detector only slows it down
		return 1_500
	}
	return 50_000
}

// chosen are the seeds which RHUMB_SEED asks for, from first to before end: one, or two
// with a dash between, both included.
func chosen(t *testing.T) (first, end uint64) {
	env := os.Getenv("RHUMB_SEED")
	if env == "" {
		return 0, promises()
	}
	from, to, isRange := strings.Cut(env, "-")
	if !isRange {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 63)
	last, err2 := strconv.ParseUint(to, 10, 63)
	if err = errors.Join(err, err2); err != nil || last < first {
		t.Fatalf("RHUMB_SEED=%s is neither a seed nor two with a dash between: %v", env, err)
	}
	return first, last + 1
}

// playAll plays the schedules of the seeds from first to before end on all cores until
// one breaks a promise; it returns the lowest seed which was found to, and what was seen.
func playAll(first, end uint64, off string) (seed uint64, found bool, seen modelCount) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a world is small, and soon forgotten
	var next atomic.Uint64
	next.Store(first)
	var mu sync.Mutex
	var players sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		players.Go(func() {
			var own modelCount
			for {
				s := next.Add(1) - 1
				if s >= end {
					break
				}
				m := playModel(s, off, modelSchedule(s), false)
				own.add(m.seen)
				if m.broken != "" {
					mu.Lock()
					if !found || s < seed {
						seed, found = s, true
					}
					mu.Unlock()
					next.Store(end)
				}
			}
			mu.Lock()
			seen.add(own)
			mu.Unlock()
		})
	}
	players.Wait()
	return seed, found, seen
}

func (c *modelCount) add(o modelCount) {
	c.slot, c.witness, c.left, c.cover = c.slot+o.slot, c.witness+o.witness, c.left+o.left, c.cover+o.cover
	c.refused, c.raced, c.quorum = c.refused+o.refused, c.raced+o.raced, c.quorum+o.quorum
	c.retired += o.retired
}

// TestPromisesHold plays random schedules on the real rules; none breaks a promise, and
// enough happens in them for that to mean something.
func TestPromisesHold(t *testing.T) {
	first, end := chosen(t)
	n := end - first
	seed, found, seen := playAll(first, end, "")
	if found {
		t.Fatal(story(seed, ""))
	}
	t.Logf("%d schedules: silent by slot %d, by quorum %d, by witness %d, under a cover %d; left a sibling %d; refused %d; lost races %d; retired %d",
		n, seen.slot, seen.quorum, seen.witness, seen.cover, seen.left, seen.refused, seen.raced, seen.retired)
	for what, count := range map[string]int{"by slot": seen.slot, "by quorum": seen.quorum, "by witness": seen.witness, "under a cover": seen.cover,
		"left": seen.left, "refused": seen.refused, "raced": seen.raced, "retired": seen.retired} {
		if uint64(count) < n/1000 {
			t.Errorf("%s: only %d times in %d schedules", what, count, n)
		}
	}
}

// TestEachRuleIsNeeded switches the rules, and the mechanisms below them, off in turn:
// some schedule must then break a promise, or the rule, or the model, is good for nothing.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, off := range []string{"anchors", "slots", "witness", "fault", "last-node", "blast-radius", "min-sites", "retire",
		"the store compares", "slots are held", "anchors acknowledge", "holders are not named", "the store forgets first",
		"a witness is asked again", "a slot is counted anew", "a lost slot is noticed", "the forgotten count", "covers are asked"} {
		t.Run(off, func(t *testing.T) {
			seed, found, _ := playAll(0, promises(), off)
			if !found {
				t.Fatal("no schedule noticed that it is off")
			}
			t.Log(story(seed, off))
		})
	}
}

// TestModelIsDeterministic: a seed is a schedule, and a schedule has one end.
func TestModelIsDeterministic(t *testing.T) {
	for seed := range uint64(50) {
		a, b := playModel(seed, "", modelSchedule(seed), true), playModel(seed, "", modelSchedule(seed), true)
		if len(a.trace) == 0 || len(a.trace) != len(b.trace) || a.now != b.now || a.seen != b.seen {
			t.Fatalf("seed %d: %d and %d lines, %v and %v", seed, len(a.trace), len(b.trace), a.seen, b.seen)
		}
		for i := range a.trace {
			if a.trace[i] != b.trace[i] {
				t.Fatalf("seed %d: %q and %q", seed, a.trace[i], b.trace[i])
			}
		}
	}
}

// TestKeptSchedules plays what once looked like a break of a promise.
func TestKeptSchedules(t *testing.T) {
	for name, k := range map[string]struct {
		fleet    uint64 // the seed of newModel
		schedule []modelEvent
		reaches  string // a line of the trace, lest the schedule come to mean another thing
	}{
		// Both nodes of s1 are silent, s1-0 is cut off, both come back, and s1-1 knows that s1
		// is an anchor. s1-0 has the store again, whose lease never ended, but has not had its
		// turn: the store lists it as silent when s0 is let go. No plan can know better.
		"a node back from a cut has not spoken yet": {661692, []modelEvent{
			{kind: "sick everywhere", a: 6304, b: 19704, dice: 38140, wait: 7902 * time.Millisecond},
			{kind: "cut", a: 60418, b: 62494, dice: 56370, wait: 3026 * time.Millisecond},
			{kind: "well", a: 61129, b: 6568, dice: 49219, wait: 4949 * time.Millisecond},
			{kind: "mend", a: 57111, b: 144, dice: 14457, wait: 4577 * time.Millisecond},
		}, "plan: anchors [{192.0.2.0/24 [s1]}"},
		// s1-1 starts again while it is cut off, and before the lease of its last life ended:
		// what that life published must end with it, lest s1-0 takes it for a sibling.
		"a lease outlives who took it": {787205, []modelEvent{
			{kind: "crash", a: 37802, b: 33053, dice: 53599, wait: 3810 * time.Millisecond},
			{kind: "cut", a: 61547, b: 6563, dice: 64670, wait: 2685 * time.Millisecond},
			{kind: "start", a: 60452, b: 14166, dice: 56666, wait: 5972 * time.Millisecond},
			{kind: "drain two", a: 40651, b: 64638, dice: 58012, wait: 4977 * time.Millisecond},
			{kind: "crash", a: 25952, b: 51074, dice: 29473, wait: 8624 * time.Millisecond},
			{kind: "sick everywhere", a: 24896, b: 15314, dice: 1746, wait: 1507 * time.Millisecond},
			{kind: "director back", a: 21186, b: 24108, dice: 42141, wait: 6454 * time.Millisecond},
		}, "s1-0: 192.0.2.0/24 announce → gshut (wants withdrawn local fault)"},
		// s0-1 is cut off and sick, and has a cover; s0-0 is blamed by a quorum, and leaves on
		// s0-1 while the store lists it. So s0-1 waits, cover or not, until it does not.
		"a cover does not end a lease": {1030190, []modelEvent{
			{kind: "cut", a: 2790, b: 44933, dice: 41720, wait: 6695 * time.Millisecond},
			{kind: "drain", a: 14181, b: 64611, dice: 52574, wait: 3640 * time.Millisecond},
			{kind: "drain", a: 30918, b: 30101, dice: 4883, wait: 4351 * time.Millisecond},
			{kind: "cut", a: 33017, b: 15432, dice: 20535, wait: 1466 * time.Millisecond},
			{kind: "sick", a: 5261, b: 33794, dice: 37274, wait: 4396 * time.Millisecond},
			{kind: "mend", a: 58707, b: 5317, dice: 32617, wait: 2681 * time.Millisecond},
			{kind: "blamed", a: 13752, b: 24207, dice: 9328, wait: 2548 * time.Millisecond},
		}, "blamed s0-0"},
	} {
		t.Run(name, func(t *testing.T) {
			m := playModel(k.fleet, "", k.schedule, true)
			if m.heal(); m.broken != "" || !strings.Contains(strings.Join(m.trace, "\n"), k.reaches) {
				t.Fatalf("broken: %q; is %q reached?\n%s", m.broken, k.reaches, strings.Join(m.trace, "\n"))
			}
		})
	}
}

// TestCheckerHearsWhoSpoke: an announcing node which does not know that its site is an
// anchor forbids the move as soon as the store knows of it, and no sooner.
func TestCheckerHearsWhoSpoke(t *testing.T) {
	for unsaid, broken := range map[bool]bool{true: false, false: true} {
		m := newModel(661692, "") // s0-0, and two nodes at s1
		state := func(sites ...string) *modelState {
			plan := *m.state.plan
			plan.Anchors = slices.Clone(plan.Anchors)
			for i := range plan.Anchors {
				plan.Anchors[i].Sites = sites
			}
			return &modelState{&plan, m.inv}
		}
		m.now, m.state = m.now+time.Hour, state("s0", "s1")
		for _, n := range m.nodes {
			n.state = m.state
		}
		n := m.nodesOf("s1")[0]
		n.state, n.routes[0].unsaid, n.routes[1].unsaid = state("s0"), unsaid, unsaid
		if m.checkMove(state("s1").plan); (m.broken != "") != broken {
			t.Errorf("unsaid %v: broken %q", unsaid, m.broken)
		}
	}
}
