package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rhumb/bgp"
	"rhumb/internal/config"
	"rhumb/internal/netlab"
	"rhumb/internal/timeline"
	"rhumb/placement"
)

// TestReplayNames: without a name the replays are listed, a wrong one ends with 2
// and the list, and a right one without a lab with 3.
func TestReplayNames(t *testing.T) {
	dir := t.TempDir()
	var out, errw bytes.Buffer
	if code := run(t.Context(), []string{"lab", "--dir", dir, "replay"}, nil, &out, &errw); code != exitOK {
		t.Errorf("list: exit %d: %s", code, errw.String())
	}
	for _, tale := range tales() {
		if !strings.Contains(out.String(), tale.name) || !strings.Contains(out.String(), tale.url) {
			t.Errorf("the list lacks %s", tale.name)
		}
	}
	errw.Reset()
	if code := run(t.Context(), []string{"lab", "--dir", dir, "replay", "facebook-2022"}, nil, &out, &errw); code != exitUsage || !strings.Contains(errw.String(), "cloudflare-2025-07") {
		t.Errorf("wrong name: exit %d: %s", code, errw.String())
	}
	if code := run(t.Context(), []string{"lab", "--dir", dir, "replay", "facebook-2021"}, nil, &out, &errw); code != exitUnreachable {
		t.Errorf("without a lab: exit %d, want %d", code, exitUnreachable)
	}
}

// TestServeIsNeverNaive: no command but the lab's own hidden one leads to a unit
// without the guard.
func TestServeIsNeverNaive(t *testing.T) {
	root := (&app{}).root()
	for _, c := range root.Commands() {
		if c.Name() == "naive" || c.Flags().Lookup("naive") != nil {
			t.Errorf("%s leads to a naive unit", c.CommandPath())
		}
	}
	cmd, _, err := root.Find([]string{"lab", "naive"})
	if err != nil || cmd.Name() != "naive" || !cmd.Hidden {
		t.Errorf("lab naive: %v, %v", cmd, err)
	}
}

func TestHeardStep(t *testing.T) {
	learned := func(change func(*bgp.Learned)) *bgp.Learned {
		l := &bgp.Learned{Route: bgp.Route{Attrs: bgp.Attrs{Prepend: 1}}}
		change(l)
		return l
	}
	tests := []struct {
		name string
		in   *bgp.Learned
		want placement.Step
	}{
		{"its own AS once", learned(func(*bgp.Learned) {}), placement.Announce},
		{"four times", learned(func(l *bgp.Learned) { l.Route.Attrs.Prepend = 4 }), placement.Prepend},
		{"RFC 8326", learned(func(l *bgp.Learned) { l.Route.Attrs.Communities = []uint32{bgp.GracefulShutdown} }), placement.GShut},
		{"taken back", learned(func(l *bgp.Learned) { l.Withdrawn = true }), placement.Withdrawn},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := heardStep(tt.in); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// TestTail reads whole lines only, each once, and begins anew with a new record.
func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "t-eu.json.heard")
	var got []string
	from := int64(0)
	read := func() {
		t.Helper()
		var err error
		if from, err = tailOnce(file, from, func(l heardLine) { got = append(got, l.Peer.String()+" "+l.Step.String()) }); err != nil {
			t.Fatal(err)
		}
	}
	line := func(peer string, step placement.Step) []byte {
		b, err := json.Marshal(heardLine{Peer: netip.MustParseAddr(peer), Prefix: netip.MustParsePrefix("192.0.2.0/24"), Step: step})
		if err != nil {
			t.Fatal(err)
		}
		return append(b, '\n')
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read() // there is none yet
	first, second := line("198.51.100.1", placement.GShut), line("198.51.100.2", placement.Announce)
	put(append(slices.Clone(first), second[:10]...))
	read()
	put(append(slices.Clone(first), second...))
	read()
	read()
	put(line("198.51.100.3", placement.Withdrawn))
	read()
	if want := []string{"198.51.100.1 gshut", "198.51.100.2 announce", "198.51.100.3 withdrawn"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// labInventory is the lab's fleet as its files have it.
func labInventory(t *testing.T) *placement.Fleet {
	t.Helper()
	dir := labDir(t.TempDir())
	topo := netlab.Lab(netlab.LabOptions{})
	if err := dir.writeIdentities(topo); err != nil {
		t.Fatal(err)
	}
	if err := dir.writeFleet(topo); err != nil {
		t.Fatal(err)
	}
	fleet, err := config.LoadFleet(dir.fleetFile(), readZone)
	if err != nil {
		t.Fatal(err)
	}
	return &fleet.Fleet
}

// TestStagedFleetsAreSound: every replay judges prefixes which its fleet announces
// at all three sites, and none changes the fleet that was found.
func TestStagedFleetsAreSound(t *testing.T) {
	found := labInventory(t)
	text := mustJSON(t, found)
	for _, tale := range tales() {
		t.Run(tale.name, func(t *testing.T) {
			staged, err := copyFleet(found)
			if err != nil {
				t.Fatal(err)
			}
			if tale.stage != nil {
				tale.stage(staged)
			}
			if mustJSON(t, found) != text {
				t.Error("the fleet in force was changed with its copy")
			}
			for _, p := range tale.judged(staged) {
				prefix := staged.Prefix(p)
				if prefix == nil {
					t.Fatalf("%s is not in the fleet", p)
				}
				for _, site := range labSites(netlab.Lab(netlab.LabOptions{})) {
					if !slices.Contains(staged.AnnouncingSites(prefix), site) {
						t.Errorf("%s is not announced by %s", p, site)
					}
					for _, c := range prefix.Clusters {
						if staged.Cluster(placement.ClusterID{Site: site, Name: c}) == nil {
							t.Errorf("%s depends on %s/%s, which is not there", p, site, c)
						}
					}
				}
			}
		})
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNaiveRule: the one rule of a fleet without a guard.
func TestNaiveRule(t *testing.T) {
	p := placement.Prefix{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Clusters: []string{"top"}}
	vote := func(name string, state placement.State, fault placement.Fault, hold bool) []placement.Vote {
		return []placement.Vote{{Object: placement.ClusterID{Site: "ams1", Name: name}, State: state, Fault: fault, Hold: hold}}
	}
	tests := []struct {
		name  string
		p     placement.Prefix
		votes []placement.Vote
		on    bool
	}{
		{"not looked at yet", p, nil, true},
		{"well", p, vote("top", placement.Up, "", false), true},
		{"own check down", p, vote("top", placement.Down, placement.LocalFault, false), false},
		{"a shared fault is one like any other", p, vote("top", placement.Down, placement.SharedFault, false), false},
		{"in doubt it does not doubt", p, vote("top", placement.Down, placement.LocalFault, true), false},
		{"a cluster which is none of its own", p, vote("web", placement.Down, placement.LocalFault, false), true},
		{"up again", p, append(vote("top", placement.Down, placement.LocalFault, false), vote("top", placement.Up, "", false)...), true},
		{"another site's", placement.Prefix{Prefix: p.Prefix, Sites: []string{"dls1"}}, vote("top", placement.Up, "", false), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &ownChecks{down: map[placement.ClusterID]string{}, changed: make(chan struct{}, 1)}
			for _, v := range tt.votes {
				c.cast(v)
			}
			inv := &placement.Inventory{Fleet: placement.Fleet{Sites: []placement.Site{{Name: "ams1"}}, Prefixes: []placement.Prefix{tt.p}}}
			if why := naiveNo(inv, &tt.p, "ams1", c.cause); (why == "") != tt.on {
				t.Errorf("%q, want announced %v", why, tt.on)
			}
		})
	}
}

// onlookerAt is an onlooker who has seen a prefix announced by all, routed by all,
// and three regions answered.
func onlookerAt() (*onlooker, netip.Prefix) {
	p := netip.MustParsePrefix("192.0.2.0/24")
	x := newOnlooker(&world{topo: netlab.Lab(netlab.LabOptions{})}, []netip.Prefix{p}, nil, func(replayLine) {})
	for _, r := range nodesOf(x.w.topo, netlab.Router) {
		x.fib[r][p] = "ams1"
	}
	for _, s := range labSites(x.w.topo) {
		x.heard[p][s] = placement.Announce
	}
	return x, p
}

// from is a line about the prefix by the session of a site.
func from(x *onlooker, p netip.Prefix, site string, step placement.Step) heardLine {
	return heardLine{At: time.Now(), Peer: ownAddresses(x.w.topo, site)[0], Prefix: p, Step: step}
}

// answers tells what a region got, by when it had it.
func answers(x *onlooker, region string, at map[time.Duration]string) {
	began := time.Now()
	for _, after := range slices.Sorted(maps.Keys(at)) {
		x.answered(began, began.Add(after), region, at[after])
	}
}

// TestOnlookerKeepsTheWorst: a dip between two looks counts as much as the end.
func TestOnlookerKeepsTheWorst(t *testing.T) {
	fleet := &placement.Fleet{Prefixes: []placement.Prefix{{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Slots: 1}}}
	tests := []struct {
		name string
		do   func(*onlooker, netip.Prefix)
		ok   bool
	}{
		{"nothing happens", func(*onlooker, netip.Prefix) {}, true},
		{"all ask to be avoided", func(x *onlooker, p netip.Prefix) {
			for _, s := range labSites(x.w.topo) {
				x.hear(from(x, p, s, placement.GShut))
			}
		}, true},
		{"one goes by its slot", func(x *onlooker, p netip.Prefix) { x.hear(from(x, p, "nyc1", placement.Withdrawn)) }, true},
		{"two go, and come back", func(x *onlooker, p netip.Prefix) {
			x.hear(from(x, p, "nyc1", placement.Withdrawn))
			x.hear(from(x, p, "ams1", placement.Withdrawn))
			x.hear(from(x, p, "ams1", placement.Announce))
			x.hear(from(x, p, "nyc1", placement.Announce))
		}, false},
		{"two sessions end", func(x *onlooker, p netip.Prefix) {
			x.hear(from(x, netip.Prefix{}, "nyc1", placement.Withdrawn))
			x.hear(from(x, netip.Prefix{}, "ams1", placement.Withdrawn))
		}, false},
		{"a router is without a route for a moment", func(x *onlooker, p netip.Prefix) {
			x.routed("t-us", netlab.FIBChange{Gone: true, FIBRoute: netlab.FIBRoute{Prefix: p}})
			x.routed("t-us", netlab.FIBChange{FIBRoute: netlab.FIBRoute{Prefix: p, Hops: []netlab.NextHop{{Addr: ownAddresses(x.w.topo, "nyc1")[0]}}}})
		}, false},
		{"answers are lost for less than an outage", func(x *onlooker, _ netip.Prefix) {
			answers(x, "eu", map[time.Duration]string{0: "ams1", outage / 2: noAnswer, outage: "nyc1", 2 * outage: noAnswer})
		}, true},
		{"and for longer, by a machine that loses all", func(x *onlooker, _ netip.Prefix) {
			answers(x, "eu", map[time.Duration]string{0: "ams1", outage: noWord, 2 * outage: noWord, 2*outage + time.Second: noAnswer})
		}, true},
		{"and for longer", func(x *onlooker, _ netip.Prefix) {
			answers(x, "eu", map[time.Duration]string{0: "ams1", outage / 2: noAnswer, outage + time.Second: noAnswer})
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			x, p := onlookerAt()
			x.mark()
			x.answered(time.Now(), time.Now(), "ap", "tyo1")
			tt.do(x, p)
			if err := x.kept(fleet); (err == nil) != tt.ok {
				t.Errorf("kept: %v, want %v", err, tt.ok)
			}
		})
	}
}

// TestGone wants all three: silence of the sites, no route, no answer.
func TestGone(t *testing.T) {
	x, p := onlookerAt()
	steps := []func(){
		func() {
			for _, s := range labSites(x.w.topo) {
				x.hear(from(x, p, s, placement.Withdrawn))
			}
		},
		func() {
			// Two of them are left with a route to each other, which is none.
			to := func(router string) netlab.FIBChange {
				return netlab.FIBChange{FIBRoute: netlab.FIBRoute{Prefix: p, Hops: []netlab.NextHop{{Addr: ownAddresses(x.w.topo, router)[0]}}}}
			}
			x.routed("t-eu", netlab.FIBChange{Gone: true, FIBRoute: netlab.FIBRoute{Prefix: p}})
			x.routed("t-us", to("t-ap"))
			x.routed("t-ap", to("t-us"))
		},
		func() {
			for range 2 {
				for _, region := range []string{"eu", "us", "ap"} {
					x.answered(time.Now(), time.Now(), region, noAnswer)
				}
			}
		},
	}
	for i, do := range steps {
		if x.gone() == nil {
			t.Errorf("gone before step %d", i)
		}
		do()
	}
	if err := x.gone(); err != nil {
		t.Errorf("not gone at the end: %v", err)
	}
	if err := x.calm(); err == nil {
		t.Error("calm, with nothing left")
	}
}

// TestLinesOfLanes: of a lane only changes are told, steps always, and a client
// that has gone keeps nobody waiting.
func TestLinesOfLanes(t *testing.T) {
	q := newLineQueue()
	for _, l := range []replayLine{{Lane: "a", Text: "1"}, {Lane: "a", Text: "1"}, {Kind: "do", Text: "x"}, {Kind: "do", Text: "x"}, {Lane: "a", Text: "2"}} {
		q.put(l)
	}
	q.close()
	var got []string
	if err := q.send(func(v any) error { got = append(got, v.(replayLine).Text); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1", "x", "x", "2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	q = newLineQueue()
	q.put(replayLine{Kind: "do", Text: "x"})
	q.put(replayLine{Kind: "do", Text: "y"})
	q.close()
	told := 0
	if err := q.send(func(any) error { told++; return context.Canceled }); err == nil || told != 1 {
		t.Errorf("%v after %d lines", err, told)
	}
}

// TestPlayer: what the lab says becomes lines for a reader, and a picture.
func TestPlayer(t *testing.T) {
	var out bytes.Buffer
	dir, at := labDir(t.TempDir()), time.Now()
	p := &player{out: &out, lanes: map[string]*timeline.Lane{}, told: map[string]time.Time{}, now: map[string]string{}, began: at}
	for _, l := range []replayLine{
		{At: at, Kind: "here", Text: "how it is played"}, {At: at, Lane: "clients eu", Text: "ams1"},
		{At: at.Add(time.Second), Kind: "mark", Text: "the blow"}, {At: at.Add(2 * time.Second), Lane: "clients eu", Text: noAnswer},
		{At: at.Add(2500 * time.Millisecond), Lane: "clients eu", Text: "nyc1", Aside: true},
		{At: at.Add(3 * time.Second), Kind: "end", Text: "gone, as told"},
	} {
		if err := p.line(json.RawMessage(mustJSON(t, l))); err != nil {
			t.Fatal(err)
		}
	}
	p.ended = at.Add(4 * time.Second)
	if err := p.draw(dir, facebook2021(), true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"here   how it is played", "1.0 s  mark  the blow", "2.0 s  see   clients eu", "A=ams1 !=no answer", "facebook-2021-naive.svg"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "2.5 s  see") {
		t.Errorf("what was seen aside is told:\n%s", out.String())
	}
	svg, err := os.ReadFile(dir.path("replays", "facebook-2021-naive.svg"))
	if err != nil || !bytes.Contains(svg, []byte("the blow")) || bytes.Contains(svg, []byte("how it is played")) {
		t.Errorf("picture: %v", err)
	}
}
