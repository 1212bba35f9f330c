package node

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func clockAt(seconds int) time.Time { return time.Unix(1_700_000_000+int64(seconds), 0) }

func lateQueue() *Queue[string] {
	return &Queue[string]{Lag: 45 * time.Minute, Grain: 30 * time.Second}
}

// TestQueueIsLate: what comes at ten is in force at a quarter to eleven, not before.
func TestQueueIsLate(t *testing.T) {
	q := lateQueue()
	q.Put(clockAt(0), "first")
	q.Put(clockAt(600), "second")
	for _, c := range []struct {
		at   int
		want string
	}{{601, "first"}, {600 + 45*60 - 1, "first"}, {600 + 45*60, "second"}, {100_000, "second"}} {
		if q.Pass(clockAt(c.at)); q.Current.Value != c.want {
			t.Errorf("at %d: %s, want %s", c.at, q.Current.Value, c.want)
		}
	}
}

// TestQueueHeld: while time does not pass nothing does; what is forgotten never comes.
func TestQueueHeld(t *testing.T) {
	q := lateQueue()
	q.Put(clockAt(0), "good")
	q.Pass(clockAt(60))
	q.Put(clockAt(100), "poison")
	if over := q.Forget(); len(over) != 1 || over[0].Value != "poison" {
		t.Errorf("forgot %v", over)
	}
	q.Put(clockAt(3600), "mended")
	q.Pass(clockAt(3600 + 45*60 - 1))
	if q.Current.Value != "good" {
		t.Errorf("%s came too early", q.Current.Value)
	}
	if q.Pass(clockAt(3600 + 45*60)); q.Current.Value != "mended" {
		t.Errorf("%s stays", q.Current.Value)
	}
}

// TestQueueAsOf: the inputs are of as long ago as the lag, but for what was never known.
func TestQueueAsOf(t *testing.T) {
	q := lateQueue()
	asOf := func(want int) {
		t.Helper()
		if got := q.AsOf(); !got.Equal(clockAt(want)) {
			t.Errorf("as of %d, want %d", got.Unix()-clockAt(0).Unix(), want)
		}
	}
	q.Put(clockAt(0), "a")
	q.Know(clockAt(0))
	asOf(0)
	q.Pass(clockAt(60))
	asOf(0) // it has not existed for 45 minutes
	for s := 0; s <= 4000; s += 5 {
		q.Know(clockAt(s))
	}
	q.Pass(clockAt(4000))
	asOf(4000 - 2700)
	q.Know(clockAt(9000)) // the store was away in between
	q.Pass(clockAt(9000))
	asOf(4000)
	q.Pass(clockAt(9000 + 2700))
	asOf(9000)
}

// TestQueueAgainstOracle: at any time the queue shows what was in force a lag ago, or a
// grain before that, and is bounded, whatever comes when.
func TestQueueAgainstOracle(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		q := lateQueue()
		var at []int
		now := 0
		for i := range 400 {
			now += rnd.IntN(40)
			if rnd.IntN(3) > 0 {
				q.Put(clockAt(now), fmt.Sprint(len(at)))
				at = append(at, now)
			}
			q.Pass(clockAt(now))
			if len(at) == 0 {
				continue
			}
			var got int
			fmt.Sscan(q.Current.Value, &got)
			limit := now - 45*60
			if got > 0 && at[got] > limit {
				t.Fatalf("seed %d step %d: a value of %d at %d", seed, i, at[got], now)
			}
			if got+1 < len(at) && at[got+1] <= limit-30 {
				t.Fatalf("seed %d step %d: value %d stays though the next is of %d at %d", seed, i, got, at[got+1], now)
			}
			if len(q.Waiting) > 92 {
				t.Fatalf("%d values wait", len(q.Waiting))
			}
		}
	}
}
