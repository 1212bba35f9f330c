package health

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"rhumb/health/detect"
	"rhumb/placement"
)

// twoNodes starts three sites, the third with two machines that beat: nodes 3 and 4.
func twoNodes(t *testing.T, e *ether) (out []*station) {
	site := func(node int) string { return siteName(min(node, 3)) }
	for i := 1; i <= 4; i++ {
		var peers []Peer
		for k := 1; k <= 4; k++ {
			if site(k) == site(i) {
				continue
			}
			p := Peer{Site: site(k), NodeID: uint16(k), Addr: stationAddr(k), Keys: [][32]byte{{9}}}
			for n := 1; n <= 4; n++ {
				if site(n) != site(k) {
					p.Watches = append(p.Watches, uint16(n))
				}
			}
			peers = append(peers, p)
		}
		s := start(t, e, i, 0, 1, func(c *Config) {
			c.Site = site(i)
			if i == 4 {
				c.Node = "s3-b"
			}
		})
		s.Set(peers, nil)
		out = append(out, s)
	}
	return out
}

// TestSiteOfTwoNodes: a site is heard while any of its nodes is, and down when all are
// silent; the votes of a dead machine end with its own beats.
func TestSiteOfTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		all := twoNodes(t, e)
		a := all[0]
		time.Sleep(15 * time.Second)
		if s := a.on(3).State; s != placement.Up {
			t.Fatalf("on a quiet day %v, want up", s)
		}
		for _, n := range a.link.Counts() {
			if bad := n.In[detect.BadVector]; bad > 0 {
				t.Errorf("%d vectors of %s did not fit: the two do not agree on whom they tell of", bad, n.Name)
			}
		}
		if n := len(bySite(a.link.Counts())); n != 3 {
			t.Errorf("%d rows of counts, want strangers, s2 and s3", n)
		}
		voters := func() (out []string) {
			synctest.Wait()
			for k := range a.ballot.heard {
				if k.object == placement.SiteID("s1") {
					out = append(out, k.vantage)
				}
			}
			slices.Sort(out)
			return out
		}
		if got := voters(); !slices.Equal(got, []string{"s2-a", "s3-a", "s3-b"}) {
			t.Errorf("votes on s1 of %v, want all three", got)
		}
		e.lose(silent(3))
		time.Sleep(15 * time.Second)
		if n := a.downs(3); n > 0 || a.on(3).State != placement.Up {
			t.Errorf("one of two machines died: %d votes down, the last %+v", n, a.on(3))
		}
		if got := voters(); !slices.Equal(got, []string{"s2-a", "s3-b"}) {
			t.Errorf("votes on s1 of %v, want none of the dead machine", got)
		}
		e.lose(func(from, to netip.AddrPort) bool { return silent(3)(from, to) || silent(4)(from, to) })
		time.Sleep(5 * time.Second)
		if v := a.on(3); v.State != placement.Down || v.Hold {
			t.Errorf("both died: %+v, want down", v)
		}
		e.lose(silent(3))
		time.Sleep(30 * time.Second)
		if v := a.on(3); v.State != placement.Up {
			t.Errorf("the second one is back: %+v, want up", v)
		}
	})
}

// TestOneOfTwoLeaves: the goodbye of one machine is none of its site.
func TestOneOfTwoLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEther()
		all := twoNodes(t, e)
		a := all[0]
		time.Sleep(5 * time.Second)
		before := a.votes()
		all[2].stop()
		time.Sleep(time.Minute)
		if v := a.on(3); v.State != placement.Up || a.votes() != before {
			t.Errorf("%d votes more, the last %+v; want none: its second machine is there", a.votes()-before, v)
		}
		all[3].stop()
		time.Sleep(time.Second)
		if v := a.on(3); v.State != placement.Unknown {
			t.Errorf("the last one said goodbye: %+v, want unknown", v)
		}
	})
}

// vantageBeats plays beats of ams1-b, each 50 ms: v its health role, p another unit of
// its machine; capital V says that web1 has ended there.
func vantageBeats(m *machines, from int, turns string) (out []string) {
	start := time.Unix(1_700_000_000, 0)
	for i, c := range turns {
		at := time.Duration(from+i+1) * DefaultPulse
		p := pulse{name: "ams1-b", interval: DefaultPulse, incarnation: 1, number: uint32(from + i + 1)}
		switch c {
		case 'v', 'V':
			if p.vantage = true; c == 'V' {
				p.listen = []netip.AddrPort{web1}
			}
			m.hear(p, 0, at, start.Add(at))
		case 'p':
			p.listen = []netip.AddrPort{web1, web2}
			m.hear(p, 0, at, start.Add(at))
		}
		m.judge(at, 0, start.Add(at))
		for _, e := range m.take() {
			text := e.State.String()
			if e.Vantage {
				text = "vantage " + text
			}
			for _, a := range e.Listen {
				text += " " + a.String()
			}
			out = append(out, text)
		}
	}
	return out
}

// TestVantageJudged: a health role falls silent as a machine does, and is believed to be
// back after two seconds; while it beats, its machine is there; what it says to have ended
// is told once.
func TestVantageJudged(t *testing.T) {
	for name, c := range map[string]struct {
		turns string
		want  []string
	}{
		"the machine dies": {"pvpv____", []string{"here 198.51.100.21:8080 198.51.100.22:8080", "vantage here", "vantage stalled", "stalled 198.51.100.21:8080 198.51.100.22:8080"}},
		"the role dies":    {"pvpppppp", []string{"here 198.51.100.21:8080 198.51.100.22:8080", "vantage here", "vantage stalled"}},
		"the unit that beats for the machine dies": {"pvvvvvvv", []string{"here 198.51.100.21:8080 198.51.100.22:8080", "vantage here"}},
		"a process ends":        {"vvVVVvVV", []string{"vantage here", "vantage exited 198.51.100.21:8080", "vantage exited 198.51.100.21:8080"}},
		"back after a while":    {"v____" + "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv", []string{"vantage here", "vantage stalled"}},
		"back after two second": {"v____" + "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv", []string{"vantage here", "vantage stalled", "vantage here"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := vantageBeats(newMachines(), 0, c.turns); !slices.Equal(got, c.want) {
				t.Errorf("have %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestVantageMissed: the vote on the own site names a silent vantage at once, is sure of it
// when that one does not say the same, and takes it back.
func TestVantageMissed(t *testing.T) {
	a, id, votes, looks := machineBench(t)
	says := ""
	a.cfg.Misses = func(string) string { return says }
	a.vote(placement.Vote{Object: placement.SiteID("ams1"), State: placement.Up})
	began := (*votes)[len(*votes)-1].Since
	want := func(when, without string, sure bool) {
		t.Helper()
		v := (*votes)[len(*votes)-1]
		if v.Object != placement.SiteID("ams1") || v.State != placement.Up || v.Without != without || v.Sure != sure || !v.Since.Equal(began) {
			t.Errorf("%s: %+v, want up since the beginning, without %q, sure %v", when, v, without, sure)
		}
	}
	say := func(s UnitState) {
		a.machine(MachineEvent{Machine: "ams1-b", State: s, Vantage: true}, func(*cluster) { *looks++ })
	}
	now := time.Now()
	say(UnitHere)
	want("here", "", false)
	say(UnitStalled)
	want("silent", "ams1-b", false)
	a.confirm(now.Add(sureAfter / 2))
	want("silent for a moment", "ams1-b", false)
	says = "ams1-a"
	a.confirm(now.Add(2 * sureAfter))
	want("it misses us", "ams1-b", false)
	says = ""
	a.confirm(now.Add(3 * sureAfter))
	want("it does not", "ams1-b", true)
	n := len(*votes)
	a.confirm(now.Add(4 * sureAfter))
	if len(*votes) > n {
		t.Error("what is steady is voted again")
	}
	say(UnitHere)
	want("back", "", false)

	a.machine(MachineEvent{Machine: "ams1-b", State: UnitExited, Vantage: true, Listen: []netip.AddrPort{web1, web2}, Cause: "machine ams1-b: the process has ended"}, func(*cluster) { *looks++ })
	if v := (*votes)[len(*votes)-1]; v.Object != id || v.State != placement.Down || v.Fault != placement.LocalFault || *looks != 1 {
		t.Errorf("the process behind all of it has ended: %+v after %d looks, want down by a local fault, and one look", v, *looks)
	}
}

// TestEndedIsTold: what the kernel says of this machine's units is told to the other one.
func TestEndedIsTold(t *testing.T) {
	a, _, _, _ := machineBench(t)
	unit := Unit{Name: "rhumb-dns", Listen: []netip.AddrPort{web2, web1}}
	for _, c := range []struct {
		state UnitState
		want  []netip.AddrPort
	}{{UnitHere, nil}, {UnitExited, []netip.AddrPort{web1, web2}}, {UnitHere, nil}, {UnitDeaf, []netip.AddrPort{web1, web2}}, {UnitLeft, nil}} {
		a.unit(UnitEvent{Unit: unit, State: c.state})
		if got := a.Ended(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.state, got, c.want)
		}
	}
}

// TestVantagesHear: over real sockets a health role is here, says what has ended, and leaves.
func TestVantagesHear(t *testing.T) {
	key := [32]byte{3}
	m, err := ListenMachines([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, key, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 30*time.Second)
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- m.Run(run) }()
	ended := make(chan []netip.AddrPort, 1)
	var now []netip.AddrPort
	p := &Pulse{Node: "ams1-b", Incarnation: 2, Key: key, To: []netip.AddrPort{m.conns[0].LocalAddr().(*net.UDPAddr).AddrPort()}, Vantage: true, Log: quiet(),
		Listen: func() []netip.AddrPort {
			select {
			case now = <-ended:
			default:
			}
			return now
		}}
	beating, leave := context.WithCancel(ctx)
	beats := make(chan error, 1)
	go func() { beats <- p.Run(beating) }()
	var seen []string
	for _, step := range []struct {
		want UnitState
		then func()
	}{{UnitHere, func() { ended <- []netip.AddrPort{web1} }}, {UnitExited, leave}, {UnitLeft, stop}} {
		for found := false; !found; {
			select {
			case <-m.Bell():
			case <-ctx.Done():
				t.Fatalf("never %s; seen: %q", step.want, seen)
			}
			for _, e := range m.Take() {
				seen = append(seen, e.State.String())
				found = found || e.Vantage && e.Machine == "ams1-b" && e.State == step.want && (e.State != UnitExited || slices.Equal(e.Listen, []netip.AddrPort{web1}))
			}
		}
		step.then()
	}
	for _, end := range []chan error{beats, done} {
		if err := <-end; err != nil {
			t.Error(err)
		}
	}
}
