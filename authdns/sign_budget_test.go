package authdns

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// TestSignedOnce: a variant is signed once, whoever asks and however often.
func TestSignedOnce(t *testing.T) {
	s := loadedBy(t, at(signedAt), 0, signedSources(t)...)
	s.Apply(t.Context(), fleet(t, plan{}))
	w := quickWorker(t, s.current.Load(), low)
	ask1 := func(question string, client string) {
		q := ask(t, question, do)
		src := netip.AddrPortFrom(netip.MustParseAddr(client), 1)
		if w.quickly(s.current.Load(), q, make([]byte, maxUDP), src) == 0 {
			t.Errorf("%s: the slow path would answer", question)
		}
		s.handle(q, make([]byte, maxUDP), asker{addr: src, level: low}, w.tally)
	}
	made := func() float64 { return sum(t, s, "rhumb_dnssec_signatures_total") }
	before := made()
	for range 3 {
		for _, client := range []string{euResolver, usResolver} {
			ask1("www.cdn.demo.test. A", client)
			ask1("nix.cdn.demo.test. A", client)
		}
	}
	// Two RRsets of addresses for each client's site, in whichever order; one denial.
	if n := made() - before; n < 3 || n > 6 {
		t.Errorf("%v signatures for two variants and a denial", n)
	}
	before = made()
	s.Apply(t.Context(), fleet(t, plan{out: map[string]placement.Out{"tyo1": placement.OutDown}}))
	for _, client := range []string{euResolver, usResolver} {
		ask1("www.cdn.demo.test. A", client)
		ask1("nix.cdn.demo.test. A", client)
	}
	if n := made() - before; n != 0 {
		t.Errorf("a new snapshot cost %v signatures", n)
	}
}

// TestBudgetSpent: names that do not exist are signed as long as the budget lasts;
// after it UDP is sent to TCP, and TCP is told to go on to the next server. What
// exists is answered all the time, and nothing is ever sent without its proof.
func TestBudgetSpent(t *testing.T) {
	now := signedAt
	s := loadedBy(t, func() time.Time { return now }, 3, signedSources(t)...)
	s.Apply(t.Context(), fleet(t, plan{}))
	st := s.current.Load()
	count := func(tcp bool, prefix string) map[string]int {
		seen := map[string]int{}
		for i := range 10 {
			a := from(euResolver, top)
			a.tcp = tcp
			m := st.reply(t, ask(t, fmt.Sprintf("%s%d.demo.test. A", prefix, i), do), a)
			seen[strings.Fields(shape(m) + " -")[0]+" "+strings.Fields(shape(m) + " -")[1]]++
			if len(m.Answer)+len(m.Ns) > 0 {
				if why := bogus(st.top["demo.test."], m, now); why != "" {
					t.Fatal(why)
				}
			}
		}
		return seen
	}
	if got := fmt.Sprint(count(false, "u")); got != "map[NOERROR SOA:3 NOERROR tc:7]" {
		t.Errorf("UDP: %s", got)
	}
	if got := fmt.Sprint(count(true, "t")); got != "map[NOERROR SOA:3 SERVFAIL -:7]" {
		t.Errorf("TCP: %s", got)
	}
	for _, q := range []string{"www.demo.test. MX", "u0.demo.test. A", "many.demo.test. AAAA"} {
		if m := st.reply(t, ask(t, q, do), from(euResolver, top)); len(m.Ns) != 4 {
			t.Errorf("%s with the budget spent: %s", q, shape(m))
		}
	}
	w := quickWorker(t, st, top)
	w.server.signs.metrics.refused = s.signs.metrics.refused
	for i := range 4 {
		q := ask(t, fmt.Sprintf("w%d.demo.test. A", i), do)
		if n := w.quickly(st, q, make([]byte, maxUDP), netip.MustParseAddrPort(euResolver+":53")); n != 0 {
			t.Error("the fast path answers with the budget spent")
		}
		w.server.handle(q, make([]byte, maxUDP), from(euResolver, top), w.tally)
	}
	if n := sum(t, s, "rhumb_dnssec_budget_spent_total"); n != 4 {
		t.Errorf("%v of 4 replies counted as not signed", n)
	}
	now = now.Add(time.Second)
	if got := fmt.Sprint(count(false, "v")); got != "map[NOERROR SOA:3 NOERROR tc:7]" {
		t.Errorf("a second later: %s", got)
	}
}

// TestAbsentIsLimited: a signed denial looks like an answer, and is counted as one of very
// many names by the limit on replies, on both paths.
func TestAbsentIsLimited(t *testing.T) {
	st := signedState(t, nil, signedSources(t)...)
	w := quickWorker(t, st, top)
	for question, many := range map[string]bool{"nix.demo.test. A": true, "x.wild.demo.test. A": true, "www.demo.test. A": false, "www.demo.test. MX": false} {
		q, out := ask(t, question, do), make([]byte, maxUDP)
		if _, o := st.answer(q, out, from(euResolver, top)); o.wildcard != many {
			t.Errorf("%s: one of many: %v", question, o.wildcard)
		}
		if w.quickly(st, q, out, netip.MustParseAddrPort(euResolver+":53")) == 0 || w.guard.many != many {
			t.Errorf("%s on the fast path: one of many: %v", question, w.guard.many)
		}
	}
}
