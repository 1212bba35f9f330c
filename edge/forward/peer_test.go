package forward

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/nftables"
)

func testForwarder(t *testing.T, now func() time.Time, peers ...Peer) *Forwarder {
	t.Helper()
	f, err := New(Config{Site: "a", Local: netip.MustParseAddrPort("203.0.113.2:4790"), Peers: peers, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func testPeer(site string) Peer {
	return Peer{Site: site, Addr: netip.MustParseAddrPort("203.0.113.10:4790"), Key: [32]byte{1}}
}

// TestRoomFitsPath adds up what a full datagram takes on the wire.
func TestRoomFitsPath(t *testing.T) {
	now := time.Unix(1000, 0)
	f := testForwarder(t, func() time.Time { return now }, testPeer("b"))
	p4 := f.peers.Load().find("b")
	p6 := &peer{Peer: Peer{Addr: netip.MustParseAddrPort("[2001:db8:b::2]:4790")}, peerState: f.newPeerState("c")}
	for _, e := range []struct {
		name string
		p    *peer
		ip   int
	}{{"IPv4", p4, 20}, {"IPv6", p6, 40}} {
		if got := e.p.room(now, 1500) + e.ip + 8 + overhead; got != 1500 {
			t.Errorf("%s: a full datagram takes %d octets, want 1500", e.name, got)
		}
		// The clamped MSS must make the largest packet fit, with the
		// header of its own family.
		if largest := clampMSS + e.ip + 20; largest > e.p.room(now, 1500) {
			t.Errorf("%s: a clamped packet of %d octets needs parts: room for %d", e.name, largest, e.p.room(now, 1500))
		}
		e.p.path.Store(&path{mtu: smallMTU, until: now.Add(pathLife)})
		if got := e.p.room(now, 1500) + e.ip + 8 + overhead; got != smallMTU {
			t.Errorf("%s: on a small path %d octets, want %d", e.name, got, smallMTU)
		}
		if got := e.p.room(now.Add(pathLife), 1500) + e.ip + 8 + overhead; got != 1500 {
			t.Errorf("%s: when that has passed %d octets, want 1500", e.name, got)
		}
	}
}

// TestRestartStandsAbove has a process restart a microsecond later: its
// numbers are above all that the earlier one can have used, its salt another.
func TestRestartStandsAbove(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	clock := func() time.Time { return now }
	first := testForwarder(t, clock, testPeer("b")).peers.Load().find("b")
	now = now.Add(time.Microsecond)
	second := testForwarder(t, clock, testPeer("b")).peers.Load().find("b")
	if second.seq.Load() < first.seq.Load()+1000 {
		t.Errorf("numbers begin at %d after %d", second.seq.Load(), first.seq.Load())
	}
	if first.salt == second.salt {
		t.Error("the salt is the same: a clock set back would repeat a nonce")
	}
}

// TestDigestIsThePairs holds that a digest depends on pair, owner and flow.
func TestDigestIsThePairs(t *testing.T) {
	b, c := &peer{Peer: testPeer("b")}, &peer{Peer: testPeer("c")}
	c.Key = [32]byte{2}
	seen := map[uint64]string{}
	for name, digest := range map[string]uint64{
		"b": b.digest("b", session{protoTCP, flow4(1)}), "other pair": c.digest("b", session{protoTCP, flow4(1)}), "other owner": b.digest("a", session{protoTCP, flow4(1)}),
		"other flow": b.digest("b", session{protoTCP, flow4(2)}), "other family": b.digest("b", session{protoTCP, flow6(1)}),
	} {
		if other, twice := seen[digest]; twice {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[digest] = name
	}
	far := &peer{Peer: testPeer("a")} // the same pair, from its other end
	if far.digest("b", session{protoTCP, flow4(1)}) != b.digest("b", session{protoTCP, flow4(1)}) {
		t.Error("the two ends of a pair compute different digests")
	}
}

// TestWaitFollowsSlowestPeer lets packets wait for two round trips of the
// slowest peer, two seconds at least, four at most.
func TestWaitFollowsSlowestPeer(t *testing.T) {
	now := time.Unix(1000, 0)
	f := testForwarder(t, func() time.Time { return now }, testPeer("b"), testPeer("c"))
	r := &receiver{Forwarder: f}
	for _, e := range []struct {
		site       string
		took, want time.Duration
	}{
		{"b", 10 * time.Millisecond, leastWait},
		{"c", 1500 * time.Millisecond, 3 * time.Second},
		{"b", 10 * time.Millisecond, 3 * time.Second},
		{"c", 16 * time.Second, mostWait},
	} {
		p := f.peers.Load().find(e.site)
		p.sample.of, p.sample.sent = session{protoTCP, flow4(1)}, now
		r.timeAnswer(now.Add(e.took/2), p, session{protoTCP, flow4(2)}) // the answer to another question
		r.timeAnswer(now.Add(e.took), p, session{protoTCP, flow4(1)})
		if f.owners.wait != e.want {
			t.Errorf("after an answer of %s in %v packets wait %v, want %v", e.site, e.took, f.owners.wait, e.want)
		}
	}
}

// TestDigestsExpire fills a peer's announcements and lets them end.
func TestDigestsExpire(t *testing.T) {
	now := time.Unix(1000, 0)
	f := testForwarder(t, func() time.Time { return now }, testPeer("b"))
	p := f.peers.Load().find("b")
	body := make([]byte, 0, 3*digestSize)
	for _, flow := range []Flow{flow4(1), flow6(2)} {
		d := p.digest("b", session{protoTCP, flow})
		for shift := 56; shift >= 0; shift -= 8 {
			body = append(body, byte(d>>shift))
		}
	}
	f.learn(now, p, append(body, 1, 2, 3)) // and half a digest
	for flow, want := range map[Flow]string{flow4(1): "b", flow6(2): "b", flow4(3): ""} {
		if got := f.announcedBy(session{protoTCP, flow}); got != want {
			t.Errorf("%v announced by %q, want %q", flow, got, want)
		}
	}
	now = now.Add(digestLife)
	if got := f.announcedBy(session{protoTCP, flow4(1)}); got != "" {
		t.Errorf("after %v still announced by %q", digestLife, got)
	}
	p.forget(now)
	if len(p.digests) != 0 {
		t.Errorf("%d digests are kept", len(p.digests))
	}
}

// TestSetVIPs splits the elements of a family by mode, in order.
func TestSetVIPs(t *testing.T) {
	vips := map[netip.AddrPort]Mode{
		netip.MustParseAddrPort("192.0.2.11:443"):           Act,
		netip.MustParseAddrPort("192.0.2.10:80"):            Act,
		netip.MustParseAddrPort("192.0.2.10:443"):           Observe,
		netip.MustParseAddrPort("[2001:db8:100::10]:443"):   Act,
		netip.MustParseAddrPort("[::ffff:192.0.2.12]:8443"): Act,
	}
	f := testForwarder(t, nil)
	if err := f.SetVIPs(vips); err != nil {
		t.Fatal(err)
	}
	split := func(v6 bool) (act, watch []nftables.SetElement) {
		table := &familyTable{v6: v6}
		list := table.fillings(f.wanted(false))
		return table.elements(list[0].vips), table.elements(list[1].vips)
	}
	act, watch := split(false)
	want := []string{"\xc0\x00\x02\x0a\x00\x50\x00\x00", "\xc0\x00\x02\x0b\x01\xbb\x00\x00", "\xc0\x00\x02\x0c\x20\xfb\x00\x00"}
	if len(act) != len(want) || len(watch) != 1 || string(watch[0].Key) != "\xc0\x00\x02\x0a\x01\xbb\x00\x00" {
		t.Fatalf("%d act, %d watch: %v, %v", len(act), len(watch), act, watch)
	}
	for i, e := range act {
		if string(e.Key) != want[i] {
			t.Errorf("element %d: % x, want % x", i, e.Key, want[i])
		}
	}
	if act, watch = split(true); len(act) != 1 || len(watch) != 0 || len(act[0].Key) != 20 {
		t.Errorf("IPv6: %d act, %d watch", len(act), len(watch))
	}
	if err := f.SetVIPs(map[netip.AddrPort]Mode{{}: Act}); err == nil || len(*f.vips.Load()) != 5 {
		t.Errorf("a wrong set: %v, and %d VIPs are left of the good one", err, len(*f.vips.Load()))
	}
}
