package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// fakeKernel notes from when until when it permitted, on the clock of this machine.
type fakeKernel struct {
	mu     sync.Mutex
	spans  []span
	told   int
	down   bool
	broken bool
}

// span is a time during which a kernel permitted.
type span struct{ from, to time.Duration }

var errBroken = errors.New("broken")

func (k *fakeKernel) set(f func()) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.broken {
		return errBroken
	}
	f()
	return nil
}

func (k *fakeKernel) start() error { return k.set(func() {}) }
func (k *fakeKernel) tell() error  { return k.set(func() { k.told++ }) }
func (k *fakeKernel) close()       {}

func (k *fakeKernel) permit(until time.Duration) error {
	return k.set(func() {
		now := hostClock{}.now()
		if n := len(k.spans); n > 0 && now < k.spans[n-1].to {
			k.spans[n-1].to = until
		} else if now < until {
			k.spans = append(k.spans, span{now, until})
		}
	})
}

func (k *fakeKernel) forbid() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if n := len(k.spans); n > 0 {
		k.spans[n-1].to = min(k.spans[n-1].to, hostClock{}.now())
	}
	return nil
}

func (k *fakeKernel) up() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.down
}

func (k *fakeKernel) permits() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.spans)
	return n > 0 && hostClock{}.now() < k.spans[n-1].to
}

// team is three agents of one site on the loopback device, by two media.
type team struct {
	t       *testing.T
	agents  [3]*Agent
	kernels [3]*fakeKernel
	cancel  [3]context.CancelFunc
	done    [3]chan error
}

func newTeam(t *testing.T) *team {
	c := Config{Device: "eth0", Key: []byte("key"), Leases: []Lease{{"web", []netip.Addr{addr("192.0.2.10")}}}}
	for i := range 3 {
		c.Members = append(c.Members, Member{fmt.Sprint("n", i), []netip.AddrPort{freePort(t), freePort(t)}})
	}
	tm := &team{t: t}
	for i := range 3 {
		tm.kernels[i] = &fakeKernel{}
		c.Self = c.Members[i].Name
		a, err := newAgent(c, hostClock{}, []kernel{tm.kernels[i]})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		tm.agents[i], tm.cancel[i], tm.done[i] = a, cancel, make(chan error, 1)
		go func() { tm.done[i] <- a.Run(ctx) }()
		t.Cleanup(func() { tm.end(i) })
	}
	return tm
}

func freePort(t *testing.T) netip.AddrPort {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// end ends an agent's Run, once.
func (tm *team) end(i int) {
	tm.cancel[i]()
	if err, first := <-tm.done[i]; first {
		close(tm.done[i])
		if err != nil {
			tm.t.Errorf("n%d: %v", i, err)
		}
	}
}

// apart looks for a moment at which two kernels permitted.
func (tm *team) apart() {
	tm.t.Helper()
	for i, a := range tm.kernels {
		for j, b := range tm.kernels[:i] {
			for _, x := range a.spans {
				for _, y := range b.spans {
					if x.from < y.to && y.from < x.to {
						tm.t.Errorf("the kernels of n%d and n%d permitted at once: %v to %v, %v to %v", i, j, x.from, x.to, y.from, y.to)
					}
				}
			}
		}
	}
}

// owner waits for an owner other than not.
func (tm *team) owner(not int) int {
	tm.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		var who []int
		for i, k := range tm.kernels {
			if k.permits() {
				who = append(who, i)
			}
		}
		if len(who) == 1 && who[0] != not {
			return who[0]
		}
	}
	var states []State
	for _, a := range tm.agents {
		states = append(states, a.States()...)
	}
	tm.t.Fatalf("no owner other than n%d within 20s; states %+v", not, states)
	return -1
}

// tells waits until an agent that has taken over tells the neighbours, which it does next.
func (tm *team) tells(i int) {
	tm.t.Helper()
	k := tm.kernels[i]
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		k.mu.Lock()
		told := k.told
		k.mu.Unlock()
		if told > 0 {
			return
		}
		if time.Now().After(end) {
			tm.t.Fatalf("n%d took over and told no neighbour within 20s", i)
		}
	}
}

// TestAgents: three agents have one owner; another one follows when it would not, when its link is
// down, when its kernel refuses, and when it ends.
func TestAgents(t *testing.T) {
	tm := newTeam(t)
	first := tm.owner(-1)
	tm.agents[first].Want(false)
	second := tm.owner(first)
	tm.agents[first].Want(true)

	down := func(i int, yes bool) {
		tm.kernels[i].mu.Lock()
		defer tm.kernels[i].mu.Unlock()
		tm.kernels[i].down = yes
	}
	down(second, true)
	third := tm.owner(second)
	down(second, false)

	tm.tells(third)
	tm.kernels[third].mu.Lock()
	tm.kernels[third].broken = true
	tm.kernels[third].mu.Unlock()
	fourth := tm.owner(third)
	tm.end(fourth)
	if tm.kernels[fourth].permits() {
		t.Errorf("n%d has ended, and its kernel still answers", fourth)
	}
	tm.kernels[third].mu.Lock()
	tm.kernels[third].broken = false
	tm.kernels[third].mu.Unlock()
	tm.owner(fourth)
	for i := range tm.agents {
		tm.end(i)
	}
	tm.apart()
}

// TestStrangers: what no member has signed changes nothing, and is counted.
func TestStrangers(t *testing.T) {
	c := Config{Self: "n0", Device: "eth0", Key: []byte("key"), Leases: []Lease{{"web", []netip.Addr{addr("192.0.2.10")}}},
		Members: []Member{{"n0", []netip.AddrPort{freePort(t)}}, {"n1", []netip.AddrPort{freePort(t)}}, {"n2", []netip.AddrPort{freePort(t)}}}}
	a, err := newAgent(c, hostClock{}, []kernel{&fakeKernel{}})
	if err != nil {
		t.Fatal(err)
	}
	r := a.runners[0]
	if err := r.begin(1); err != nil {
		t.Fatal(err)
	}
	r.machine.grants.free = 0
	ask := message{kind: kindAsk, lease: nameHash("web"), boot: 5, seq: 1}
	for _, b := range [][]byte{nil, encode(ask, nameHash("n1"), []byte("other")), encode(ask, nameHash("n9"), c.Key), encode(ask, nameHash("n0"), c.Key)} {
		a.receive(datagram{b})
		if r.machine.grants.to != (holder{}) {
			t.Errorf("%x got a grant", b)
		}
	}
	a.receive(datagram{encode(ask, nameHash("n1"), c.Key)})
	if want := (holder{1, 5}); r.machine.grants.to != want {
		t.Errorf("granted to %v, want %v", r.machine.grants.to, want)
	}
}

// TestConfigs: what cannot work is refused, and says why.
func TestConfigs(t *testing.T) {
	good := func() Config {
		c := Config{Self: "n0", Device: "eth0", Key: []byte("key"), Leases: []Lease{{"web", []netip.Addr{addr("192.0.2.10"), addr("2001:db8::10")}}}}
		for i := range 3 {
			c.Members = append(c.Members, Member{fmt.Sprint("n", i), []netip.AddrPort{netip.AddrPortFrom(addr("198.51.100.1"), uint16(i+1))}})
		}
		return c
	}
	for _, tc := range []struct {
		name, want string
		spoil      func(*Config)
	}{
		{"good", "", func(*Config) {}},
		{"two members", "2 members", func(c *Config) { c.Members = c.Members[:2] }},
		{"not a member", "this node among", func(c *Config) { c.Self = "n9" }},
		{"no key", "a key", func(c *Config) { c.Key = nil }},
		{"one name twice", "stands twice", func(c *Config) { c.Members[1].Name = "n0" }},
		{"one medium less", "as many addresses", func(c *Config) { c.Members[1].Addrs = nil }},
		{"a lease of nothing", "no addresses", func(c *Config) { c.Leases[0].Addrs = nil }},
		{"an address twice", "stands twice", func(c *Config) { c.Leases = append(c.Leases, Lease{"b", c.Leases[0].Addrs}) }},
		{"a mapped address", "not an address", func(c *Config) { c.Leases[0].Addrs[0] = addr("::ffff:192.0.2.1") }},
	} {
		c := good()
		tc.spoil(&c)
		_, err := New(c)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestLeasesSpread: several leases prefer several members, and a member less changes only
// what it was preferred for.
func TestLeasesSpread(t *testing.T) {
	var c Config
	for i := range 5 {
		c.Members = append(c.Members, Member{Name: fmt.Sprint("n", i)})
	}
	first := make(map[string]int)
	moved := 0
	less := Config{Members: c.Members[:4]}
	for i := range 500 {
		lease := fmt.Sprint("lease", i)
		was, is := c.Members[c.order(lease)[0]].Name, less.Members[less.order(lease)[0]].Name
		first[was]++
		if was != "n4" && was != is {
			moved++
		}
	}
	for _, m := range c.Members {
		if n := first[m.Name]; n < 60 || n > 140 {
			t.Errorf("%s is preferred for %d of 500 leases, want about 100", m.Name, n)
		}
	}
	if moved > 0 {
		t.Errorf("%d leases of other members moved with n4", moved)
	}
}
