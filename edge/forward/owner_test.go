package forward

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench is a table of owners with a clock of its own, and a log of its steps.
type bench struct {
	*owners
	now       time.Time
	announces map[Flow]string
	paired    string
	counts    map[result]int
	retired   []string
	shadows   map[Flow]bool
	beside    []string // other edges of this site
}

func newBench(peers ...string) *bench {
	b := &bench{now: time.Unix(1000, 0), announces: map[Flow]string{}, counts: map[result]int{}}
	b.owners = newOwners(protoTCP, hooks{
		shadowed:   func(f Flow) bool { return b.shadows[f] },
		peers:      func() []string { return peers },
		neighbours: func() []string { return b.beside },
		announced:  func(f Flow) string { return b.announces[f] },
		pair:       func(netip.Addr) string { return b.paired },
		count:      func(how result, n int) { b.counts[how] += n },
		retire:     func(site string, f Flow) { delete(b.announces, f); b.retired = append(b.retired, site) },
	}, askRate, time.Second)
	return b
}

func (b *bench) pass(d time.Duration) { b.now = b.now.Add(d) }

// show writes steps in short: "ask a", "tunnel a one", "back one", "foreign a".
func show(steps []step) string {
	var words []string
	for _, s := range steps {
		switch s.do {
		case doAsk:
			words = append(words, "ask "+s.site)
		case doTunnel:
			words = append(words, "tunnel "+s.site+" "+string(s.packet))
		case doGiveBack:
			words = append(words, "back "+string(s.packet))
		case doForeign:
			words = append(words, "foreign "+s.site)
		}
	}
	return strings.Join(words, ", ")
}

// script runs lines like "packet one", "mine a", "wait 200ms", "tick", and
// compares the steps of each with what stands behind its arrow.
func (b *bench) script(t *testing.T, f Flow, lines ...string) {
	t.Helper()
	for i, line := range lines {
		do, want, _ := strings.Cut(line, " -> ")
		word, arg, _ := strings.Cut(do, " ")
		if got := show(b.act(t, f, word, arg)); got != want {
			t.Fatalf("line %d, %q: %q, want %q", i+1, do, got, want)
		}
	}
}

func (b *bench) act(t *testing.T, f Flow, word, arg string) []step {
	t.Helper()
	switch word {
	case "packet":
		return b.packet(b.now, f, []byte(arg), false, nil)
	case "watch":
		return b.packet(b.now, f, []byte(arg), true, nil)
	case "mine":
		return b.mine(b.now, f, arg, nil)
	case "not":
		return b.notMine(b.now, f, arg, nil)
	case "moved":
		from, to, _ := strings.Cut(arg, " ")
		return b.movedTo(b.now, f, from, to, nil)
	case "home":
		return b.home(b.now, f, nil)
	case "hold":
		b.hold(b.now, f)
	case "release":
		return b.release(f, nil)
	case "move":
		return b.move(b.now, f, arg, nil)
	case "stay":
		return b.stay(b.now, f, arg, nil)
	case "tick":
		return b.tick(b.now, nil)
	case "sweep":
		return b.sweep(b.now, nil)
	case "wait":
		d, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatal(err)
		}
		b.pass(d)
	default:
		t.Fatalf("unknown word %q", word)
	}
	return nil
}

func TestOwnerScripts(t *testing.T) {
	tests := []struct {
		name   string
		peers  string
		before func(*bench)
		lines  []string
		counts map[result]int
	}{
		{"group: first yes wins, packets leave in order", "a b c", nil, []string{
			"packet one -> ask a, ask b, ask c", "packet two", "not a",
			"mine b -> foreign b, tunnel b one, tunnel b two", "mine c", "packet three -> tunnel b three",
		}, map[result]int{byGroup: 2, byHint: 1}},
		{"nobody: given back in order, believed for a second", "a b", nil, []string{
			"packet one -> ask a, ask b", "packet two", "not a", "not b -> back one, back two", "packet three -> back three",
			"wait 1s", "packet four -> ask a, ask b",
		}, map[result]int{byNobody: 3}},
		{"silence: asked again, then given back", "a b", nil, []string{
			"packet one -> ask a, ask b", "not a", "wait 60ms", "tick -> ask b", "wait 60ms", "tick -> ask b",
			"wait 880ms", "tick -> back one", "mine b", "packet two -> foreign b, tunnel b two",
		}, map[result]int{byNobody: 1, byHint: 1}},
		{"no peers: the kernel's", "", nil, []string{"packet one -> back one"}, map[result]int{byNobody: 1}},
		{"announced: no waiting, one confirmation", "a b", func(b *bench) { b.announces[flow4(1)] = "b" }, []string{
			"packet one -> ask b, foreign b, tunnel b one", "mine b", "packet two -> tunnel b two",
		}, map[result]int{byAnnounced: 1, byHint: 1}},
		{"announced but gone: asked anew", "a b", func(b *bench) { b.announces[flow4(1)] = "b" }, []string{
			"packet one -> ask b, foreign b, tunnel b one", "not b", "packet two -> ask a, ask b",
		}, map[result]int{byAnnounced: 1}},
		{"pair: asked alone", "a b c", func(b *bench) { b.paired = "c" }, []string{
			"packet one -> ask c", "mine c -> foreign c, tunnel c one",
		}, map[result]int{byPair: 1}},
		{"pair says no: all others", "a b c", func(b *bench) { b.paired = "c" }, []string{
			"packet one -> ask c", "not c -> ask a, ask b", "not b", "not a -> back one",
		}, map[result]int{byNobody: 1}},
		{"pair is silent: all others too", "a b c", func(b *bench) { b.paired = "c" }, []string{
			"packet one -> ask c", "wait 60ms", "tick -> ask c, ask a, ask b", "mine a -> foreign a, tunnel a one",
		}, map[result]int{byGroup: 1}},
		{"pair is no peer: all", "a b", func(b *bench) { b.paired = "z" }, []string{"packet one -> ask a, ask b"}, nil},
		{"hint in use: confirmed after 5 s, believed while confirmed", "a", nil, []string{
			"packet one -> ask a", "mine a -> foreign a, tunnel a one", "wait 6s", "packet two -> ask a, foreign a, tunnel a two",
			"packet three -> tunnel a three", "mine a", "wait 9s", "packet four -> ask a, foreign a, tunnel a four",
		}, map[result]int{byGroup: 1, byHint: 3}},
		{"owner dead: belief ends after 10 s, the kernel resets", "a", nil, []string{
			"packet one -> ask a", "mine a -> foreign a, tunnel a one", "wait 9s", "packet two -> ask a, foreign a, tunnel a two",
			"wait 1s", "packet three -> ask a", "wait 1s", "tick -> back three",
		}, map[result]int{byGroup: 1, byHint: 1, byNobody: 1}},
		{"gone: from the owner only", "a b", nil, []string{
			"packet one -> ask a, ask b", "mine b -> foreign b, tunnel b one", "not a", "packet two -> tunnel b two",
			"not b", "packet three -> ask b", // the network's last owner first
		}, map[result]int{byGroup: 1, byHint: 1}},
		{"unasked answers are ignored", "a b", nil, []string{"mine a", "not a", "moved a b", "packet one -> ask a, ask b"}, nil},
		{"moved: followed while asking and later", "a b c", nil, []string{
			"packet one -> ask a, ask b, ask c", "moved a b -> foreign b, tunnel b one", "moved b c", "packet two -> tunnel c two",
			"moved b a", "packet three -> tunnel c three",
		}, map[result]int{byGroup: 1, byHint: 2}},
		{"stayed: what was held is the owner's, until it denies it", "a b", nil, []string{
			"hold", "packet one", "stay a -> tunnel a one", "packet two -> foreign a, tunnel a two",
			"not a", "packet three -> ask a, ask b", "not b", "not a -> back three",
		}, map[result]int{byNobody: 1}},
		{"moved here: the kernel has it", "a b", nil, []string{
			"packet one -> ask a, ask b", "home -> back one", "packet two -> ask a, ask b",
		}, map[result]int{byNobody: 1}},
		{"foreign is told every 250 ms", "a", nil, []string{
			"packet one -> ask a", "mine a -> foreign a, tunnel a one", "wait 249ms", "packet two -> tunnel a two",
			"wait 1ms", "packet three -> foreign a, tunnel a three",
		}, nil},
		{"observe: named, counted, left to the kernel", "a", nil, []string{
			"watch one -> ask a", "mine a", "watch two", "wait 250ms", "watch three",
		}, map[result]int{observed: 3}},
		{"observe: nobody", "a", nil, []string{"watch one -> ask a", "not a", "watch two"}, map[result]int{byNobody: 2}},
		{"hold and release: in order", "a", nil, []string{
			"hold", "packet one", "packet two", "mine a", "release -> back one, back two", "packet three -> ask a",
		}, nil},
		{"hold takes what waits for an answer", "a", nil, []string{
			"packet one -> ask a", "hold", "packet two", "wait 1s", "tick", "not a", "release -> back one, back two", "release",
		}, nil},
		{"hold forgotten: released after 15 s", "a", nil, []string{
			"hold", "packet one", "wait 14s", "tick", "sweep", "wait 1s", "sweep -> back one", "sweep",
		}, nil},
		{"hold renewed", "a", nil, []string{"hold", "packet one", "wait 14s", "hold", "wait 14s", "sweep", "wait 1s", "sweep -> back one"}, nil},
		{"given away: what waits and comes follows", "a b", nil, []string{
			"hold", "packet one", "move b -> tunnel b one", "packet two -> foreign b, tunnel b two", "wait 119s",
			"packet three -> foreign b, tunnel b three", "not b", "mine a", "wait 119s", "packet four -> foreign b, tunnel b four",
			"wait 2m", "packet five -> ask a, ask b",
		}, map[result]int{byHint: 3}},
		{"given away and taken back", "a b", nil, []string{
			"move b", "hold", "packet one", "release -> back one", "packet two -> ask a, ask b",
		}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(strings.Fields(test.peers)...)
			if test.before != nil {
				test.before(b)
			}
			b.script(t, flow4(1), test.lines...)
			for how, n := range test.counts {
				if b.counts[how] != n {
					t.Errorf("%d strays counted as %s, want %d (%v)", b.counts[how], how, n, b.counts)
				}
			}
		})
	}
}

// TestAskBudget floods with flows that nobody owns: above 2,000 asks a second
// only known and announced flows are looked up.
func TestAskBudget(t *testing.T) {
	b := newBench("a")
	b.announces[flow6(7)] = "a"
	asks := 0
	for i := range 10_000 {
		f := flow4(uint16(i + 1))
		for _, s := range b.packet(b.now, f, []byte("x"), false, nil) {
			if s.do == doAsk {
				asks++
			}
		}
	}
	if asks != askRate || b.counts[overBudget] != 10_000-askRate {
		t.Errorf("%d asks, %d over budget; want %d, %d", asks, b.counts[overBudget], askRate, 10_000-askRate)
	}
	b.script(t, flow6(7), "packet one -> ask a, foreign a, tunnel a one")
	b.pass(500 * time.Millisecond)
	asks = 0
	for i := range 10_000 {
		asks += len(b.packet(b.now, flow4(uint16(20_000+i)), []byte("x"), true, nil))
	}
	if asks != askRate/2 {
		t.Errorf("%d asks after half a second, want %d", asks, askRate/2)
	}
}

// TestHeldBounds fills one flow, then many.
func TestHeldBounds(t *testing.T) {
	b := newBench("a")
	b.hold(b.now, flow4(1))
	for range 3 * maxHeldPackets {
		b.packet(b.now, flow4(1), make([]byte, 100), false, nil)
	}
	if b.heldNow != maxHeldPackets {
		t.Errorf("%d packets of one flow are held, want %d", b.heldNow, maxHeldPackets)
	}
	for i := range 60_000 {
		b.hold(b.now, flow6(uint16(i)))
		b.packet(b.now, flow6(uint16(i)), make([]byte, 1400), false, nil)
	}
	if b.held > maxHeldOctets {
		t.Errorf("%d octets are held, want at most %d", b.held, maxHeldOctets)
	}
	b.release(flow4(1), nil)
	for i := range 60_000 {
		b.release(flow6(uint16(i)), nil)
	}
	if b.held != 0 || b.heldNow != 0 || len(b.flows) != 0 {
		t.Errorf("after all releases %d octets, %d packets, %d flows are left", b.held, b.heldNow, len(b.flows))
	}
}

// TestNearNetwork asks the site that had a neighbour of the client first.
func TestNearNetwork(t *testing.T) {
	b := newBench("a", "b")
	b.script(t, flow4(1), "packet one -> ask a, ask b", "mine b -> foreign b, tunnel b one")
	b.script(t, flow4(2), "packet two -> ask b", "not b -> ask a", "mine a -> foreign a, tunnel a two")
	b.script(t, flow4(3), "packet three -> ask a")
	b.pass(nearLife)
	b.sweep(b.now, nil)
	if len(b.near) != 0 {
		t.Errorf("%d networks are remembered too long", len(b.near))
	}
	b.script(t, flow4(4), "packet four -> ask a, ask b")
}

// TestOwnersKeepEveryPacket runs random events and holds the invariant: each
// packet is tunnelled or given back at most once, none twice, none that came
// is forgotten unless a bound was reached.
func TestOwnersKeepEveryPacket(t *testing.T) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		b := newBench("a", "b", "c")
		in, out := 0, map[string]int{}
		note := func(steps []step) {
			for _, s := range steps {
				if s.packet != nil {
					out[string(s.packet)]++
				}
			}
		}
		sites := []string{"a", "b", "c", "z"}
		for range 2000 {
			f, site := flow4(uint16(1+random.IntN(8))), sites[random.IntN(len(sites))]
			switch random.IntN(12) {
			case 0, 1, 2, 3, 4:
				in++
				note(b.packet(b.now, f, fmt.Appendf(nil, "%d", in), false, nil))
			case 5:
				note(b.mine(b.now, f, site, nil))
			case 6:
				note(b.notMine(b.now, f, site, nil))
			case 7:
				note(b.movedTo(b.now, f, site, sites[random.IntN(3)], nil))
			case 8:
				b.hold(b.now, f)
			case 9:
				note(b.release(f, nil))
			case 10:
				note(b.move(b.now, f, sites[random.IntN(3)], nil))
			case 11:
				b.pass(time.Duration(random.IntN(100)) * time.Millisecond)
				note(b.tick(b.now, nil))
				note(b.sweep(b.now, nil))
			}
		}
		b.pass(time.Hour)
		note(b.tick(b.now, nil))
		note(b.sweep(b.now, nil))
		b.pass(nobodyLife)
		b.sweep(b.now, nil)
		for p, n := range out {
			if n > 1 {
				t.Fatalf("seed %d: packet %s left %d times", seed, p, n)
			}
		}
		if len(out) != in || b.held != 0 || b.heldNow != 0 || len(b.flows) != 0 || len(b.asking) != 0 {
			t.Fatalf("seed %d: %d packets came, %d left; %d octets, %d flows, %d asked remain",
				seed, in, len(out), b.held, len(b.flows), len(b.asking))
		}
	}
}

func TestWithout(t *testing.T) {
	list := []Flow{flow4(1), flow4(2), flow4(3)}
	if got := without(list, flow4(2)); !slices.Equal(got, []Flow{flow4(1), flow4(3)}) {
		t.Errorf("%v", got)
	}
}
