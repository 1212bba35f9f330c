package health

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

func someCluster(n, rise, fall int) *cluster {
	p := Probe{Object: placement.ClusterID{Site: "ams1", Name: "web"}}
	for i := range n {
		p.Targets = append(p.Targets, Target{Address: addrOf(i), Check: placement.Check{Fault: placement.LocalFault, Rise: rise, Fall: fall}})
	}
	return newCluster(p)
}

// look1 is a plain look: it worked, or was refused.
func look1(ok bool) Result {
	r := failed("refused", "refused")
	if ok {
		r = passed(Result{})
	}
	r.At = time.Unix(1, 0)
	return r
}

func addrOf(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 80)
}

// TestClusterState: what is known of the addresses (u unknown, U up, D down)
// makes the state of the cluster.
func TestClusterState(t *testing.T) {
	for _, c := range []struct {
		addresses string
		want      placement.State
	}{
		{"", placement.Unknown}, {"u", placement.Unknown}, {"U", placement.Up}, {"D", placement.Down},
		{"UU", placement.Up}, {"UD", placement.Degraded}, {"DD", placement.Down},
		{"uU", placement.Up},      // one answer is in
		{"uD", placement.Unknown}, // the other may answer yet: a start-up is not down
		{"uUD", placement.Degraded}, {"DDD", placement.Down}, {"DDU", placement.Degraded},
	} {
		cl := someCluster(len(c.addresses), 1, 1)
		for i, a := range c.addresses {
			if a != 'u' {
				cl.feed(addrOf(i), "", look1(a == 'U'))
			}
		}
		state, cause := cl.state()
		if state != c.want {
			t.Errorf("%q is %v, want %v", c.addresses, state, c.want)
		}
		if n := strings.Count(cause, ": refused"); n != strings.Count(c.addresses, "D") {
			t.Errorf("%q: cause %q", c.addresses, cause)
		}
	}
}

// TestClusterFeed: only what moves a damper is news, and a stranger's result is not.
func TestClusterFeed(t *testing.T) {
	c := someCluster(1, 1, 2)
	for i, step := range []struct {
		addr int
		ok   bool
		news bool
	}{{0, true, true}, {0, true, false}, {0, false, false}, {0, false, true}, {7, false, false}} {
		if got := c.feed(addrOf(step.addr), "", look1(step.ok)); got != step.news {
			t.Errorf("step %d: news %v", i, got)
		}
	}
}

// TestClusterInherits: an address which stays keeps its damper, a new one is
// unknown, and other counts begin anew. An address given twice is one.
func TestClusterInherits(t *testing.T) {
	old := someCluster(2, 1, 1)
	for i := range 2 {
		old.feed(addrOf(i), "", look1(false))
	}
	for _, c := range []struct {
		name       string
		n          int
		rise, fall int
		want       placement.State
	}{
		{"the same", 2, 1, 1, placement.Down}, {"one fewer", 1, 1, 1, placement.Down},
		{"one more", 3, 1, 1, placement.Unknown}, {"other counts", 2, 2, 1, placement.Unknown},
	} {
		next := someCluster(c.n, c.rise, c.fall)
		next.inherit(old)
		if state, _ := next.state(); state != c.want {
			t.Errorf("%s: %v, want %v", c.name, state, c.want)
		}
	}
	more := someCluster(3, 1, 1)
	more.inherit(old)
	more.feed(addrOf(2), "", look1(true))
	if state, cause := more.state(); state != placement.Degraded || strings.Count(cause, "refused") != 2 {
		t.Errorf("a good server beside two dead ones: %v (%s)", state, cause)
	}
	old.inherit(nil)
	twice := newCluster(Probe{Targets: []Target{{Address: addrOf(0)}, {Address: addrOf(0)}}})
	if len(twice.addresses) != 1 {
		t.Errorf("%d addresses, want 1", len(twice.addresses))
	}
}

// naiveDamper is the damper's rule written as a history: every result is kept and
// looked through again.
type naiveDamper struct {
	rise, fall int
	history    []bool
	state      placement.State
	flaps      float64
	at         time.Time
	trial      int
	failed     int
}

func (d *naiveDamper) feed(ok bool, now time.Time) {
	d.history = append(d.history, ok)
	run := 0
	for i := len(d.history) - 1; i >= 0 && d.history[i] == ok; i-- {
		run++
	}
	for ; d.at.Before(now); d.at = d.at.Add(time.Second) { // half-life of 60 s, second by second
		d.flaps *= 0.98851402035 // 2^(-1/60)
	}
	flap := func() { d.flaps = min(d.flaps+1000, 1750) }
	trial := d.trial > 0
	if trial {
		d.trial--
		if !ok {
			d.failed++
		}
	}
	before := len(d.history) > 1 && d.history[len(d.history)-2]
	switch {
	case !ok && d.state == placement.Down && before:
		flap()
	case !ok && d.state != placement.Down && (run >= d.fall || trial && d.failed >= 4):
		if d.state == placement.Up {
			flap()
		}
		d.state, d.trial = placement.Down, 0
	case ok && d.state == placement.Unknown:
		d.state = placement.Up
	case ok && d.state == placement.Down && run >= d.rise && d.flaps < 750:
		d.state, d.trial, d.failed = placement.Up, 16, 0
	}
}

// TestDamperAgainstNaive: over long random histories the damper is where the rule
// says, and nobody waits longer to come back than the comment promises.
func TestDamperAgainstNaive(t *testing.T) {
	for seed := range 40 {
		d, n := newDamper(1+seed%3, 1+seed%4, 0), &naiveDamper{rise: 1 + seed%3, fall: 1 + seed%4, at: time.Unix(0, 0)}
		now, x, waited := time.Unix(0, 0), uint32(seed*2654435761+1), time.Duration(0)
		for i := range 1500 {
			x = x*1664525 + 1013904223
			ok := x>>24 < 150
			if i/50%3 == 1 {
				ok = x>>24 < 20 // an outage
			} else if i/50%3 == 2 {
				ok = true
			}
			now = now.Add(time.Second)
			d.feed(look1(ok).State, false, now)
			n.feed(ok, now)
			if d.state != n.state {
				t.Fatalf("seed %d, look %d: %v, want %v", seed, i, d.state, n.state)
			}
			if waited += time.Second; !ok || d.state != placement.Down {
				waited = 0
			}
			if waited > 74*time.Second+time.Duration(d.rise)*time.Second {
				t.Fatalf("seed %d: still down after %v of good looks", seed, waited)
			}
		}
	}
}

func TestDecayedClockBack(t *testing.T) {
	d := penalty{value: 500, at: time.Unix(100, 0)}
	if p := d.left(time.Unix(40, 0)); p != 500 {
		t.Errorf("a clock that ran back makes the penalty %v", p)
	}
	if p := d.left(time.Unix(160, 0)); p < 249.9 || p > 250.1 {
		t.Errorf("after a half-life %v is left of 500", p)
	}
}

// TestProbes: whose check a cluster gets, and which host is asked for.
func TestProbes(t *testing.T) {
	inv := &placement.Inventory{}
	inv.Sites = []placement.Site{{Name: "ams1", Clusters: []placement.Cluster{
		{Name: "api", Check: "own", Addresses: []netip.AddrPort{addrOf(0)}},
		{Name: "far", Addresses: []netip.AddrPort{addrOf(1)}},
		{Name: "web", Addresses: []netip.AddrPort{addrOf(2), addrOf(3)}},
	}}, {Name: "nyc1", Clusters: []placement.Cluster{{Name: "far", Addresses: []netip.AddrPort{addrOf(4)}}}}}
	inv.Checks = []placement.Check{{Name: "own"}, {Name: "svc"}}
	inv.Services = []placement.Service{
		{Name: "a", Clusters: []string{"web"}, Names: []string{"a.cdn.demo.test."}},
		{Name: "b", Clusters: []string{"web", "api"}, Names: []string{"b.cdn.demo.test.", "*.cdn.demo.test."}, Check: "svc"},
		{Name: "c", Clusters: []string{"far"}, Sites: []string{"nyc1"}, Check: "svc"},
	}
	var have []string
	for _, p := range Probes(inv, "ams1") {
		for _, tg := range p.Targets {
			have = append(have, fmt.Sprintf("%v %v %s %s", tg.Object, tg.Address, tg.Check.Name, tg.Host))
		}
	}
	want := []string{"ams1/api 192.0.2.1:80 own b.cdn.demo.test", "ams1/web 192.0.2.3:80 svc a.cdn.demo.test", "ams1/web 192.0.2.4:80 svc a.cdn.demo.test"}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("have\n%s\nwant\n%s", strings.Join(have, "\n"), strings.Join(want, "\n"))
	}
	if hosts := fmt.Sprint(Probes(inv, "ams1")[1].Targets[0].Hosts); hosts != "[a.cdn.demo.test b.cdn.demo.test rhumb-health.cdn.demo.test]" {
		t.Errorf("names %s", hosts)
	}
	if Probes(inv, "xxx1") != nil {
		t.Error("a site that is not in the fleet looks at something")
	}
}
