//go:build e2e

package vip

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fault is one way in which an owner leaves, and how it comes back.
type fault struct {
	name        string
	begin, heal func(l *lab, owner int)
}

// faults are those of the plan: the process dies, stands still and goes on, its machine leaves
// the network, and it is cut off from the other members but not from the clients.
func faults() []fault {
	return []fault{
		{"killed", (*lab).kill, (*lab).start},
		{"stopped", func(l *lab, i int) { l.signal(i, syscall.SIGSTOP) }, func(l *lab, i int) { l.signal(i, syscall.SIGCONT) }},
		{"cut off from the members", func(l *lab, i int) {
			l.in(l.nodes[i].name, fmt.Sprintf("nft add table inet cut ; add chain inet cut in { type filter hook input priority 0 ; } ; add rule inet cut in udp dport %d drop", controlPort))
		}, func(l *lab, i int) { l.in(l.nodes[i].name, "nft delete table inet cut") }},
		{"off the network", func(l *lab, i int) { l.in("s", "ip link set p-"+l.nodes[i].name+" down") },
			func(l *lab, i int) { l.in("s", "ip link set p-"+l.nodes[i].name+" up") }},
		{"ended", func(l *lab, i int) {
			l.signal(i, syscall.SIGTERM)
			_ = l.nodes[i].cmd.Wait()
		}, (*lab).start},
	}
}

// TestTakeoverOnTheWire lets the owner of an address leave in every way. Another node answers,
// and two never do: not while the owner is cut off, nor when a stopped one goes on. The
// length of the gap is the thing shown in the long form, where p99 is held to 300 ms.
func TestTakeoverOnTheWire(t *testing.T) {
	l := newLab(t)
	rounds := 1
	if os.Getenv("RHUMB_SOAK") != "" {
		rounds = 75
	}
	gaps := make(map[string][]time.Duration)
	for round := range rounds {
		for _, f := range faults() {
			owner := l.await(l.now(), -1, client4, client6)
			from := l.now()
			f.begin(l, owner)
			next := l.await(from, owner, client4, client6)
			for _, way := range []string{client4, client6} {
				gap := l.gap(from, way)
				gaps[f.name] = append(gaps[f.name], gap)
				if round == 0 {
					t.Logf("n%d %s, n%d answers: %s had no answer for %v", owner, f.name, next, way, gap.Round(time.Millisecond))
				}
			}
			l.calm(f, owner)
		}
	}
	if err := l.double(); err != nil {
		t.Errorf("%v\n%s", err, l.logs())
	}
	var all []time.Duration
	for _, f := range faults() {
		slices.Sort(gaps[f.name])
		t.Logf("%-26s p50 %v, max %v of %d", f.name, gaps[f.name][len(gaps[f.name])/2], gaps[f.name][len(gaps[f.name])-1], len(gaps[f.name]))
		all = append(all, gaps[f.name]...)
	}
	slices.Sort(all)
	p99 := all[len(all)*99/100]
	t.Logf("all: p50 %v, p99 %v, max %v of %d", all[len(all)/2], p99, all[len(all)-1], len(all))
	if rounds > 1 && p99 > 300*time.Millisecond {
		t.Errorf("p99 of the gaps is %v, want 300ms", p99)
	}
}

// calm heals a fault, and lets the healed node live beside the new owner for a while: this is
// when it could answer wrongly.
func (l *lab) calm(f fault, owner int) {
	l.t.Helper()
	from := l.now()
	f.heal(l, owner)
	l.settled(from + 300*time.Millisecond)
}

// settled waits until clients ask and hear answers after a moment.
func (l *lab) settled(from time.Duration) { l.await(from, -1, client4, client6) }

// TestTwoOwnersAreSeen takes the fence away from an owner that is stopped: two
// nodes answer, until its addresses end by themselves. So the other test
// would see two owners, and the fence is what keeps them apart.
func TestTwoOwnersAreSeen(t *testing.T) {
	l := newLab(t)
	owner := l.await(0, -1, client4, client6)
	l.signal(owner, syscall.SIGSTOP)
	l.in(l.nodes[owner].name, "nft flush ruleset")
	l.await(l.now(), owner, client4, client6)
	// What asks at the stopped node still hears it, until the kernel drops the addresses.
	last := l.now()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := l.since(last, "")
		if !slices.ContainsFunc(got, func(a answer) bool { return a.node == owner }) && l.now() > last+500*time.Millisecond {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("n%d is stopped and still answers after %s\n%s", owner, patience, l.in(l.nodes[owner].name, "ip addr"))
		}
		if l.now() > last+500*time.Millisecond {
			last = l.now()
		}
	}
	if err := l.double(); err == nil {
		t.Errorf("the stopped n%d had no fence, and no two answers at once were seen\n%s", owner, l.logs())
	}
	// Going on, it finds its rules gone, and makes them anew.
	l.signal(owner, syscall.SIGCONT)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		tables := l.in(l.nodes[owner].name, "nft list tables")
		if strings.Count(tables, tablePrefix+"web") == 4 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the rules did not come back within %s; tables: %s\n%s", patience, tables, l.logs())
		}
	}
}
