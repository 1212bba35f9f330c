package health

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

var (
	web1   = netip.MustParseAddrPort("198.51.100.21:8080")
	web2   = netip.MustParseAddrPort("198.51.100.22:8080")
	shared = netip.MustParseAddrPort("192.0.2.1:53")
)

func somePulse() pulse {
	return pulse{name: "ams1-b", interval: DefaultPulse, incarnation: 7, number: 9,
		listen: []netip.AddrPort{web1, netip.MustParseAddrPort("[2001:db8::1]:53")}}
}

// TestPulseOnTheWire: what was sealed is read as it was; another key, a cut or a longer
// datagram is refused, and what finds no room is left out.
func TestPulseOnTheWire(t *testing.T) {
	key, p := [32]byte{1}, somePulse()
	data := p.seal(&key, nil)
	got, err := openPulse(&key, data)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(p) {
		t.Errorf("read %+v, %v; want %+v", got, err, p)
	}
	if _, err := openPulse(&[32]byte{2}, data); err == nil {
		t.Error("read with another key")
	}
	for n := range data {
		if _, err := openPulse(&key, data[:n]); err == nil {
			t.Errorf("read with %d of %d octets", n, len(data))
		}
	}
	body := append(data[:len(data)-pulseTag:len(data)-pulseTag], 0)
	if _, err := openPulse(&key, append(body, pulseMAC(&key, body)...)); err == nil {
		t.Error("read with an octet too many")
	}
	p.listen = slices.Repeat([]netip.AddrPort{web1}, 1000)
	if data = p.seal(&key, nil); len(data) > pulseMax {
		t.Errorf("%d octets, want at most %d", len(data), pulseMax)
	}
	if got, err := openPulse(&key, data); err != nil || len(got.listen) < 100 {
		t.Errorf("%d addresses read of a full one, %v", len(got.listen), err)
	}
}

func FuzzPulse(f *testing.F) {
	key := [32]byte{1}
	p := somePulse()
	data := p.seal(&key, nil)
	f.Add(data[:len(data)-pulseTag])
	f.Add([]byte{pulseVersion, kindBye, 0, 50, 0, 0, 0, 1, 0, 0, 0, 1, 1, 'a', 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := openPulse(&key, append(bytes.Clone(body), pulseMAC(&key, body)...))
		if err == nil && !bytes.Equal(got.seal(&key, nil)[:len(body)], body) {
			t.Errorf("%x is read as %+v, which is written otherwise", body, got)
		}
	})
}

// script plays beats on machines: "b b1 c" are beats of machine b by both networks, of b by
// the second alone, and of c, in one interval; "!b" is a goodbye, "_" nothing.
func script(m *machines, from int, turns ...string) (out []string) {
	start := time.Unix(1_700_000_000, 0)
	for i, turn := range turns {
		at := time.Duration(from+i+1) * DefaultPulse
		for _, word := range strings.Fields(turn) {
			name, bye := strings.CutPrefix(word, "!")
			vias := []int{0, 1}
			if one, ok := strings.CutSuffix(name, "1"); ok {
				name, vias = one, []int{1}
			}
			for _, via := range vias {
				if name != "_" {
					m.hear(pulse{name: name, bye: bye, interval: DefaultPulse, incarnation: 1, number: uint32(from + i + 1), listen: []netip.AddrPort{web1, shared}}, via, at, start.Add(at))
				}
			}
		}
		m.judge(at, 0, start.Add(at))
		for _, e := range m.take() {
			text := fmt.Sprintf("%d %s %s", from+i+1, e.Machine, e.State)
			if e.Again {
				text += " again"
			}
			out = append(out, text)
		}
	}
	return out
}

// TestMachinesJudged: a machine is silent when three of its beats are missing on every
// network by which it was heard, and it is heard again after three.
func TestMachinesJudged(t *testing.T) {
	for name, tt := range map[string]struct {
		turns []string
		want  []string
	}{
		"steady":                      {[]string{"b", "b", "b"}, []string{"1 b here"}},
		"two beats lost":              {[]string{"b", "_", "_", "b", "_", "_", "b"}, []string{"1 b here"}},
		"three lost, and a fourth":    {[]string{"b", "_", "_", "_", "_"}, []string{"1 b here", "5 b stalled"}},
		"one network fails":           {[]string{"b", "b1", "b1", "b1", "b1", "b1"}, []string{"1 b here"}},
		"one network, then the other": {[]string{"b", "b1", "b1", "_", "_", "_", "_"}, []string{"1 b here", "7 b stalled"}},
		"goodbye":                     {[]string{"b", "!b", "_", "_", "_", "_", "_"}, []string{"1 b here", "2 b left"}},
		"back after three":            {[]string{"b", "_", "_", "_", "_", "b", "b", "b", "b"}, []string{"1 b here", "5 b stalled", "8 b here"}},
		"again and again": {[]string{"b", "_", "_", "_", "_", "b", "b", "b", "_", "_", "_", "_"},
			[]string{"1 b here", "5 b stalled", "8 b here", "12 b stalled again"}},
		"one of three": {[]string{"b c d", "c d", "c d", "c d", "c d"}, []string{"1 b here", "1 c here", "1 d here", "5 b stalled"}},
		"most at once": {append([]string{"b c d"}, slices.Repeat([]string{"d"}, 23)...),
			[]string{"1 b here", "1 c here", "1 d here", "23 b stalled", "23 c stalled"}},
		"most at once, for a moment": {[]string{"b c d", "d", "d", "d", "d", "b c d", "b c d"}, []string{"1 b here", "1 c here", "1 d here"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := script(newMachines(), 0, tt.turns...); !slices.Equal(got, tt.want) {
				t.Errorf("have %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestMachinesDoubtCopies: an old beat, a copy, or one of an earlier life keeps nobody
// alive; and what the observer slept through is nobody's silence.
func TestMachinesDoubtCopies(t *testing.T) {
	m, now := newMachines(), time.Unix(1_700_000_000, 0)
	beat := func(incarnation, number uint32, at time.Duration) bool {
		return m.hear(pulse{name: "b", interval: DefaultPulse, incarnation: incarnation, number: number}, 0, at, now)
	}
	if !beat(5, 10, 0) || beat(5, 10, 1) || beat(5, 9, 2) || beat(4, 99, 3) || !beat(6, 1, 4) || beat(5, 11, 5) {
		t.Error("a copy was taken for news, or news for a copy")
	}
	if at := m.all["b"].heard; at != 4 {
		t.Errorf("heard at %d, want 4: the last that was news", at)
	}
	m.take()
	m.judge(4+time.Minute, time.Minute, now)
	m.judge(4+time.Minute+3*DefaultPulse, 0, now)
	if e := m.take(); len(e) != 0 {
		t.Errorf("the observer slept, and %+v", e)
	}
	m.judge(4+time.Minute+3*DefaultPulse+1, 0, now)
	if e := m.take(); len(e) != 1 || e[0].State != UnitStalled {
		t.Errorf("awake, and three beats are missing: %+v", e)
	}
}

// TestMachineServesAlone: an address that stands on several machines does not end with one.
func TestMachineServesAlone(t *testing.T) {
	m, now := newMachines(), time.Unix(1_700_000_000, 0)
	for i, name := range []string{"b", "c", "d"} {
		own := netip.AddrPortFrom(web1.Addr(), uint16(1000+i))
		m.hear(pulse{name: name, interval: DefaultPulse, number: 1, listen: []netip.AddrPort{own, shared}}, 0, 0, now)
		m.hear(pulse{name: name, interval: DefaultPulse, number: 2, listen: []netip.AddrPort{own, shared}}, 0, time.Duration(i+1)*time.Minute, now)
	}
	m.take()
	var ended []netip.AddrPort
	for at := time.Minute; at < 5*time.Minute; at += time.Second {
		m.judge(at, 0, now)
		for _, e := range m.take() {
			ended = append(ended, e.Listen...)
		}
	}
	want := []netip.AddrPort{netip.AddrPortFrom(web1.Addr(), 1000), netip.AddrPortFrom(web1.Addr(), 1001), netip.AddrPortFrom(web1.Addr(), 1002), shared}
	if !slices.Equal(ended, want) {
		t.Errorf("ended %v, want %v", ended, want)
	}
}

// machineBench is an agent with a cluster on two machines.
func machineBench(t *testing.T) (a *Agent, id placement.ClusterID, votes *[]placement.Vote, looks *int) {
	id = placement.ClusterID{Site: "ams1", Name: "web"}
	votes, looks = &[]placement.Vote{}, new(int)
	a = New(Config{Node: "ams1-a", Site: "ams1", Log: quiet(), Sink: func(v placement.Vote) { *votes = append(*votes, v) }})
	check := placement.Check{Name: "http", HTTP: &placement.HTTPCheck{}, Fall: 3, Rise: 3}
	a.clusters[id] = newCluster(Probe{Object: id, Targets: []Target{{Object: id, Address: web1, Check: check}, {Object: id, Address: web2, Check: check}}})
	for _, at := range []netip.AddrPort{web1, web2} {
		a.looked(look{Target{Object: id, Address: at, Check: check}, Result{State: placement.Up, Kind: "ok", At: time.Now()}})
	}
	return a, id, votes, looks
}

// TestMachineSilence: the silence of a machine is a vote at once; its beats take it back, a
// good look does, and each address is looked at without delay. Two silences within a minute
// are damped as the end of a process is.
func TestMachineSilence(t *testing.T) {
	a, id, votes, looks := machineBench(t)
	say := func(machine string, listen netip.AddrPort, s UnitState, again bool) {
		a.machine(MachineEvent{Machine: machine, Listen: []netip.AddrPort{listen}, State: s, Cause: "machine " + machine + ": no beat", Again: again}, func(*cluster) { *looks++ })
	}
	want := func(when string, s placement.State, f placement.Fault) {
		t.Helper()
		if v := (*votes)[len(*votes)-1]; v.Object != id || v.State != s || v.Fault != f {
			t.Errorf("%s: voted %v fault %q (%s), want %v fault %q", when, v.State, v.Fault, v.Cause, s, f)
		}
	}
	want("at first", placement.Up, placement.NoFault)
	say("b", web1, UnitStalled, false)
	want("one machine of two", placement.Degraded, placement.NoFault)
	say("c", web2, UnitStalled, false)
	want("both", placement.Down, placement.LocalFault)
	say("c", web2, UnitHere, false)
	want("one is heard again", placement.Degraded, placement.NoFault)
	check := *a.clusters[id].addresses[0].parts[0].check
	a.looked(look{Target{Object: id, Address: web1, Check: check}, Result{State: placement.Up, Kind: "ok", At: time.Now()}})
	want("a good look at the silent one", placement.Up, placement.NoFault)
	if *looks != 3 {
		t.Errorf("looked at once after %d changes, want 3", *looks)
	}
	say("b", web1, UnitStalled, true)
	say("b", web1, UnitHere, false)
	want("silent again, and back", placement.Degraded, placement.NoFault)
	say("b", web1, UnitLeft, false)
	want("after its goodbye", placement.Degraded, placement.NoFault)
}

// TestMachineOnThisHost: what is served here, too, does not end with another machine.
func TestMachineOnThisHost(t *testing.T) {
	a, id, votes, _ := machineBench(t)
	lo := netip.MustParseAddrPort("127.0.0.1:8080")
	a.clusters[id].addresses[0].addr = lo
	n := len(*votes)
	a.machine(MachineEvent{Machine: "b", Listen: []netip.AddrPort{lo}, State: UnitStalled}, func(*cluster) { t.Error("looked at") })
	if len(*votes) != n {
		t.Errorf("voted %+v", (*votes)[n:])
	}
}

// TestMachinesHear: over real sockets, a machine is here, falls silent without a word, is
// here again, and leaves.
func TestMachinesHear(t *testing.T) {
	key := [32]byte{3}
	any := netip.MustParseAddrPort("127.0.0.1:0")
	m, err := ListenMachines([]netip.AddrPort{any, any}, key, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t, 30*time.Second)
	done := make(chan error, 1)
	run, stop := context.WithCancel(ctx)
	go func() { done <- m.Run(run) }()
	var to []netip.AddrPort
	for _, c := range m.conns {
		to = append(to, c.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	seen := []string{}
	await := func(s UnitState) {
		t.Helper()
		for {
			select {
			case <-m.Bell():
			case <-ctx.Done():
				t.Fatalf("never %s; seen: %q", s, seen)
			}
			for _, e := range m.Take() {
				seen = append(seen, e.Machine+" "+e.State.String()+" "+e.Cause)
				if e.State == s && e.Machine == "ams1-b" && slices.Equal(e.Listen, []netip.AddrPort{web1}) {
					return
				}
			}
		}
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	one := pulse{name: "ams1-b", interval: DefaultPulse, incarnation: 1, number: 1, listen: []netip.AddrPort{web1}}
	conn.Write([]byte("not a pulse"))
	conn.Write(one.seal(&key, nil))
	await(UnitHere)
	await(UnitStalled)
	p := &Pulse{Node: "ams1-b", Incarnation: 2, Key: key, To: to, Listen: func() []netip.AddrPort { return []netip.AddrPort{web1} }, Log: quiet()}
	beating, leave := context.WithCancel(ctx)
	beats := make(chan error, 1)
	go func() { beats <- p.Run(beating) }()
	await(UnitHere)
	leave()
	if err := <-beats; err != nil {
		t.Error(err)
	}
	await(UnitLeft)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
