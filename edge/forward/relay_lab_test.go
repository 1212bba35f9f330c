//go:build e2e

package forward

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"rhumb/placement"
)

// addSite puts one more site behind the router: it serves nothing and has a tunnel.
func (l *lab) addSite(t *testing.T, letter, address, gateway string) *site {
	t.Helper()
	s := &site{space: newSpace(t, letter), letter: letter, via4: address, tunnelAt: netip.AddrPortFrom(netip.MustParseAddr(address), 4790)}
	join(t, s.space, l.router, []string{address + "/29"}, []string{gateway + "/29"})
	if err := s.route("0.0.0.0/0", gateway); err != nil {
		t.Fatal(err)
	}
	return s
}

// nft changes the rules of a namespace.
func (s *space) nft(t *testing.T, rules string) {
	t.Helper()
	if out, err := s.run("nft", rules); err != nil {
		t.Fatalf("in namespace %s: nft: %v: %s", s.name, err, out)
	}
}

// asBefore lets a site's tunnel pass only what the first version knew: datagrams of a later
// kind neither leave nor reach it.
func (s *site) asBefore(t *testing.T) {
	t.Helper()
	s.nft(t, `table inet old { chain in { type filter hook input priority 0; udp dport 4790 @th,68,4 > 8 counter drop; }; chain out { type filter hook output priority 0; udp dport 4790 @th,68,4 > 8 counter drop; }; }`)
}

// hears tells a forwarder what its detector sees of one site; all sites hear each other
// but for that.
func (s *site) hears(t *testing.T, other *site, state placement.State, rest ...*site) {
	t.Helper()
	h := placement.Hearing{Site: other.letter, State: state}
	list := []placement.Hearing{}
	for _, r := range rest {
		h.By = append(h.By, r.letter)
		list = append(list, placement.Hearing{Site: r.letter, State: placement.Up, By: []string{other.letter}})
	}
	b, err := json.Marshal(append(list, h))
	if err != nil {
		t.Fatal(err)
	}
	s.agent.tell(t, "hears "+string(b))
}

// await asks a forwarder until its answer is as wanted.
func (s *site) await(t *testing.T, what string, ok func(agentStats) bool) agentStats {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := s.agent.tell(t, "stats")
		if ok(got) {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("site %s, %v after: want %s; relays %+v, metrics %v", s.letter, patience, what, got.Relays, got.Metrics)
		}
	}
}

// TestDownloadByRelay cuts the path between the site where a download's packets arrive and
// the one that serves it, in the middle of it: first both directions, then one. What is for
// the owner goes by a third site, never by the one of an earlier version, whose name comes
// first; and directly again after the path has been mended.
func TestDownloadByRelay(t *testing.T) {
	l := newLabWith(t, smallSize)
	old, relay := l.addSite(t, "c", "203.0.113.18", "203.0.113.17"), l.addSite(t, "d", "203.0.113.26", "203.0.113.25")
	old.asBefore(t)
	l.a.agent, l.b.agent = l.startAgent(t, l.a, l.b, true, old, relay), l.startAgent(t, l.b, l.a, true, old, relay)
	old.agent, relay.agent = l.startAgent(t, old, l.a, true, l.b, relay), l.startAgent(t, relay, l.a, true, l.b, old)
	resets := l.client.counter(t, "snmp", "Tcp", "EstabResets")
	d, step := l.startDownload(t, vip4, l.size/10), int64(0)
	goOn := func() { step++; d.open(l.size * step / 10); d.reached(t, l.size*step/10) }
	goOn()
	l.routeTo(t, l.b)
	goOn()
	l.a.hears(t, l.b, placement.Up, old, relay)
	l.b.hears(t, l.a, placement.Up, old, relay)
	if s := l.b.await(t, "packets forwarded", func(s agentStats) bool { return s.Metrics["forwarded_packets_total a"] > 0 }); len(s.Relays) > 0 {
		t.Errorf("the path is good, and relays are in use: %+v", s.Relays)
	}
	passed := func() float64 { return relay.agent.tell(t, "stats").Metrics["relayed_packets_total b"] }
	byRelay := func(s agentStats) bool { return len(s.Relays) == 1 && s.Relays[0].To == "a" && s.Relays[0].Via == "d" }
	directly := func(s agentStats) bool { return len(s.Relays) == 0 }

	cut := "table ip cut { chain f { type filter hook forward priority 0; ip saddr 203.0.113.10 ip daddr 203.0.113.2 udp dport 4790 counter drop; "
	l.router.nft(t, cut+"ip saddr 203.0.113.2 ip daddr 203.0.113.10 udp dport 4790 counter drop; }; }")
	l.a.hears(t, l.b, placement.Path, old, relay)
	l.b.hears(t, l.a, placement.Path, old, relay)
	l.b.await(t, "site a by d", byRelay)
	goOn()
	goOn()
	if s := l.b.await(t, "packets to a by d", func(s agentStats) bool { return byRelay(s) && s.Relays[0].Packets > 0 }); s.Metrics["relay_active d"] != 1 {
		t.Errorf("metrics %v", s.Metrics)
	}

	l.router.nft(t, "delete table ip cut")
	l.a.hears(t, l.b, placement.Up, old, relay)
	l.b.hears(t, l.a, placement.Up, old, relay)
	goOn()
	l.a.await(t, "directly to b", directly)
	l.b.await(t, "directly to a", directly)
	before := passed()
	goOn()
	if n := passed(); n != before || n == 0 {
		t.Errorf("%v packets were passed on before the path was mended, %v after", before, n)
	}

	l.router.nft(t, cut+"}; }") // from b to a alone: b hears all, and is told
	l.a.hears(t, l.b, placement.Path, old, relay)
	l.b.await(t, "site a by d", byRelay)
	goOn()
	goOn()
	if n := passed(); n == before {
		t.Error("nothing was passed on while one direction was cut")
	}
	l.router.nft(t, "delete table ip cut")
	l.a.hears(t, l.b, placement.Up, old, relay)
	d.open(l.size)
	if err := d.wait(); err != nil {
		t.Error(err)
	}
	if n := l.client.counter(t, "snmp", "Tcp", "EstabResets") - resets; n != 0 {
		t.Errorf("the client saw %d resets", n)
	}
	if s := old.agent.tell(t, "stats"); s.Metrics["relayed_packets_total b"]+s.Metrics["relayed_packets_total a"] > 0 {
		t.Errorf("the site of an earlier version was used: %v", s.Metrics)
	}
	if out, err := old.run("nft", "list", "table", "inet", "old"); err != nil || l.b.agent.tell(t, "stats").Metrics["relay_active c"] > 0 {
		t.Errorf("%v %s", err, out)
	}
}
