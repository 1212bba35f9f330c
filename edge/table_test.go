package edge

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"rhumb/edge/frame"
)

func testKey(i int) frame.Key {
	return frame.Key{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 8)}), uint16(1024+i)),
		VIP: netip.MustParseAddrPort("192.0.2.10:443")}
}

// TestOnce: of all offers and commits of one key only newer ones pass.
func TestOnce(t *testing.T) {
	tab, k, now := newTable(), testKey(1), time.Now()
	if !tab.fresh(k, 5, 1) || !tab.take(k, 5, 1, now) || tab.take(k, 5, 1, now) {
		t.Fatal("one activation is not one")
	}
	for _, tc := range []struct {
		epoch uint64
		gen   uint32
		want  bool
	}{{5, 1, false}, {5, 0, false}, {4, 9, false}, {5, 2, true}, {6, 0, true}} {
		if got := tab.fresh(k, tc.epoch, tc.gen); got != tc.want {
			t.Errorf("epoch %d generation %d fresh: %t", tc.epoch, tc.gen, got)
		}
	}
	if !tab.took(k, 5, 1) || tab.took(k, 5, 2) || tab.took(testKey(2), 5, 1) {
		t.Error("took is not exact")
	}
	s := &session{key: k, epoch: 7}
	if !tab.add(s, 1) || tab.add(&session{key: testKey(2)}, 1) {
		t.Error("the limit does not hold")
	}
	if tab.fresh(k, 7, 99) || !tab.fresh(k, 8, 1) {
		t.Error("an offer of a session that is here passes, or a newer incarnation does not")
	}
	tab.remove(&session{key: k})
	if tab.get(k) != s {
		t.Error("another session of the key removed ours")
	}
	tab.remove(s)
	tab.gave(k, 5, 1, now)
	tab.forget(now.Add(memory + 1))
	if tab.took(k, 5, 1) || !tab.gaveAt(k).IsZero() || tab.len() != 0 {
		t.Error("memory does not end")
	}
}

// TestClaim: of many claimants one wins.
func TestClaim(t *testing.T) {
	s := &session{}
	won := make(chan bool)
	for range 100 {
		go func() { won <- s.claim() }()
	}
	n := 0
	for range 100 {
		if <-won {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d claims", n)
	}
}

func TestRendezvous(t *testing.T) {
	peers := []Peer{{Name: "ams1", Weight: 1}, {Name: "fra1", Weight: 2}, {Name: "lhr1", Weight: 1}, {Name: "off1"}}
	const n = 20000
	first := map[string]int{}
	moved := 0
	for i := range n {
		k := testKey(i)
		order := rendezvous(k, peers)
		if len(order) != 3 {
			t.Fatalf("%d sites in the order", len(order))
		}
		first[order[0].Name]++
		fewer := rendezvous(k, peers[1:])
		if order[0].Name != "ams1" && fewer[0].Name != order[0].Name {
			moved++
		}
		if rank(k, order[1].Name, peers) != 1 || rank(k, "off1", peers) != -1 {
			t.Fatal("rank differs from the order")
		}
	}
	for name, want := range map[string]float64{"ams1": .25, "fra1": .5, "lhr1": .25} {
		if got := float64(first[name]) / n; math.Abs(got-want) > .02 {
			t.Errorf("%s is first for %.3f, want %.2f", name, got, want)
		}
	}
	if moved != 0 {
		t.Errorf("%d sessions moved that had nothing to do with the site that went", moved)
	}
}

func TestBucket(t *testing.T) {
	b, now := newBucket(100), time.Unix(0, 0)
	count := func() (n int) {
		for b.take(now) {
			n++
		}
		return n
	}
	if n := count(); n != 10 {
		t.Errorf("burst of %d", n)
	}
	now = now.Add(50 * time.Millisecond)
	if n := count(); n != 5 {
		t.Errorf("%d after 50 ms at 100 a second", n)
	}
	now = now.Add(time.Hour)
	if n := count(); n != 10 {
		t.Errorf("burst of %d after an hour", n)
	}
}

func TestPulls(t *testing.T) {
	p, k, now := newPulls(), testKey(1), time.Unix(0, 0)
	if !p.due(k, now) || p.due(k, now) || !p.due(k, now.Add(pullAgain)) {
		t.Error("pace without refusals")
	}
	wait := time.Duration(0)
	for range 10 {
		p.refused(k, now)
		next := p.next[k].not.Sub(now)
		if next < wait || next > pullSlowly {
			t.Errorf("wait of %v after %v", next, wait)
		}
		wait = next
	}
	p.forget(now.Add(time.Hour))
	if len(p.next) != 0 {
		t.Error("memory does not end")
	}
}

func TestMailbox(t *testing.T) {
	m, k := newMailbox(), testKey(1)
	if m.put(frame.Frame{Key: k}) {
		t.Error("delivered to nobody")
	}
	box, ok := m.open(k)
	if _, again := m.open(k); !ok || again {
		t.Error("a key has not one box")
	}
	for i := range 20 {
		if !m.put(frame.Frame{Type: frame.Ready, Key: k, Generation: uint32(i)}) {
			t.Error("not delivered")
		}
	}
	f, err := await(box, 3, time.Second, nil)
	if err != nil || f.Generation != 3 {
		t.Errorf("await: %+v %v", f, err)
	}
	m.close(k, make(chan frame.Frame))
	if !m.put(frame.Frame{Key: k}) {
		t.Error("another's close closed the box")
	}
	m.close(k, box)
	if m.put(frame.Frame{Key: k}) {
		t.Error("delivered to a closed box")
	}
	if _, err := await(make(chan frame.Frame), 1, time.Millisecond, nil); err != errNoAnswer {
		t.Error(err)
	}
	down := make(chan struct{})
	close(down)
	if _, err := await(make(chan frame.Frame), 1, time.Hour, down); err != errLink {
		t.Error(err)
	}
}

func TestConfigCheck(t *testing.T) {
	vip := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.10:443")}
	ok := Service{Name: "video", Kind: KindContent, Mode: ModeAct, VIPs: vip, Root: "/srv"}
	for name, change := range map[string]func(*Service){
		"no name":       func(s *Service) { s.Name = "" },
		"proxy":         func(s *Service) { s.Kind = KindProxy },
		"kind":          func(s *Service) { s.Kind = "x" },
		"mode":          func(s *Service) { s.Mode = "" },
		"no content":    func(s *Service) { s.Root = "" },
		"two contents":  func(s *Service) { s.Origin = "http://o.test" },
		"no spool":      func(s *Service) { s.Root, s.Origin = "", "http://o.test" },
		"no VIP":        func(s *Service) { s.VIPs = nil },
		"port 0":        func(s *Service) { s.VIPs = []netip.AddrPort{netip.AddrPortFrom(vip[0].Addr(), 0)} },
		"mapped VIP":    func(s *Service) { s.VIPs = []netip.AddrPort{netip.MustParseAddrPort("[::ffff:192.0.2.1]:80")} },
		"VIP with zone": func(s *Service) { s.VIPs = []netip.AddrPort{netip.MustParseAddrPort("[fe80::1%lo]:80")} },
	} {
		s := ok
		change(&s)
		if checkServices([]Service{s}) == nil {
			t.Errorf("%s passes", name)
		}
	}
	other := ok
	other.Name = "other"
	if checkServices([]Service{ok}) != nil || checkServices([]Service{ok, ok}) == nil || checkServices([]Service{ok, other}) == nil {
		t.Error("names and VIPs must be there once")
	}
	control := netip.MustParseAddrPort("198.51.100.6:7946")
	for name, peers := range map[string][]Peer{
		"self":       {{Name: "ams1", Control: control}},
		"twice":      {{Name: "b", Control: control}, {Name: "b", Control: control}},
		"no control": {{Name: "b"}},
		"weight":     {{Name: "b", Control: control, Weight: -1}},
	} {
		if checkPeers("ams1", peers) == nil {
			t.Errorf("peers: %s passes", name)
		}
	}
	if _, err := New(Config{Site: "ams1", Control: control}); err == nil {
		t.Error("an agent without certificates")
	}
	if fmt.Sprint(Active, Pinned) != "active pinned" {
		t.Error("names of states")
	}
}
