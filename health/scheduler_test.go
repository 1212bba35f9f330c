package health

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/placement"
)

// desk is a prober which notes when it was asked, and takes its time.
type desk struct {
	mu      sync.Mutex
	starts  map[string][]time.Duration // by address, since the beginning
	busy    map[string]int
	most    int // looks at once, all together
	doubled bool
	takes   time.Duration
	zero    time.Time
}

func newDesk(takes time.Duration) *desk {
	return &desk{starts: make(map[string][]time.Duration), busy: make(map[string]int), takes: takes, zero: time.Now()}
}

func (d *desk) prober(*placement.Check) Prober { return d.look }

func (d *desk) look(ctx context.Context, t Target) Result {
	key := t.Address.String()
	d.mu.Lock()
	d.starts[key] = append(d.starts[key], time.Since(d.zero))
	d.busy[key]++
	all := 0
	for _, n := range d.busy {
		all += n
	}
	d.most, d.doubled = max(d.most, all), d.doubled || d.busy[key] > 1
	d.mu.Unlock()
	select {
	case <-time.After(d.takes):
	case <-ctx.Done():
	}
	d.mu.Lock()
	d.busy[key]--
	d.mu.Unlock()
	if ctx.Err() != nil {
		return failed("timeout", "no answer in time")
	}
	return passed(Result{})
}

func (d *desk) count(addr string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.starts[addr])
}

// bench runs a scheduler on the clock of a bubble; results are counted and dropped.
func bench(t *testing.T, d *desk, atOnce int) (s *scheduler, results *int) {
	ctx, cancel := context.WithCancel(t.Context())
	out, n := make(chan look), new(int)
	s = newScheduler(ctx, out, atOnce, d.prober)
	go func() {
		for {
			select {
			case <-out:
				*n++
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); s.wait() })
	return s, n
}

func everySecond(n int) (out []Target) {
	for i := range n {
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 80)
		out = append(out, Target{Object: placement.ClusterID{Site: "ams1", Name: "web"}, Address: addr,
			Check: placement.Check{Name: "web", HTTP: &placement.HTTPCheck{Path: "/"}, Every: placement.Duration(time.Second), Timeout: placement.Duration(500 * time.Millisecond)}})
	}
	return out
}

// TestJitterBounds: the first look comes within a tenth of the interval, each
// next one an interval later, a tenth more or less; and never the same twice.
func TestJitterBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(30 * time.Millisecond)
		s, results := bench(t, d, 16)
		s.set(everySecond(3))
		time.Sleep(200 * time.Second)
		synctest.Wait()
		gaps := make(map[time.Duration]bool)
		for addr, starts := range d.starts {
			if starts[0] > 100*time.Millisecond {
				t.Errorf("first look at %s after %v", addr, starts[0])
			}
			for i := 1; i < len(starts); i++ {
				gap := starts[i] - starts[i-1]
				gaps[gap] = true
				if gap < 900*time.Millisecond || gap > 1101*time.Millisecond {
					t.Errorf("look %d at %s came after %v", i, addr, gap)
				}
			}
			if n := len(starts); n < 181 || n > 223 {
				t.Errorf("%d looks at %s in 200 s", n, addr)
			}
		}
		if d.doubled || len(gaps) < 100 || *results < 540 {
			t.Errorf("doubled %v, %d different gaps, %d results", d.doubled, len(gaps), *results)
		}
	})
}

// TestLooksAtOnce: a fleet of targets is looked at by no more at once than it takes,
// and each of them is.
func TestLooksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(100 * time.Millisecond)
		s, _ := bench(t, d, 4)
		few := everySecond(30)
		for i := range few {
			few[i].Check.Timeout = placement.Duration(50 * time.Millisecond)
		}
		s.set(few)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if d.most != 4 || d.doubled || len(d.starts) != 30 {
			t.Errorf("%d looks at once, want 4; doubled %v; %d of 30 targets seen", d.most, d.doubled, len(d.starts))
		}
	})
}

// TestAllSilent: targets which all let their timeout run out are looked at as often
// as one alone would be.
func TestAllSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(time.Hour)
		s, _ := bench(t, d, 4)
		s.set(everySecond(200))
		time.Sleep(20 * time.Second)
		synctest.Wait()
		for addr, starts := range d.starts {
			for i := 1; i < len(starts); i++ {
				if gap := starts[i] - starts[i-1]; gap > 1200*time.Millisecond {
					t.Fatalf("%s: look %d came after %v", addr, i, gap)
				}
			}
		}
		if len(d.starts) != 200 || d.most > 140 {
			t.Errorf("%d targets seen, %d looks at once", len(d.starts), d.most)
		}
	})
}

// TestSlowLook: a target which never answers costs a timeout a look, and is not
// asked again at once.
func TestSlowLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(time.Hour)
		s, _ := bench(t, d, 16)
		targets := everySecond(1)
		targets[0].Check.Timeout = placement.Duration(2 * time.Second) // config refuses it; a store may hold it
		s.set(targets)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		for addr, starts := range d.starts {
			for i := 1; i < len(starts); i++ {
				if gap := starts[i] - starts[i-1]; gap < 2100*time.Millisecond {
					t.Errorf("%s was asked again after %v", addr, gap)
				}
			}
			if len(starts) < 10 {
				t.Errorf("%d looks in 30 s", len(starts))
			}
		}
	})
}

// TestSetKeepsWhatRuns: targets that stay are not disturbed, those that go are
// left alone, and a check that changed in anything is a new target.
func TestSetKeepsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(10 * time.Millisecond)
		s, _ := bench(t, d, 16)
		all := everySecond(3)
		stays, goes, changes := all[0].Address.String(), all[1].Address.String(), all[2].Address.String()
		s.set(all)
		time.Sleep(500 * time.Millisecond)
		for i := range 5 { // nothing new: nobody is asked out of turn
			s.set(append(all[:3:3], all[0]))
			time.Sleep(time.Millisecond)
			if n := d.count(stays); n != 1 {
				t.Fatalf("%d looks at %s after set %d", n, stays, i)
			}
		}
		for i := range all[2:] {
			http := *all[2+i].Check.HTTP
			http.Path = "/other"
			all[2+i].Check.HTTP = &http
		}
		s.set([]Target{all[0], all[2]})
		time.Sleep(110 * time.Millisecond)
		if d.count(stays) != 1 || d.count(changes) != 2 {
			t.Errorf("%d looks at what stays, want 1; %d at what changed, want 2", d.count(stays), d.count(changes))
		}
		before := d.count(goes)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if d.count(goes) != before || d.doubled {
			t.Errorf("%d looks at what went; doubled %v", d.count(goes)-before, d.doubled)
		}
		for _, addr := range []string{stays, changes} {
			if n := d.count(addr); n < 17 {
				t.Errorf("%d looks at %s in 20 s", n, addr)
			}
		}
	})
}

// TestDropBreaksOff: nothing is reported of a target after it was dropped.
func TestDropBreaksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(400 * time.Millisecond)
		s, results := bench(t, d, 16)
		s.set(everySecond(1))
		time.Sleep(200 * time.Millisecond) // the first look runs
		s.set(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if *results != 0 || len(d.starts) != 1 {
			t.Errorf("%d results of %v", *results, fmt.Sprint(d.starts))
		}
	})
}

// TestDownWithin11Seconds: with the defaults a server that stops answering at any
// moment is down within 11 s (three intervals with their jitter, and a timeout), and
// one that refuses within 10 s; a server that comes back is up within 11 s. The clock
// is that of a bubble: the figures are exact.
func TestDownWithin11Seconds(t *testing.T) {
	worst := map[string]time.Duration{}
	for _, how := range []string{"silent", "refused"} {
		for n := range 60 {
			down, up := outage(t, how, time.Duration(n)*137*time.Millisecond)
			worst[how] = max(worst[how], down)
			worst["back"] = max(worst["back"], up)
		}
	}
	t.Logf("worst of 60 moments: silent %v, refused %v, back %v", worst["silent"], worst["refused"], worst["back"])
	for how, limit := range map[string]time.Duration{"silent": 11 * time.Second, "refused": 10 * time.Second, "back": 11 * time.Second} {
		if worst[how] > limit || worst[how] < 5*time.Second {
			t.Errorf("%s: %v, want at most %v", how, worst[how], limit)
		}
	}
}

// outage runs one target with the defaults, breaks it at a moment and mends it a
// minute later; it returns how long each took to be seen.
func outage(t *testing.T, how string, after time.Duration) (down, up time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		probe := func(ctx context.Context, _ Target) Result {
			switch {
			case !broken.Load():
				return passed(Result{})
			case how == "refused":
				return failed("refused", "refused")
			}
			<-ctx.Done()
			return failed("timeout", "no answer in time")
		}
		ctx, cancel := context.WithCancel(t.Context())
		results := make(chan look)
		s := newScheduler(ctx, results, 1, func(*placement.Check) Prober { return probe })
		tg := Target{Address: addrOf(0), Check: placement.Check{Rise: placement.DefaultRise, Fall: placement.DefaultFall}}
		c := newCluster(Probe{Targets: []Target{tg}})
		s.set([]Target{tg})
		begin := time.Now()
		until := func(want placement.State) time.Time {
			for {
				l := <-results
				c.feed(addrOf(0), "", l.result)
				if state, _ := c.state(); state == want {
					return time.Now()
				}
			}
		}
		until(placement.Up)
		go func() {
			time.Sleep(30*time.Second + after - time.Since(begin))
			broken.Store(true)
			time.Sleep(time.Minute)
			broken.Store(false)
		}()
		down = until(placement.Down).Sub(begin.Add(30*time.Second + after))
		up = until(placement.Up).Sub(begin.Add(90*time.Second + after))
		cancel()
		s.wait()
	})
	return down, up
}

// TestWhereServed: an address that is away is not looked at, and what was found out there
// before stands; once it is back the next look counts.
func TestWhereServed(t *testing.T) {
	here, gone := netip.MustParseAddrPort("192.0.2.1:80"), netip.MustParseAddrPort("192.0.2.2:80")
	looks := 0
	find := whereServed(func(*placement.Check) Prober {
		return func(context.Context, Target) Result { looks++; return failed("timeout", "no answer in time") }
	}, func(a netip.Addr) bool { return a == gone.Addr() })
	probe := find(&placement.Check{})
	if r := probe(t.Context(), Target{Address: here}); r.State != placement.Down || looks != 1 {
		t.Errorf("an address that is here: %+v after %d looks", r, looks)
	}
	r := probe(t.Context(), Target{Address: gone})
	if r.State != placement.Unknown || r.Kind != "away" || looks != 1 {
		t.Errorf("an address that is away: %+v after %d looks", r, looks)
	}
	d := newDamper(1, 1, 0)
	d.feed(placement.Up, false, time.Now())
	for range 100 {
		d.feed(r.State, false, time.Now())
	}
	if d.state != placement.Up {
		t.Errorf("state %v after 100 looks at an address that is away", d.state)
	}
}
