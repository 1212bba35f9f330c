package forward

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/placement"
)

// waysNet is a group of sites whose decisions are real and whose network is made up: the
// clock goes in steps, hellos arrive one step later, and detectors see what is silent
// after detectAfter.
type waysNet struct {
	now   time.Time
	sites map[string]*ways
	routes
	// cut are directions that carry nothing, since when. drops are relays that lose what
	// they should pass on, and say nothing; old sites don't speak hello.
	cut        map[[2]string]time.Time
	drops, old map[string]bool
	healed     map[[2]string]time.Time
	flying     []flyingHello
	told       []string
	tries      int // of relays
}

type routes map[[2]string]wayStep

type flyingHello struct {
	from, to, via string
	hello         hello
}

const (
	waysStep    = 50 * time.Millisecond
	detectAfter = time.Second
	// warmUp is long enough for everybody to have said hello, settle for a path that is
	// cut in one direction to be used again in the other.
	warmUp = 2 * time.Second
	settle = cleanFor + 3*time.Second
)

func newWaysNet(names ...string) *waysNet {
	n := &waysNet{now: time.Unix(1e9, 0), sites: make(map[string]*ways), routes: make(routes), cut: make(map[[2]string]time.Time),
		healed: make(map[[2]string]time.Time), drops: make(map[string]bool), old: make(map[string]bool)}
	for _, name := range names {
		m := newWays(placement.Position{}, true)
		peers := make(map[string]placement.Position)
		for _, other := range names {
			if other != name {
				peers[other] = placement.Position{}
			}
		}
		m.set(peers)
		n.sites[name] = m
	}
	return n
}

func (n *waysNet) names() []string { return slices.Sorted(maps.Keys(n.sites)) }

// silent tells whether one site has heard nothing directly from another for long enough
// to know. Hearing it again is known at once.
func (n *waysNet) silent(at, from string) bool {
	since, cut := n.cut[[2]string{from, at}]
	return cut && n.now.Sub(since) >= detectAfter
}

// hearing is what the detector of a site sees.
func (n *waysNet) hearing(at string) []placement.Hearing {
	var list []placement.Hearing
	for _, s := range n.names() {
		if s == at {
			continue
		}
		h := placement.Hearing{Site: s, State: placement.Up}
		for _, by := range n.names() {
			switch {
			case by == at || by == s:
			case n.silent(at, by) || n.silent(by, s):
				h.Silent = append(h.Silent, by)
			default:
				h.By = append(h.By, by)
			}
		}
		if n.silent(at, s) {
			h.State = placement.Down
			if len(h.By) > 0 {
				h.State = placement.Path
			}
		}
		list = append(list, h)
	}
	return list
}

// run lets time pass.
func (n *waysNet) run(d time.Duration) {
	for end := n.now.Add(d); n.now.Before(end); {
		n.now = n.now.Add(waysStep)
		arrived := n.flying
		n.flying = nil
		for _, f := range arrived {
			n.arrive(f)
		}
		for _, name := range n.names() {
			if !n.old[name] {
				n.follow(name, n.sites[name].hearing(n.now, n.hearing(name), nil))
			}
		}
	}
}

// passes tells whether a datagram gets from one site to another.
func (n *waysNet) passes(from, to, via string) bool {
	open := func(a, b string) bool { _, cut := n.cut[[2]string{a, b}]; return !cut }
	if via == "" {
		return open(from, to)
	}
	return open(from, via) && open(via, to) && !n.old[via] && !n.drops[via] && n.routes[[2]string{via, to}].via == ""
}

func (n *waysNet) arrive(f flyingHello) {
	if !n.passes(f.from, f.to, f.via) {
		if f.via != "" && n.routes[[2]string{f.via, f.to}].via != "" && n.passes(f.from, f.via, "") && n.passes(f.via, f.from, "") {
			n.follow(f.from, n.sites[f.from].refused(n.now, f.via, f.to, nil))
		}
		return
	}
	if !n.old[f.to] {
		n.follow(f.to, n.sites[f.to].hello(n.now, f.from, f.hello, nil))
	}
}

// follow does what a site has decided.
func (n *waysNet) follow(site string, steps []wayStep) {
	for _, s := range steps {
		switch s.do {
		case sayHello:
			n.flying = append(n.flying, flyingHello{from: site, to: s.site, via: s.via, hello: s.hello})
		case setRoute:
			n.routes[[2]string{site, s.site}] = s
			if s.via != "" {
				n.tries++
			}
		case tellRelay:
			n.told = append(n.told, fmt.Sprintf("%s>%s by %q was %q broken %v", site, s.site, s.via, s.was, s.broken))
		}
	}
}

// sever cuts directions, each given as "ab" for what goes from a to b.
func (n *waysNet) sever(directions ...string) {
	for _, d := range directions {
		n.cut[[2]string{d[:1], d[1:]}] = n.now
	}
}

func (n *waysNet) heal() { clear(n.cut) }

func (n *waysNet) via(from, to string) string { return n.routes[[2]string{from, to}].via }

// carried tells whether packets get from one site to another now.
func (n *waysNet) carried(from, to string) bool { return n.passes(from, to, n.via(from, to)) }

func TestWays(t *testing.T) {
	tests := []struct {
		name  string
		sites string
		set   func(n *waysNet) // before anything happens
		cut   []string
		// within is how long it takes until packets pass again both ways.
		within time.Duration
		via    map[string]string // afterwards
		told   string            // by site a, also after healing
	}{
		{name: "both directions", sites: "abc", cut: []string{"ab", "ba"}, within: 1500 * time.Millisecond, via: map[string]string{"ab": "c", "ba": "c", "ac": "", "ca": ""},
			told: `a>b by "c" was "" broken true; a>b by "" was "c" broken false`},
		// The peer says that it is deaf; what it sends comes, and stays where it is.
		{name: "there alone", sites: "abc", cut: []string{"ab"}, within: 1500 * time.Millisecond, via: map[string]string{"ab": "c", "ba": ""},
			told: `a>b by "c" was "" broken true; a>b by "" was "c" broken false`},
		{name: "back alone", sites: "abc", cut: []string{"ba"}, within: 1500 * time.Millisecond, via: map[string]string{"ab": "", "ba": "c"}},
		{name: "four sites, and one leg of the first is broken as well", sites: "abcd", cut: []string{"ab", "ba", "cb", "bc"}, within: 1500 * time.Millisecond,
			via: map[string]string{"ab": "d", "ba": "d"}, told: `a>b by "d" was "" broken true; a>b by "" was "d" broken false`},
		{name: "a relay that drops what it should pass on, though it hears everybody", sites: "abcd", set: func(n *waysNet) { n.drops["c"] = true },
			cut: []string{"ab", "ba"}, within: 2 * time.Second, via: map[string]string{"ab": "d", "ba": "d"}},
		{name: "a third site of an earlier version is never chosen", sites: "abc", set: func(n *waysNet) { n.old["c"] = true }, cut: []string{"ab", "ba"}, via: map[string]string{"ab": "", "ba": ""}},
		{name: "a peer of an earlier version is reached all the same", sites: "abc", set: func(n *waysNet) { n.old["b"] = true }, cut: []string{"ab"}, via: map[string]string{"ab": ""}},
		{name: "one leg of a relay is cut one way, which its own detector can't hear", sites: "abcd", cut: []string{"ab", "ba", "cb"}, within: 2500 * time.Millisecond,
			via: map[string]string{"ab": "d"}},
		{name: "a dead site isn't gone round", sites: "abc", cut: []string{"ab", "ba", "cb", "bc"}, via: map[string]string{"ab": "", "ac": "", "cb": ""}},
		{name: "all are cut off from one", sites: "abcd", cut: []string{"ab", "ba", "ac", "ca", "ad", "da"}, via: map[string]string{"bc": "", "cd": "", "ab": ""}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newWaysNet(strings.Split(test.sites, "")...)
			if test.set != nil {
				test.set(n)
			}
			n.run(warmUp)
			if n.tries > 0 {
				t.Fatalf("%d relays were taken though nothing is broken", n.tries)
			}
			n.sever(test.cut...)
			if test.within > 0 {
				n.run(test.within)
				if !n.carried("a", "b") || !n.carried("b", "a") {
					t.Errorf("after %v: %v", test.within, n.routes)
				}
			}
			n.run(settle)
			for d, want := range test.via {
				if got := n.via(d[:1], d[1:]); got != want {
					t.Errorf("%s goes by %q, want %q", d, got, want)
				}
			}
			before := maps.Clone(n.routes)
			n.heal()
			n.run(cleanFor - detectAfter)
			for d, r := range before {
				if n.routes[d].via != r.via {
					t.Errorf("%v came back to the direct path before %v of it were clean", d, cleanFor)
				}
			}
			n.run(2 * cleanFor)
			for d, r := range n.routes {
				if r.via != "" {
					t.Errorf("%v: %q is in use after all was mended", d, r.via)
				}
			}
			var told []string
			for _, s := range n.told {
				if strings.HasPrefix(s, "a>") {
					told = append(told, s)
				}
			}
			if got := strings.Join(told, "; "); test.told != "" && got != test.told {
				t.Errorf("told: %s\nwant: %s", got, test.told)
			}
		})
	}
}

// TestWaysSettle: a path that flaps faster than it is clean stays relayed, by one relay.
func TestWaysSettle(t *testing.T) {
	n := newWaysNet("a", "b", "c", "d")
	n.run(warmUp)
	for range 10 {
		n.sever("ab", "ba")
		n.run(2 * time.Second)
		n.heal()
		n.run(2 * time.Second)
	}
	if n.tries != 2 || n.via("a", "b") != "c" || n.via("b", "a") != "c" {
		t.Errorf("%d relays were taken in all, want one for each direction; a by %q, b by %q", n.tries, n.via("a", "b"), n.via("b", "a"))
	}
}

// TestWaysLearn (F7): the relay whose own path broke together with ours is not the first
// choice the next time, though everybody hears everybody but for the two.
func TestWaysLearn(t *testing.T) {
	n := newWaysNet("a", "b", "c", "d")
	n.run(warmUp)
	n.sever("ab", "ba", "ac", "ca")
	n.run(5 * time.Second)
	if got := n.via("a", "b"); got != "d" {
		t.Fatalf("with c cut off as well a goes by %q, want d", got)
	}
	n.heal()
	n.run(2 * cleanFor)
	n.sever("ab", "ba")
	n.run(5 * time.Second)
	if got := n.via("a", "b"); got != "d" {
		t.Errorf("c failed together with b, and yet a goes by %q, want d", got)
	}
	if got := n.via("b", "a"); got != "d" {
		t.Errorf("the leg from c to a failed together with a, and yet b goes by %q, want d", got)
	}
}

// TestWaysWords covers what comes to the machine by itself.
func TestWaysWords(t *testing.T) {
	n := newWaysNet("a", "b", "c", "d")
	n.run(warmUp)
	n.sever("ab", "ba")
	n.run(5 * time.Second)
	a := n.sites["a"]
	for _, e := range []struct {
		name  string
		steps []wayStep
		want  string
	}{
		{"a stranger says hello", a.hello(n.now, "x", hello{flags: helloAsk}, nil), "[]"},
		{"a site that isn't the relay refuses", a.refused(n.now, "d", "b", nil), "[]"},
		{"or speaks of a narrow path", a.narrow("d", "b", 500, nil), "[]"},
		{"a narrow path beyond the relay", a.narrow("c", "b", 1200, nil), "[b by c room 1200]"},
		{"a wider one is no news", a.narrow("c", "b", 1300, nil), "[]"},
		{"the relay refuses", a.refused(n.now, "c", "b", nil), "[b by d room 0]"},
		{"for a site that isn't relayed", a.refused(n.now, "c", "d", nil), "[]"},
	} {
		var got []string
		for _, s := range e.steps {
			if s.do == setRoute {
				got = append(got, fmt.Sprintf("%s by %s room %d", s.site, s.via, s.room))
			}
		}
		if fmt.Sprint(got) != e.want {
			t.Errorf("%s: %v, want %s", e.name, got, e.want)
		}
	}
	// An unwatched detector: what it said before no longer counts, and after a while the
	// direct path is tried.
	a.hearing(n.now, nil, nil)
	var last []wayStep
	for range 200 {
		n.now = n.now.Add(waysStep)
		last = a.tick(n.now, last)
	}
	if !slices.ContainsFunc(last, func(s wayStep) bool { return s.do == setRoute && s.site == "b" && s.via == "" }) {
		t.Errorf("without a detector the relay stays in use; steps: %+v", last)
	}
	a.set(map[string]placement.Position{"c": {}})
	if len(a.to) != 1 || len(a.sites) != 1 {
		t.Errorf("peers that left are remembered: %v", a.sites)
	}
}

// FuzzHello holds that what is read is what was written.
func FuzzHello(f *testing.F) {
	f.Add(hello{helloAsk | helloRelays, 7}.appendTo(nil))
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHello(b)
		if err == nil && string(h.appendTo(nil)) != string(b[:helloSize]) {
			t.Errorf("%x was read as %+v", b, h)
		}
	})
}

// TestWaysPace: few hellos while all is well, and next to none to a site of an earlier
// version, which counts each as refused.
func TestWaysPace(t *testing.T) {
	n := newWaysNet("a", "b", "c")
	n.old["c"] = true
	sent := make(map[string]int)
	for range int(2 * time.Minute / waysStep) {
		n.run(waysStep)
		for _, f := range n.flying {
			if f.from == "a" {
				sent[f.to]++
			}
		}
	}
	// A question and an answer every 10 s to one, three questions in all to the other.
	if sent["b"] < 20 || sent["b"] > 30 || sent["c"] != strangeTries {
		t.Errorf("hellos in two minutes: %v, want about 24 to b and %d to c", sent, strangeTries)
	}
}
