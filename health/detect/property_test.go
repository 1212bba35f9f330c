package detect

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// TestLeaveOfStranger: a goodbye of a subject that was never heard begins its
// time to stay away; it is not down on the spot.
func TestLeaveOfStranger(t *testing.T) {
	w := newWorld(t, 2, 3)
	w.d.Hear(2, Beat{Kind: KindLeave, Node: 2, Incarnation: 1, Seq: 7}, w.now)
	w.run(29*time.Second, 3)
	w.expect(2, Left)
	w.run(2*time.Second, 3)
	w.expect(2, Down)
}

// TestStrangersAreNotHeard: datagrams of nobody who is watched change nothing, and
// who is watched no longer is forgotten.
func TestStrangersAreNotHeard(t *testing.T) {
	w := newWorld(t, 2)
	if c, fresh := w.d.Hear(9, Beat{Kind: KindBeat, Node: 9, Seq: 1}, w.now); c != nil || fresh {
		t.Errorf("changes %v, fresh %v", c, fresh)
	}
	w.run(time.Second, 2)
	w.d.Watch([]uint16{2, 3})
	w.expect(2, Up) // it stays what it was
	w.expect(3, Unknown)
	w.d.Watch([]uint16{3})
	w.expect(2, Unknown)
	w.run(5*time.Second, 3)
	for _, c := range w.log[1:] {
		if c.Subject == 2 {
			t.Errorf("%+v of a subject which is not watched", c)
		}
	}
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
	w.run(100 * ms)
	w.run(100 * ms)
	if !w.d.Held() {
		t.Error("the hold ended although all fell silent again")
	}
	w.run(400*ms, 2, 3)
	if w.d.Held() {
		t.Error("held although the majority is heard")
	}
}

// TestDefaults: what is promised of the times for the two usual intervals.
func TestDefaults(t *testing.T) {
	for interval, timeout := range map[time.Duration]time.Duration{300 * ms: 2 * time.Second, 100 * ms: time.Second, 20 * ms: 500 * ms, time.Second: 6 * time.Second} {
		if c := Defaults(interval); c.Timeout != timeout || c.Interval != interval || c.MaxHold != 25*time.Second {
			t.Errorf("at %v: %+v, want a timeout of %v", interval, c, timeout)
		}
	}
}

// naive remembers every arrival and looks through all of them at each question.
type naive struct {
	cfg      Config
	arrivals map[uint16][]time.Time
	state    map[uint16]State
	held     time.Time // since; zero: not held
	calm     time.Time
}

func (n *naive) age(id uint16, now time.Time) time.Duration {
	var last time.Time
	for _, at := range n.arrivals[id] {
		if at.After(last) {
			last = at
		}
	}
	return now.Sub(last)
}

// due is the rule in the words of the comments above judgeHold and Due.
func (n *naive) due(ids []uint16, now time.Time) {
	up, quiet := 0, 0
	for _, id := range ids {
		if n.state[id] == Up {
			up++
			if n.age(id, now) > n.cfg.Interval*16/10 {
				quiet++
			}
		}
	}
	sick := up >= 2 && quiet*2 > up
	if n.held.IsZero() {
		if sick {
			n.held, n.calm = now, time.Time{}
		}
	} else if sick {
		n.calm = time.Time{}
	} else if n.calm.IsZero() {
		n.calm = now
	} else if now.Sub(n.calm) >= 2*n.cfg.Interval {
		n.held = time.Time{}
	}
	if !n.held.IsZero() {
		return
	}
	for _, id := range ids {
		if n.state[id] == Up && n.age(id, now) >= n.cfg.Timeout {
			n.state[id] = Down
		}
	}
}

// TestDetectorAgainstNaive: over random traces of beats, losses and outages (each
// shorter than MaxHold, and no pause of the observer) both say the same at every
// moment, and every change is one.
func TestDetectorAgainstNaive(t *testing.T) {
	cfg := Config{Interval: 100 * ms, Timeout: time.Second, MaxHold: time.Hour, LeaveFor: time.Hour}
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 1))
		ids := []uint16{2, 3, 4, 5}[:1+r.IntN(4)]
		d, n := New(cfg), &naive{cfg: cfg, arrivals: make(map[uint16][]time.Time), state: make(map[uint16]State)}
		d.Watch(ids)
		now, state := time.Unix(1000, 0), make(map[uint16]State)
		lossy := make(map[uint16]int) // percent lost
		note := func(changes []Change) {
			for _, c := range changes {
				if c.State == state[c.Subject] || c.At.After(now) {
					t.Fatalf("seed %d: %+v while %v at %v", seed, c, state[c.Subject], now)
				}
				state[c.Subject] = c.State
			}
		}
		for slot := range uint32(400) {
			for _, id := range ids {
				if r.IntN(40) == 0 {
					lossy[id] = []int{0, 0, 30, 100}[r.IntN(4)]
				}
				if r.IntN(100) >= lossy[id] {
					c, fresh := d.Hear(id, Beat{Kind: KindBeat, Node: id, Incarnation: 1, Seq: slot + 1}, now)
					if !fresh {
						t.Fatal("a new beat is not fresh")
					}
					note(c)
					n.arrivals[id] = append(n.arrivals[id], now)
					n.state[id] = Up
				}
			}
			for range 4 {
				now = now.Add(25 * ms)
				note(d.Due(now))
				n.due(ids, now)
				if d.Held() == n.held.IsZero() {
					t.Fatalf("seed %d, slot %d: held %v", seed, slot, d.Held())
				}
				for _, id := range ids {
					if d.State(id) != n.state[id] || state[id] != n.state[id] {
						t.Fatalf("seed %d, slot %d: %d is %v, changes say %v, want %v", seed, slot, id, d.State(id), state[id], n.state[id])
					}
				}
			}
		}
	}
}

// TestSealLimits: what does not fit is refused, what fits is opened with either
// key of a roll-over, and nothing too short, of another version or kind is read.
func TestSealLimits(t *testing.T) {
	key := [32]byte{1}
	big := Beat{Kind: KindVotes, Body: make([]byte, MaxDatagram-32)}
	data, err := big.Seal([]byte("before"), &key)
	if err != nil || len(data) != len("before")+MaxDatagram {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if b, err := Open(data[len("before"):], [32]byte{2}, key); err != nil || len(b.Body) != len(big.Body) {
		t.Errorf("%d bytes of body, %v", len(b.Body), err)
	}
	big.Body = append(big.Body, 0)
	if _, err := big.Seal(nil, &key); err == nil {
		t.Error("a datagram above the limit was sealed")
	}
	strange, _ := (&Beat{Kind: 77}).Seal(nil, &key)
	other, _ := (&Beat{Kind: KindBeat}).Seal(nil, &key)
	other[0] = 2
	for want, data := range map[error][]byte{ErrShort: make([]byte, 31), ErrKind: strange, ErrVersion: other} {
		if _, err := Open(data, key); err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := Open(strange); err != ErrTag {
		t.Errorf("without a key: %v", err)
	}
}

func TestStateNames(t *testing.T) {
	if s := fmt.Sprint(Unknown, Up, Down, Left); s != "unknown up down left" {
		t.Error(s)
	}
}
