package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rhumb/placement"
)

// trio is an ingress and an owner, as in a pair, which can't reach each other, and a third
// site that reaches both.
type trio struct {
	*pair
	third *half
	// late is by how much the ingress's clock is ahead; changed are its changes of way.
	late    atomic.Int64
	changed chan RelayChange
	good    []Peer // of the ingress, with the owner's true address
}

// newTrio makes one; of the sites' configurations change may change what it likes.
func newTrio(t *testing.T, ip string, change func(in, own, third *Config)) *trio {
	t.Helper()
	tr := &trio{changed: make(chan RelayChange, 100)}
	in, own, third := freePort(t, ip), freePort(t, ip), freePort(t, ip)
	nowhere := freePort(t, ip) // nobody listens: what is sent there is lost
	key := func(a, b byte) [32]byte { return [32]byte{a, b} }
	tc := Config{Site: "third", Local: third, Peers: []Peer{{Site: "in", Addr: in, Key: key(1, 3)}, {Site: "own", Addr: own, Key: key(2, 3)}}}
	tr.pair = newPair(t, ip, func(ic, oc *Config) {
		ic.Local, oc.Local = in, own
		ic.Peers = []Peer{{Site: "own", Addr: nowhere, Key: key(1, 2)}, {Site: "third", Addr: third, Key: key(1, 3)}}
		oc.Peers = []Peer{{Site: "in", Addr: nowhere, Key: key(1, 2)}, {Site: "third", Addr: third, Key: key(2, 3)}}
		tr.good = []Peer{{Site: "own", Addr: own, Key: key(1, 2)}, {Site: "third", Addr: third, Key: key(1, 3)}}
		oc.Now = time.Now
		ic.Now = func() time.Time { return time.Now().Add(time.Duration(tr.late.Load())) }
		ic.OnRelay = func(c RelayChange) { tr.changed <- c }
		if change != nil {
			change(ic, oc, &tc)
		}
	})
	tr.third = newHalf(t, tc)
	return tr
}

// hears tells a site that its path to another is broken, or good, and that the third hears
// both.
func (h *half) hears(other string, state placement.State) {
	h.SetHearing([]placement.Hearing{{Site: other, State: state, By: []string{"third"}}, {Site: "third", State: placement.Up, By: []string{other}}})
}

// change waits until the ingress tells that it goes another way.
func (tr *trio) change(t *testing.T) RelayChange {
	t.Helper()
	select {
	case c := <-tr.changed:
		return c
	case <-time.After(20 * time.Second):
		t.Fatalf("the way doesn't change within 20 s; relays: %+v", tr.ingress.Relays())
		return RelayChange{}
	}
}

// arrives repeats a stray until the owner has it: the first packets are lost while the
// sites find out what passes.
func (tr *trio) arrives(t *testing.T, payload string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		want := tr.stray(t, tr.flow, payload)
		if got := next(t, tr.owner.inner, 200*time.Millisecond); bytes.Equal(got, want) {
			for next(t, tr.owner.inner, 50*time.Millisecond) != nil { // copies of it
			}
			return
		}
	}
	t.Fatalf("%d octets don't arrive within 20 s; relays: %+v", len(payload), tr.ingress.Relays())
}

// TestRelayed: what can't go directly goes by the third site, small and large, in both
// families, and directly again when the path has been good for long enough.
func TestRelayed(t *testing.T) {
	eachFamily(t, func(t *testing.T, ip string) {
		tr := newTrio(t, ip, nil)
		tr.ingress.hears("own", placement.Path)
		tr.owner.hears("in", placement.Path)
		if c := tr.change(t); c.To != "own" || c.Via != "third" || c.Was != "" || !c.Broken {
			t.Errorf("%+v", c)
		}
		tr.arrives(t, "hello")
		tr.arrives(t, strings.Repeat("x", 1380))
		tr.arrives(t, strings.Repeat("y", 5000))
		relays := tr.ingress.Relays()
		if len(relays) != 1 || relays[0].To != "own" || relays[0].Via != "third" || relays[0].Packets < 3 || relays[0].Bytes < 6000 {
			t.Errorf("relays %+v", relays)
		}
		if n := value(t, tr.third.metrics.relay.packets.WithLabelValues("in")); n < 5 {
			t.Errorf("the third site passed on %v datagrams, want 5 or more", n)
		}
		if n := gaugeOf(tr.ingress, "third"); n != 1 {
			t.Errorf("%v sites are reached by the third one, want 1", n)
		}
		if err := tr.ingress.SetPeers(tr.good); err != nil {
			t.Fatal(err)
		}
		tr.ingress.hears("own", placement.Up)
		tr.owner.hears("in", placement.Up)
		for len(tr.ingress.Relays()) > 0 { // a step of the clock for each: what was said must not get old
			tr.late.Add(int64(time.Second))
			time.Sleep(2 * waysEvery)
			if tr.late.Load() > int64(time.Hour) {
				t.Fatal("the relay stays in use for an hour")
			}
		}
		if c := tr.change(t); c.To != "own" || c.Via != "" || c.Was != "third" || c.Broken {
			t.Errorf("%+v", c)
		}
		passed := value(t, tr.third.metrics.relay.packets.WithLabelValues("in"))
		tr.arrives(t, "directly")
		if n := value(t, tr.third.metrics.relay.packets.WithLabelValues("in")); n != passed {
			t.Errorf("%v datagrams more went by the third site", n-passed)
		}
	})
}

func gaugeOf(h *half, via string) float64 {
	families, _ := h.registered.Gather()
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "rhumb_edge_relay_active" && m.GetLabel()[0].GetValue() == via {
				return m.GetGauge().GetValue()
			}
		}
	}
	return -1
}

// TestDeafPeerIsRelayed: the path is cut in one direction alone. The ingress hears the
// owner and is told by it that it isn't heard.
func TestDeafPeerIsRelayed(t *testing.T) {
	tr := newTrio(t, "127.0.0.1", func(in, own, _ *Config) { own.Peers[0].Addr = in.Local })
	tr.ingress.hears("own", placement.Up)
	tr.owner.hears("in", placement.Path)
	if c := tr.change(t); c.Via != "third" {
		t.Errorf("%+v", c)
	}
	tr.arrives(t, "hello")
	for deadline := time.Now().Add(20 * time.Second); len(tr.owner.Relays()) > 0; time.Sleep(waysEvery) {
		if time.Now().After(deadline) {
			t.Fatalf("the owner goes round a path that works: %+v", tr.owner.Relays())
		}
	}
}

// TestNarrowRelay: the path behind the relay takes less than the one to it. The sender is
// told, and cuts.
func TestNarrowRelay(t *testing.T) {
	tr := newTrio(t, "127.0.0.1", nil)
	tr.third.peers.Load().find("own").path.Store(&path{mtu: 900, until: time.Now().Add(time.Hour)})
	tr.ingress.hears("own", placement.Path)
	tr.owner.hears("in", placement.Path)
	tr.change(t)
	tr.arrives(t, strings.Repeat("x", 1300))
	if r := tr.ingress.peers.Load().find("own").route.Load(); r.room != 900-28-overhead {
		t.Errorf("the sender believes that %d octets pass, want %d", r.room, 900-28-overhead)
	}
	if n := value(t, tr.third.metrics.relay.dropped[droppedSize]); n == 0 {
		t.Error("nothing was too large: the test shows nothing")
	}
}

// TestNoRelay: who passes on nothing, says nothing of it or is of an earlier version isn't
// chosen; what comes all the same is dropped, and the sender is told.
func TestNoRelay(t *testing.T) {
	tr := newTrio(t, "127.0.0.1", func(_, _, third *Config) { third.RelayRate = -1 })
	tr.ingress.hears("own", placement.Path)
	tr.owner.hears("in", placement.Path)
	in := tr.ingress
	own, third := in.peers.Load().find("own"), in.peers.Load().find("third")
	if err := in.sendBy(own, third, kindPacket, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); value(t, tr.third.metrics.relay.dropped[droppedOff]) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a site that passes on nothing doesn't count what it drops")
		}
	}
	if list := in.Relays(); len(list) > 0 || len(tr.changed) > 0 {
		t.Errorf("it was chosen: %+v", list)
	}
}

// carrying is a relay's tunnel reader by itself, with sites "a" and "b" at sockets of the
// test.
type carrying struct {
	*receiver
	a, b  *net.UDPConn
	seals map[string]seal // of what the sites send to the relay
	seq   uint64
}

func newCarrying(t testing.TB, rate int64) *carrying {
	t.Helper()
	c := &carrying{seals: make(map[string]seal)}
	listen := func() (*net.UDPConn, netip.AddrPort) {
		conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetReadBuffer(1 << 20); err != nil { // all that a test sends
			t.Fatal(err)
		}
		return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	var aAt, bAt netip.AddrPort
	c.a, aAt = listen()
	c.b, bAt = listen()
	f, err := New(Config{Site: "r", Local: netip.MustParseAddrPort("127.0.0.1:4790"), RelayRate: rate,
		Peers: []Peer{{Site: "a", Addr: aAt, Key: [32]byte{1}}, {Site: "b", Addr: bAt, Key: [32]byte{2}}}})
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := listenTunnel(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tunnel.close)
	e := &ends{tunnel: tunnel}
	f.ends.Store(e)
	c.receiver = f.newReceiver(e)
	for i, site := range []string{"a", "b"} {
		c.seals[site] = testSealOf(t, [32]byte{byte(i + 1)}, site, "r")
	}
	return c
}

func testSealOf(t testing.TB, key [32]byte, from, to string) seal {
	t.Helper()
	s, err := newSeal(key, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wrapped makes what site a wants passed on to a target: inner as it stands.
func (c *carrying) wrapped(target string, inner []byte) []byte {
	id := idOf(target)
	c.seq++
	b := append(append(make([]byte, headerSize), id[:]...), inner...)
	return c.seals["a"].close(b, kindRelay, idOf("a"), [4]byte{5}, c.seq)
}

// inner makes a datagram of a site for b, which the relay can't read.
func (c *carrying) inner(t testing.TB, sender string, k kind, body string) []byte {
	c.seq++
	b := append(make([]byte, headerSize), body...)
	return testSealOf(t, [32]byte{77}, sender, "b").close(b, k, idOf(sender), [4]byte{5}, c.seq)
}

// got reads a datagram from a socket of the test. One that is wanted is waited for;
// otherwise it returns nil unless one is there.
func got(t testing.TB, conn *net.UDPConn, wanted bool) []byte {
	t.Helper()
	buf := make([]byte, largestInput)
	if wanted {
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("a datagram was wanted: %v", err)
		}
		return buf[:n]
	}
	_ = conn.SetReadDeadline(time.Time{})
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := -1
	_ = raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		return true
	})
	if err != nil {
		return nil
	}
	return buf[:n]
}

// TestPassOn holds what a relay takes and what it doesn't: hops, senders, targets, tags,
// repetitions and its budget.
func TestPassOn(t *testing.T) {
	now := time.Unix(1e9, 0)
	hop := func(b []byte, n byte) []byte { b = bytes.Clone(b); b[2] = n; return b }
	tests := []struct {
		name     string
		datagram func(c *carrying) []byte
		err      string
		dropped  string
		told     byte // to the sender
		passes   bool
	}{
		{name: "a packet", datagram: func(c *carrying) []byte { return c.wrapped("b", c.inner(t, "a", kindPacket, "x")) }, passes: true},
		{name: "a question", datagram: func(c *carrying) []byte { return c.wrapped("b", c.inner(t, "a", kindAsk, "x")) }, passes: true},
		{name: "what a relay shall pass on again", datagram: func(c *carrying) []byte { return c.wrapped("b", c.inner(t, "a", kindRelay, "x")) }, err: "hops"},
		{name: "the same with one hop written over two", datagram: func(c *carrying) []byte { return c.wrapped("b", hop(c.inner(t, "a", kindRelay, "x"), 1)) }, err: "hops"},
		{name: "two hops left inside", datagram: func(c *carrying) []byte { return c.wrapped("b", hop(c.inner(t, "a", kindPacket, "x"), 2)) }, err: "hops"},
		{name: "one hop left outside", datagram: func(c *carrying) []byte { return hop(c.wrapped("b", c.inner(t, "a", kindPacket, "x")), 1) }, err: "hops"},
		{name: "three hops left outside", datagram: func(c *carrying) []byte { return hop(c.wrapped("b", c.inner(t, "a", kindPacket, "x")), 3) }, err: "hops"},
		{name: "a packet that says it has two hops", datagram: func(c *carrying) []byte { return hop(c.inner(t, "a", kindPacket, "x"), 2) }, err: "hops"},
		{name: "in another site's name", datagram: func(c *carrying) []byte { return c.wrapped("b", c.inner(t, "b", kindPacket, "x")) }, err: "sender"},
		{name: "in a stranger's name", datagram: func(c *carrying) []byte { return c.wrapped("b", c.inner(t, "x", kindPacket, "x")) }, err: "sender"},
		{name: "no datagram of ours inside", datagram: func(c *carrying) []byte { return c.wrapped("b", []byte(strings.Repeat("GET / ", 20))) }, err: "form"},
		{name: "nothing inside", datagram: func(c *carrying) []byte { return c.wrapped("b", nil) }, err: "form"},
		{name: "no target", datagram: func(c *carrying) []byte {
			return c.seals["a"].close(make([]byte, headerSize+3), kindRelay, idOf("a"), [4]byte{5}, 1)
		}, err: "form"},
		{name: "a forged tag", datagram: func(c *carrying) []byte {
			b := c.wrapped("b", c.inner(t, "a", kindPacket, "x"))
			b[len(b)-1] ^= 1
			return b
		}, err: "tag"},
		{name: "another target written over it", datagram: func(c *carrying) []byte {
			b := c.wrapped("a", c.inner(t, "a", kindPacket, "x"))
			id := idOf("b")
			copy(b[headerSize:], id[:])
			return b
		}, err: "tag"},
		{name: "for a site that isn't of the group", datagram: func(c *carrying) []byte { return c.wrapped("x", c.inner(t, "a", kindPacket, "x")) }, dropped: droppedUnknown, told: refusedUnknown},
		{name: "for the relay itself", datagram: func(c *carrying) []byte { return c.wrapped("r", c.inner(t, "a", kindPacket, "x")) }, dropped: droppedUnknown, told: refusedUnknown},
		{name: "back to the sender", datagram: func(c *carrying) []byte { return c.wrapped("a", c.inner(t, "a", kindPacket, "x")) }, dropped: droppedUnknown, told: refusedUnknown},
		{name: "for a site that the relay doesn't reach", datagram: func(c *carrying) []byte {
			c.peers.Load().find("b").unreached.Store(true)
			return c.wrapped("b", c.inner(t, "a", kindPacket, "x"))
		}, dropped: droppedPath, told: refusedPath},
		{name: "more than the budget", datagram: func(c *carrying) []byte {
			c.carrier.octets.takeMany(now, 1<<20-10)
			return c.wrapped("b", c.inner(t, "a", kindPacket, "x"))
		}, dropped: droppedBudget},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCarrying(t, 1<<20)
			datagram := test.datagram(c)
			err := c.receive(now, bytes.Clone(datagram))
			if why := ""; err != nil && reason(err) != test.err || err == nil && test.err != why {
				t.Errorf("refused for %v, want %q", err, test.err)
			}
			if b := got(t, c.b, test.passes); test.passes != (b != nil) || b != nil && !bytes.Equal(b, datagram[relayHead:len(datagram)-tagSize]) {
				t.Errorf("%d octets were passed on, want that: %v", len(b), test.passes)
			}
			for why, counter := range c.metrics.relay.dropped {
				if n, want := value(t, counter), map[bool]float64{true: 1}[why == test.dropped]; n != want {
					t.Errorf("%v dropped for %s, want %v", n, why, want)
				}
			}
			back := got(t, c.a, test.told > 0)
			if (back != nil) != (test.told > 0) {
				t.Fatalf("the sender was told %d octets, want %d", len(back), test.told)
			}
			if back != nil && (kind(back[0]&15) != kindRefused || back[headerSize+4] != test.told) {
				t.Errorf("the sender was told %x, want reason %d", back, test.told)
			}
			if test.passes {
				if err := c.receive(now, datagram); reason(err) != "replay" || got(t, c.b, false) != nil {
					t.Errorf("a second time: %v", err)
				}
			}
		})
	}
}

// TestRelayBudget: what is passed on in a long time is no more than the rate.
func TestRelayBudget(t *testing.T) {
	const rate, seconds = 10_000, 20
	c := newCarrying(t, rate)
	now := time.Unix(1e9, 0)
	for range seconds * 50 {
		now = now.Add(20 * time.Millisecond)
		inner := c.inner(t, "a", kindPacket, strings.Repeat("x", 500))
		if err := c.receive(now, c.wrapped("b", inner)); err != nil {
			t.Fatal(err)
		}
	}
	passed := int(value(t, c.peers.Load().find("a").relayedOctets))
	if passed > rate*(seconds+1) || passed < rate*(seconds-1) {
		t.Errorf("%d octets in %d s at a rate of %d", passed, seconds, rate)
	}
	if n := value(t, c.metrics.relay.dropped[droppedBudget]); n == 0 {
		t.Error("what was over the budget isn't counted")
	}
}

// TestRelayAllocatesNothing: neither who sends by a relay nor the relay itself.
func TestRelayAllocatesNothing(t *testing.T) {
	c := newCarrying(t, 1<<40)
	now := time.Unix(1e9, 0)
	var in [][]byte
	for range 1002 {
		in = append(in, c.wrapped("b", c.inner(t, "a", kindPacket, strings.Repeat("x", 1300))))
	}
	i := 0
	passing := testing.AllocsPerRun(1000, func() {
		if err := c.receive(now, in[i]); err != nil {
			t.Fatal(err)
		}
		i++
	})
	if n := value(t, c.peers.Load().find("a").relayed); n != float64(i) {
		t.Fatalf("%v of %d datagrams were passed on", n, i)
	}
	a := c.peers.Load().find("a")
	a.route.Store(&route{via: "b", since: now, detoured: &detoured{}})
	packet := make([]byte, 1300)
	sending := testing.AllocsPerRun(1000, func() { c.tunnel(now, "a", packet) })
	if n := a.route.Load().packets.Load(); n < 1000 {
		t.Fatalf("%d packets went by the relay", n)
	}
	// The buffers' pool may be emptied now and then.
	if passing > 0 || sending >= 1 {
		t.Errorf("%v allocations for a datagram passed on, %v for one sent by a relay", passing, sending)
	}
}

// TestHeedRelay: what is told of relays is checked before anybody decides by it.
func TestHeedRelay(t *testing.T) {
	c := newCarrying(t, 1)
	a := c.peers.Load().find("a")
	b := idOf("b")
	with := func(rest ...byte) []byte { return append(b[:4:4], rest...) }
	for _, e := range []struct {
		name string
		kind kind
		body []byte
		want string
	}{
		{"hello", kindHello, hello{helloAsk, 9}.appendTo(nil), "{kindHello a  {1 9} 0}"},
		{"hello of a later version", kindHello, append(hello{helloDeaf, 9}.appendTo(nil), 1, 2), "{kindHello a  {4 9} 0}"},
		{"hello cut short", kindHello, []byte{1, 2, 3, 4}, ""},
		{"refused", kindRefused, with(refusedPath), "{kindRefused a b {0 0} 0}"},
		{"refused without a reason", kindRefused, with(), ""},
		{"narrow", kindNarrow, with(4, 0), "{kindNarrow a b {0 0} 1024}"},
		{"narrower than there may be", kindNarrow, with(0, 1), fmt.Sprintf("{kindNarrow a b {0 0} %d}", leastRoom)},
		{"narrow cut short", kindNarrow, with(4), ""},
		{"of a site that isn't of the group", kindNarrow, binary.BigEndian.AppendUint64(nil, 1), ""},
	} {
		t.Run(e.name, func(t *testing.T) {
			err := c.heedRelay(a, e.kind, e.body)
			seen := ""
			select {
			case n := <-c.news:
				name := map[kind]string{kindHello: "kindHello", kindRefused: "kindRefused", kindNarrow: "kindNarrow"}[n.kind]
				seen = fmt.Sprintf("{%s %s %s {%d %d} %d}", name, n.site, n.about, n.hello.flags, n.hello.number, n.room)
			default:
			}
			if seen != e.want || (err == nil) != (e.want != "") {
				t.Errorf("%s, %v; want %s", seen, err, e.want)
			}
		})
	}
	for range 2 * cap(c.news) { // nobody reads
		if err := c.heedRelay(a, kindHello, hello{}.appendTo(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.news) != cap(c.news) {
		t.Errorf("%d wait, want %d", len(c.news), cap(c.news))
	}
}
