//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// testHostAnswers asks as a newcomer does, from the host, for a client of each
// region, over UDP and TCP.
func testHostAnswers(t *testing.T, l *lab) {
	for i, region := range regions() {
		for _, tcp := range []bool{false, true} {
			checkAnswer(t, l, region, sites()[i], question{Name: "www.cdn.demo.test", Type: "A", TCP: tcp, NSID: true})
			checkAnswer(t, l, region, sites()[i], question{Name: "www.cdn.demo.test", Type: "AAAA", TCP: tcp, NSID: true})
		}
	}
}

// checkAnswer wants the two addresses of the near site, for 20 s, for the whole
// block, and the name of the answering site and of its Snapshot.
func checkAnswer(t *testing.T, l *lab, region, site string, q question) {
	t.Helper()
	q.Client = blocks()[region]
	m, err := l.ask(q)
	if err != nil {
		t.Fatalf("%s %s: %v", region, q.Type, err)
	}
	addrs := addrsOf(m)
	if len(addrs) != 2 || l.siteOf(addrs) != site {
		t.Errorf("%s %s tcp=%v: %v, want the two of %s", region, q.Type, q.TCP, addrs, site)
	}
	for _, rr := range m.Answer {
		if rr.Header().Ttl != 20 {
			t.Errorf("%s: TTL %d, want 20", region, rr.Header().Ttl)
		}
	}
	if scope := scopeOf(m); scope.Bits() <= 0 || scope.Bits() > q.Client.Bits() || !scope.Contains(q.Client.Addr()) {
		t.Errorf("%s %s: scope %v, want it to cover the block %v", region, q.Type, scope, q.Client)
	}
	id := nsidOf(m)
	snapshot := strings.ContainsAny(id, "0123456789") && strings.Contains(id, ".")
	if !slices.ContainsFunc(sites(), func(s string) bool { return strings.Contains(id, s) }) || !snapshot {
		t.Errorf("%s: NSID %q names no site and Snapshot", region, id)
	}
	if m.Rcode != dns.RcodeSuccess || !m.Authoritative {
		t.Errorf("%s: %s, authoritative %v", region, dns.RcodeToString[m.Rcode], m.Authoritative)
	}
}

// testScope wants what a resolver may keep for a whole scope to be right for all of
// it: neighbours of the lab's blocks inside the scope get the same answer.
func testScope(t *testing.T, l *lab) {
	for _, region := range regions() {
		q := question{Name: "www.cdn.demo.test", Client: blocks()[region]}
		m, err := l.ask(q)
		if err != nil {
			t.Fatal(err)
		}
		scope, want := scopeOf(m).Masked(), joinAddrs(addrsOf(m))
		for last := 0; last < 256; last += 16 {
			b := scope.Addr().As4()
			b[3] = byte(last)
			q.Client = netip.PrefixFrom(netip.AddrFrom4(b), 28)
			if !scope.Contains(q.Client.Addr()) {
				continue
			}
			m, err := l.ask(q)
			if err != nil || joinAddrs(addrsOf(m)) != want {
				t.Errorf("%s lies in the scope %s of %s, but gets %v (%v), want %s", q.Client, scope, region, m, err, want)
			}
		}
	}
}

// sample are the clients whose answers are compared before and after a fault: the
// lab's own, and many of the world, always the same.
func sample() []netip.Prefix {
	var out []netip.Prefix
	for _, region := range regions() {
		out = append(out, blocks()[region])
	}
	r := rand.New(rand.NewPCG(1, 2))
	for len(out) < 300 {
		b := [4]byte{byte(1 + r.IntN(222)), byte(r.IntN(256)), byte(r.IntN(256)), 0}
		if a := netip.AddrFrom4(b); !a.IsLoopback() && !a.IsPrivate() {
			out = append(out, netip.PrefixFrom(a, 24))
		}
	}
	return out
}

// answerSet asks a site's name server, from its own region, for every client of the
// sample, and tells each answer by client.
func (l *lab) answerSet(site string) map[netip.Prefix]string {
	l.t.Helper()
	var qs []question
	for _, c := range sample() {
		qs = append(qs, question{Server: l.nameServer(site), Name: "www.cdn.demo.test", Client: c})
	}
	out := map[netip.Prefix]string{}
	for _, a := range l.askIn("res-"+l.regionOf(site), qs...) {
		out[qs[a.Q].Client] = a.text()
	}
	return out
}

// regionOf is the region of a site.
func (l *lab) regionOf(site string) string {
	return regions()[slices.Index(sites(), site)]
}

// equalSets tells the first differences of two sets of answers; nil for none.
func equalSets(have, want map[netip.Prefix]string) error {
	n, first := 0, ""
	for _, c := range sample() {
		if have[c] != want[c] {
			if n++; n == 1 {
				first = fmt.Sprintf("%s has %q, want %q", c, have[c], want[c])
			}
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d answers differ: %s", n, len(want), first)
}

// testSameEverywhere wants every name server to give the same client the same
// answer, whichever was asked, and returns the answers.
func testSameEverywhere(t *testing.T, l *lab) map[netip.Prefix]string {
	t.Helper()
	want := l.answerSet(sites()[0])
	for _, site := range sites()[1:] {
		if err := equalSets(l.answerSet(site), want); err != nil {
			t.Errorf("%s answers otherwise than %s: %v", site, sites()[0], err)
		}
	}
	return want
}
