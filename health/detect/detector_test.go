package detect

import (
	"testing"
	"time"
)

const ms = time.Millisecond

// world drives a detector by a script of beats on a clock of its own.
type world struct {
	t   *testing.T
	d   *Detector
	now time.Time
	seq uint32
	log []Change
}

func newWorld(t *testing.T, ids ...uint16) *world {
	w := &world{t: t, d: New(Config{Interval: 100 * ms, Timeout: time.Second, MaxHold: 25 * time.Second, LeaveFor: 30 * time.Second}), now: time.Unix(1000, 0)}
	w.d.Watch(ids)
	return w
}

// run lets the given subjects beat for a while; the others are silent.
func (w *world) run(d time.Duration, ids ...uint16) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(100 * ms)
		w.seq++
		for _, id := range ids {
			c, fresh := w.d.Hear(id, Beat{Kind: KindBeat, Node: id, Incarnation: 1, Seq: w.seq}, w.now)
			if !fresh {
				w.t.Fatalf("beat %d of %d was not fresh", w.seq, id)
			}
			w.log = append(w.log, c...)
		}
		w.log = append(w.log, w.d.Due(w.now)...)
	}
}

func (w *world) expect(id uint16, want State) {
	w.t.Helper()
	if have := w.d.State(id); have != want {
		w.t.Errorf("subject %d is %s, want %s; changes: %v", id, have, want, w.log)
	}
}

func TestDeadSubjectIsDownAtTheDueTime(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.expect(2, Up)
	last := w.now
	w.run(2*time.Second, 3)
	w.expect(2, Down)
	w.expect(3, Up)
	c := w.log[len(w.log)-1]
	if c.Subject != 2 || !c.At.Equal(last.Add(time.Second)) {
		t.Errorf("down at %s, want 1s after the last beat", c.At.Sub(last))
	}
	w.run(time.Second, 2, 3)
	w.expect(2, Up)
}

func TestNeverHeardIsUnknown(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(10*time.Second, 3)
	w.expect(2, Unknown)
}

// TestObserverWithoutEdgeHolds: who hears nobody is the likelier fault.
func TestObserverWithoutEdgeHolds(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.run(20 * time.Second)
	if !w.d.Held() {
		t.Error("no hold while all are silent")
	}
	w.expect(2, Up)
	w.run(time.Second, 2, 3)
	if w.d.Held() {
		t.Error("still held a second after all are heard again")
	}
	w.expect(2, Up)
}

func TestHoldEndsAtLast(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.run(30 * time.Second)
	w.expect(2, Down)
	w.expect(3, Down)
}

// TestHalfSilentIsNoHold: with three sites the death of one silences half of
// what the others watch, which must not delay the verdict.
func TestHalfSilentIsNoHold(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.run(1100*ms, 3)
	if w.d.Held() {
		t.Error("held although half are heard")
	}
	w.expect(2, Down)
}

func TestPauseOfTheObserverIsNoSilence(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.now = w.now.Add(5 * time.Second) // the process stood still
	w.log = append(w.log, w.d.Due(w.now)...)
	w.expect(2, Up)
	w.run(time.Second, 2, 3)
	w.expect(2, Up)
}

func TestLeaveIsNotDownAtOnce(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.seq++
	w.d.Hear(2, Beat{Kind: KindLeave, Node: 2, Incarnation: 1, Seq: w.seq}, w.now)
	w.run(10*time.Second, 3)
	w.expect(2, Left)
	w.run(25*time.Second, 3)
	w.expect(2, Down)
}

func TestOldBeatsAreNoEvidence(t *testing.T) {
	w := newWorld(t, 2)
	for _, c := range []struct {
		name     string
		inc, seq uint32
		fresh    bool
	}{
		{"first", 5, 10, true}, {"same again", 5, 10, false}, {"older", 5, 9, false},
		{"lower incarnation", 4, 99, false}, {"newer", 5, 11, true}, {"new incarnation starts over", 6, 1, true},
	} {
		if _, fresh := w.d.Hear(2, Beat{Kind: KindBeat, Node: 2, Incarnation: c.inc, Seq: c.seq}, w.now); fresh != c.fresh {
			t.Errorf("%s: fresh %v, want %v", c.name, fresh, c.fresh)
		}
	}
}

func TestSealOpen(t *testing.T) {
	key, other := [32]byte{1}, [32]byte{2}
	in := Beat{Kind: KindVotes, Node: 7, Incarnation: 8, Seq: 9, Interval: 300 * ms, Load: 10, Plan: 11, Body: []byte("votes")}
	data, err := in.Seal(nil, &key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := Open(data, other, key)
	if err != nil || string(out.Body) != "votes" || out.Seq != 9 || out.Interval != 300*ms || out.Node != 7 {
		t.Errorf("opened %+v, %v", out, err)
	}
	if _, err := Open(data, other); err != ErrTag {
		t.Errorf("wrong key: %v, want ErrTag", err)
	}
	for i := range data {
		bad := append([]byte(nil), data...)
		bad[i] ^= 1
		if _, err := Open(bad, key); err == nil {
			t.Errorf("a flipped bit in byte %d was not seen", i)
		}
	}
	if n := len(data) - len(in.Body); n != 32 {
		t.Errorf("header and tag take %d bytes, want 32", n)
	}
}

func FuzzOpen(f *testing.F) {
	key := [32]byte{1}
	seed, _ := (&Beat{Kind: KindBeat, Node: 1}).Seal(nil, &key)
	f.Add(seed)
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Open(data, key)
		if err != nil {
			return
		}
		again, err := b.Seal(nil, &key)
		if err != nil || len(again) != len(data) && len(data) <= MaxDatagram {
			t.Errorf("does not seal again: %v", err)
		}
	})
}
