package edge

import (
	"testing"
	"testing/synctest"
	"time"

	"rhumb/edge/frame"
)

// TestSummons: a session is asked for in vain by the question that comes late enough after the
// first, and not so late that it is a first one itself.
func TestSummons(t *testing.T) {
	at := time.Unix(1000, 0)
	for _, tc := range []struct {
		name  string
		after []time.Duration // of each question, since the first
		want  bool            // of the last
	}{
		{"the first", []time.Duration{0}, false},
		{"soon again", []time.Duration{0, 60 * time.Millisecond, 499 * time.Millisecond}, false},
		{"still asked", []time.Duration{0, 60 * time.Millisecond, 500 * time.Millisecond}, true},
		{"and again", []time.Duration{0, 500 * time.Millisecond, 6 * time.Second}, true},
		{"another time", []time.Duration{0, 7 * time.Second}, false},
		{"another time, in vain", []time.Duration{0, 7 * time.Second, 8 * time.Second}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, got := summons{}, false
			for _, after := range tc.after {
				got = m.asked(testKey(1), at.Add(after))
			}
			if got != tc.want {
				t.Errorf("in vain: %t", got)
			}
		})
	}
}

// TestSummonsAreBounded: beyond the bound a question is no reason, and nothing is kept of it.
func TestSummonsAreBounded(t *testing.T) {
	m, at := summons{}, time.Unix(1000, 0)
	for i := range summonsMost + 5 {
		m.asked(testKey(i), at)
	}
	if len(m.first) != summonsMost {
		t.Errorf("%d questions are kept", len(m.first))
	}
	late := at.Add(summonWithin + time.Second)
	m.asked(testKey(summonsMost+9), late)
	if !m.asked(testKey(summonsMost+9), late.Add(summonAfter)) {
		t.Error("old questions leave no room for a new one")
	}
}

// TestAskedInVain: a question counts for a session of a doubted site alone, whose record is here.
func TestAskedInVain(t *testing.T) {
	for _, tc := range []struct {
		name    string
		doubted []string
		key     frame.Key
		want    int
	}{
		{"a doubted site's", []string{"c", "a"}, testKey(1), 1},
		{"another site's", []string{"c"}, testKey(1), 0},
		{"no doubt", nil, testKey(1), 0},
		{"no record", []string{"a"}, testKey(2), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := testAgent(t)
				a.revival.ready.Store(true)
				rec := frame.Record{Key: testKey(1), Epoch: 7, Service: a.view.Load().services[0].id}
				piecewise(t, a, testLink("a"), 1, rec, "")
				a.SetDoubted(tc.doubted)
				for range 8 {
					a.KeptFor(tc.key)
					time.Sleep(80 * time.Millisecond)
				}
				if got := len(a.revival.summoned); got != tc.want {
					t.Fatalf("%d sessions are revived, want %d", got, tc.want)
				}
				st, ok := a.replica.takeOne(tc.key, func(st stored) bool { return a.revival.has(st.from) })
				if ok != (tc.want > 0) || ok && (st.from != "a" || a.replica.has(tc.key)) {
					t.Errorf("taken: %t, of %q", ok, st.from)
				}
			})
		})
	}
}
