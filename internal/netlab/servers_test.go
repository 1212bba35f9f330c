package netlab

import (
	"net/netip"
	"testing"
	"time"
)

func TestServerPickExplores(t *testing.T) {
	slow, fast := netip.MustParseAddr(farAddr), netip.MustParseAddr(nearAddr)
	var table serverTable
	table.update(slow, func(s serverState) serverState { return s.answered(80 * time.Millisecond) })
	table.update(fast, func(s serverState) serverState { return s.answered(10 * time.Millisecond) })
	count := map[netip.Addr]int{}
	step := 0
	random := func() float64 { step++; return float64(step%997) / 997 }
	for range 5000 {
		a, ok := table.pick([]netip.Addr{slow, fast}, nil, time.Time{}, random)
		if !ok {
			t.Fatal("nothing to pick")
		}
		count[a]++
	}
	if share := float64(count[slow]) / 5000; share < exploreShare/4 || share > exploreShare {
		t.Errorf("the slow server got %.3f of the questions", share)
	}
}

func TestServerPick(t *testing.T) {
	now := time.Unix(1000, 0)
	a, b, c := netip.MustParseAddr(nearAddr), netip.MustParseAddr(farAddr), netip.MustParseAddr(tldAddr)
	var table serverTable
	table.states = map[netip.Addr]serverState{
		a: {srtt: 10 * time.Millisecond}, b: {srtt: 80 * time.Millisecond},
	}
	resting := func(ip netip.Addr, d time.Duration) {
		table.update(ip, func(s serverState) serverState { s.restUntil = now.Add(d); return s })
	}
	pick := func(tried ...netip.Addr) netip.Addr {
		skip := map[netip.Addr]bool{}
		for _, t := range tried {
			skip[t] = true
		}
		got, _ := table.pick([]netip.Addr{b, a, c}, skip, now, func() float64 { return 0.99 })
		return got
	}
	if got := pick(); got != c {
		t.Errorf("picked %s, want the one never heard of", got)
	}
	if got := pick(c); got != a {
		t.Errorf("picked %s, want the fastest", got)
	}
	resting(a, time.Second)
	if got := pick(c); got != b {
		t.Errorf("picked %s, want the one not at rest", got)
	}
	resting(b, 2*time.Second)
	if got := pick(c); got != a {
		t.Errorf("picked %s, want the soonest rested", got)
	}
	if got := pick(a, b, c); got.IsValid() {
		t.Errorf("picked %s out of none", got)
	}
}

func TestServerStateTimeouts(t *testing.T) {
	var s serverState
	for round, want := range []time.Duration{firstTimeout, 2 * firstTimeout, 4 * firstTimeout, mostTimeout} {
		if got := s.timeout(round); got != want {
			t.Errorf("unknown server, round %d: timeout %s, want %s", round, got, want)
		}
	}
	for range 20 {
		s = s.answered(10 * time.Millisecond)
	}
	if s.timeout(0) != leastTimeout || s.timeout(1) != 2*firstTimeout {
		t.Errorf("timeouts of a fast server: %s, then %s", s.timeout(0), s.timeout(1))
	}
	now := time.Unix(1000, 0)
	for i := range 8 {
		s = s.timedOut(now)
		if rest := s.restUntil.Sub(now); rest != min(leastRest<<i, mostRest) {
			t.Errorf("rest after %d timeouts: %s", i+1, rest)
		}
	}
	if s = s.answered(10 * time.Millisecond); s.silent != 0 || now.Before(s.restUntil) {
		t.Errorf("after an answer: %+v", s)
	}
}
