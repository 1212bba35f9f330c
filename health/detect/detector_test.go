package detect

import (
	"testing"
	"time"
)

// world drives a detector by a script of beats, each with a delay of 10 ms, on a
// clock of its own. A subject is named by id, or by id + 100 x via.
type world struct {
	t    *testing.T
	d    *Detector
	now  time.Duration
	slot uint64
	log  []Change
}

func newWorld(t *testing.T, ids ...uint32) *world {
	w := &world{t: t, d: New(fixed(100*ms, time.Second)), now: time.Second, slot: 10}
	w.d.Watch(ids)
	return w
}

// run lets the given beats come for a while; all others are silent.
func (w *world) run(d time.Duration, ids ...uint32) {
	for end := w.now + d; w.now < end; {
		w.now += 100 * ms
		w.slot++
		for _, id := range ids {
			if !w.d.Hear(id%100, id/100, w.slot, w.now+10*ms) {
				w.t.Fatalf("beat %d of %d was not fresh", w.slot, id)
			}
		}
		w.d.Due(w.now + 10*ms)
		w.log = append(w.log, w.d.Changes()...)
	}
}

func (w *world) expect(id uint32, want State) {
	w.t.Helper()
	if have := w.d.State(id); have != want {
		w.t.Errorf("subject %d is %s, want %s; changes: %v", id, have, want, w.log)
	}
}

func (w *world) last() Change { return w.log[len(w.log)-1] }

func TestDeadSubjectIsDownAtTheDueTime(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.expect(2, Up)
	heard := w.now + 10*ms
	w.run(2*time.Second, 3)
	w.expect(2, Down)
	w.expect(3, Up)
	if c := w.last(); c.Subject != 2 || c.At < heard+950*ms || c.At > heard+time.Second || c.Heard != heard || len(c.Silent) != 1 {
		t.Errorf("%+v, want 1 s after %v", c, heard)
	}
	w.run(time.Second, 2, 3)
	w.expect(2, Up)
}

func TestNeverHeardIsUnknown(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(10*time.Second, 3)
	w.expect(2, Unknown)
}

// TestVerdictTable: what each pair of direct and relayed paths gives.
func TestVerdictTable(t *testing.T) {
	for _, c := range []struct {
		name  string
		heard []uint32 // of subject 2, while 3 is always heard
		want  State
	}{
		{"all heard", []uint32{2, 102, 202}, Up}, {"relays silent", []uint32{2}, Up},
		{"direct silent", []uint32{102, 202}, Path}, {"one relay left", []uint32{202}, Path}, {"all silent", nil, Down},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 2, 3)
			w.run(2*time.Second, 2, 102, 202, 3)
			w.run(3*time.Second, append(c.heard, 3)...)
			w.expect(2, c.want)
			w.run(time.Second, 102, 3)
			if c.want == Down {
				w.expect(2, Path) // it lives, we know by a relay alone
			}
			w.run(time.Second, 2, 102, 3)
			w.expect(2, Up)
		})
	}
}

// TestDirectNeverHeard: a subject heard by a relay alone has a broken path, once
// the direct one had its time.
func TestDirectNeverHeard(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(500*ms, 102, 3)
	w.expect(2, Up)
	w.run(time.Second, 102, 3)
	w.expect(2, Path)
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
	if len(w.log) != 2 {
		t.Errorf("%v", w.log)
	}
}

// TestHoldEndsAtLast: also when nobody is ever heard again. Verdicts get the time
// of their release.
func TestHoldEndsAtLast(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.run(30 * time.Second)
	w.expect(2, Down)
	w.expect(3, Down)
	if c := w.last(); c.At < 28*time.Second || c.At > 29*time.Second {
		t.Errorf("%+v, want about 25 s after the hold began", c)
	}
}

// TestHoldEndsByProof: five of twelve are heard in every slot, so that seven are
// truly lost, and the 25 s are not waited for.
func TestHoldEndsByProof(t *testing.T) {
	all := []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	w := newWorld(t, all...)
	w.run(2*time.Second, all...)
	w.run(2*time.Second, all[7:]...)
	for _, id := range all[:7] {
		w.expect(id, Down)
	}
	w.expect(8, Up)
}

// TestLossyEdgeProvesNothing: an edge that lets every third beat of two subjects
// through does not prove that the others are dead.
func TestLossyEdgeProvesNothing(t *testing.T) {
	all := []uint32{1, 2, 3, 4, 5, 6}
	w := newWorld(t, all...)
	w.run(2*time.Second, all...)
	for range 10 {
		w.run(200 * ms)
		w.run(100*ms, 1, 2)
	}
	for _, id := range all[2:] {
		w.expect(id, Up)
	}
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

// TestHoldEndsSlowly: the majority must be heard for two intervals before the
// observer trusts itself; one beat of each is not enough.
func TestHoldEndsSlowly(t *testing.T) {
	w := newWorld(t, 2, 3, 4)
	w.run(2*time.Second, 2, 3, 4)
	w.run(500 * ms)
	if !w.d.Held() {
		t.Fatal("no hold")
	}
	w.run(100*ms, 2, 3)
	if !w.d.Held() {
		t.Error("the hold ended with the first beats")
	}
	w.run(300 * ms)
	if !w.d.Held() {
		t.Error("the hold ended although all fell silent again")
	}
	w.run(500*ms, 2, 3)
	if w.d.Held() {
		t.Error("held although the majority is heard")
	}
}

// TestPauseOfTheObserver: its loop stood still, and what waited was not enough for
// everybody; the deadlines in the pause do not count.
func TestPauseOfTheObserver(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.now += 5 * time.Second
	w.d.Skip(5*time.Second, w.now)
	w.d.Due(w.now)
	w.expect(2, Up)
	w.slot += 50
	w.run(500*ms, 3)
	w.expect(2, Up)
	w.run(2*time.Second, 3)
	w.expect(2, Down)
}

// TestLeave: a goodbye is no failure before the subject stayed away for long; what
// a relay says of beats before the goodbye takes nothing back.
func TestLeave(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(2*time.Second, 2, 3)
	w.d.Leave(2, w.slot, 0, w.now)
	if w.d.Report(2, 1, w.slot, w.now, w.now) {
		t.Error("a beat before the goodbye counted")
	}
	w.run(10*time.Second, 3)
	w.expect(2, Left)
	w.run(25*time.Second, 3)
	w.expect(2, Down)
}

// TestLeaveWithin: the subject says when it expects to be back, up to a cap. What another
// observer thinks of it is not asked here; its silence without a word is a failure as ever.
func TestLeaveWithin(t *testing.T) {
	for _, c := range []struct {
		within, downIn time.Duration
	}{{4 * time.Second, 4 * time.Second}, {0, 30 * time.Second}, {time.Hour, 30 * time.Second}} {
		w := newWorld(t, 2, 3)
		w.run(2*time.Second, 2, 3)
		left := w.now + 10*ms // until there all is judged
		w.d.Leave(2, w.slot, c.within, left)
		w.run(c.downIn+time.Second, 3)
		if last := w.last(); last.Subject != 2 || last.State != Down || last.At != left+c.downIn {
			t.Errorf("back within %v: %+v, want down after %v", c.within, last, c.downIn)
		}
	}
}

// TestGoodbyesWearOut: a process that ends in order at each start is not held up for ever.
func TestGoodbyesWearOut(t *testing.T) {
	w := newWorld(t, 2, 3)
	for i := range maxByes + 1 {
		w.run(2*time.Second, 2, 3)
		w.d.Leave(2, w.slot, 10*time.Second, w.now)
		w.d.Leave(2, w.slot+1, 10*time.Second, w.now) // said again, since datagrams get lost
		w.slot++
		w.run(3*time.Second, 3)
		w.expect(2, map[bool]State{true: Left, false: Down}[i < maxByes])
	}
	w.run(time.Second, 2, 3)
	w.expect(2, Up)
	w.run(byesIn, 2, 3)
	w.d.Leave(2, w.slot, 10*time.Second, w.now)
	w.run(3*time.Second, 3)
	w.expect(2, Left) // and is believed again
}

// TestReturnIsNotJudgedByOldWords: when a subject that left has started anew, relays
// still say for a moment when they heard it in its last life. That is no sign of this
// one, nor of its end.
func TestReturnIsNotJudgedByOldWords(t *testing.T) {
	for name, before := range map[string]func(*world){
		"after a goodbye": func(w *world) { w.d.Leave(2, w.slot, 10*time.Second, w.now) },
		"after a pause":   func(*world) {},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2, 3)
			w.run(2*time.Second, 2, 102, 3)
			old, heard := w.slot+1, w.now+30*ms // a beat that only the relay has heard
			before(w)
			w.run(900*ms, 3)
			w.d.Restart(2, w.now) // by its votes, before its first beat
			if w.d.Report(2, 1, old, heard, w.now) {
				t.Error("the word of another life counted")
			}
			w.slot = 0
			for i := range 30 {
				w.now += 100 * ms
				w.slot++
				w.d.Hear(2, 0, w.slot, w.now)
				w.d.Hear(3, 0, 1000+w.slot, w.now)
				w.d.Due(w.now)
				if s := w.d.State(2); s != Up {
					t.Fatalf("beat %d: %s", i, s)
				}
			}
		})
	}
}

// TestOldBeatsAreNoEvidence: on each path the slot must rise.
func TestOldBeatsAreNoEvidence(t *testing.T) {
	w := newWorld(t, 2)
	w.d.Hear(2, 0, 10, w.now)
	for _, c := range []struct {
		via   uint32
		slot  uint64
		fresh bool
	}{{0, 10, false}, {0, 9, false}, {0, 11, true}, {1, 11, true}, {1, 11, false}, {1, 12, true}} {
		hear := func() bool { return w.d.Hear(2, c.via, c.slot, w.now) }
		if c.via > 0 {
			hear = func() bool { return w.d.Report(2, c.via, c.slot, w.now, w.now) }
		}
		if hear() != c.fresh {
			t.Errorf("slot %d by %d: want fresh %v", c.slot, c.via, c.fresh)
		}
	}
	w.d.Restart(2, w.now)
	if !w.d.Hear(2, 0, 1, w.now) {
		t.Error("a subject that started anew is not heard")
	}
}

// TestStrangers: who is not watched changes nothing, who is watched no longer is
// forgotten, and who stays keeps its state.
func TestStrangers(t *testing.T) {
	w := newWorld(t, 2, 2)
	if w.d.Hear(9, 0, 1, w.now) || w.d.Report(9, 1, 1, w.now, w.now) || w.d.Suspicion(9, w.now) != 0 {
		t.Error("a stranger was heard")
	}
	w.run(time.Second, 2)
	w.d.Watch([]uint32{2, 3})
	w.expect(2, Up)
	w.expect(3, Unknown)
	w.d.Watch([]uint32{3})
	w.expect(2, Unknown)
}

// TestSuspicionRises: long before the verdict, and falls with the next beat.
func TestSuspicionRises(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.run(5*time.Second, 2, 3)
	at := w.now + 10*ms
	before, late, later := w.d.Suspicion(2, at+50*ms), w.d.Suspicion(2, at+110*ms), w.d.Suspicion(2, at+200*ms)
	if before > .01 || late < 1 || later <= late || later > maxPhi {
		t.Errorf("suspicion %v %v %v", before, late, later)
	}
	w.run(100*ms, 2, 3)
	if s := w.d.Suspicion(2, w.now+20*ms); s > .01 {
		t.Errorf("suspicion %v after a beat", s)
	}
}

// TestDefaults: what is promised of the times.
func TestDefaults(t *testing.T) {
	for interval, want := range map[time.Duration][2]time.Duration{300 * ms: {2 * time.Second, 700 * ms}, 100 * ms: {2 * time.Second, 300 * ms}, time.Second: {6 * time.Second, 2100 * ms}} {
		c := Defaults(interval)
		if c.Timeouts[0] != want[0] || c.Timeouts[4] != want[1] || c.MaxHold != 25*time.Second {
			t.Errorf("at %v: %+v, want %v", interval, c, want)
		}
		for i := range c.Timeouts[1:] {
			if c.Timeouts[i+1] >= c.Timeouts[i] {
				t.Errorf("at %v the timeout does not fall: %v", interval, c.Timeouts)
			}
		}
	}
}

func TestStateNames(t *testing.T) {
	for s, name := range []string{"unknown", "up", "path", "down", "left"} {
		if State(s).String() != name {
			t.Error(State(s))
		}
	}
}
