package store

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
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

// playAll plays the schedules of all seeds on all cores until one breaks a promise; it
// returns the lowest seed which was found to, and what was seen.
func playAll(seeds uint64, off string) (seed uint64, found bool, seen modelCount) {
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a world is small, and soon forgotten
	var next atomic.Uint64
	var mu sync.Mutex
	var players sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		players.Go(func() {
			var own modelCount
			for {
				s := next.Add(1) - 1
				if s >= seeds {
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
					next.Store(seeds)
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
}

// TestPromisesHold plays random schedules on the real rules; none breaks a promise, and
// enough happens in them for that to mean something.
func TestPromisesHold(t *testing.T) {
	n := promises()
	seed, found, seen := playAll(n, "")
	if found {
		t.Fatal(story(seed, ""))
	}
	t.Logf("%d schedules: silent by slot %d, by quorum %d, by witness %d, under a cover %d; left a sibling %d; refused %d; lost races %d",
		n, seen.slot, seen.quorum, seen.witness, seen.cover, seen.left, seen.refused, seen.raced)
	for what, count := range map[string]int{"by slot": seen.slot, "by quorum": seen.quorum, "by witness": seen.witness, "under a cover": seen.cover,
		"left": seen.left, "refused": seen.refused, "raced": seen.raced} {
		if uint64(count) < n/1000 {
			t.Errorf("%s: only %d times in %d schedules", what, count, n)
		}
	}
}

// TestEachRuleIsNeeded switches the rules, and the mechanisms below them, off in turn:
// some schedule must then break a promise, or the rule, or the model, is good for nothing.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, off := range []string{"anchors", "slots", "witness", "fault", "last-node", "blast-radius", "min-sites",
		"the store compares", "slots are held", "anchors acknowledge", "holders are not named", "the store forgets first",
		"a witness is asked again", "a slot is counted anew", "a lost slot is noticed", "the forgotten count", "covers are asked"} {
		t.Run(off, func(t *testing.T) {
			seed, found, _ := playAll(promises(), off)
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
