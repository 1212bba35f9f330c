package bfd

import (
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Unix(1000, 0)

// fast is 50 ms x 3.
var fast = Timing{Interval: 50 * time.Millisecond, Multiplier: 3}

// inState returns a session in a state, by way of packets.
func inState(t *testing.T, want State) Session {
	t.Helper()
	s := NewSession(7, fast)
	switch want {
	case AdminDown:
		s = s.Disable()
	case Init:
		s, _ = s.Receive(remotePacket(Down), start)
	case Up:
		s, _ = s.Receive(remotePacket(Init), start)
	}
	if s.State != want {
		t.Fatalf("is %v, want %v", s.State, want)
	}
	return s
}

// remotePacket is a neighbour's with 300 ms x 3.
func remotePacket(s State) *Packet {
	return &Packet{State: s, Multiplier: 3, Mine: 9, Yours: 7, MinTx: 300000, MinRx: 300000}
}

// TestStateMachine walks every arrow of RFC 5880 section 6.2, AdminDown included.
func TestStateMachine(t *testing.T) {
	for _, c := range []struct {
		name         string
		have, remote State
		want         State
		diag         Diag
	}{
		{"6.2 Down hears Down", Down, Down, Init, NoDiag},
		{"6.2 Down hears Init", Down, Init, Up, NoDiag},
		{"6.2 Down hears Up: it must notice first", Down, Up, Down, NoDiag},
		{"6.2 Down hears AdminDown", Down, AdminDown, Down, NoDiag},
		{"6.2 Init hears Down", Init, Down, Init, NoDiag},
		{"6.2 Init hears Init", Init, Init, Up, NoDiag},
		{"6.2 Init hears Up", Init, Up, Up, NoDiag},
		{"6.2 Init hears AdminDown", Init, AdminDown, Down, NeighborDown},
		{"6.2 Up hears Init", Up, Init, Up, NoDiag},
		{"6.2 Up hears Up", Up, Up, Up, NoDiag},
		{"6.2 Up hears Down", Up, Down, Down, NeighborDown},
		{"6.2 Up hears AdminDown", Up, AdminDown, Down, NeighborDown},
		{"6.8.6 AdminDown hears Down", AdminDown, Down, AdminDown, AdminDownByUser},
		{"6.8.6 AdminDown hears Up", AdminDown, Up, AdminDown, AdminDownByUser},
	} {
		s, _ := inState(t, c.have).Receive(remotePacket(c.remote), start)
		if s.State != c.want || s.Diag != c.diag {
			t.Errorf("%s: %v (%v), want %v (%v)", c.name, s.State, s.Diag, c.want, c.diag)
		}
	}
}

// TestTimers: who decides how often to send and how long to wait.
func TestTimers(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name              string
		state             State
		own               Timing
		remote            Packet
		interval, silence time.Duration
	}{
		{"6.8.3 not Up: a second at least", Init, fast, Packet{State: Down, Multiplier: 3, MinTx: 1000000, MinRx: 50000}, 1000 * ms, 3000 * ms},
		{"6.8.3 not Up and slower by wish", Init, Timing{2 * time.Second, 3}, Packet{State: Down, Multiplier: 3, MinTx: 1000000, MinRx: 50000}, 2000 * ms, 6000 * ms},
		{"6.8.2 the neighbour takes no more", Up, fast, Packet{State: Up, Multiplier: 3, MinTx: 50000, MinRx: 300000}, 300 * ms, 150 * ms},
		{"6.8.2 we want no more", Up, Timing{300 * ms, 3}, Packet{State: Up, Multiplier: 3, MinTx: 50000, MinRx: 50000}, 300 * ms, 900 * ms},
		{"6.8.4 the neighbour's multiplier counts", Up, fast, Packet{State: Up, Multiplier: 5, MinTx: 10000, MinRx: 10000}, 50 * ms, 250 * ms},
		{"6.8.4 the neighbour sends slower than we ask", Up, fast, Packet{State: Up, Multiplier: 3, MinTx: 1000000, MinRx: 10000}, 50 * ms, 3000 * ms},
		{"6.8.7 Required Min RX 0: no packets", Up, fast, Packet{State: Up, Multiplier: 3, MinTx: 50000, MinRx: 0}, 0, 150 * ms},
		{"6.6 the neighbour in demand mode", Up, fast, Packet{State: Up, Final: true, Demand: true, Multiplier: 3, MinTx: 50000, MinRx: 50000}, 0, 150 * ms},
		{"6.6 demand mode while a Poll is under way", Up, fast, Packet{State: Up, Demand: true, Multiplier: 3, MinTx: 50000, MinRx: 50000}, 50 * ms, 150 * ms},
	} {
		s := inState(t, Down)
		s.timing = c.own
		first := map[State]State{Init: Down, Up: Init}[c.state]
		s, _ = s.Receive(remotePacket(first), start)
		c.remote.Mine, c.remote.Yours = 9, 7
		s, _ = s.Receive(&c.remote, start)
		if s.State != c.state || s.Interval() != c.interval || s.Detection() != c.silence {
			t.Errorf("%s: %v, every %v, silence of %v; want %v, %v, %v", c.name, s.State, s.Interval(), s.Detection(), c.state, c.interval, c.silence)
		}
	}
}

// TestExpire: a detection time of silence, and not a moment less.
func TestExpire(t *testing.T) {
	s := inState(t, Up)
	if at := s.Deadline(); at != start.Add(900*time.Millisecond) {
		t.Errorf("deadline %v after the packet", at.Sub(start))
	}
	if e := s.Expire(start.Add(899 * time.Millisecond)); e.State != Up {
		t.Error("6.8.4: down too early")
	}
	e := s.Expire(start.Add(900 * time.Millisecond))
	if e.State != Down || e.Diag != Expired || e.Remote != nobody() || !e.Deadline().IsZero() {
		t.Errorf("6.8.4, 6.8.1: %+v", e)
	}
	if p := e.Packet(false); p.Yours != 0 || p.Diag != Expired || p.MinTx != 1000000 || !p.Poll {
		t.Errorf("6.8.7: sends %+v", p)
	}
	i := inState(t, Init).Expire(start.Add(time.Hour))
	if i.State != Down || i.Diag != Expired {
		t.Errorf("6.2: Init after silence: %v (%v)", i.State, i.Diag)
	}
	down, _ := inState(t, Down).Receive(remotePacket(AdminDown), start)
	down = down.Expire(start.Add(time.Hour))
	if down.State != Down || down.Diag != NoDiag || down.Remote.Discriminator != 0 {
		t.Errorf("6.8.1: a Down session forgets the neighbour, no more: %+v", down)
	}
	if NewSession(7, fast).Expire(start.Add(time.Hour)).State != Down {
		t.Error("a session without a neighbour has nothing to expire")
	}
}

// TestPoll: a Poll Sequence begins with each change of our interval, ends with
// Final, and a Poll of the neighbour is answered without one of ours.
func TestPoll(t *testing.T) {
	s := inState(t, Up)
	if p := s.Packet(false); !p.Poll || p.Final || p.MinTx != 50000 || p.MinRx != 50000 {
		t.Errorf("6.8.3: on the way Up %+v", p)
	}
	if p := s.Packet(true); p.Poll || !p.Final {
		t.Errorf("6.8.7: P and F never both: %+v", p)
	}
	again, _ := s.Receive(remotePacket(Up), start)
	if !again.Packet(false).Poll {
		t.Error("6.5: a Poll goes on until Final")
	}
	final := remotePacket(Up)
	final.Final = true
	done, answer := again.Receive(final, start)
	if done.Packet(false).Poll || answer {
		t.Error("6.5: Final ends it, and is not answered")
	}
	poll := remotePacket(Up)
	poll.Poll = true
	if _, answer := done.Receive(poll, start); !answer {
		t.Error("6.8.6: a Poll was not answered")
	}
	if _, answer := inState(t, AdminDown).Receive(poll, start); answer {
		t.Error("6.8.6: AdminDown answered")
	}
}

// TestRuns: each way up has its own number.
func TestRuns(t *testing.T) {
	s := inState(t, Up)
	first := s.Ups
	s, _ = s.Receive(remotePacket(Down), start)
	if s.Ups != first {
		t.Error("the way down keeps the number of the run which ended")
	}
	s, _ = s.Receive(remotePacket(Init), start)
	if s.State != Up || s.Ups != first+1 {
		t.Errorf("%v, run %d after %d", s.State, s.Ups, first)
	}
}

// TestFailure: AdminDown is nobody's failure (RFC 5882 section 3.2), nor is a
// session which never was Up.
func TestFailure(t *testing.T) {
	for _, c := range []struct {
		name string
		c    Change
		want bool
	}{
		{"silence", Change{From: Up, To: Down, Diag: Expired, Remote: Down}, true},
		{"the neighbour heard nothing of us", Change{From: Up, To: Down, Diag: NeighborDown, Remote: Down}, true},
		{"RFC 5882 3.2 the neighbour's will", Change{From: Up, To: Down, Diag: NeighborDown, Remote: AdminDown}, false},
		{"our own will", Change{From: Up, To: AdminDown, Diag: AdminDownByUser, Remote: Up}, false},
		{"never came Up", Change{From: Init, To: Down, Diag: Expired, Remote: Down}, false},
	} {
		if c.c.Failure() != c.want {
			t.Errorf("%s: %v", c.name, c.c.Failure())
		}
	}
}

func TestJitter(t *testing.T) {
	for _, c := range []struct {
		name        string
		multiplier  uint8
		least, most time.Duration
	}{
		{"6.8.7: 75 to 100 %", 3, 75 * time.Millisecond, 100 * time.Millisecond},
		{"6.8.7: 75 to 90 % with multiplier 1", 1, 75 * time.Millisecond, 90 * time.Millisecond},
	} {
		low, high := Jitter(100*time.Millisecond, c.multiplier, 0), Jitter(100*time.Millisecond, c.multiplier, 1<<32-1)
		if low != c.least || high > c.most || high < c.most-2*time.Microsecond {
			t.Errorf("%s: %v to %v", c.name, low, high)
		}
	}
	longest := fromMicros(1<<32 - 1)
	if d := Jitter(longest, 3, 1<<32-1); d > longest || d < longest-time.Millisecond {
		t.Errorf("the longest interval that the wire can ask for: %v", d)
	}
}

func TestTiming(t *testing.T) {
	if (Timing{}).Or() != (Timing{300 * time.Millisecond, 3}) || (Timing{}).Or().Check() != nil {
		t.Error("the default is 300 ms x 3")
	}
	for _, bad := range []Timing{{}, {time.Millisecond, 3}, {time.Hour, 3}, {time.Second, 0}} {
		if bad.Check() == nil {
			t.Errorf("accepted %+v", bad)
		}
	}
}

// TestTwoEnds lets two sessions talk over a wire which loses a part of the
// packets: they come Up and agree on timers, and when the wire is cut both are
// Down within one detection time, in a thousand histories.
func TestTwoEnds(t *testing.T) {
	for seed := range uint64(1000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		ends := [2]Session{NewSession(1, fast), NewSession(2, Timing{}.Or())}
		now, due := start, [2]time.Time{start, start.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)}
		step := func(loss float64) {
			i := 0
			if due[1].Before(due[0]) {
				i = 1
			}
			now = due[i]
			for j := range ends {
				ends[j] = ends[j].Expire(now)
			}
			out := ends[i].Packet(false)
			due[i] = now.Add(Jitter(ends[i].Interval(), 3, rng.Uint32()))
			if rng.Float64() < loss {
				return
			}
			var answer bool
			if ends[1-i], answer = ends[1-i].Receive(&out, now); answer {
				final := ends[1-i].Packet(true)
				ends[i], _ = ends[i].Receive(&final, now)
			}
		}
		for range 200 {
			step(0.2)
		}
		for range 20 {
			step(0)
		}
		for i, s := range ends {
			if s.State != Up || s.poll || s.Detection() != 900*time.Millisecond || s.Interval() != 300*time.Millisecond {
				t.Fatalf("seed %d: end %d is %+v", seed, i, s)
			}
		}
		cut := now
		for range 20 {
			step(1)
		}
		for i, s := range ends {
			if s.State != Down || now.Sub(cut) < 900*time.Millisecond {
				t.Fatalf("seed %d: end %d is %v, %v after the cut", seed, i, s.State, now.Sub(cut))
			}
		}
	}
}
