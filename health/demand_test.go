package health

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// asking is an agent in a bubble which looks at one address once an hour, and what it
// answers to those who cannot wait.
type asking struct {
	agent   *Agent
	bad     atomic.Bool
	answers []placement.LookAnswer // of the last request
	votes   *box
	stop    func() // ends the agent's loop: what is the loop's is the test's from then on
}

func ask(t *testing.T, test func(a *asking)) {
	synctest.Test(t, func(t *testing.T) {
		a := &asking{votes: newBox()}
		a.agent = New(Config{Node: "ams1-a", Site: "ams1", Sink: a.votes.put, Log: quiet()})
		a.agent.link = idleLink()
		tg := Target{Object: placement.ClusterID{Site: "ams1", Name: "web"}, Address: addrOf(0), Check: placement.Check{Name: "web", Rise: 3, Fall: 3, Every: placement.Duration(time.Hour)}}
		results := make(chan look)
		ctx, cancel := context.WithCancel(t.Context())
		s := newScheduler(ctx, results, 1, func(*placement.Check) Prober {
			return func(context.Context, Target) Result { time.Sleep(20 * time.Millisecond); return look1(!a.bad.Load()) }
		})
		a.agent.take(s, inputs{probes: []Probe{{Object: tg.Object, Targets: []Target{tg}}}})
		done := make(chan struct{})
		go func() { defer close(done); a.agent.loop(ctx, s, results, nil) }()
		a.stop = func() { cancel(); <-done }
		time.Sleep(10 * time.Minute)
		test(a)
		a.stop()
		s.wait()
	})
}

// now asks for looks and returns the last answer.
func (a *asking) now(r placement.LookRequest) placement.LookAnswer {
	a.answers = nil
	a.agent.LookNow(r, func(x placement.LookAnswer) { a.answers = append(a.answers, x) })
	time.Sleep(time.Second)
	synctest.Wait()
	return a.answers[len(a.answers)-1]
}

func (a *asking) state() placement.State { return a.votes.votes[len(a.votes.votes)-1].State }

// TestLookOnDemand: the result is fresh, told as it comes, and counts once.
func TestLookOnDemand(t *testing.T) {
	ask(t, func(a *asking) {
		a.bad.Store(true)
		x := a.now(placement.LookRequest{ID: "1", Site: "ams1"})
		if len(a.answers) != 2 || a.answers[0].Open != 1 || x.Open != 0 || x.Total != 1 || x.Failed != 1 {
			t.Fatalf("want one look under way and then its failure, have %+v", a.answers)
		}
		if l := x.Looks[0]; l.Found != placement.Down || l.State != placement.Up || l.InRow != 1 || l.Needed != 3 || l.Repeated || time.Since(l.At) > time.Second {
			t.Errorf("want a fresh failure, the first of three, have %+v", l)
		}
		if x := a.now(placement.LookRequest{ID: "2", Site: "nyc1"}); x.Total+x.Open != 0 {
			t.Errorf("another site's request was taken: %+v", x)
		}
		if x := a.now(placement.LookRequest{ID: "3", Check: "cert"}); x.Total+x.Open != 0 {
			t.Errorf("another check was looked at: %+v", x)
		}
	})
}

// TestLoopOfDemands: who asks again and again is told the last result; the check falls,
// and rises, by as many looks as ever, each an interval (10 s at most) from the last.
func TestLoopOfDemands(t *testing.T) {
	ask(t, func(a *asking) {
		a.bad.Store(true)
		for i := range 9 {
			x := a.now(placement.LookRequest{ID: "loop"})
			if l := x.Looks[0]; l.InRow != 1 || l.Repeated != (i > 0) || a.state() != placement.Up {
				t.Fatalf("request %d within 10 s: %+v, voted %v; want the first failure, repeated, and up", i, l, a.state())
			}
		}
		for i := 2; i <= 3; i++ {
			time.Sleep(askedAtMost)
			if x := a.now(placement.LookRequest{ID: "again"}); x.Looks[0].Repeated || x.Looks[0].Found != placement.Down {
				t.Fatalf("look %d: %+v", i, x.Looks[0])
			}
			if want := map[int]placement.State{2: placement.Up, 3: placement.Down}[i]; a.state() != want {
				t.Fatalf("after %d failures %v, want %v", i, a.state(), want)
			}
		}
	})
}

// TestDemandsMeet: two who ask at once wait for one look.
func TestDemandsMeet(t *testing.T) {
	ask(t, func(a *asking) {
		var first, second placement.LookAnswer
		a.agent.LookNow(placement.LookRequest{ID: "1"}, func(x placement.LookAnswer) { first = x })
		a.agent.LookNow(placement.LookRequest{ID: "2"}, func(x placement.LookAnswer) { second = x })
		time.Sleep(time.Second)
		synctest.Wait()
		if first.Total != 1 || second.Total != 1 || !first.Looks[0].At.Equal(second.Looks[0].At) || second.Looks[0].Repeated {
			t.Errorf("want one look for both, have %+v and %+v", first, second)
		}
	})
}

// TestDemandEnds: a target that is taken away keeps nobody waiting.
func TestDemandEnds(t *testing.T) {
	ask(t, func(a *asking) {
		a.stop()
		a.agent.ask(errand{request: placement.LookRequest{ID: "1"}, tell: func(x placement.LookAnswer) { a.answers = append(a.answers, x) }}, func(lookID) {}, time.Now())
		a.agent.clusters[placement.ClusterID{Site: "ams1", Name: "web"}].addresses[0].addr = netip.MustParseAddrPort("192.0.2.99:80")
		a.agent.closeErrands(time.Now())
		if last := a.answers[len(a.answers)-1]; last.Open != 0 || last.Total != 0 {
			t.Errorf("still open: %+v", last)
		}
	})
}

// TestTurnAfterDemand: the next turn comes an interval after a look on demand.
func TestTurnAfterDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(10 * time.Millisecond)
		s, _ := bench(t, d, 4)
		targets := everySecond(1)
		targets[0].Check.Every = placement.Duration(time.Hour)
		s.set(targets)
		time.Sleep(10 * time.Minute)
		id := lookID{targets[0].Object, targets[0].Address, "web"}
		s.lookAt(id)
		time.Sleep(53 * time.Minute)
		synctest.Wait()
		if n := d.count(id.addr.String()); n != 2 {
			t.Errorf("%d looks, want the first and one on demand, whose turn is not yet over", n)
		}
	})
}
