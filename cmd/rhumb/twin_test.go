package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rhumb/authdns/transfer"
	"rhumb/internal/config"
	"rhumb/placement"
	"rhumb/placement/node"
	"rhumb/placement/store"
)

// twinRig is the stage of a twin under a clock of the test's, in seconds from a start.
type twinRig struct {
	*testing.T
	*twin
	unit  *unit
	ports twinPorts
	view  *store.View
	start time.Time
}

func newTwinRig(t *testing.T) *twinRig {
	cfg := &config.Node{Node: config.Self{Name: "t", Site: "ams1", DataDir: t.TempDir()},
		Twin: &config.Twin{Delay: placement.Duration(45 * time.Minute), Wave: 2, Prepend: 3, MED: 1000}}
	r := &twinRig{T: t, start: time.Now().Add(-24 * time.Hour).Truncate(time.Hour),
		ports: twinPorts{out: newBox[node.View](), own: newBox[[]placement.Vote](), zones: newBox[[]placement.Zone]()}}
	r.unit = &unit{cfg: cfg, name: "rhumb-dns", log: slog.New(slog.DiscardHandler)}
	r.restart()
	r.view = &store.View{Connected: true, Since: r.start.Add(-time.Hour), Nodes: []placement.Node{r.server("a", -1), r.server("b", -1), r.server("c", -1)}}
	return r
}

// restart is another process of the same node.
func (r *twinRig) restart() {
	r.Helper()
	r.unit.metrics = prometheus.NewRegistry()
	t, err := newTwin(r.unit)
	if err != nil {
		r.Fatal(err)
	}
	r.twin = t
}

// server is a name server that crashed at a second, -1: never.
func (r *twinRig) server(name string, crashed int) placement.Node {
	n := placement.Node{Name: name, DNS: &placement.DNSStatus{}}
	if crashed >= 0 {
		n.DNS.Crashed = r.at(crashed)
	}
	return n
}

func (r *twinRig) at(s int) time.Time { return r.start.Add(time.Duration(s) * time.Second) }

// store changes what the store holds.
func (r *twinRig) store(change func(*store.View)) {
	v := *r.view
	change(&v)
	r.view = &v
}

func (r *twinRig) apply(revision int64) {
	r.store(func(v *store.View) {
		v.Inventory = &placement.Inventory{Revision: revision}
		v.Plan = &placement.Plan{Revision: revision, Inputs: placement.Inputs{Inventory: revision}}
	})
}

// want lets a second pass, and looks at which inventory is in force.
func (r *twinRig) want(at int, revision int64) {
	r.Helper()
	r.step(r.view, r.ports, r.at(at))
	if got := r.queue.Current.Value.Inventory.Revision; got != revision {
		r.Errorf("at %d: inventory %d, want %d; %s", at, got, revision, r.status())
	}
}

const lateBy = 45 * 60

// TestTwin: an input comes late; once others crash nothing comes, not after a restart
// either; once released, what was in force then comes, and what did the harm never does.
func TestTwin(t *testing.T) {
	r := newTwinRig(t)
	r.apply(1)
	r.want(0, 1) // it knows of no past
	r.apply(2)
	r.want(100, 1)
	r.want(100+lateBy-1, 1)
	r.restart()
	r.want(100+lateBy-1, 1)
	r.want(100+lateBy, 2)
	r.apply(3) // the poison
	r.want(4000, 2)
	r.store(func(v *store.View) {
		v.Nodes = []placement.Node{r.server("a", 4001), r.server("b", 4002), r.server("c", -1)}
	})
	r.want(4003, 2)
	if st := r.status(); !strings.Contains(st.Held, "2 of 3 other name servers: a crashed") || !st.HeldSince.Equal(r.at(4003)) || !st.Inputs.Equal(r.at(4003-lateBy)) && !st.Inputs.Equal(r.at(4000-lateBy)) {
		t.Errorf("status %+v, want held of %s", st, r.at(4003-lateBy))
	}
	r.want(4000+lateBy+10, 2)
	r.restart()
	r.want(4000+lateBy+20, 2)
	r.apply(4) // it is mended
	r.want(8000, 2)
	if _, err := r.Release(context.Background(), "eve", "mended"); err != nil {
		t.Fatal(err)
	}
	// The rig's clock is behind: what the operator said is of now.
	r.wave.Since = r.at(8001)
	r.hold.Since = r.start
	r.want(8001, 2)
	if st := r.status(); st.Held != "" {
		t.Errorf("still held: %s", st)
	}
	r.want(8001+lateBy-1, 2)
	r.want(8001+lateBy, 4)
	if _, err := r.Release(context.Background(), "eve", "again"); err == nil {
		t.Error("a feed that goes is released")
	}
}

// TestTwinWaits: no time passes for the queue while the store is away, nor right after,
// since who has gone meanwhile is not known yet.
func TestTwinWaits(t *testing.T) {
	r := newTwinRig(t)
	r.apply(1)
	r.want(0, 1)
	r.apply(2)
	r.want(10, 1)
	r.store(func(v *store.View) { v.Connected = false })
	r.want(10+lateBy, 1)
	if st := r.status(); st.Waits == "" || st.Held != "" {
		t.Errorf("status %+v", st)
	}
	r.store(func(v *store.View) { v.Connected, v.Since = true, r.at(20+lateBy) })
	r.want(30+lateBy, 1)
	r.want(90+lateBy, 2)
	// Two of three did not come back with the store.
	r.apply(3)
	r.want(100+lateBy, 2)
	r.store(func(v *store.View) { v.Connected = false })
	r.want(200+lateBy, 2)
	r.store(func(v *store.View) { v.Connected, v.Since, v.Nodes = true, r.at(3*lateBy), v.Nodes[:1] })
	r.want(3*lateBy, 2)
	r.want(3*lateBy+61, 2)
	if st := r.status(); !strings.Contains(st.Held, "gone since") {
		t.Errorf("status %+v", st)
	}
}

// TestTwinOwnCrash: who crashed himself takes nothing new.
func TestTwinOwnCrash(t *testing.T) {
	r := newTwinRig(t)
	r.harmed(r.at(0), r.at(lateBy+1))
	r.harmed(time.Time{}, r.at(0))
	if r.isHeld() {
		t.Error("held for what is long over")
	}
	if r.harmed(r.at(0), r.at(60)); !r.isHeld() {
		t.Error("goes on after a crash of its own")
	}
}

// TestTwinVotes: what this site measures is of now, what others do is late; and what is
// said of the store and of the director is of now.
func TestTwinVotes(t *testing.T) {
	r := newTwinRig(t)
	vote := func(site string, seq uint64) placement.Vote {
		return placement.Vote{Site: site, Vantage: site + "-a", Seq: seq}
	}
	r.store(func(v *store.View) { v.Votes, v.VotesRevision = []placement.Vote{vote("ams1", 1), vote("nyc1", 1)}, 7 })
	r.apply(1)
	r.want(0, 1)
	beat := r.at(60)
	r.store(func(v *store.View) {
		v.Votes, v.VotesRevision, v.Heartbeat = []placement.Vote{vote("ams1", 2), vote("nyc1", 2)}, 8, beat
	})
	r.want(60, 1)
	if own := r.ownVotes(r.view, []placement.Vote{vote("tyo1", 1), vote("ams1", 3)}); len(own) != 2 || own[0].Seq != 2 || own[1].Seq != 3 {
		t.Errorf("own votes %v", own)
	}
	if v := r.late2view(r.view); v.Votes[1].Seq != 1 || v.VotesRevision != 7 || !v.Heartbeat.Equal(beat) || !v.Connected {
		t.Errorf("for the loop: %+v", v)
	}
	r.want(60+lateBy, 1)
	if v := r.late2view(r.view); v.Votes[1].Seq != 2 {
		t.Errorf("afterwards: %+v", v.Votes)
	}
}

// TestTwinForgetsTheReplaced: an input that another one stands for is gone from the disk,
// though the process ended before it had removed it: it must never be the oldest.
func TestTwinForgetsTheReplaced(t *testing.T) {
	r := newTwinRig(t)
	r.apply(1)
	r.want(0, 1)
	r.apply(2)
	r.want(90, 1)
	orphan := &store.LateInput{At: r.at(91), Inventory: &placement.Inventory{Revision: 99}}
	if err := r.late.Put(orphan); err != nil {
		t.Fatal(err)
	}
	r.apply(3)
	r.want(92, 1)
	r.restart()
	if all, _ := r.late.Load(); len(all) != 2 {
		t.Errorf("%d inputs on disk, want those of 0 and 92", len(all))
	}
	r.want(92+lateBy, 3)
	r.restart()
	if got := r.queue.Current.Value.Inventory.Revision; got != 3 {
		t.Errorf("after a restart inventory %d is in force, want 3", got)
	}
}

// TestTwinFetches: a zone is read once, however many inputs name it, and again where it
// could not be had, or was named no more in between.
func TestTwinFetches(t *testing.T) {
	r := newTwinRig(t)
	asked := map[string]int{}
	away := true
	blob := func(_ context.Context, sha string) ([]byte, error) {
		if asked[sha]++; sha == "b" && away {
			return nil, errors.New("the store is away")
		}
		return nil, nil
	}
	a, b := placement.Zone{Name: "a.", SHA256: "a"}, placement.Zone{Name: "b.", SHA256: "b"}
	copied := placement.Zone{Name: "c.", SHA256: "c", Secondary: new(placement.Secondary)}
	var here map[string]bool
	for i, c := range []struct {
		zones []placement.Zone
		want  map[string]int
	}{
		{[]placement.Zone{a, a, b, copied}, map[string]int{"a": 1, "b": 1}},
		{[]placement.Zone{a, b}, map[string]int{"a": 1, "b": 2}},
		{[]placement.Zone{a, b}, map[string]int{"a": 1, "b": 3}},
		{[]placement.Zone{a, b}, map[string]int{"a": 1, "b": 3}},
		{[]placement.Zone{b}, map[string]int{"a": 1, "b": 3}},
		{[]placement.Zone{a, b}, map[string]int{"a": 2, "b": 3}},
	} {
		away = i < 2
		if here = r.fetch(t.Context(), blob, c.zones, here); !maps.Equal(asked, c.want) {
			t.Errorf("after input %d: asked for %v, want %v", i, asked, c.want)
		}
	}
}

// heldCopies is a zone from a primary, as it came last.
type heldCopies struct{ held transfer.Held }

func (h *heldCopies) Set([]transfer.Incoming)            {}
func (h *heldCopies) Held(string) (transfer.Held, bool)  { return h.held, h.held.Data != nil }
func (h *heldCopies) Listed(string) (l transfer.Listing) { return l }
func heldText(text string) transfer.Held {
	return transfer.Held{Data: []byte(text), SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(text)))}
}
func (r *twinRig) copyIs(c copies, want string, why string) {
	r.Helper()
	h, _ := c.Held("x.test.")
	if string(h.Data) != want || h.Unserved != why {
		r.Errorf("the copy is %q (%s), want %q (%s)", h.Data, h.Unserved, want, why)
	}
}

// TestTwinCopies: versions from a primary are late, over a restart too; that the primary
// is silent for too long is not.
func TestTwinCopies(t *testing.T) {
	r := newTwinRig(t)
	under := &heldCopies{}
	c := r.delay(under, func() {})
	c.Set([]transfer.Incoming{{Name: "x.test."}})
	r.apply(1)
	r.want(0, 1)
	r.copyIs(c, "", "")
	under.held = heldText("one")
	r.copyIs(c, "one", "") // the first one at once
	r.want(10, 1)
	under.held = heldText("two")
	r.want(20, 1)
	r.copyIs(c, "one", "")
	r.want(20+lateBy, 1)
	r.copyIs(c, "two", "")
	under.held = heldText("three")
	r.want(30+lateBy, 1)
	r.restart()
	c = r.delay(under, func() {})
	c.Set([]transfer.Incoming{{Name: "x.test."}})
	r.copies.take(r.queue.Current.Value, r.late)
	r.copyIs(c, "two", "")
	under.held.Unserved = "expired"
	r.copyIs(c, "two", "expired")
	r.want(30+2*lateBy, 1)
	r.copyIs(c, "three", "expired")
	if files, _ := filepath.Glob(filepath.Join(r.dir, "rhumb-dns", "copy-*")); len(files) != 1 {
		t.Errorf("copies on disk: %v", files)
	}
}

// TestTwinIsWorse: the routes of a twin are the last resort.
func TestTwinIsWorse(t *testing.T) {
	r := newTwinRig(t)
	p, worst := placement.Prefix{Prepend: 2, MED: 50}, placement.Prefix{MED: math.MaxUint32 - 1}
	in := &placement.Snapshot{Inventory: &placement.Inventory{Fleet: placement.Fleet{Prefixes: []placement.Prefix{p, worst}}}, Announcements: []placement.Announcement{
		{Site: "ams1", Want: placement.Announce}, {Site: "nyc1", Want: placement.Announce}, {Site: "ams1", Want: placement.Withdrawn, Cause: "drained"}}}
	out := r.worse(in)
	for i, want := range []placement.Step{placement.Prepend, placement.Announce, placement.Withdrawn} {
		if out.Announcements[i].Want != want {
			t.Errorf("announcement %d: %s, want %s", i, out.Announcements[i].Want, want)
		}
	}
	if q := out.Inventory.Prefixes[0]; q.Prepend != 5 || q.MED != 1050 {
		t.Errorf("%+v", q)
	}
	if q := out.Inventory.Prefixes[1]; q.MED != math.MaxUint32 {
		t.Errorf("a MED that has no worse one becomes %d", q.MED)
	}
	if in.Inventory.Prefixes[0].Prepend != 2 || in.Announcements[0].Want != placement.Announce {
		t.Error("what others hold was changed")
	}
	if (*twin)(nil).worse(in) != in {
		t.Error("an ordinary node is worse, too")
	}
}
